"""Submissions: what people state, on its way from the machine checks over a review into the registry."""

from dataclasses import replace

from ...domain.identities import Actor
from ...domain.mappings import Mapping
from ...domain.schema import from_json, to_json
from ...domain.submissions import Checked, Origin, ReviewDecision, Statement, Submission, SubmissionStatus
from ...errors import NotAllowed
from ..db import tables
from ..db.database import Database
from ..db.encoding import MappingKey
from ..mappings.resolve import list_answering
from . import machine_checks
from .idempotency import Key, find_answer, keep_answer
from .review import Ruling, review
from .submission_rows import find_submissions, get_submission, list_submissions, statement_digest
from .submission_writes import add_submission, check_status, check_version, put


class Submissions:
    """The submissions of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, statement: Statement, by: Actor, *, origin: Origin = "contributor", key: Key | None = None
    ) -> Submission:
        """Take a statement in; it is ``checking`` until the machine checks are through.

        Args:
            statement: Validated, as ``core.statements`` does.
            by: Who states it.
            origin: ``drift`` if loradar does.
            key: Sent twice, it is taken in once.

        Raises:
            Conflict: If the same is open already, or too much of one person's.
            KeyReused: If the key came with another request.
        """
        with self._database.write("submission.add", by.name) as write:
            known = find_answer(write, by, key)
            if known:
                return from_json(Submission, known)
            made = add_submission(write, statement, by, origin)
            keep_answer(write, by, key, to_json(made))
            return made

    def get(self, submission_id: int) -> Submission:
        """Return one submission.

        Raises:
            UnknownSubmission: If there is none of this number.
        """
        with self._database.read() as connection:
            return get_submission(connection, submission_id)

    def list(  # noqa: PLR0913 - what can be asked for
        self,
        *,
        status: SubmissionStatus | None = None,
        library: str | None = None,
        name: str | None = None,
        submitter: str | None = None,
        origin: Origin | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> tuple[Submission, ...]:
        """Return submissions, newest first, without their evidence and lists of layers, which may be long.

        Args:
            status: Only those in this state.
            library: Only those for its architectures.
            name: Only those for architectures of this name.
            submitter: Only this person's.
            origin: Only those of people, or those that loradar opened.
            before: Only those with a lower number.
            limit: At most so many.
        """
        asked = {"status": status, "library": library, "name": name, "submitter": submitter, "origin": origin}
        with self._database.read() as connection:
            return list_submissions(connection, asked, before, limit)

    def find_same(self, statement: Statement) -> Submission | None:
        """Return the newest submission that says the same, whatever became of it, or ``None``."""
        is_same = tables.submissions.c.digest == statement_digest(statement)
        with self._database.read() as connection:
            found = find_submissions(connection, is_same)
        return found[0] if found else None

    def registered(self, statement: Statement) -> tuple[Mapping, ...]:
        """Return what is on record for the question a statement answers, the first by precedence first."""
        asked = MappingKey(statement.library, statement.name, statement.peft_type, statement.preset)
        with self._database.read() as connection:
            return list_answering(connection, asked)

    def withdraw(
        self, submission_id: int, by: Actor, reason: str, *, version: int | None = None, key: Key | None = None
    ) -> Submission:
        """Take a submission back before it is decided.

        Args:
            submission_id: Its number.
            by: Its submitter, or an admin.
            reason: Why.
            version: The one the decision rests on.
            key: Sent twice, it is done once.

        Raises:
            UnknownSubmission: If there is none of this number.
            NotAllowed: If it is somebody else's.
            Conflict: If it is decided already.
            StaleVersion: If it changed since.
            KeyReused: If the key came with another request.
        """
        with self._database.write("submission.withdraw", by.name) as write:
            known = find_answer(write, by, key)
            if known:
                return from_json(Submission, known)
            held = get_submission(write.connection, submission_id)
            if held.submitter != by.name and not by.may("admin"):
                message = f"Submission {submission_id} is {held.submitter}'s. Only they or an admin may withdraw it."
                raise NotAllowed(message, submission=submission_id, submitter=held.submitter)
            check_version(held, version)
            check_status(held, ("checking", "needs_review", "failed"), "be withdrawn")
            done = put(write, replace(held, status="withdrawn", reason=reason))
            write.log(reason=reason)
            keep_answer(write, by, key, to_json(done))
            return done

    def claim(self) -> Submission | None:
        """Take the oldest submission to be checked for oneself, for a while; ``None`` if there is none.

        One that several workers died of is ``failed``.
        """
        return machine_checks.claim(self._database)

    def settle(self, submission_id: int, checked: Checked) -> Submission:
        """Store what the machine checks found; a scan too, if nobody scanned the architecture before.

        Raises:
            UnknownSubmission: If there is none of this number.
        """
        return machine_checks.settle(self._database, submission_id, checked)

    def review(  # noqa: PLR0913 - a decision, and what it rests on
        self,
        submission_id: int,
        by: Actor,
        decision: ReviewDecision,
        comment: str,
        *,
        version: int | None = None,
        key: Key | None = None,
    ) -> Submission:
        """Decide on a submission; approved, it is published as the next revision of source ``community``.

        Args:
            submission_id: Its number.
            by: A reviewer who did not submit it.
            decision: ``approve`` or ``reject``.
            comment: Why.
            version: The one the decision rests on.
            key: Sent twice, it is done once.

        Raises:
            UnknownSubmission: If there is none of this number.
            NotAllowed: If ``by`` is no reviewer, or submitted it.
            Conflict: If it is not waiting for a review, or the registry says the same already.
            StaleVersion: If it changed since.
            KeyReused: If the key came with another request.
        """
        return review(self._database, submission_id, Ruling(by, decision, comment), version, key)
