"""The scan of whatever a user names: a live model, a configuration, an architecture, or a stored model."""

from typing import TYPE_CHECKING, Any

from ..domain.scans import Scan
from ..errors import InvalidRequest
from .scanner import scan_built
from .stored_scan import is_stored, scan_stored

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig


def scan(
    model_or_reference: "nn.Module | PreTrainedConfig | str",
    example_inputs: Any = None,
    method: str = "auto",
    *,
    proved: bool = False,
) -> Scan:
    """Scan a model, a transformers configuration, or a reference such as ``timm:resnet50`` or ``hub:org/repo``.

    A model is left unchanged: its forward runs on the meta device, without its weights. Of a stored model the
    configuration and the headers of the weights are read, as ``scan_stored`` says.

    Args:
        model_or_reference: A live module (any device, meta included), a configuration object, or a reference, also to
            a stored model: ``hub:org/repo``, ``file:PATH`` of a folder or a ``.safetensors`` file.
        example_inputs: The inputs of the forward (a tensor, a tuple or a dictionary); made from its signature and
            configuration if not given.
        method: ``dataflow`` follows tensors through the model's own forward, ``names`` reads names, shapes and
            structure alone, ``auto`` is dataflow where a forward runs and names where none does.
        proved: Also try an adapter on every layer of a small real build, and leave the dead ones out. The build of a
            live model is a copy, if it has real weights; that of a reference is smaller, with every slot of the model.

    Raises:
        InvalidReference: If the reference cannot be parsed or its scheme cannot be scanned.
        UnknownArchitecture: If its library has no such architecture.
        ScanFailed: If it does not build, or the method is ``dataflow`` and no forward runs.
        NoAdaptableLayers: If it has no layer that an adapter could be put on.
        InvalidRequest: If the method is unknown, or an option is no use for a stored model.
        HubFailed: If a hub does not give the files.
        WeightsUnreadable: If stored weights have no header that can be read.
    """
    if not isinstance(model_or_reference, str) or not is_stored(model_or_reference):
        return scan_built(model_or_reference, example_inputs, method, proved=proved)
    given = {"example_inputs": example_inputs is not None, "method": method != "auto", "proved": proved}
    if any(given.values()):
        names = ", ".join(name for name, is_given in given.items() if is_given)
        message = f"{model_or_reference!r} is read from its headers, for which {names} cannot be given. Leave it out."
        raise InvalidRequest(message, reference=model_or_reference)
    return scan_stored(model_or_reference)
