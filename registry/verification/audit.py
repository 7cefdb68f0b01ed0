"""The audit: stored mappings against one version of their library, from what is on record or from a scan."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache

from ...domain.mappings import Mapping, Verification
from ...domain.scans import Scan
from ...domain.targets import TargetSpec
from ..peft_constants.reading import load_constants, peft_type_of
from ..results import Outcome
from .verify import Verifier

CONVENTION = "LORA"

Suggestions = dict[tuple[str, str, str], TargetSpec]
"""Target specs by architecture, PEFT type and preset."""


@dataclass
class Audit:
    """Checks the mappings of one library.

    Attributes:
        known: Names the library knows.
        suggestions: What to suggest; a scan's proposals take the place of those on record.
    """

    known: Collection[str]
    suggestions: Suggestions
    _unscanned: dict[str, str] = field(default_factory=dict)

    def check(self, mappings: Iterable[Mapping], scans: Iterable[tuple[str, Scan | str]]) -> dict[str, Verification]:
        """Return how the mappings of what was scanned fared, by id.

        Args:
            mappings: Of one library.
            scans: A scan by name, or why there is none.
        """
        named: dict[str, list[Mapping]] = defaultdict(list)
        for mapping in mappings:
            named[mapping.name].append(mapping)
        found: dict[str, Verification] = {}
        for name, scan in scans:
            if isinstance(scan, str):
                self._unscanned[name] = scan
                continue
            self.suggestions.update(suggestions_of(scan))
            verifier = Verifier(scan)
            found.update((mapping.id, verifier.check(mapping)) for mapping in named[name])
        return found

    def outcome(self, mapping: Mapping) -> Outcome:
        """Return how a mapping fared, by the verification it carries."""
        if mapping.name not in self.known:
            return Outcome(mapping, "unknown", f"the installed {mapping.library} does not know it")
        if mapping.name in self._unscanned or mapping.verification is None:
            return Outcome(mapping, "unscanned", self._unscanned.get(mapping.name, "not scanned"))
        status = mapping.verification.status
        suggestion = find_suggestion(mapping, self.suggestions) if status in ("dead", "partial") else None
        return Outcome(mapping, status, suggestion=suggestion)


def suggestions_on_record(proposed: Iterable[Mapping]) -> Suggestions:
    """Return the scanner's stored mappings of a library as suggestions."""
    return {(mapping.name, mapping.peft_type, mapping.preset): mapping.spec for mapping in proposed}


def suggestions_of(scan: Scan) -> Suggestions:
    """Return the proposals of a scan as suggestions."""
    return {(scan.architecture.name, p.peft_type, p.preset): p.spec for p in scan.proposals}


def find_suggestion(mapping: Mapping, known: Suggestions) -> TargetSpec | None:
    """Return the proposal for what a mapping answers, or the one for LoRA if the method shares LoRA's targets."""
    own = known.get((mapping.name, mapping.peft_type, mapping.preset))
    if own or mapping.peft_type not in _sharing():
        return own
    return known.get((mapping.name, CONVENTION, mapping.preset))


@cache
def _sharing() -> frozenset[str]:
    """Return the PEFT types whose table is a copy of LoRA's for most architectures they have in common."""
    tables = {peft_type_of(name): table for name, table in load_constants().tables.items()}
    convention = tables[CONVENTION]
    agreeing = {
        peft_type: [targets == convention[name] for name, targets in table.items() if name in convention]
        for peft_type, table in tables.items()
        if peft_type
    }
    return frozenset(peft_type for peft_type, same in agreeing.items() if 2 * sum(same) > len(same))
