"""What a target spec hits on the layers of one scan."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from ...domain.scans import Layer, Scan
from ...domain.targets import TargetMatcher, Targets, TargetSpec
from ...domain.vocabulary import Kind

NOT_A_LAYER = "module"
"""Counted as the kind of a match that owns no weight of its own."""

WEIGHTS: frozenset[Kind] = frozenset(
    {"linear", "transposed_linear", "conv1d", "conv2d", "conv3d", "embedding", "multihead_attention"}
)
ADAPTABLE: dict[str, frozenset[Kind]] = {"LN_TUNING": WEIGHTS | {"norm", "other"}}
"""Kinds a PEFT type can adapt, where not just ``WEIGHTS``: LN_TUNING trains whatever it is given."""

WHOLE_MODULES = frozenset({"LN_TUNING"})
"""PEFT types that train all a module holds (``peft/tuners/ln_tuning/layer.py``, 0.21.2), so that any module will do."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A path that a target matches, and the layers an adapter there would train: none if it is no layer."""

    target: str
    path: str
    kind: str
    layers: tuple[Layer, ...]

    def is_fit(self, peft_type: str) -> bool:
        """Tell whether the PEFT type can adapt what is here."""
        if self.kind == NOT_A_LAYER:
            return bool(self.layers)
        return self.kind == "expert_parameter" or self.kind in ADAPTABLE.get(peft_type, WEIGHTS)


class Matcher(Protocol):
    """Finds which of its targets matches a path."""

    def find(self, path: str) -> str | None:
        """Return the target that matches ``path``, or ``None``."""


@dataclass(frozen=True)
class Hits:
    """Matches target specs against one scan, for one PEFT type."""

    scan: Scan
    peft_type: str
    matcher: Callable[[Targets], Matcher] = TargetMatcher

    def find(self, spec: TargetSpec) -> list[Hit]:
        """Return every hit of a spec, modules before parameters, in the order of the model."""
        return [*self._modules(spec), *self._parameters(spec)]

    def _modules(self, spec: TargetSpec) -> Iterator[Hit]:
        matcher = self.matcher(spec.target_modules or ())
        excluded = self.matcher(spec.exclude_modules or ())
        for path in self.scan.module_paths:
            target = matcher.find(path)
            if target is not None and excluded.find(path) is None:
                yield self._hit(target, path)

    def _hit(self, target: str, path: str) -> Hit:
        layer = self._layers.get(path)
        if layer:
            return Hit(target, path, layer.kind, (layer,))
        held = self._below(path) if self.peft_type in WHOLE_MODULES else ()
        return Hit(target, path, NOT_A_LAYER, held)

    def _below(self, path: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.scan.layers if layer.path.startswith(f"{path}."))

    def _parameters(self, spec: TargetSpec) -> Iterator[Hit]:
        matcher = self.matcher(spec.target_parameters or ())
        for layer in self.scan.layers:
            if layer.kind == "expert_parameter" and (name := matcher.find(layer.path)):
                yield Hit(name, layer.path, layer.kind, (layer,))

    @cached_property
    def _layers(self) -> dict[str, Layer]:
        return {layer.path: layer for layer in self.scan.layers}


def is_dead(layer: Layer) -> bool:
    """Tell whether an adapter on a layer is known to be dead: a gradient outranks what was seen of the forward."""
    return layer.live is False or (layer.live is None and (layer.called is False or layer.bypassed is not None))
