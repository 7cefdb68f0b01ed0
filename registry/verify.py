"""Static verification: what one target spec hits on the layers of one scan, and what that says about it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

from ..mappings import Verification
from ..records import Layer, Scan
from ..targets import TargetMatcher, TargetSpec
from ..vocabulary import Kind, Status, Tower

NOT_A_LAYER = "module"
"""Counted as the kind of a match that owns no weight of its own."""

_WEIGHTS: frozenset[Kind] = frozenset(
    {"linear", "transposed_linear", "conv1d", "conv2d", "conv3d", "embedding", "multihead_attention"}
)
_ADAPTABLE: dict[str, frozenset[Kind]] = {"LN_TUNING": _WEIGHTS | {"norm"}}
"""Kinds a PEFT type can adapt, where not just ``_WEIGHTS``: LN_TUNING trains whatever it is given."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A path that a target matches, and the layer there, if there is one."""

    target: str
    layer: Layer | None

    @property
    def kind(self) -> str:
        """What was hit."""
        return self.layer.kind if self.layer else NOT_A_LAYER


@dataclass(frozen=True)
class Verifier:
    """Checks target specs against one scan."""

    scan: Scan

    def verify(self, spec: TargetSpec, peft_type: str) -> Verification:
        """Return what ``spec`` hits on the scanned architecture.

        The status is ``dead`` if it hits nothing adaptable; ``partial`` if a target hits nothing, or
        something not adaptable, never called, or in a tower the scan's own default leaves alone; else
        ``unproven``: only a gradient proves ``live``.
        """
        hits = [*self._hits(spec)]
        counts = {target: dict[str, int]() for target in _targets(spec)}
        for (target, kind), count in sorted(Counter((hit.target, hit.kind) for hit in hits).items()):
            counts[target][kind] = count
        is_complete = all(counts.values())
        status = self._status(hits, peft_type, is_complete=is_complete)
        version = self.scan.architecture.library_version or ""
        return Verification(status, version, counts, self._reached(hits))

    @cached_property
    def _layers(self) -> dict[str, Layer]:
        return {layer.path: layer for layer in self.scan.layers}

    @cached_property
    def _default_towers(self) -> frozenset[Tower]:
        """The towers the scan's own default LORA proposal goes to; empty if it makes none."""
        defaults = (p.spec for p in self.scan.proposals if (p.peft_type, p.preset) == ("LORA", "default"))
        return frozenset(hit.layer.tower for spec in defaults for hit in self._hits(spec) if hit.layer)

    @cached_property
    def _block_weights(self) -> dict[str, int]:
        """Size of each weight in the repeated blocks, each counted once."""
        blocks = (layer for layer in self.scan.layers if layer.depth and layer.tied_to is None)
        return {layer.path: prod(layer.shape) for layer in blocks}

    def _hits(self, spec: TargetSpec) -> Iterator[Hit]:
        matcher = TargetMatcher(spec.target_modules or ())
        excluded = TargetMatcher(spec.exclude_modules or ())
        for path in self.scan.module_paths:
            target = matcher.find(path)
            if target is not None and excluded.find(path) is None:
                yield Hit(target, self._layers.get(path))
        parameters = TargetMatcher(spec.target_parameters or ())
        for layer in self.scan.layers:
            if layer.kind == "expert_parameter" and (name := parameters.find(layer.path)):
                yield Hit(name, layer)

    def _status(self, hits: list[Hit], peft_type: str, *, is_complete: bool) -> Status:
        good = [hit for hit in hits if _is_adaptable(hit, peft_type)]
        if not good:
            return "dead"
        towers = {hit.layer.tower for hit in good if hit.layer}
        has_strays = bool(self._default_towers) and not towers <= self._default_towers
        return "partial" if has_strays or len(good) < len(hits) or not is_complete else "unproven"

    def _reached(self, hits: list[Hit]) -> float:
        """Return the share of the weights in repeated blocks that the layers hit own."""
        total = sum(self._block_weights.values())
        paths = {hit.layer.path for hit in hits if hit.layer}
        reached = sum(self._block_weights.get(path, 0) for path in paths)
        return round(reached / total, 6) if total else 0.0


def _targets(spec: TargetSpec) -> list[str]:
    """Return every target by name; a regex is one target."""
    modules = spec.target_modules or ()
    return [*([modules] if isinstance(modules, str) else modules), *(spec.target_parameters or ())]


def _is_adaptable(hit: Hit, peft_type: str) -> bool:
    if hit.layer is None or hit.layer.called is False:
        return False
    return hit.kind == "expert_parameter" or hit.kind in _ADAPTABLE.get(peft_type, _WEIGHTS)
