"""Verify one target spec statically: its status and findings on the layers of one scan."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from ...domain.layers import Layer
from ...domain.mappings import Mapping, Verification
from ...domain.methods import TARGETED
from ...domain.patterns import pattern_of
from ...domain.scans import Proposal, Scan
from ...domain.targets import TargetSpec
from ...domain.vocabulary import APART, Status
from .findings import CUT_SHORT, Case, Finding, collect_findings
from .matching import Match, is_dead, match_spec


@dataclass(frozen=True)
class Verifier:
    """Verify target specs against one scan."""

    scan: Scan
    _matches: dict[tuple[TargetSpec, str], tuple[Match, ...]] = field(default_factory=dict, repr=False, compare=False)

    def verify(self, spec: TargetSpec, peft_type: str, preset: str = "default") -> Verification:
        """Return the verification of a spec on the scanned architecture.

        The status is ``dead`` if no matched layer is both adaptable and alive; ``partial`` if a finding is a defect;
        ``live`` if a gradient was recorded for every matched layer; else ``unproven``. Of a scan that ran out of time,
        only what follows from the names makes a mapping dead or partial.
        """
        matches = self._find(spec, peft_type)
        missing = {*spec.list_targets()} - {match.target for match in matches}
        elsewhere: dict[str, str] = {}  # for such a target, the first variant on which it matches something that fits
        for variant in self.scan.variants if missing else ():
            for match in match_spec(variant, spec, peft_type):
                if match.target in missing and match.is_fit(peft_type):
                    elsewhere.setdefault(match.target, variant.says)
        return self.verify_matches(spec, peft_type, preset, matches, elsewhere)

    def verify_matches(
        self,
        spec: TargetSpec,
        peft_type: str,
        preset: str,
        matches: tuple[Match, ...],
        elsewhere: dict[str, str] | None = None,
    ) -> Verification:
        """Return the verification of a spec that was matched elsewhere; a regex in it is not evaluated."""
        counts = {target: dict[str, int]() for target in spec.list_targets()}
        for (target, kind), count in sorted(Counter((match.target, match.kind) for match in matches).items()):
            counts[target][kind] = count
        # A method that the scan proposes nothing for can reach what LoRA can.
        intended = [p for p in self.scan.proposals if p.preset not in APART or p.preset == preset]
        own = [p for p in intended if p.peft_type == peft_type]
        proposals = own or [p for p in intended if p.peft_type == TARGETED]
        expected = self._layers_of(p for p in proposals if p.preset == preset)
        case = Case(
            spec,
            peft_type,
            preset,
            matches,
            expected,
            self._layers_of(proposals),
            self.scan.architecture.class_name or "",
            elsewhere or {},
            self._own_patterns,
        )
        findings = [*collect_findings(case)]
        # Layers proved live were seen to the end.
        is_cut_short = self.scan.is_cut_short and not all(layer.live for match in matches for layer in match.layers)
        if is_cut_short:
            findings = [*(finding for finding in findings if finding.is_by_name), CUT_SHORT]
        total = sum(self._block_weights.values())
        matched = sum(self._block_weights.get(path, 0) for path in case.layers)
        return Verification(
            status="unproven" if spec.saves_alone else _status(matches, peft_type, findings, is_cut_short=is_cut_short),
            library_version=self.scan.architecture.library_version or "",
            counts=counts,
            reached=round(matched / total, 6) if total else 0.0,
            findings=tuple(finding.text for finding in findings),
        )

    def check(self, mapping: Mapping) -> Verification:
        """Return the verification of a mapping on the scanned architecture."""
        return self.verify(mapping.spec, mapping.peft_type, mapping.preset)

    def _layers_of(self, proposals: Iterable[Proposal]) -> tuple[Layer, ...]:
        matches = (match for p in proposals for match in self._find(p.spec, p.peft_type))
        return tuple({layer.path: layer for match in matches for layer in match.layers}.values())

    def _find(self, spec: TargetSpec, peft_type: str) -> tuple[Match, ...]:
        """Return the matches of a spec; cached, because the scan's proposals are matched for every spec verified."""
        if (spec, peft_type) not in self._matches:
            self._matches[spec, peft_type] = match_spec(self.scan, spec, peft_type)
        return self._matches[spec, peft_type]

    @cached_property
    def _own_patterns(self) -> frozenset[str]:
        """The path patterns of the scanned class that another class, with another head on the same blocks, lacks."""
        patterns = {pattern_of(layer.path) for layer in self.scan.layers}
        others = [{pattern_of(layer.path) for layer in v.layers} for v in self.scan.variants if v.is_class]
        own = (patterns - other for other in others if other & patterns and other - patterns)
        return frozenset[str]().union(*own)

    @cached_property
    def _block_weights(self) -> dict[str, int]:
        """Size of each weight in the repeated blocks; tied weights are counted once."""
        blocks = (layer for layer in self.scan.layers if layer.depth and layer.tied_to is None)
        return {layer.path: prod(layer.shape) for layer in blocks}


def _status(
    matches: Iterable[Match], peft_type: str, findings: Iterable[Finding], *, is_cut_short: bool = False
) -> Status:
    fitting = (layer for match in matches if match.is_fit(peft_type) for layer in match.layers)
    good = [layer for layer in fitting if is_cut_short or not is_dead(layer)]
    if not good:
        return "dead"
    if any(finding.is_defect for finding in findings):
        return "partial"
    return "live" if all(layer.live for layer in good) else "unproven"


def verify(scan: Scan, spec: TargetSpec, peft_type: str = "LORA", preset: str = "default") -> Verification:
    """Verify a target spec on the layers of a scan, without a registry."""
    return Verifier(scan).verify(spec, peft_type, preset)
