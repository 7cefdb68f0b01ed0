"""Machine checks of submissions, one worker at a time for each: taken, then settled with what was found."""

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from ...domain.submissions import Checked, Submission, SubmissionStatus
from ..db import tables
from ..db.database import Access
from ..db.times import now
from ..store import add_scan
from .submission_rows import get_submission
from .submission_writes import put

if TYPE_CHECKING:
    from ...domain.scans import Scan
    from ..db.transaction import Write

LEASE = timedelta(minutes=10)
"""How long a worker has a submission to itself: longer than any check may take."""

MAX_ATTEMPTS = 3
"""How many workers may die of one submission."""

CHECKER = "loradar"
"""Whom the log names for what the checks do."""

_FREE = "status = 'checking' AND (claimed_until IS NULL OR claimed_until <= :now)"
_WAITING = f"SELECT id, attempts FROM submissions WHERE {_FREE} ORDER BY id"  # noqa: S608 - our own words
_TAKE = f"UPDATE submissions SET claimed_until = :until, attempts = attempts + 1 WHERE id = :id AND {_FREE}"  # noqa: S608


def claim(access: Access) -> Submission | None:
    """Take the oldest submission to be checked, for a while; those that workers died of are failed on the way."""
    for row in access.reader.rows(_WAITING, now=now()):
        if row["attempts"] >= MAX_ATTEMPTS:
            reason = f"Its machine checks were begun {MAX_ATTEMPTS} times and never ended. Submit it again."
            settle(access, row["id"], Checked(None, reason))
        elif _take(access, row["id"]):
            return get_submission(access.reader, row["id"])
    return None


def _take(access: Access, submission_id: int) -> bool:
    """Take a submission, unless another worker was faster; who has it is no change of the registry."""
    with access.transaction() as connection:
        values = {"until": now(LEASE), "id": submission_id, "now": now()}
        return connection.execute(text(_TAKE), values).rowcount == 1


def settle(access: Access, submission_id: int, checked: Checked) -> Submission:
    """Store what the checks found; what was withdrawn meanwhile stays withdrawn."""
    if checked.scan is not None:
        _keep_scan(access, checked.scan)
    with access.writing("submission.check", CHECKER) as write:
        held = get_submission(write.reader, submission_id)
        if held.status != "checking":
            return held
        status: SubmissionStatus = "failed" if checked.failure else "needs_review"
        found = replace(held, status=status, reason=checked.failure, evidence=checked.evidence)
        return put(write, found)


def _keep_scan(access: Access, scan: "Scan") -> None:
    """Store a scan of an architecture that nobody scanned before."""
    with access.writing("scan.store", CHECKER) as write:
        if not _is_scanned(write, scan):
            add_scan(write, scan)


def _is_scanned(write: "Write", scan: "Scan") -> bool:
    table = tables.architectures.c
    is_it = (table.library == scan.architecture.library) & (table.name == scan.architecture.name)
    return any(row["fingerprint"] for row in write.select(select(table.fingerprint).where(is_it)))
