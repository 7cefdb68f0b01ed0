"""Print submissions: one line each, or one with its evidence and reviews."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from ...domain.vocabulary import count_layers
from . import show

if TYPE_CHECKING:
    from ...domain.submissions import Submission, SubmissionEvidence

Row = tuple[str, str]

LISTED_AT_MOST = 12
"""Patterns printed of each kind; ``--json`` has all of them."""


def line(submission: "Submission") -> str:
    """Return a submission as a line of a list."""
    return f"{submission.id:>5}  {submission.status:<12}  {_title(submission)}"


def headline(submission: "Submission") -> str:
    """Return a submission as a sentence of its own."""
    return f"submission {submission.id}, {submission.status}: {_title(submission)}"


def _title(submission: "Submission") -> str:
    statement = submission.statement
    return f"{statement.reference} · {statement.peft_type} · {statement.preset} · by {submission.submitter}"


def print_submission(submission: "Submission") -> None:
    """Print a submission with its statement, evidence, reviews and next step."""
    typer.echo(headline(submission))
    show.print_rows([*_statement(submission), *_evidence(submission), *_outcome(submission)])


def _statement(submission: "Submission") -> Iterator[Row]:
    statement = submission.statement
    yield "sent", submission.created_at[:16].replace("T", " ") + (" by the audit" * (submission.origin == "drift"))
    yield from show.describe_spec(statement.spec)
    yield from (("rationale", text) for text in (statement.rationale or "none given").splitlines())
    if statement.layers:
        yield "layers sent", f"{len(statement.layers):,}"


def _outcome(submission: "Submission") -> Iterator[Row]:
    for review in submission.reviews:
        yield "review", f"{review.reviewer}: {review.decision}. {review.comment}"
    if submission.reason and not submission.reviews:
        yield submission.status, submission.reason
    if submission.mapping_id:
        yield "mapping", submission.mapping_id
    if submission.status == "needs_review":
        yield "next", f"loradar review {submission.id} --approve --comment TEXT, or --reject"


def _evidence(submission: "Submission") -> Iterator[Row]:
    """Yield the rows of the evidence, in the order in which a reviewer needs them."""
    evidence = submission.evidence
    if evidence is None:
        yield "checked", "not yet" if submission.status == "checking" else "no"
        return
    if evidence.method == "listing":
        yield "builds", "no: its layers are those the contributor lists"
    else:
        yield "builds", f"{'yes' if evidence.builds else 'no'}, its layers found by {evidence.method}"
    if evidence.proof:
        yield "proof", evidence.proof
    yield from _verdict(evidence)
    yield from _matches(evidence)
    if evidence.matched and not evidence.outside:
        yield "besides", "no head, router, embedding or other tower"
    for part, patterns in evidence.outside.items():
        yield from (("besides", f"{part}: {text}") for text in _first(patterns))
    yield from _differences(evidence)
    if evidence.spec and evidence.spec != submission.statement.spec:
        yield from (("to publish", f"{field}: {value}") for field, value in show.describe_spec(evidence.spec))
        stated, published = evidence.verification, evidence.spec_verification
        if stated and published and published.status != stated.status:
            yield "to publish", f"which is {published.status}"


def _verdict(evidence: "SubmissionEvidence") -> Iterator[Row]:
    check = evidence.verification
    if check is None:
        yield "verdict", "it matches nothing"
        return
    version = f" on version {check.library_version}" if check.library_version else ""
    yield "verdict", f"{check.status}{version}, {check.reached:.1%} of the blocks"
    yield from (("verdict", finding) for finding in check.findings)


def _matches(evidence: "SubmissionEvidence") -> Iterator[Row]:
    for target, kinds in (evidence.verification.counts if evidence.verification else {}).items():
        matched = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        near = evidence.near.get(target, ())
        nothing = f"nothing. Near: {', '.join(near)}" if near else "nothing"
        yield "matches", f"{target}: {matched or nothing}"
    yield from (("layers", text) for text in _patterns(evidence.layers))
    if any(kind.hit < kind.of for kind in evidence.coverage):
        yield from (("covers", f"{kind.hit} of {kind.of} {kind.block}") for kind in evidence.coverage)


def _differences(evidence: "SubmissionEvidence") -> Iterator[Row]:
    """Yield the differences from registered mappings, equal ones once."""
    others: dict[tuple[Row, ...], list[str]] = {}
    for difference in evidence.differences:
        rows = [("differs", "  the same layers")] if not difference.more and not difference.less else []
        for word, patterns in (("more", difference.more), ("fewer", difference.less)):
            if patterns:
                layers = count_layers(sum(patterns.values()))
                rows.append(("differs", f"  {layers} {word}: {', '.join(_patterns(patterns))}"))
        others.setdefault(tuple(rows), []).append(difference.against)
    for equal_rows, names in others.items():
        yield "differs", f"beside {', '.join(names)}:"
        yield from equal_rows


def _patterns(counts: dict[str, int]) -> list[str]:
    return _first([f"{count:,} {pattern}" for pattern, count in counts.items()])


def _first(lines: Sequence[str]) -> list[str]:
    """Return the first lines, and the number of those left out."""
    left = len(lines) - LISTED_AT_MOST
    return [*lines[:LISTED_AT_MOST], *([f"and {left} more"] if left > 0 else [])]
