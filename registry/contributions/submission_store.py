"""Store submissions: one row each with their reviews; every change is one version more."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, update

from ...domain.identities import Actor
from ...domain.submissions import (
    OPEN_STATUSES,
    Origin,
    Review,
    Statement,
    Submission,
    SubmissionEvidence,
    SubmissionStatus,
)
from ...errors import Conflict, StaleVersion, TooManyRequests, UnknownSubmission, quoted
from ...schema import from_json, to_json
from ..db import tables
from ..db.audit_log import architecture_subject, submission_subject
from ..db.database import Transaction
from ..db.encoding import canonical, digest_of, now

MAX_OPEN = 100
"""Open submissions of one person."""

DAY = timedelta(days=1)
MAX_A_DAY = 500
"""Submissions of one person within a day: each is kept for good, and may hold a long list of layers."""

RETRY_SECONDS = 3600

_submissions, _reviews = tables.submissions.c, tables.reviews.c
_IS_OPEN = _submissions.status.in_(OPEN_STATUSES)

_LONG = ("layers", "evidence")
"""Columns that may be long: lists of submissions leave them out."""

_UNREAD = ("library", "name", "peft_type", "preset", "digest", "claimed_until", "attempts")
_WHOLE = tuple(column for column in tables.submissions.c if column.name not in _UNREAD)
_SHORT = tuple(column for column in _WHOLE if column.name not in _LONG)


def statement_digest(statement: Statement) -> str:
    """Return the digest of a statement without its rationale."""
    return digest_of({name: value for name, value in to_json(statement).items() if name != "rationale"})


def find_submissions(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[Submission, ...]:
    """Return the submissions that meet the conditions with their reviews, newest first."""
    return _select(connection, select(*_WHOLE).where(*conditions).order_by(_submissions.id.desc()))


def list_submissions(
    connection: Connection, filters: Mapping[str, str | None], before: int | None, limit: int
) -> tuple[Submission, ...]:
    """Return submissions with these column values and a number below ``before``, without layers and evidence."""
    conditions = [_submissions[name] == value for name, value in filters.items() if value is not None]
    conditions += [] if before is None else [_submissions.id < before]
    return _select(connection, select(*_SHORT).where(*conditions).order_by(_submissions.id.desc()).limit(limit))


def get_submission(connection: Connection, submission_id: int) -> Submission:
    """Return a submission.

    Raises:
        UnknownSubmission: If no submission has this number.
    """
    matches = find_submissions(connection, _submissions.id == submission_id)
    if not matches:
        raise UnknownSubmission(str(submission_id), (), "List them with: loradar submissions")
    return matches[0]


def _select(connection: Connection, query: Select[Any]) -> tuple[Submission, ...]:
    rows = connection.execute(query).mappings().all()
    is_of_rows = _reviews.submission_id.in_([row["id"] for row in rows])
    reviews: dict[int, list[Review]] = defaultdict(list)
    for review in connection.execute(select(tables.reviews).where(is_of_rows).order_by(_reviews.id)) if rows else ():
        reviews[review.submission_id].append(Review(review.reviewer, review.decision, review.comment, review.at))
    return tuple(_to_submission(row, reviews[row["id"]]) for row in rows)


def _to_submission(row: Mapping[Any, Any], reviews: list[Review]) -> Submission:
    statement, layers, evidence = json.loads(row["statement"]), row.get("layers"), row.get("evidence")
    return Submission(
        id=row["id"],
        statement=from_json(Statement, {**statement, "layers": json.loads(layers) if layers else None}),
        status=row["status"],
        submitter=row["submitter"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        origin=row["origin"],
        reason=row["reason"],
        evidence=from_json(SubmissionEvidence, json.loads(evidence)) if evidence else None,
        mapping_id=row["mapping_id"],
        version=row["version"],
        reviews=tuple(reviews),
    )


def add_submission(write: Transaction, statement: Statement, submitter: Actor, origin: Origin) -> Submission:
    """Insert a submission.

    Raises:
        Conflict: If an equal one is open, or the submitter has too many open ones.
        TooManyRequests: If the submitter made too many within a day.
    """
    digest = statement_digest(statement)
    equal = find_submissions(write.connection, _submissions.digest == digest, _IS_OPEN)
    if equal:
        message = f"Submission {equal[0].id} is equal and open ({equal[0].status}): wait for its review."
        raise Conflict(message, submission=equal[0].id, status=equal[0].status)
    count = select(func.count()).where(_submissions.submitter == submitter.name)
    if write.connection.execute(count.where(_IS_OPEN)).scalar_one() >= MAX_OPEN:
        message = f"{submitter.name} has {MAX_OPEN} open submissions: wait for reviews, or withdraw some."
        raise Conflict(message, open=MAX_OPEN)
    if write.connection.execute(count.where(_submissions.created_at > now(-DAY))).scalar_one() >= MAX_A_DAY:
        message = f"{submitter.name} made {MAX_A_DAY} submissions within a day, withdrawn ones too: try again later."
        raise TooManyRequests(message, retry_after=RETRY_SECONDS, limit=MAX_A_DAY)
    at = now()
    submission = Submission(
        id=0,
        status="checking",
        submitter=submitter.name,
        origin=origin,
        statement=statement,
        created_at=at,
        updated_at=at,
    )
    stated = to_json(statement)
    layers = stated.pop("layers")
    values = {name: stated[name] for name in ("library", "name", "peft_type", "preset")}
    values |= {"statement": canonical(stated), "layers": canonical(layers) if layers else None, "digest": digest}
    number = write.insert(tables.submissions, **values, **_columns(submission), created_at=at)
    submission = replace(submission, id=number)
    _log(write, submission)
    return submission


def update_submission(write: Transaction, changed: Submission) -> Submission:
    """Store a changed submission as its next version."""
    stored = replace(changed, version=changed.version + 1, updated_at=now())
    write.change(update(tables.submissions).where(_submissions.id == stored.id).values(**_columns(stored)))
    _log(write, stored)
    return stored


def check_version(submission: Submission, version: int | None) -> None:
    """Check that a decision is based on the current version.

    Raises:
        StaleVersion: If it is not.
    """
    if version is not None and version != submission.version:
        current = f"Submission {submission.id} is at version {submission.version}, not {version}"
        message = f"{current}: read it again, then decide."
        raise StaleVersion(message, submission=submission.id, version=submission.version, given=version)


def check_status(submission: Submission, allowed: Collection[SubmissionStatus], operation: str) -> None:
    """Check that a submission's state allows an operation.

    Raises:
        Conflict: If it does not.
    """
    if submission.status not in allowed:
        allowing = f"only one that is {quoted(allowed)} can {operation}"
        message = f"Submission {submission.id} is {submission.status}: {allowing}."
        raise Conflict(message, submission=submission.id, status=submission.status)


def _log(write: Transaction, submission: Submission) -> None:
    """Name the submission and its architecture in the audit log."""
    statement = submission.statement
    write.log(
        submission_subject(submission.id),
        architecture_subject(statement.library, statement.name),
        status=submission.status,
        peft_type=statement.peft_type,
        preset=statement.preset,
    )


def _columns(submission: Submission) -> dict[str, Any]:
    """Return the columns of a submission that may change."""
    return {
        "submitter": submission.submitter,
        "origin": submission.origin,
        "status": submission.status,
        "reason": submission.reason,
        "evidence": canonical(to_json(submission.evidence)) if submission.evidence else None,
        "mapping_id": submission.mapping_id,
        "version": submission.version,
        "updated_at": submission.updated_at,
    }
