"""torch: ``package.module:callable`` -> the module it returns; the user's own code, run because the user named it."""

import importlib

import torch
from torch import nn

from ...errors import InvalidReference, ScanFailed
from . import explained


def build(name: str) -> nn.Module:
    """Import ``package.module:callable``, call it without arguments on the meta device and return its module.

    Raises:
        InvalidReference: If the name has no colon, or the module or attribute does not exist.
        ScanFailed: If the call fails or returns something that is no ``nn.Module``.
    """
    module_name, separator, attribute = name.partition(":")
    if not separator:
        message = f"Reference 'torch:{name}' needs a callable: torch:package.module:ClassName."
        raise InvalidReference(message, reference=f"torch:{name}")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        message = f"Reference 'torch:{name}' cannot be imported ({error}). Is its folder on PYTHONPATH?"
        raise InvalidReference(message, reference=f"torch:{name}") from error
    with explained(f"torch:{name}"), torch.device("meta"):
        model = factory()
    if not isinstance(model, nn.Module):
        message = f"torch:{name} returned {type(model).__name__}, not a torch.nn.Module."
        raise ScanFailed(message, reference=f"torch:{name}")
    return model
