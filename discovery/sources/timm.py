"""timm: an architecture name -> its model on meta, without weights."""

from torch import nn

from ...errors import UnknownArchitecture
from . import explained
from .unfilled import move_to_meta, unfilled


def list_names() -> list[str]:
    """Return every architecture name of the installed timm, in its natural order."""
    import timm

    names: list[str] = timm.list_models()
    return names


def build(name: str) -> nn.Module:
    """Build a timm architecture on the meta device; a pretrained tag does not change the layers.

    Raises:
        UnknownArchitecture: If timm has no such model.
        ScanFailed: If it does not build.
    """
    import timm

    if not timm.is_model(name):
        raise UnknownArchitecture(name, list_names(), "List what is known with: loradar list timm")
    with explained(f"timm:{name}"), unfilled():
        model: nn.Module = timm.create_model(name, pretrained=False)
        move_to_meta(model)
    return model
