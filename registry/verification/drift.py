"""Find drift: stored mappings that no longer match their layers, with a proved correction to submit.

A mapping from ``peft`` or ``community`` has drifted if it is dead or partial at the audited version, no sound
community mapping has replaced it, and the scanner's own proposal for the same method and preset was proved live. A
mapping from ``scanner`` has drifted if it is dead or partial there; the new scan, once stored, replaces it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...domain.identities import Actor
from ...domain.mappings import Mapping, Source
from ...domain.methods import TARGETED, get_method
from ...domain.scans import Scan
from ...domain.submissions import OPEN_STATUSES, Statement, Submission
from ...domain.targets import resolve_blocks
from ...domain.vocabulary import count_layers
from ...schema import to_json
from ..mappings.precedence import PRECEDENCE, best_for, stored_under
from ..records import Outcome, entries_of_proposals
from .audit import WRONG
from .verify import Verifier

if TYPE_CHECKING:
    from ..contributions.submissions import Submissions

DRIFT = Actor("loradar-drift", "contributor")
"""The contributor of corrections."""

NAMED_AT_MOST = 40
"""Number of other wrong mappings that a rationale names."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of one architecture.

    Attributes:
        statement: The correction to submit, for the first of the wrong mappings.
        wrong: The mappings that have drifted, in the order of their importance.
    """

    statement: Statement
    wrong: tuple[Outcome, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "architecture": {"library": self.statement.library, "name": self.statement.name},
            "statement": to_json(self.statement),
            "wrong": [outcome.to_dict() for outcome in self.wrong],
        }


@dataclass(frozen=True, slots=True)
class Renewal:
    """The scanner's own drift on one architecture.

    Attributes:
        scan: The scan at the audited version, to be stored.
        wrong: The scanner's mappings that are dead or partial there.
    """

    scan: Scan
    wrong: tuple[Outcome, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        scanned = self.scan.architecture
        return {
            "architecture": {"library": scanned.library, "name": scanned.name},
            "wrong": [outcome.to_dict() for outcome in self.wrong],
        }


class Proposals:
    """The scanner's proposals at the audited version with their verifications, as recorded or as just scanned.

    Attributes:
        renewals: The scans by which the scanner's recorded mappings are wrong, by name.
    """

    def __init__(self, recorded: Iterable[Mapping]) -> None:
        self.renewals: dict[str, Scan] = {}
        self._by_name: dict[str, list[Mapping]] = defaultdict(list)
        for mapping in recorded:
            if mapping.source.kind == "scanner":
                self._by_name[mapping.name].append(mapping)

    def watch(self, scans: Iterable[tuple[str, Scan | str]]) -> Iterator[tuple[str, Scan | str]]:
        """Yield scans as they come, and replace the recorded proposals by theirs."""
        for name, scan in scans:
            if isinstance(scan, Scan):
                verifier, version = Verifier(scan), scan.architecture.library_version
                if any(verifier.check(mapping).status in WRONG for mapping in self._by_name[name]):
                    self.renewals[name] = scan
                entries = entries_of_proposals(scan.architecture, scan.proposals)
                mappings = (entry.revise(Source("scanner", ""), (), version) for entry in entries)
                self._by_name[name] = [replace(mapping, verification=verifier.check(mapping)) for mapping in mappings]
            yield name, scan

    def find_live(self, wrong: Mapping) -> Mapping | None:
        """Return the proved proposal for the method and preset of a mapping, or ``None``."""
        found = _best(wrong, self._by_name.get(wrong.name, ()))
        return found if found and found.verification and found.verification.status == "live" else None


def names_to_scan(mappings: Iterable[Mapping], known: Collection[str]) -> list[str]:
    """Return the architectures to scan, sorted.

    Each has a mapping that was not verified at this version, or one of the scanner's that was found wrong there.
    """
    due = {
        m.name
        for m in mappings
        if m.verification is None or (m.source.kind == "scanner" and m.verification.status in WRONG)
    }
    return sorted(due & {*known})


def find_renewals(outcomes: Iterable[Outcome], proposals: Proposals) -> tuple[Renewal, ...]:
    """Return the scans to store because the scanner's own mappings are wrong at their version, sorted by name."""
    wrong: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.mapping.source.kind == "scanner" and outcome.verdict in WRONG:
            wrong[outcome.mapping.name].append(outcome)
    renewed = proposals.renewals
    return tuple(Renewal(renewed[name], tuple(wrong[name])) for name in sorted(wrong) if name in renewed)


