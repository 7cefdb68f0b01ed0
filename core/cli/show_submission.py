"""What is printed of a submission: a line of a list, or all that a reviewer needs to decide."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from ..wording import count_layers
from . import show

if TYPE_CHECKING:
    from ..submissions import Difference, Evidence, Submission

Row = tuple[str, str]

LISTED_AT_MOST = 12
"""Patterns named of each kind; ``--json`` has them all."""


def describe(submission: "Submission") -> str:
    """Return a submission as a line of a list."""
    said = submission.statement
    what = f"{said.reference} · {said.peft_type} · {said.preset}"
    return f"{submission.id:>5}  {submission.status:<12}  {what} · by {submission.submitter}"


def print_submission(submission: "Submission") -> None:
    """Print a submission with its evidence and reviews."""
    typer.echo(describe(submission).strip())
    show.print_rows([*_statement(submission), *_evidence(submission), *_outcome(submission)])


def _statement(submission: "Submission") -> Iterator[Row]:
    said = submission.statement
    yield "sent", submission.created_at[:16].replace("T", " ") + (" by the audit" * (submission.origin == "drift"))
    yield from show.describe_spec(said.spec)
    yield from (("rationale", line) for line in (said.rationale or "none given").splitlines())
    if said.layers:
        yield "layers sent", f"{len(said.layers):,}"


def _evidence(submission: "Submission") -> Iterator[Row]:
    evidence = submission.evidence
    if evidence is None:
        yield "checked", "not yet" if submission.status == "checking" else "no"
        return
    yield "builds", _how_it_is_known(evidence)
    yield from (("proof", evidence.proof),) if evidence.proof else ()
    yield from _verdict(evidence)
    yield from _hits(evidence)
    yield from _besides(evidence)
    for difference in evidence.differences:
        yield from _difference(difference)
    if evidence.spec and evidence.spec != submission.statement.spec:
        yield from (("to publish", f"{field}: {value}") for field, value in show.describe_spec(evidence.spec))


def _how_it_is_known(evidence: "Evidence") -> str:
    if evidence.method == "listing":
        return "no: its layers are those the contributor lists"
    return f"{'yes' if evidence.builds else 'no'}, its layers told by {evidence.method}"


def _verdict(evidence: "Evidence") -> Iterator[Row]:
    check = evidence.verification
    if check is None:
        yield "verdict", "it hits nothing"
        return
    at = f" on version {check.library_version}" if check.library_version else ""
    yield "verdict", f"{check.status}{at}, {check.reached:.1%} of the blocks"
    yield from (("verdict", finding) for finding in check.findings)


def _hits(evidence: "Evidence") -> Iterator[Row]:
    for target, kinds in (evidence.verification.counts if evidence.verification else {}).items():
        told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        yield "hits", f"{target}: {told or _near(evidence, target)}"
    yield from (("layers", line) for line in _patterns(evidence.layers))
    if any(kind.hit < kind.of for kind in evidence.coverage):
        yield from (("covers", f"{kind.hit} of {kind.of} {kind.block}") for kind in evidence.coverage)


def _near(evidence: "Evidence", target: str) -> str:
    near = evidence.near.get(target, ())
    return f"nothing. Near: {', '.join(near)}" if near else "nothing"


def _besides(evidence: "Evidence") -> Iterator[Row]:
    """What it reaches outside the blocks of its tower: what reviewers look for first."""
    if not evidence.outside:
        yield "besides", "no head, router, embedding or other tower"
    for part, patterns in evidence.outside.items():
        yield from (("besides", f"{part}: {line}") for line in _some(patterns))


def _difference(difference: "Difference") -> Iterator[Row]:
    beside = f"beside {difference.against}"
    if not difference.more and not difference.less:
        yield "differs", f"{beside}: the same layers"
    for word, patterns in (("more", difference.more), ("less", difference.less)):
        if patterns:
            yield "differs", f"{beside}: {count_layers(sum(patterns.values()), word)}"
            yield from (("differs", f"  {line}") for line in _patterns(patterns))


def _patterns(counts: dict[str, int]) -> list[str]:
    return _some([f"{count:,} {pattern}" for pattern, count in counts.items()])


def _some(lines: "tuple[str, ...] | list[str]") -> list[str]:
    left = len(lines) - LISTED_AT_MOST
    return [*lines[:LISTED_AT_MOST], *([f"and {left} more"] if left > 0 else [])]


def _outcome(submission: "Submission") -> Iterator[Row]:
    for review in submission.reviews:
        yield "review", f"{review.reviewer}: {review.decision}. {review.comment}"
    if submission.reason and not submission.reviews:
        yield submission.status, submission.reason
    if submission.mapping_id:
        yield "mapping", submission.mapping_id
    if submission.status == "needs_review":
        yield "next", f"loradar review {submission.id} --approve --comment TEXT, or --reject"
