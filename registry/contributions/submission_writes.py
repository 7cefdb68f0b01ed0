"""What changes submissions: each change is one version more, and checked against the one it rests on."""

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update

from ...domain.identities import Actor
from ...domain.schema import to_json
from ...domain.submissions import OPEN_STATUSES, Origin, Statement, Submission, SubmissionStatus
from ...errors import Conflict, StaleVersion, TooManyRequests, quoted
from ..db import tables
from ..db.audit_log import architecture_subject, submission_subject
from ..db.database import Transaction
from ..db.encoding import canonical, now
from .submission_rows import find_submissions, split_layers, statement_digest

MAX_OPEN = 100
"""Submissions of one person that may be open at once."""

DAY = timedelta(days=1)
MAX_A_DAY = 500
"""Submissions of one person within a day: each is kept for good, and may be as long as a list of layers."""

RETRY_SECONDS = 3600

_submissions = tables.submissions.c
_IS_OPEN = _submissions.status.in_(OPEN_STATUSES)


def add_submission(write: Transaction, statement: Statement, by: Actor, origin: Origin) -> Submission:
    """Insert a submission.

    Raises:
        Conflict: If the same is open already, or too much of one person's.
        TooManyRequests: If one person made too many within a day.
    """
    digest = statement_digest(statement)
    _refuse_repeated(write, digest)
    _refuse_many(write, by)
    at = now()
    made = Submission(
        id=0,
        status="checking",
        submitter=by.name,
        origin=origin,
        statement=statement,
        created_at=at,
        updated_at=at,
    )
    asked = {"library": statement.library, "name": statement.name}
    asked |= {"peft_type": statement.peft_type, "preset": statement.preset}
    said, layers = split_layers(statement)
    values = {"statement": said, "layers": layers, "digest": digest, "created_at": at}
    made = replace(made, id=write.insert(tables.submissions, **asked, **_columns(made), **values))
    tell(write, made)
    return made


def _refuse_repeated(write: Transaction, digest: str) -> None:
    same = find_submissions(write.connection, _submissions.digest == digest, _IS_OPEN)
    if same:
        message = f"Submission {same[0].id} says the same and is open ({same[0].status}). Wait for its review."
        raise Conflict(message, submission=same[0].id, status=same[0].status)


def _refuse_many(write: Transaction, by: Actor) -> None:
    count = select(func.count()).where(_submissions.submitter == by.name)
    if write.connection.execute(count.where(_IS_OPEN)).scalar_one() >= MAX_OPEN:
        message = f"{by.name} has {MAX_OPEN} open submissions. Wait for reviews, or withdraw some."
        raise Conflict(message, open=MAX_OPEN)
    if write.connection.execute(count.where(_submissions.created_at > now(-DAY))).scalar_one() >= MAX_A_DAY:
        message = f"{by.name} made {MAX_A_DAY} submissions within a day, withdrawn ones too. Come again later."
        raise TooManyRequests(message, retry_after=RETRY_SECONDS, limit=MAX_A_DAY)


def check_version(held: Submission, version: int | None) -> None:
    """Refuse what rests on another version than the current one.

    Raises:
        StaleVersion: If it does.
    """
    if version is not None and version != held.version:
        message = f"Submission {held.id} is at version {held.version}, not {version}. Read it again, then decide."
        raise StaleVersion(message, submission=held.id, version=held.version, given=version)


def check_status(held: Submission, allowed: Collection[SubmissionStatus], what: str) -> None:
    """Refuse what cannot be done in the state a submission is in.

    Raises:
        Conflict: If it cannot.
    """
    if held.status not in allowed:
        message = f"Submission {held.id} is {held.status}; only one that is {quoted(allowed)} can {what}."
        raise Conflict(message, submission=held.id, status=held.status)


def put(write: Transaction, changed: Submission) -> Submission:
    """Store a submission that was changed, as its next version."""
    stored = replace(changed, version=changed.version + 1, updated_at=now())
    write.change(update(tables.submissions).where(_submissions.id == stored.id).values(**_columns(stored)))
    tell(write, stored)
    return stored


def tell(write: Transaction, submission: Submission) -> None:
    """Say in the log which submission a change is about."""
    said = submission.statement
    write.log(
        submission_subject(submission.id),
        architecture_subject(said.library, said.name),
        status=submission.status,
        peft_type=said.peft_type,
        preset=said.preset,
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
