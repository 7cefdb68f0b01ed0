"""``loradar submissions`` and ``submission``: list submissions, or show one with its evidence."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.submissions import SUBMISSION_STATUSES
from ...domain.vocabulary import count_layers
from ...errors import InvalidRequest, quoted
from ...schema import to_json
from ..backend import Checks, open_backend
from ..options import LARGEST, AsJson, Number, Secret, Url
from ..output import Row, describe_coverage, describe_spec, print_json, print_rows

if TYPE_CHECKING:
    from ...domain.submissions import Submission, SubmissionEvidence

ORIGINS = ("contributor", "drift")

LISTED_AT_MOST = 12
"""Patterns printed of each kind; ``--json`` has all of them."""


def submissions(
    *,
    status: Annotated[str | None, typer.Option(help="Only those in this state, such as needs_review.")] = None,
    library: Annotated[str | None, typer.Option(help="Only those of this library.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those of this architecture.")] = None,
    submitter: Annotated[str | None, typer.Option(help="Only those of this contributor.")] = None,
    origin: Annotated[str | None, typer.Option(help="Only those from a contributor, or from drift.")] = None,
    before: Annotated[int | None, typer.Option(min=1, max=LARGEST, help="Only those with a lower number.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Submissions at most.")] = 50,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """List submissions, newest first."""
    for option, value, known in (("status", status, SUBMISSION_STATUSES), ("origin", origin, ORIGINS)):
        if value is not None and value not in known:
            message = f"Unknown {option} {value!r}. Give one of {quoted(known)}."
            raise InvalidRequest(message, **{option: value})
    filters: Any = {"library": library, "name": name, "submitter": submitter, "status": status, "origin": origin}
    with open_backend(url, secret, needs_token=False) as backend:
        listed = backend.submissions(before=before, limit=limit, **filters)
    if as_json:
        print_json({"submissions": [to_json(submission) for submission in listed]})
        return
    lines = [f"{submission.id:>5}  {submission.status:<12}  {_title(submission)}" for submission in listed]
    none = (
        "No such submission." if any((*filters.values(), before)) else "No submission yet. Submit with: loradar submit"
    )
    typer.echo("\n".join(lines) or none)
    if len(listed) == limit:
        typer.echo(f"There may be more: --before {listed[-1].id}", err=True)


def submission(
    submission_id: Number,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is checked; without --url, check it.")] = False,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Show a submission with everything a reviewer needs to decide."""
    with open_backend(url, secret, needs_token=False) as backend:
        shown = backend.submission(submission_id)
        if wait and shown.status == "checking":
            with Checks(backend) as checks:
                shown = checks.wait(submission_id)
    if as_json:
        print_json(to_json(shown))
    else:
        print_submission(shown)


def headline(submission: "Submission") -> str:
    """Return a submission as a sentence of its own."""
    return f"submission {submission.id}, {submission.status}: {_title(submission)}"


def _title(submission: "Submission") -> str:
    statement = submission.statement
    return f"{statement.reference} · {statement.peft_type} · {statement.preset} · by {submission.submitter}"


def print_submission(submission: "Submission") -> None:
    """Print a submission with its statement, evidence, reviews and next step."""
    statement = submission.statement
    sent = submission.created_at[:16].replace("T", " ") + (" by the audit" * (submission.origin == "drift"))
    rows = [("sent", sent), *describe_spec(statement.spec)]
    rows += (("rationale", text) for text in (statement.rationale or "none given").splitlines())
    if statement.layers:
        rows.append(("layers sent", f"{len(statement.layers):,}"))
    if submission.evidence:
        rows += _describe_evidence(submission.evidence, submission)
    else:
        rows.append(("checked", "not yet" if submission.status == "checking" else "no"))
    rows += (("review", f"{review.reviewer}: {review.decision}. {review.comment}") for review in submission.reviews)
    if submission.reason and not submission.reviews:
        rows.append((submission.status, submission.reason))
    if submission.mapping_id:
        rows.append(("mapping", submission.mapping_id))
    if submission.status == "needs_review":
        rows.append(("next", f"loradar review {submission.id} --approve --comment TEXT, or --reject"))
    typer.echo(headline(submission))
    print_rows(rows)


def _describe_evidence(evidence: "SubmissionEvidence", submission: "Submission") -> Iterator[Row]:
    """Yield the rows of the evidence, in the order in which a reviewer needs them."""
    if evidence.method == "listing":
        yield "builds", "no: its layers are those the contributor lists"
    else:
        yield "builds", f"{'yes' if evidence.builds else 'no'}, its layers found by {evidence.method}"
    if evidence.proof:
        yield "proof", evidence.proof
    yield from _describe_matches(evidence)
    if evidence.matched and not evidence.outside:
        yield "besides", "no head, router, embedding or other tower"
    for part, patterns in evidence.outside.items():
        yield from (("besides", f"{part}: {text}") for text in _first(patterns))
    yield from _describe_differences(evidence)
    if evidence.spec and evidence.spec != submission.statement.spec:
        yield from (("to publish", f"{field}: {value}") for field, value in describe_spec(evidence.spec))
        stated, published = evidence.verification, evidence.spec_verification
        if stated and published and published.status != stated.status:
            yield "to publish", f"which is {published.status}"


def _describe_matches(evidence: "SubmissionEvidence") -> Iterator[Row]:
    """Yield the rows of the verdict, and of the layers that each target matches."""
    check = evidence.verification
    if check is None:
        yield "verdict", "it matches nothing"
    else:
        version = f" on version {check.library_version}" if check.library_version else ""
        yield "verdict", f"{check.status}{version}, {check.reached:.1%} of the blocks"
        yield from (("verdict", finding) for finding in check.findings)
    for target, kinds in (check.counts if check else {}).items():
        matched = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        near = evidence.near.get(target, ())
        nothing = f"nothing. Near: {', '.join(near)}" if near else "nothing"
        yield "matches", f"{target}: {matched or nothing}"
    yield from (("layers", text) for text in _patterns(evidence.layers))
    yield from describe_coverage(evidence.coverage)


def _describe_differences(evidence: "SubmissionEvidence") -> Iterator[Row]:
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