def find_drifts(outcomes: Iterable[Outcome], proposals: Proposals) -> tuple[Drift, ...]:
    """Return the drift of each architecture that has any, sorted by name.

    Args:
        outcomes: The outcomes of an audit of one library, of all sources.
        proposals: The replacements that the scanner proposes.
    """
    stated: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.mapping.source.kind != "scanner":
            stated[outcome.mapping.name].append(outcome)
    found = (_find_drift(stated[name], proposals) for name in sorted(stated))
    return tuple(drift for drift in found if drift)


def _find_drift(stated: list[Outcome], proposals: Proposals) -> Drift | None:
    """Return the drift of one architecture, LoRA's default first, because most methods share its targets."""

    def importance(outcome: Outcome) -> tuple[bool, str, str, int]:
        mapping = outcome.mapping
        is_first = (mapping.peft_type, mapping.preset) == (TARGETED, "default")
        return not is_first, mapping.peft_type, mapping.preset, PRECEDENCE.index(mapping.source.kind)

    community = [outcome.mapping for outcome in stated if outcome.mapping.source.kind == "community"]
    wrong = [o for o in stated if o.verdict in WRONG and not _is_replaced(o.mapping, community)]
    wrong = sorted((o for o in wrong if proposals.find_live(o.mapping)), key=importance)
    proposal = proposals.find_live(wrong[0].mapping) if wrong else None
    if proposal is None:
        return None
    first = wrong[0].mapping
    question = (first.library, first.name, first.peft_type, first.preset)
    targets = resolve_blocks(proposal.spec).stored
    return Drift(Statement(*question, **targets, rationale=_rationale(wrong, proposal)), tuple(wrong))  # type: ignore[arg-type]


def _is_replaced(mapping: Mapping, community: Iterable[Mapping]) -> bool:
    """Return whether the community's mapping for the method, or for its family, is not known to be wrong."""
    best = _best(mapping, community)
    return best is not None and (best.verification is None or best.verification.status not in WRONG)


def _best(mapping: Mapping, candidates: Iterable[Mapping]) -> Mapping | None:
    """Return the best candidate for the method and preset of a mapping."""
    method = get_method(mapping.peft_type)
    types = (method.name, stored_under(method))
    return best_for(method, (m for m in candidates if m.preset == mapping.preset and m.peft_type in types))


def _rationale(wrong: list[Outcome], proposal: Mapping) -> str:
    """Return the reasons for a correction, for its reviewer."""
    first, *others = wrong
    mapping, check = first.mapping, first.mapping.verification
    version = f"{mapping.library} {check.library_version if check else ''}".strip()
    source = f"{mapping.source.kind} {mapping.source.version}, revision {mapping.revision}"
    findings = f": {'; '.join(first.findings)}" if first.findings else ""
    size = f", on {count_layers(proposal.matched)}" if proposal.matched else ""
    lines = [
        f"On {version}, what {source} says is {first.verdict}{findings}.",
        f"The scanner's proposal for the same question was proved live there{size}.",
    ]
    # The others by verdict, with the preset where it is not the default: "IA3, OSF (partial); FROD (dead)".
    by_verdict: dict[str, list[str]] = defaultdict(list)
    for outcome in others[:NAMED_AT_MOST]:
        preset = "" if outcome.mapping.preset == "default" else f" {outcome.mapping.preset}"
        by_verdict[outcome.verdict].append(f"{outcome.mapping.peft_type}{preset}")
    parts = [f"{', '.join(dict.fromkeys(names))} ({verdict})" for verdict, names in by_verdict.items()]
    if len(others) > NAMED_AT_MOST:
        parts.append(f"and {len(others) - NAMED_AT_MOST} more")
    if others:
        lines.append(f"Wrong as well: {'; '.join(parts)}.")
    return "\n".join(lines)


def find_earlier(submissions: "Submissions", statement: Statement) -> Submission | None:
    """Return an earlier submission that makes a statement redundant: an open one of the architecture, or an equal one.

    An equal submission counts whatever its status: a correction that a reviewer rejected is not submitted again.
    """
    for status in OPEN_STATUSES:
        found = submissions.list(status=status, library=statement.library, name=statement.name, limit=1)
        if found:
            return found[0]
    return submissions.find_same(statement)
