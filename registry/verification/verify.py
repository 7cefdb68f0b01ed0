"""Static verification: what one target spec does on the layers of one scan, as a status with its findings."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from ...domain.mappings import Mapping, Verification
from ...domain.scans import Layer, Proposal, Scan
from ...domain.targets import TargetSpec
from ...domain.vocabulary import Status
from .findings import Case, Finding, judge
from .matching import Hit, Hits, is_dead

CONVENTION = "LORA"
"""Whose proposals tell what can be reached where the scan makes none for a method."""


@dataclass(frozen=True)
class Verifier:
    """Checks target specs against one scan."""

    scan: Scan
    _hits: dict[tuple[TargetSpec, str], tuple[Hit, ...]] = field(default_factory=dict, repr=False, compare=False)

    def verify(self, spec: TargetSpec, peft_type: str, preset: str = "default") -> Verification:
        """Return what ``spec`` does on the scanned architecture.

        The status is ``dead`` if no layer it hits can be adapted and is alive; ``partial`` if there is a defect among
        the findings; ``live`` if every layer hit has been seen to get a gradient; else ``unproven``.
        """
        return self.verify_hits(spec, peft_type, preset, self._find(spec, peft_type))

    def verify_hits(self, spec: TargetSpec, peft_type: str, preset: str, hits: tuple[Hit, ...]) -> Verification:
        """Return the same as ``verify`` for a spec that was matched elsewhere; a regex in it is not run."""
        counts = {target: dict[str, int]() for target in spec.list_targets()}
        for (target, kind), count in sorted(Counter((hit.target, hit.kind) for hit in hits).items()):
            counts[target][kind] = count
        findings = [*judge(self._case(spec, peft_type, preset, hits))]
        version = self.scan.architecture.library_version or ""
        status = _status(hits, peft_type, findings)
        says = tuple(finding.says for finding in findings)
        return Verification(status, version, counts, self._reached(hits), says)

    def check(self, mapping: Mapping) -> Verification:
        """Return what a mapping does on the scanned architecture."""
        return self.verify(mapping.spec, mapping.peft_type, mapping.preset)

    def _case(self, spec: TargetSpec, peft_type: str, preset: str, hits: tuple[Hit, ...]) -> Case:
        proposals = self._proposals(peft_type)
        expected = self._layers_of(p for p in proposals if p.preset == preset)
        return Case(spec, peft_type, preset, hits, expected, self._layers_of(proposals))

    def _proposals(self, peft_type: str) -> tuple[Proposal, ...]:
        """Return the scan's own proposals for a method, or those of the convention."""
        own = tuple(p for p in self.scan.proposals if p.peft_type == peft_type)
        return own or tuple(p for p in self.scan.proposals if p.peft_type == CONVENTION)

    def _layers_of(self, proposals: Iterable[Proposal]) -> tuple[Layer, ...]:
        hits = (hit for p in proposals for hit in self._find(p.spec, p.peft_type))
        return tuple({layer.path: layer for hit in hits for layer in hit.layers}.values())

    def _find(self, spec: TargetSpec, peft_type: str) -> tuple[Hit, ...]:
        """Return what a spec hits; the scan's proposals are asked for again and again."""
        if (spec, peft_type) not in self._hits:
            self._hits[spec, peft_type] = tuple(Hits(self.scan, peft_type).find(spec))
        return self._hits[spec, peft_type]

    @cached_property
    def _block_weights(self) -> dict[str, int]:
        """Size of each weight in the repeated blocks, each counted once."""
        blocks = (layer for layer in self.scan.layers if layer.depth and layer.tied_to is None)
        return {layer.path: prod(layer.shape) for layer in blocks}

    def _reached(self, hits: Iterable[Hit]) -> float:
        """Return the share of the weights in repeated blocks that the layers hit own."""
        total = sum(self._block_weights.values())
        paths = {layer.path for hit in hits for layer in hit.layers}
        reached = sum(self._block_weights.get(path, 0) for path in paths)
        return round(reached / total, 6) if total else 0.0


def _status(hits: Iterable[Hit], peft_type: str, findings: Iterable[Finding]) -> Status:
    good = [layer for hit in hits if hit.is_fit(peft_type) for layer in hit.layers if not is_dead(layer)]
    if not good:
        return "dead"
    if any(finding.is_defect for finding in findings):
        return "partial"
    return "live" if all(layer.live for layer in good) else "unproven"
