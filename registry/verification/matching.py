"""Match target specs against the layers of one scan."""

from dataclasses import dataclass

from ...domain.layers import Layer
from ...domain.methods import get_method
from ...domain.scans import Scan, Variant
from ...domain.targets import TargetMatcher, TargetSpec, resolve_blocks
from ...domain.vocabulary import Kind

NOT_A_LAYER = "module"
"""Kind of a match without a weight of its own."""

WEIGHTS: frozenset[Kind] = frozenset({"linear", "transposed_linear", "conv1d", "conv2d", "conv3d", "embedding"})
ADAPTABLE: dict[str, frozenset[Kind]] = {"LN_TUNING": WEIGHTS | {"norm", "other"}}
"""Kinds that a PEFT type can adapt, if other than ``WEIGHTS``: LN_TUNING trains any module it matches."""

WHOLE_MODULES = frozenset({"LN_TUNING"})
"""PEFT types that train everything inside a module (``peft/tuners/ln_tuning/layer.py``, 0.21.2), so any module fits."""


@dataclass(frozen=True, slots=True)
class Match:
    """A path that a target matches, and the layers an adapter there would train: none if it is not a layer."""

    target: str
    path: str
    kind: str
    layers: tuple[Layer, ...]

    def is_fit(self, peft_type: str) -> bool:
        """Return whether the PEFT type can adapt the module or parameter."""
        if self.kind == NOT_A_LAYER:
            return bool(self.layers)
        if self.kind == "multihead_attention":
            return peft_type in WHOLE_MODULES or get_method(peft_type).fits(self.kind)
        return self.kind == "expert_parameter" or self.kind in ADAPTABLE.get(peft_type, WEIGHTS)


def match_spec(
    scan: Scan | Variant, spec: TargetSpec, peft_type: str, matcher: type[TargetMatcher] = TargetMatcher
) -> tuple[Match, ...]:
    """Return every match of a spec on a scan for one PEFT type, modules before parameters, in the order of the model.

    Args:
        scan: The scan.
        spec: The spec.
        peft_type: The PEFT type.
        matcher: Class that matches targets; an untrusted spec needs ``safe_regex.LinearMatcher``.
    """
    spec = resolve_blocks(spec, (layer.path for layer in scan.layers))
    modules, excluded = matcher(spec.target_modules or ()), matcher(spec.exclude_modules or ())
    parameters = matcher(spec.target_parameters or ())
    layers = {layer.path: layer for layer in scan.layers}
    named = ((modules.find(path), path) for path in scan.module_paths)
    found = [
        Match(
            target, path, layers[path].kind if path in layers else NOT_A_LAYER, _list_trained(path, layers, peft_type)
        )
        for target, path in named
        if target is not None and excluded.find(path) is None
    ]
    experts = ((parameters.find(path), layer) for path, layer in layers.items() if layer.kind == "expert_parameter")
    return (*found, *(Match(target, layer.path, layer.kind, (layer,)) for target, layer in experts if target))


def _list_trained(path: str, layers: dict[str, Layer], peft_type: str) -> tuple[Layer, ...]:
    """Return the layer at a path; for another module, the layers inside it if the PEFT type trains those."""
    if path in layers:
        return (layers[path],)
    inside = layers.values() if peft_type in WHOLE_MODULES else ()
    return tuple(layer for layer in inside if layer.path.startswith(f"{path}."))


def is_dead(layer: Layer) -> bool:
    """Return whether an adapter on a layer is known to be dead; a recorded gradient outranks the traced forward."""
    return layer.live is False or (layer.live is None and (layer.called is False or layer.bypassed is not None))
