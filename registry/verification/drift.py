"""Drift: what is on record and no longer does what it says, with the statement that would put it right.

A mapping somebody stated (``peft`` or ``community``) has drifted if it is dead or partial at the version audited, what
the community says since does not make up for it, and the scanner's own proposal for the same question was proved live.
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
from ...wording import count_layers
from ..mappings.entries import entries_of_proposals
from ..mappings.families import stored_under
from ..mappings.resolve import PRECEDENCE, best_for
from ..results import Outcome
from .verify import Verifier

if TYPE_CHECKING:
    from ..contributions.submissions import Submissions

DRIFT = Actor("loradar-drift", "contributor")
"""Who submits what has drifted."""

WRONG = ("dead", "partial")
NAMED_AT_MOST = 40
"""Other questions that a rationale names."""


@dataclass(frozen=True, slots=True)
class Drift:
    """An architecture of which something drifted.

    Attributes:
        statement: What to submit: the answer to the first of the questions that drifted.
        wrong: What drifted, the mapping that answers that question first.
    """

    statement: Statement
    wrong: tuple[Outcome, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "architecture": {"library": self.statement.library, "name": self.statement.name},
            "statement": self.statement.to_dict(),
            "wrong": [outcome.to_dict() for outcome in self.wrong],
        }


class Proposals:
    """What the scanner proposes at the version audited, each with how it fared: as on record, or as just scanned."""

    def __init__(self, on_record: Iterable[Mapping]) -> None:
        self._by_name: dict[str, list[Mapping]] = defaultdict(list)
        for mapping in on_record:
            if mapping.source.kind == "scanner":
                self._by_name[mapping.name].append(mapping)

    def watch(self, scans: Iterable[tuple[str, Scan | str]]) -> Iterator[tuple[str, Scan | str]]:
        """Yield scans as they come; what they propose takes the place of what was on record."""
        for name, scan in scans:
            if isinstance(scan, Scan):
                self._by_name[name] = [*_proposed(scan)]
            yield name, scan

    def find_live(self, asked: Mapping) -> Mapping | None:
        """Return what was proved live for the question of a mapping, or ``None``."""
        found = _best(asked, self._by_name.get(asked.name, ()))
        return found if found and found.verification and found.verification.status == "live" else None


def _proposed(scan: Scan) -> Iterator[Mapping]:
    """Yield the proposals of a scan as the mappings they would be, each checked against it."""
    verifier = Verifier(scan)
    for entry in entries_of_proposals(scan.architecture, scan.proposals):
        mapping = entry.revise(Source("scanner", ""), (), scan.architecture.library_version)
        yield replace(mapping, verification=verifier.check(mapping))


def names_to_scan(mappings: Iterable[Mapping], known: Collection[str]) -> list[str]:
    """Return the architectures somebody stated something of that was not checked at this version, sorted."""
    return sorted({m.name for m in mappings if m.source.kind != "scanner" and not m.verification and m.name in known})


def find_drifts(outcomes: Iterable[Outcome], proposals: Proposals) -> tuple[Drift, ...]:
    """Return what drifted, one for each architecture, sorted.

    Args:
        outcomes: Of the audit of one library, whatever their source.
        proposals: What the scanner would put in their place.
    """
    stated: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.mapping.source.kind != "scanner":
            stated[outcome.mapping.name].append(outcome)
    found = (_find_drift(stated[name], proposals) for name in sorted(stated))
    return tuple(drift for drift in found if drift)


def _find_drift(stated: list[Outcome], proposals: Proposals) -> Drift | None:
    """Return the drift of an architecture: LoRA's default first, for most methods share its targets."""
    agreed = [outcome.mapping for outcome in stated if outcome.mapping.source.kind == "community"]
    wrong = [o for o in stated if o.verdict in WRONG and not _is_settled(o.mapping, agreed)]
    wrong = sorted((o for o in wrong if proposals.find_live(o.mapping)), key=_order)
    proposal = proposals.find_live(wrong[0].mapping) if wrong else None
    if proposal is None:
        return None
    asked = wrong[0].mapping
    said = (asked.library, asked.name, asked.peft_type, asked.preset)
    return Drift(Statement(*said, proposal.spec, _rationale(wrong, proposal)), tuple(wrong))  # type: ignore[arg-type]


def _is_settled(mapping: Mapping, agreed: Iterable[Mapping]) -> bool:
    """Tell whether what the community says, for the method or its family, answers the question soundly."""
    answer = _best(mapping, agreed)
    return answer is not None and (answer.verification is None or answer.verification.status not in WRONG)


def _best(asked: Mapping, candidates: Iterable[Mapping]) -> Mapping | None:
    method = get_method(asked.peft_type)
    types = (method.name, stored_under(method))
    return best_for(method, (m for m in candidates if m.preset == asked.preset and m.peft_type in types))


def _order(outcome: Outcome) -> tuple[bool, str, str, int]:
    mapping = outcome.mapping
    is_first = (mapping.peft_type, mapping.preset) == (TARGETED, "default")
    return not is_first, mapping.peft_type, mapping.preset, PRECEDENCE.index(mapping.source.kind)


def _rationale(wrong: list[Outcome], proposal: Mapping) -> str:
    """Return why it is submitted, for the reviewer."""
    first, *others = wrong
    mapping, check = first.mapping, first.mapping.verification
    at = f"{mapping.library} {check.library_version if check else ''}".strip()
    who = f"{mapping.source.kind} {mapping.source.version}, revision {mapping.revision}"
    told = f": {'; '.join(first.findings)}" if first.findings else ""
    size = f", on {count_layers(proposal.matched)}" if proposal.matched else ""
    lines = [
        f"On {at}, what {who} says is {first.verdict}{told}.",
        f"The scanner's proposal for the same question was proved live there{size}.",
    ]
    if others:
        lines.append(f"Wrong as well: {_named(others)}.")
    return "\n".join(lines)


def _named(others: list[Outcome]) -> str:
    """Return methods by verdict, and by preset where it is not the default: ``IA3, OSF (partial); FROD (dead)``."""
    by_verdict: dict[str, list[str]] = defaultdict(list)
    for outcome in others[:NAMED_AT_MOST]:
        asked = outcome.mapping
        by_verdict[outcome.verdict].append(asked.peft_type + f" {asked.preset}" * (asked.preset != "default"))
    told = [f"{', '.join(dict.fromkeys(names))} ({verdict})" for verdict, names in by_verdict.items()]
    left = len(others) - NAMED_AT_MOST
    return "; ".join([*told, *([f"and {left} more"] if left > 0 else [])])


def find_earlier(submissions: "Submissions", statement: Statement) -> Submission | None:
    """Return a submission that makes another one needless: an open one for the architecture, or one that says the same.

    What says the same counts whatever became of it: a reviewer who rejected it is not asked again.
    """
    for status in OPEN_STATUSES:
        found = submissions.list(status=status, library=statement.library, name=statement.name, limit=1)
        if found:
            return found[0]
    return submissions.find_same(statement)
