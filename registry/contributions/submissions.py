"""Queue submissions: stored statements, their machine checks by one worker at a time, and their results."""

from dataclasses import replace
from datetime import timedelta
from typing import Unpack

from sqlalchemy import ColumnElement, or_, select, update

from ...domain.identities import Actor
from ...domain.mappings import Mapping
from ...domain.submissions import Checked, Filters, Origin, Statement, Submission, SubmissionStatus
from ...schema import from_json, to_json
from ..db import tables
from ..db.database import Database
from ..db.encoding import MappingKey, now
from ..mappings.resolve import list_answering
from ..store import add_scan
from .idempotency import Key, find_replay, keep_replay
from .submission_store import (
    add_submission,
    find_submissions,
    get_submission,
    list_submissions,
    statement_digest,
    update_submission,
)

LEASE = timedelta(minutes=10)
"""Time a worker has a claimed submission to itself: longer than any check may take."""

MAX_ATTEMPTS = 3
"""Workers that may die while checking one submission."""

CHECKER = "loradar"
"""Actor of the checks in the audit log."""

_submissions = tables.submissions


class Submissions:
    """The submissions of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, statement: Statement, submitter: Actor, *, origin: Origin = "contributor", key: Key | None = None
    ) -> Submission:
        """Store a statement as a submission that waits for its machine checks; see ``Backend.submit``.

        Args:
            statement: A statement validated by ``validation/statements.py``.
            submitter: Its author.
            origin: ``drift`` for one that loradar opens.
            key: Idempotency key.

        Raises:
            Conflict: If an equal one is open, or the submitter has too many open ones.
            KeyReused: If the key came with another request.
        """
        with self._database.write("submission.add", submitter.name) as write:
            replay = find_replay(write, submitter, key)
            if replay:
                return from_json(Submission, replay)
            submission = add_submission(write, statement, submitter, origin)
            keep_replay(write, submitter, key, to_json(submission))
            return submission

    def get(self, submission_id: int) -> Submission:
        """Return a submission.

        Raises:
            UnknownSubmission: If no submission has this number.
        """
        with self._database.read() as connection:
            return get_submission(connection, submission_id)

    def list(self, *, before: int | None = None, limit: int = 50, **filters: Unpack[Filters]) -> tuple[Submission, ...]:
        """Return submissions, newest first, without evidence and layers; see ``Backend.submissions``."""
        columns = {name: None if value is None else str(value) for name, value in filters.items()}
        with self._database.read() as connection:
            return list_submissions(connection, columns, before, limit)

    def find_same(self, statement: Statement) -> Submission | None:
        """Return the newest submission of an equal statement, in any state, or ``None``."""
        with self._database.read() as connection:
            equal = find_submissions(connection, _submissions.c.digest == statement_digest(statement))
        return equal[0] if equal else None

    def registered(self, statement: Statement) -> tuple[Mapping, ...]:
        """Return the registered mappings that a statement competes with, by precedence."""
        key = MappingKey(statement.library, statement.name, statement.peft_type, statement.preset)
        with self._database.read() as connection:
            return list_answering(connection, key)

    def claim(self) -> Submission | None:
        """Claim the oldest submission that waits for its checks, for ``LEASE``; ``None`` if there is none.

        A submission whose checks were begun ``MAX_ATTEMPTS`` times without a result fails.
        """
        columns = (_submissions.c.id, _submissions.c.attempts)
        query = select(*columns).where(_waits_for_worker()).order_by(_submissions.c.id)
        with self._database.read() as connection:
            waiting = connection.execute(query).all()
        for submission_id, attempts in waiting:
            if attempts >= MAX_ATTEMPTS:
                reason = f"Its machine checks were begun {MAX_ATTEMPTS} times without a result: submit it again."
                self.record_check(submission_id, Checked(None, reason))
                continue
            # The condition is repeated in the update, so that of two workers only one gets it.
            claim = update(_submissions).where(_submissions.c.id == submission_id, _waits_for_worker())
            values = {"claimed_until": now(LEASE), "attempts": _submissions.c.attempts + 1}
            with self._database.write_unlogged() as connection:
                is_ours = connection.execute(claim.values(**values)).rowcount == 1
            if is_ours:
                return self.get(submission_id)
        return None

    def record_check(self, submission_id: int, checked: Checked) -> Submission:
        """Store the result of machine checks, and their scan if the architecture was not scanned before.

        A submission withdrawn meanwhile stays withdrawn.

        Raises:
            UnknownSubmission: If no submission has this number.
        """
        if checked.scan is not None:
            architecture, table = checked.scan.architecture, tables.architectures.c
            is_same = (table.library == architecture.library) & (table.name == architecture.name)
            with self._database.write("scan.store", CHECKER) as write:
                stored = write.select(select(table.fingerprint).where(is_same))
                if not any(row["fingerprint"] for row in stored):
                    add_scan(write, checked.scan)
        with self._database.write("submission.check", CHECKER) as write:
            submission = get_submission(write.connection, submission_id)
            if submission.status != "checking":
                return submission
            status: SubmissionStatus = "failed" if checked.failure else "needs_review"
            result = replace(submission, status=status, reason=checked.failure, evidence=checked.evidence)
            return update_submission(write, result)


def _waits_for_worker() -> ColumnElement[bool]:
    until = _submissions.c.claimed_until
    return (_submissions.c.status == "checking") & or_(until.is_(None), until <= now())
