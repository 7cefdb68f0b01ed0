"""Submissions as they are stored: one row each, with their reviews."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from ...domain.schema import from_json, to_json
from ...domain.submissions import Review, Statement, Submission, SubmissionEvidence
from ...errors import UnknownSubmission
from ..db.canonical import canonical
from ..db.schema import Reader

_SHORT = "id, statement, submitter, origin, status, reason, mapping_id, version, created_at, updated_at"
_WHOLE = f"{_SHORT}, layers, evidence"
"""Both may be long: a list of submissions does without."""

_REVIEWS = "SELECT submission_id, reviewer, decision, comment, at FROM reviews WHERE submission_id IN ({}) ORDER BY id"

FILTERS = ("status", "library", "name", "submitter", "origin")


def statement_digest(statement: Statement) -> str:
    """Return the digest of what a statement says, whatever reasons it gives."""
    said = {name: value for name, value in to_json(statement).items() if name != "rationale"}
    return "sha256:" + sha256(canonical(said).encode()).hexdigest()


def find_submissions(reader: Reader, where: str, **values: Any) -> tuple[Submission, ...]:
    """Return the submissions of a condition with their reviews."""
    return _find(reader, _WHOLE, where, values)


def _find(reader: Reader, columns: str, where: str, values: dict[str, Any]) -> tuple[Submission, ...]:
    rows = reader.rows(f"SELECT {columns} FROM submissions {where}", **values)  # noqa: S608 - our own words
    reviews = _reviews(reader, [row["id"] for row in rows])
    return tuple(_to_submission(row, reviews[row["id"]]) for row in rows)


def get_submission(reader: Reader, submission_id: int) -> Submission:
    """Return one submission.

    Raises:
        UnknownSubmission: If there is none of this number.
    """
    found = find_submissions(reader, "WHERE id = :id", id=submission_id)
    if not found:
        raise UnknownSubmission(str(submission_id), (), "List them with: loradar submissions")
    return found[0]


def list_submissions(
    reader: Reader, asked: Mapping[str, str | None], before: int | None, limit: int
) -> tuple[Submission, ...]:
    """Return submissions with these values, newest first, from below a number; without layers and evidence."""
    wanted = {name: value for name, value in asked.items() if value is not None}
    conditions = [f"{name} = :{name}" for name in FILTERS if name in wanted]
    conditions += [] if before is None else ["id < :before"]
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    bounds = {"limit": limit} if before is None else {"limit": limit, "before": before}
    return _find(reader, _SHORT, f"{where}ORDER BY id DESC LIMIT :limit", wanted | bounds)


def _reviews(reader: Reader, ids: Iterable[int]) -> dict[int, list[Review]]:
    """Return the reviews of submissions; the numbers come from the database, so that they may stand in the text."""
    found: dict[int, list[Review]] = defaultdict(list)
    listed = ", ".join(str(int(one)) for one in ids)
    for row in reader.rows(_REVIEWS.format(listed)) if listed else ():
        found[row["submission_id"]].append(Review(row["reviewer"], row["decision"], row["comment"], row["at"]))
    return found


def split_layers(statement: Statement) -> tuple[str, str | None]:
    """Return a statement in the two parts in which it is stored: what it says, and the layers that came with it."""
    said = to_json(statement)
    layers = said.pop("layers")
    return canonical(said), canonical(layers) if layers else None


def _to_submission(row: dict[str, Any], reviews: list[Review]) -> Submission:
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
