"""Match target specs against the layers of one scan."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from ...domain.layers import Layer
from ...domain.scans import Scan
from ...domain.targets import TargetMatcher, Targets, TargetSpec
from ...domain.vocabulary import Kind

NOT_A_LAYER = "module"
"""Kind of a match without a weight of its own."""

WEIGHTS: frozenset[Kind] = frozenset(
    {"linear", "transposed_linear", "conv1d", "conv2d", "conv3d", "embedding", "multihead_attention"}
)
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
        return self.kind == "expert_parameter" or self.kind in ADAPTABLE.get(peft_type, WEIGHTS)


class Matcher(Protocol):
    """Find which of its targets matches a path."""

    def find(self, path: str) -> str | None:
        """Return the target that matches ``path``, or ``None``."""


@dataclass(frozen=True)
class SpecMatcher:
    """Match target specs against one scan, for one PEFT type."""

    scan: Scan
    peft_type: str
    matcher: Callable[[Targets], Matcher] = TargetMatcher

    def find(self, spec: TargetSpec) -> list[Match]:
        """Return every match of a spec, modules before parameters, in the order of the model."""
        modules, excluded = self.matcher(spec.target_modules or ()), self.matcher(spec.exclude_modules or ())
        parameters = self.matcher(spec.target_parameters or ())
        found: list[Match] = []
        for path in self.scan.module_paths:
            target = modules.find(path)
            if target is not None and excluded.find(path) is None:
                found.append(self._match_module(target, path))
        experts = (layer for layer in self.scan.layers if layer.kind == "expert_parameter")
        named = ((parameters.find(layer.path), layer) for layer in experts)
        return found + [Match(target, layer.path, layer.kind, (layer,)) for target, layer in named if target]

    def _match_module(self, target: str, path: str) -> Match:
        layer = self._layers.get(path)
        if layer:
            return Match(target, path, layer.kind, (layer,))
        is_whole = self.peft_type in WHOLE_MODULES
        inside = (other for other in self.scan.layers if is_whole and other.path.startswith(f"{path}."))
        return Match(target, path, NOT_A_LAYER, tuple(inside))

    @cached_property
    def _layers(self) -> dict[str, Layer]:
        return {layer.path: layer for layer in self.scan.layers}


def is_dead(layer: Layer) -> bool:
    """Return whether an adapter on a layer is known to be dead; a recorded gradient outranks the traced forward."""
    return layer.live is False or (layer.live is None and (layer.called is False or layer.bypassed is not None))
