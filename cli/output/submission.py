"""What is printed of a submission: a line of a list, or all that a reviewer needs to decide."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from . import evidence as show_evidence
from . import show
from .evidence import Row

if TYPE_CHECKING:
    from ...domain.submissions import Submission


def describe(submission: "Submission") -> str:
    """Return a submission as a line of a list."""
    return f"{submission.id:>5}  {submission.status:<12}  {_name(submission)}"


def name(submission: "Submission") -> str:
    """Return a submission in a line of its own."""
    return f"submission {submission.id}, {submission.status}: {_name(submission)}"


def _name(submission: "Submission") -> str:
    said = submission.statement
    return f"{said.reference} · {said.peft_type} · {said.preset} · by {submission.submitter}"


def print_submission(submission: "Submission") -> None:
    """Print a submission with its evidence and reviews."""
    typer.echo(name(submission))
    show.print_rows([*_statement(submission), *show_evidence.rows(submission), *_outcome(submission)])


def _statement(submission: "Submission") -> Iterator[Row]:
    said = submission.statement
    yield "sent", submission.created_at[:16].replace("T", " ") + (" by the audit" * (submission.origin == "drift"))
    yield from show.describe_spec(said.spec)
    yield from (("rationale", line) for line in (said.rationale or "none given").splitlines())
    if said.layers:
        yield "layers sent", f"{len(said.layers):,}"


def _outcome(submission: "Submission") -> Iterator[Row]:
    for review in submission.reviews:
        yield "review", f"{review.reviewer}: {review.decision}. {review.comment}"
    if submission.reason and not submission.reviews:
        yield submission.status, submission.reason
    if submission.mapping_id:
        yield "mapping", submission.mapping_id
    if submission.status == "needs_review":
        yield "next", f"loradar review {submission.id} --approve --comment TEXT, or --reject"
