"""Contribute to the local registry on behalf of one person."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar, Unpack

from typing_extensions import override

from ...backend import Backend
from ...domain.changes import Revision
from ...domain.identities import Actor, Token, TokenRole
from ...domain.submissions import Filters, ReviewDecision, Statement, Submission, SubmissionStatus
from ...errors import Conflict, NotAllowed, StaleVersion
from ...schema import from_json, to_json
from ..db.audit_log import architecture_subject, mapping_subject
from ..db.database import Database, Transaction
from ..mappings.history import get_revision
from ..store import set_yanked
from .idempotency import Key, find_replay, keep_replay
from .review import decide
from .submission_store import check_status, check_version, get_submission, update_submission
from .submissions import Submissions
from .tokens import Tokens

REVIEWABLE: tuple[SubmissionStatus, ...] = ("needs_review",)
WITHDRAWABLE: tuple[SubmissionStatus, ...] = ("checking", "needs_review", "failed")

Record = TypeVar("Record", Submission, Revision)


class LocalBackend(Backend):
    """The local registry as a place to contribute to; see ``Backend`` for its operations.

    Writes take an idempotency ``key``: a request repeated under its key is done once, and its first result returned
    again; ``KeyReused`` is raised if the key came with another request.

    Attributes:
        queue: Stored submissions, and the machine checks that wait.
    """

    def __init__(self, database: Database, actor: Actor) -> None:
        self._database = database
        self._actor = actor
        self._tokens = Tokens(database)
        self.queue = Submissions(database)

    @override
    def submit(self, statement: Statement, *, key: Key | None = None) -> Submission:
        return self.queue.add(statement, self._actor, key=key)

    @override
    def submission(self, submission_id: int) -> Submission:
        return self.queue.get(submission_id)

    @override
    def submissions(
        self, *, before: int | None = None, limit: int = 50, **filters: Unpack[Filters]
    ) -> tuple[Submission, ...]:
        return self.queue.list(before=before, limit=limit, **filters)

    @override
    def review(
        self,
        submission_id: int,
        decision: ReviewDecision,
        comment: str,
        *,
        version: int | None = None,
        key: Key | None = None,
    ) -> Submission:
        def review(write: Transaction) -> Submission:
            submission = get_submission(write.connection, submission_id)
            if not actor.may("reviewer"):
                message = f"{actor.name} is a {actor.role}: only a reviewer or an admin reviews submissions."
                raise NotAllowed(message, role=actor.role)
            if submission.submitter == actor.name:
                message = f"Submission {submission_id} is {actor.name}'s own: another person has to review it."
                raise NotAllowed(message, submission=submission_id, submitter=actor.name)
            check_version(submission, version)
            check_status(submission, REVIEWABLE, "be reviewed")
            return decide(write, submission, actor, decision, comment)

        actor = self._actor
        action = "submission.publish" if decision == "approve" else "submission.reject"
        return self._write_once(Submission, action, key, review)

    @override
    def withdraw(
        self, submission_id: int, reason: str, *, version: int | None = None, key: Key | None = None
    ) -> Submission:
        def withdraw(write: Transaction) -> Submission:
            submission = get_submission(write.connection, submission_id)
            if submission.submitter != self._actor.name and not self._actor.may("admin"):
                message = f"Submission {submission_id} is {submission.submitter}'s: only they or an admin withdraw it."
                raise NotAllowed(message, submission=submission_id, submitter=submission.submitter)
            check_version(submission, version)
            check_status(submission, WITHDRAWABLE, "be withdrawn")
            withdrawn = update_submission(write, replace(submission, status="withdrawn", reason=reason))
            write.log(reason=reason)
            return withdrawn

        return self._write_once(Submission, "submission.withdraw", key, withdraw)

    @override
    def yank(self, mapping_id: str, reason: str, *, version: int | None = None, key: Key | None = None) -> Revision:
        def yank(write: Transaction) -> Revision:
            revision = self._get_revision(write, mapping_id, version)
            if revision.yanked_at:
                given = str(revision.yank_reason).rstrip(".")
                message = f"Mapping {revision.mapping.id} was yanked at {revision.yanked_at}: {given}."
                raise Conflict(message, mapping=revision.mapping.id, reason=revision.yank_reason)
            return _set_yank_reason(write, revision, reason, reason)

        self._require_reviewer()
        return self._write_once(Revision, "mapping.yank", key, yank)

    @override
    def restore(self, mapping_id: str, reason: str, *, version: int | None = None, key: Key | None = None) -> Revision:
        def restore(write: Transaction) -> Revision:
            revision = self._get_revision(write, mapping_id, version)
            if not revision.yanked_at:
                message = f"Mapping {revision.mapping.id} is in use: only a yanked revision can be restored."
                raise Conflict(message, mapping=revision.mapping.id)
            return _set_yank_reason(write, revision, None, reason)

        self._require_reviewer()
        return self._write_once(Revision, "mapping.restore", key, restore)

    @override
    def create_token(self, name: str, role: TokenRole, expires_days: int | None = None) -> tuple[Token, str]:
        expires_in = None if expires_days is None else timedelta(days=expires_days)
        return self._tokens.create(name, role, self._actor, expires_in)

    @override
    def tokens(self) -> tuple[Token, ...]:
        return self._tokens.list()

    @override
    def revoke_token(self, token_id: int) -> Token:
        return self._tokens.revoke(token_id, self._actor)

    def _write_once(
        self, record: type[Record], action: str, key: Key | None, change: Callable[[Transaction], Record]
    ) -> Record:
        """Run a change in a transaction, or return its first result if it was run under this key."""
        with self._database.write(action, self._actor.name) as write:
            replay = find_replay(write, self._actor, key)
            if replay:
                return from_json(record, replay)
            changed = change(write)
            keep_replay(write, self._actor, key, to_json(changed))
        if isinstance(changed, Revision):  # read again: its history now has the change itself
            with self._database.read() as connection:
                return get_revision(connection, changed.mapping.id)
        return changed

    def _require_reviewer(self) -> None:
        if not self._actor.may("reviewer"):
            message = f"{self._actor.name} is a {self._actor.role}: only a reviewer or an admin yanks and restores."
            raise NotAllowed(message, role=self._actor.role)

    def _get_revision(self, write: Transaction, mapping_id: str, version: int | None) -> Revision:
        revision = get_revision(write.connection, mapping_id)
        if version is not None and version != revision.version:
            current = f"Mapping {revision.mapping.id} is at version {revision.version}, not {version}"
            message = f"{current}: read it again, then decide."
            raise StaleVersion(message, mapping=revision.mapping.id, version=revision.version, given=version)
        return revision


def _set_yank_reason(write: Transaction, revision: Revision, yank_reason: str | None, reason: str) -> Revision:
    mapping = revision.mapping
    set_yanked(write, mapping.id, yank_reason, revision.version + 1)
    write.log(mapping_subject(mapping.id), architecture_subject(mapping.library, mapping.name), reason=reason)
    return get_revision(write.connection, mapping.id)
