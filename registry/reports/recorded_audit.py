"""Report on PEFT's entries by the verifications on record, for any version of a library that has some."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.version import Version

from ...domain.reports.audits import DEFECTS, AuditEntry, AuditReport, Defect, Verdict, find_defect
from ...errors import UnknownName
from ...schema import canonical, to_json
from ..records import Outcome
from ..verification.audit import Audit, suggestions_on_record

if TYPE_CHECKING:
    from ..registry import Registry

ORDER: tuple[Verdict, ...] = ("dead", "partial", "unproven", "live", "unscanned", "unknown")
LIBRARY = "transformers"
"""The library whose model types PEFT's tables are of."""


def report_audit(
    registry: "Registry", library_version: str | None = None, peft_version: str | None = None
) -> AuditReport:
    """Return the report on all of PEFT's entries.

    Args:
        registry: The registry.
        library_version: Version of transformers; the newest that entries were verified on if not given.
        peft_version: Version of PEFT; the newest whose entries are registered if not given.

    Raises:
        UnknownName: If nothing is on record for a version; lists those there are.
    """
    versions = _sort(registry.list_verified_versions(LIBRARY, "peft"))
    pefts = _sort(source.version for source in registry.info().sources if source.kind == "peft")
    version = _choose("version of transformers", library_version, versions)
    peft = _choose("version of PEFT", peft_version, pefts)
    mappings = [m for m in registry.list_mappings(LIBRARY, "peft", version) if m.source.version == peft]
    names = {mapping.name for mapping in mappings}
    proposed = registry.list_mappings(LIBRARY, "scanner", version, names) if names else ()
    known = {mapping.name for mapping in proposed}
    audit = Audit(known, suggestions_on_record(proposed))
    outcomes = [audit.outcome(mapping) for mapping in mappings]
    return AuditReport(
        LIBRARY,
        version,
        versions,
        peft,
        pefts,
        _count((outcome.verdict for outcome in outcomes), ORDER),
        tuple(sorted({mapping.peft_type for mapping in mappings})),
        _count((kind for outcome in outcomes for kind in {*map(find_defect, outcome.findings)}), DEFECTS),
        tuple(sorted(_group(outcomes, known), key=lambda entry: (ORDER.index(entry.verdict), entry.name))),
    )


def _count(found: Iterable[str | None], order: Iterable[str]) -> dict[str, int]:
    """Return how often each was found, in an order, without zeros."""
    totals = Counter(found)
    return {name: totals[name] for name in order if totals[name]}


def _sort(versions: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(versions, key=Version, reverse=True))


def _choose(what: str, given: str | None, known: tuple[str, ...]) -> str:
    """Return the requested version, or the newest; an empty text if nothing is on record.

    Raises:
        UnknownName: If there is no such one.
    """
    if given in known or given is None:
        return given or next(iter(known), "")
    raise UnknownName(given, known, f"No entries of PEFT were verified for the {what} {given!r}.")


def _group(outcomes: Iterable[Outcome], known: set[str]) -> Iterable[AuditEntry]:
    """Yield an entry for all outcomes that differ in nothing but the method."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        specs = [to_json(spec) if spec else None for spec in (outcome.mapping.spec, outcome.suggestion)]
        groups[canonical([outcome.mapping.name, outcome.verdict, list(outcome.findings), *specs])].append(outcome)
    for group in groups.values():
        first = group[0]
        kinds = dict.fromkeys(kind for finding in first.findings if (kind := find_defect(finding)))
        yield AuditEntry(
            name=first.mapping.name,
            peft_types=tuple(sorted(outcome.mapping.peft_type for outcome in group)),
            verdict=first.verdict,
            spec=first.mapping.spec,
            verification=first.mapping.verification,
            findings=first.findings,
            defects=tuple(kinds),
            suggestion=first.suggestion,
            is_registered=first.mapping.name in known,
        )


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Properties of the entries to report; ``None`` and an empty text stand for all."""

    verdict: Verdict | None = None
    defect: Defect | None = None
    peft_type: str | None = None
    q: str = ""

    def apply(self, report: AuditReport) -> AuditReport:
        """Return a report with the entries that have these properties; its totals stay."""
        return replace(report, entries=tuple(filter(self._passes, report.entries)))

    def _passes(self, entry: AuditEntry) -> bool:
        return (
            self.verdict in (None, entry.verdict)
            and (self.defect is None or self.defect in entry.defects)
            and (self.peft_type is None or self.peft_type.upper() in entry.peft_types)
            and self.q.strip().lower() in entry.name.lower()
        )
