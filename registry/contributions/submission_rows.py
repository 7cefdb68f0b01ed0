"""Submissions as they are stored: one row each, with their reviews."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, select

from ...domain.schema import from_json, to_json
from ...domain.submissions import Review, Statement, Submission, SubmissionEvidence
from ...errors import UnknownSubmission
from ..db import tables
from ..db.encoding import canonical, digest_of

_submissions, _reviews = tables.submissions.c, tables.reviews.c

_SHORT = tuple(
    _submissions[name]
    for name in (
        "id",
        "statement",
        "submitter",
        "origin",
        "status",
        "reason",
        "mapping_id",
        "version",
        "created_at",
        "updated_at",
    )
)
_WHOLE = (*_SHORT, _submissions.layers, _submissions.evidence)
"""Both may be long: a list of submissions does without."""


def statement_digest(statement: Statement) -> str:
    """Return the digest of what a statement says, whatever reasons it gives."""
    said = {name: value for name, value in to_json(statement).items() if name != "rationale"}
    return digest_of(said)


def find_submissions(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[Submission, ...]:
    """Return the submissions of a condition with their reviews, newest first."""
    return _find(connection, select(*_WHOLE).where(*conditions).order_by(_submissions.id.desc()))


def _find(connection: Connection, query: Select[Any]) -> tuple[Submission, ...]:
    rows = connection.execute(query).mappings().all()
    of_rows = _reviews.submission_id.in_([row["id"] for row in rows])
    reviews: dict[int, list[Review]] = defaultdict(list)
    for review in connection.execute(select(tables.reviews).where(of_rows).order_by(_reviews.id)) if rows else ():
        reviews[review.submission_id].append(Review(review.reviewer, review.decision, review.comment, review.at))
    return tuple(_to_submission(row, reviews[row["id"]]) for row in rows)


def get_submission(connection: Connection, submission_id: int) -> Submission:
    """Return one submission.

    Raises:
        UnknownSubmission: If there is none of this number.
    """
    found = find_submissions(connection, _submissions.id == submission_id)
    if not found:
        raise UnknownSubmission(str(submission_id), (), "List them with: loradar submissions")
    return found[0]


def list_submissions(
    connection: Connection, asked: Mapping[str, str | None], before: int | None, limit: int
) -> tuple[Submission, ...]:
    """Return submissions with these values, newest first, from below a number; without layers and evidence."""
    conditions = [_submissions[name] == value for name, value in asked.items() if value is not None]
    conditions += [] if before is None else [_submissions.id < before]
    return _find(connection, select(*_SHORT).where(*conditions).order_by(_submissions.id.desc()).limit(limit))


def split_layers(statement: Statement) -> tuple[str, str | None]:
    """Return a statement in the two parts in which it is stored: what it says, and the layers that came with it."""
    said = to_json(statement)
    layers = said.pop("layers")
    return canonical(said), canonical(layers) if layers else None


def _to_submission(row: Mapping[Any, Any], reviews: list[Review]) -> Submission:
    said, layers, evidence = json.loads(row["statement"]), row.get("layers"), row.get("evidence")
    return Submission(
        id=row["id"],
        statement=from_json(Statement, {**said, "layers": json.loads(layers) if layers else None}),
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
