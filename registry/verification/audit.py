"""Audit stored mappings against one version of their library, by recorded verifications or by new scans."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache

from ...domain.mappings import Mapping, Verification
from ...domain.methods import TARGETED
from ...domain.scans import Scan
from ...domain.targets import TargetSpec
from ..peft_constants.reading import load_constants, peft_type_of
from ..results import Outcome
from .verify import Verifier

Suggestions = dict[tuple[str, str, str], TargetSpec]
"""Target specs by architecture, PEFT type and preset."""


@dataclass
class Audit:
    """Verify the mappings of one library.

    Attributes:
        known: Names the library knows.
        suggestions: Replacements for wrong mappings; the proposals of a scan replace those on record.
    """

    known: Collection[str]
    suggestions: Suggestions
    _unscanned: dict[str, str] = field(default_factory=dict)

    def check(self, mappings: Iterable[Mapping], scans: Iterable[tuple[str, Scan | str]]) -> dict[str, Verification]:
        """Return the verifications of the mappings of scanned architectures, by id.

        Args:
            mappings: Mappings of one library.
            scans: A scan by name, or the reason there is none.
        """
        by_name: dict[str, list[Mapping]] = defaultdict(list)
        for mapping in mappings:
            by_name[mapping.name].append(mapping)
        checks: dict[str, Verification] = {}
        for name, scan in scans:
            if isinstance(scan, str):
                self._unscanned[name] = scan
                continue
            proposals = scan.proposals
            self.suggestions.update({(scan.architecture.name, p.peft_type, p.preset): p.spec for p in proposals})
            verifier = Verifier(scan)
            checks.update((mapping.id, verifier.check(mapping)) for mapping in by_name[name])
        return checks

    def outcome(self, mapping: Mapping) -> Outcome:
        """Return the outcome of a mapping, by the verification it carries."""
        if mapping.name not in self.known:
            return Outcome(mapping, "unknown", f"the installed {mapping.library} does not know it")
        if mapping.name in self._unscanned or mapping.verification is None:
            return Outcome(mapping, "unscanned", self._unscanned.get(mapping.name, "not scanned"))
        status, suggestion = mapping.verification.status, None
        if status in ("dead", "partial"):
            suggestion = self.suggestions.get((mapping.name, mapping.peft_type, mapping.preset))
            if not suggestion and mapping.peft_type in _types_like_lora():
                suggestion = self.suggestions.get((mapping.name, TARGETED, mapping.preset))
        return Outcome(mapping, status, suggestion=suggestion)


def suggestions_on_record(proposed: Iterable[Mapping]) -> Suggestions:
    """Return the scanner's stored mappings of a library as suggestions."""
    return {(mapping.name, mapping.peft_type, mapping.preset): mapping.spec for mapping in proposed}


@cache
def _types_like_lora() -> frozenset[str]:
    """Return the PEFT types whose table agrees with LoRA's on most architectures that both have."""
    tables = {peft_type_of(name): table for name, table in load_constants().tables.items()}
    lora = tables[TARGETED]
    agreeing = {
        peft_type: [targets == lora[name] for name, targets in table.items() if name in lora]
        for peft_type, table in tables.items()
        if peft_type
    }
    return frozenset(peft_type for peft_type, same in agreeing.items() if 2 * sum(same) > len(same))
