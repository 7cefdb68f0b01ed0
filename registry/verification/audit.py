"""The audit: stored mappings against one version of their library, from what is on record or from a scan."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ...domain.mappings import Mapping, Verification
from ...domain.scans import Scan
from ..results import Outcome
from .suggestions import Suggestions, find_suggestion, suggestions_of
from .verify import Verifier


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
