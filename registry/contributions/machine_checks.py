"""Machine checks of submissions, one worker at a time for each: taken, then settled with what was found."""

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import or_, select, update

from ...domain.submissions import Checked, Submission, SubmissionStatus
from ..db import tables
from ..db.database import Database, Transaction
from ..db.encoding import now
from ..store import add_scan
from .submission_rows import get_submission
from .submission_writes import put

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from ...domain.scans import Scan

LEASE = timedelta(minutes=10)
"""How long a worker has a submission to itself: longer than any check may take."""

MAX_ATTEMPTS = 3
"""How many workers may die of one submission."""

CHECKER = "loradar"
"""Whom the log names for what the checks do."""

_submissions = tables.submissions


def claim(database: Database) -> Submission | None:
    """Take the oldest submission to be checked, for a while; those that workers died of are failed on the way."""
    columns = (_submissions.c.id, _submissions.c.attempts)
    with database.read() as connection:
        waiting = connection.execute(select(*columns).where(_is_free()).order_by(_submissions.c.id)).all()
    for submission_id, attempts in waiting:
        if attempts >= MAX_ATTEMPTS:
            reason = f"Its machine checks were begun {MAX_ATTEMPTS} times and never ended. Submit it again."
            settle(database, submission_id, Checked(None, reason))
        elif _take(database, submission_id):
            with database.read() as connection:
                return get_submission(connection, submission_id)
    return None


def _take(database: Database, submission_id: int) -> bool:
    """Take a submission, unless another worker was faster; who has it is no change of the registry."""
    take = update(_submissions).where(_submissions.c.id == submission_id, _is_free())
    with database.write_unlogged() as connection:
        values = {"claimed_until": now(LEASE), "attempts": _submissions.c.attempts + 1}
        return connection.execute(take.values(**values)).rowcount == 1


def _is_free() -> "ColumnElement[bool]":
    """Return the condition that a submission waits for a worker."""
    until = _submissions.c.claimed_until
    return (_submissions.c.status == "checking") & or_(until.is_(None), until <= now())


def settle(database: Database, submission_id: int, checked: Checked) -> Submission:
    """Store what the checks found; what was withdrawn meanwhile stays withdrawn."""
    if checked.scan is not None:
        _keep_scan(database, checked.scan)
    with database.write("submission.check", CHECKER) as write:
        held = get_submission(write.connection, submission_id)
        if held.status != "checking":
            return held
        status: SubmissionStatus = "failed" if checked.failure else "needs_review"
        found = replace(held, status=status, reason=checked.failure, evidence=checked.evidence)
        return put(write, found)


def _keep_scan(database: Database, scan: "Scan") -> None:
    """Store a scan of an architecture that nobody scanned before."""
    with database.write("scan.store", CHECKER) as write:
        if not _is_scanned(write, scan):
            add_scan(write, scan)


def _is_scanned(write: Transaction, scan: "Scan") -> bool:
    table = tables.architectures.c
    is_it = (table.library == scan.architecture.library) & (table.name == scan.architecture.name)
    return any(row["fingerprint"] for row in write.select(select(table.fingerprint).where(is_it)))
