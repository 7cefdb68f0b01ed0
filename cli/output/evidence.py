"""What is printed of the evidence on a submission."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...wording import count_layers
from . import show

if TYPE_CHECKING:
    from ...domain.submissions import Difference, Submission, SubmissionEvidence

Row = tuple[str, str]

LISTED_AT_MOST = 12
"""Patterns named of each kind; ``--json`` has them all."""


def rows(submission: "Submission") -> Iterator[Row]:
    """Yield (name, value) rows of what was found out about a submission, in the order a reviewer asks."""
    evidence = submission.evidence
    if evidence is None:
        yield "checked", "not yet" if submission.status == "checking" else "no"
        return
    yield "builds", _how_it_is_known(evidence)
    yield from (("proof", evidence.proof),) if evidence.proof else ()
    yield from _verdict(evidence)
    yield from _hits(evidence)
    yield from _besides(evidence)
    yield from _differences(evidence)
    if evidence.spec and evidence.spec != submission.statement.spec:
        yield from (("to publish", f"{field}: {value}") for field, value in show.describe_spec(evidence.spec))
        yield from _verdict_on_spec(evidence)


def _how_it_is_known(evidence: "SubmissionEvidence") -> str:
    if evidence.method == "listing":
        return "no: its layers are those the contributor lists"
    return f"{'yes' if evidence.builds else 'no'}, its layers told by {evidence.method}"


def _verdict(evidence: "SubmissionEvidence") -> Iterator[Row]:
    check = evidence.verification
    if check is None:
        yield "verdict", "it hits nothing"
        return
    at = f" on version {check.library_version}" if check.library_version else ""
    yield "verdict", f"{check.status}{at}, {check.reached:.1%} of the blocks"
    yield from (("verdict", finding) for finding in check.findings)


def _verdict_on_spec(evidence: "SubmissionEvidence") -> Iterator[Row]:
    """Tell what is found of the spec by itself, where that is not what is found of the statement."""
    stated, check = evidence.verification, evidence.spec_verification
    if stated and check and check.status != stated.status:
        yield "to publish", f"which is {check.status}"


def _hits(evidence: "SubmissionEvidence") -> Iterator[Row]:
    for target, kinds in (evidence.verification.counts if evidence.verification else {}).items():
        told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        yield "hits", f"{target}: {told or _near(evidence, target)}"
    yield from (("layers", line) for line in _patterns(evidence.layers))
    if any(kind.hit < kind.of for kind in evidence.coverage):
        yield from (("covers", f"{kind.hit} of {kind.of} {kind.block}") for kind in evidence.coverage)


def _near(evidence: "SubmissionEvidence", target: str) -> str:
    near = evidence.near.get(target, ())
    return f"nothing. Near: {', '.join(near)}" if near else "nothing"


def _besides(evidence: "SubmissionEvidence") -> Iterator[Row]:
    """What it reaches outside the blocks of its tower: what reviewers look for first."""
    if evidence.matched and not evidence.outside:
        yield "besides", "no head, router, embedding or other tower"
    for part, patterns in evidence.outside.items():
        yield from (("besides", f"{part}: {line}") for line in _some(patterns))


def _differences(evidence: "SubmissionEvidence") -> Iterator[Row]:
    """Yield what differs, once for all that the same differs from."""
    alike: dict[tuple[Row, ...], list[str]] = {}
    for difference in evidence.differences:
        alike.setdefault((*_difference(difference),), []).append(difference.against)
    for told, others in alike.items():
        yield "differs", f"beside {', '.join(others)}:"
        yield from told


def _difference(difference: "Difference") -> Iterator[Row]:
    if not difference.more and not difference.less:
        yield "differs", "  the same layers"
    for word, patterns in (("more", difference.more), ("fewer", difference.less)):
        if patterns:
            yield "differs", f"  {count_layers(sum(patterns.values()))} {word}: {', '.join(_patterns(patterns))}"


def _patterns(counts: dict[str, int]) -> list[str]:
    return _some([f"{count:,} {pattern}" for pattern, count in counts.items()])


def _some(lines: Sequence[str]) -> list[str]:
    left = len(lines) - LISTED_AT_MOST
    return [*lines[:LISTED_AT_MOST], *([f"and {left} more"] if left > 0 else [])]
