"""Submissions as they are stored: one row each, with their reviews."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from ..errors import UnknownSubmission
from ..submissions import Evidence, Review, Statement, Submission
from .canonical import canonical
from .schema import Reader

_COLUMNS = """
SELECT id, library, name, statement, submitter, origin, status, reason, evidence, mapping_id, version, claimed_until,
       attempts, created_at, updated_at
FROM submissions
"""

_BRIEF = _COLUMNS.replace("evidence", "NULL AS evidence")

_REVIEWS = "SELECT submission_id, reviewer, decision, comment, at FROM reviews WHERE submission_id IN ({}) ORDER BY id"

FILTERS = ("status", "library", "name", "submitter", "origin")


def statement_digest(statement: Statement) -> str:
    """Return the digest of what a statement says, whatever reasons it gives."""
    said = {name: value for name, value in statement.to_dict().items() if name != "rationale"}
    return "sha256:" + sha256(canonical(said).encode()).hexdigest()


def find_submissions(reader: Reader, where: str, *, is_brief: bool = False, **values: Any) -> tuple[Submission, ...]:
    """Return the submissions of a condition with their reviews; in brief without evidence and lists of layers."""
    rows = reader.rows((_BRIEF if is_brief else _COLUMNS) + where, **values)
    reviews = _reviews(reader, [row["id"] for row in rows])
    return tuple(_to_submission(row, reviews[row["id"]], is_brief=is_brief) for row in rows)


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
    """Return submissions with these values, newest first, from below a number, in brief: a hundred may be long."""
    wanted = {name: value for name, value in asked.items() if value is not None}
    conditions = [f"{name} = :{name}" for name in FILTERS if name in wanted]
    conditions += [] if before is None else ["id < :before"]
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    bounds = {"limit": limit} if before is None else {"limit": limit, "before": before}
    return find_submissions(reader, f"{where}ORDER BY id DESC LIMIT :limit", is_brief=True, **wanted, **bounds)


def _reviews(reader: Reader, ids: Iterable[int]) -> dict[int, list[Review]]:
    """Return the reviews of submissions; the numbers come from the database, so that they may stand in the text."""
    found: dict[int, list[Review]] = defaultdict(list)
    listed = ", ".join(str(int(one)) for one in ids)
    for row in reader.rows(_REVIEWS.format(listed)) if listed else ():
        found[row["submission_id"]].append(Review(row["reviewer"], row["decision"], row["comment"], row["at"]))
    return found


def _to_submission(row: dict[str, Any], reviews: list[Review], *, is_brief: bool) -> Submission:
    said = json.loads(row["statement"])
    return Submission(
        id=row["id"],
        statement=Statement.from_dict(said | {"layers": None} if is_brief else said),
        status=row["status"],
        submitter=row["submitter"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        origin=row["origin"],
        reason=row["reason"],
        evidence=Evidence.from_dict(json.loads(row["evidence"])) if row["evidence"] else None,
        mapping_id=row["mapping_id"],
        version=row["version"],
        reviews=tuple(reviews),
    )
