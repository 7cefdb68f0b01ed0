"""Contribute to the local registry on behalf of one person; each write once, however often its request is repeated."""

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, Self, TypeVar, Unpack

from sqlalchemy import delete, insert, select
from typing_extensions import override

from ...backend import Backend
from ...domain.changes import Revision
from ...domain.identities import Actor, Token, TokenRole
from ...domain.submissions import Filters, ReviewDecision, Statement, Submission, SubmissionStatus
from ...errors import Conflict, KeyReused, NotAllowed, StaleVersion, quoted
from ...schema import canonical, from_json, to_json
from ..db import tables
from ..db.audit_log import architecture_subject, mapping_subject
from ..db.database import Database, Transaction
from ..db.encoding import digest_of, now
from ..mappings.history import get_revision
from ..store import set_yanked
from .review import decide
from .submissions import Submissions, add_submission, get_submission, update_submission
from .tokens import Tokens

REVIEWABLE: tuple[SubmissionStatus, ...] = ("needs_review",)
WITHDRAWABLE: tuple[SubmissionStatus, ...] = ("checking", "needs_review", "failed")

Operation = Literal["review", "withdraw", "yank", "restore"]

KEPT = timedelta(hours=24)
"""Time an idempotency key is kept."""

Record = TypeVar("Record", Submission, Revision)

_keys = tables.idempotency_keys


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key, and the digest of the request it came with.

    Attributes:
        key: The client's text; every person has keys of their own.
        request: Digest of the request: another request must not reuse the key.
    """

    key: str
    request: str

    @classmethod
    def of(cls, key: str, request: Any) -> Self:
        """Return the key of a request, given as any JSON value."""
        return cls(key, digest_of(request))


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
        return self._write_once(
            Submission, "submission.add", key, lambda write: add_submission(write, statement, self._actor)
        )

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
            self._check_review(submission, version)
            return decide(write, submission, self._actor, decision, comment)

        action = "submission.publish" if decision == "approve" else "submission.reject"
        return self._write_once(Submission, action, key, review)

    @override
    def withdraw(
        self, submission_id: int, reason: str, *, version: int | None = None, key: Key | None = None
    ) -> Submission:
        def withdraw(write: Transaction) -> Submission:
            submission = get_submission(write.connection, submission_id)
            self._check_withdrawal(submission, version)
            withdrawn = update_submission(write, replace(submission, status="withdrawn", reason=reason))
            write.log(reason=reason)
            return withdrawn

        return self._write_once(Submission, "submission.withdraw", key, withdraw)

    @override
    def yank(self, mapping_id: str, reason: str, *, version: int | None = None, key: Key | None = None) -> Revision:
        return self._change_use(mapping_id, reason, version, key, is_yank=True)

    @override
    def restore(self, mapping_id: str, reason: str, *, version: int | None = None, key: Key | None = None) -> Revision:
        return self._change_use(mapping_id, reason, version, key, is_yank=False)

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

    def list_operations(self, submission: Submission, revision: Revision | None = None) -> frozenset[Operation]:
        """Return the operations on a submission and its published revision that the person may do as they are now."""
        checks: dict[Operation, Callable[[], None]] = {
            "review": lambda: self._check_review(submission),
            "withdraw": lambda: self._check_withdrawal(submission),
        }
        if revision is not None:
            checks["restore" if revision.yanked_at else "yank"] = self._check_reviewer
        allowed: set[Operation] = set()
        for operation, check in checks.items():
            with suppress(NotAllowed, Conflict):
                check()
                allowed.add(operation)
        return frozenset(allowed)

    def _check_review(self, submission: Submission, version: int | None = None) -> None:
        actor = self._actor
        if not actor.may("reviewer"):
            message = f"{actor.name} is a {actor.role}: only a reviewer or an admin reviews submissions."
            raise NotAllowed(message, role=actor.role)
        if submission.submitter == actor.name:
            message = f"Submission {submission.id} is {actor.name}'s own: another person has to review it."
            raise NotAllowed(message, submission=submission.id, submitter=actor.name)
        _check_state(submission, version, REVIEWABLE, "be reviewed")

    def _check_withdrawal(self, submission: Submission, version: int | None = None) -> None:
        if submission.submitter != self._actor.name and not self._actor.may("admin"):
            message = f"Submission {submission.id} is {submission.submitter}'s: only they or an admin withdraw it."
            raise NotAllowed(message, submission=submission.id, submitter=submission.submitter)
        _check_state(submission, version, WITHDRAWABLE, "be withdrawn")

    def _check_reviewer(self) -> None:
        if not self._actor.may("reviewer"):
            message = f"{self._actor.name} is a {self._actor.role}: only a reviewer or an admin yanks and restores."
            raise NotAllowed(message, role=self._actor.role)

    def _change_use(
        self, mapping_id: str, reason: str, version: int | None, key: Key | None, *, is_yank: bool
    ) -> Revision:
        """Take a revision out of use, or into use again."""
        self._check_reviewer()

        def change(write: Transaction) -> Revision:
            revision = get_revision(write.connection, mapping_id)
            mapping = revision.mapping
            _check_version(f"Mapping {mapping.id}", revision.version, version, mapping=mapping.id)
            if is_yank and revision.yanked_at:
                given = str(revision.yank_reason).rstrip(".")
                message = f"Mapping {mapping.id} was yanked at {revision.yanked_at}: {given}."
                raise Conflict(message, mapping=mapping.id, reason=revision.yank_reason)
            if not is_yank and not revision.yanked_at:
                message = f"Mapping {mapping.id} is in use: only a yanked revision can be restored."
                raise Conflict(message, mapping=mapping.id)
            set_yanked(write, mapping.id, reason if is_yank else None, revision.version + 1)
            write.log(mapping_subject(mapping.id), architecture_subject(mapping.library, mapping.name), reason=reason)
            return get_revision(write.connection, mapping.id)

        return self._write_once(Revision, "mapping.yank" if is_yank else "mapping.restore", key, change)

    def _write_once(
        self, record: type[Record], action: str, key: Key | None, change: Callable[[Transaction], Record]
    ) -> Record:
        """Run a change in a transaction, or return its first result if it was run under this key.

        Raises:
            KeyReused: If the key came with another request.
        """
        with self._database.write(action, self._actor.name) as write:
            replay = key and _find_replay(write, self._actor, key)
            if replay:
                return from_json(record, replay)
            changed = change(write)
            if key:  # keep the result, and delete expired ones
                write.change(delete(_keys).where(_keys.c.created_at <= now(-KEPT)))
                values = {"request": key.request, "answer": canonical(to_json(changed)), "created_at": now()}
                write.change(insert(_keys).values(actor=self._actor.name, key=key.key, **values))
        if isinstance(changed, Revision):  # read again: its history now has the change itself
            with self._database.read() as connection:
                return get_revision(connection, changed.mapping.id)
        return changed


def _find_replay(write: Transaction, actor: Actor, key: Key) -> dict[str, Any] | None:
    """Return the result of the first request under a key, or ``None``."""
    query = select(_keys.c.request, _keys.c.answer).where(_keys.c.actor == actor.name, _keys.c.key == key.key)
    row = write.connection.execute(query.where(_keys.c.created_at > now(-KEPT))).first()
    if row is None:
        return None
    if row.request != key.request:
        message = f"Idempotency key {key.key!r} came with another request before: use a new key for a new request."
        raise KeyReused(message, key=key.key)
    answer: dict[str, Any] = json.loads(row.answer)
    return answer


def _check_state(
    submission: Submission, version: int | None, allowed: Collection[SubmissionStatus], operation: str
) -> None:
    """Check that a submission has the version a decision is based on, and a status that allows it."""
    _check_version(f"Submission {submission.id}", submission.version, version, submission=submission.id)
    if submission.status not in allowed:
        allowing = f"only one that is {quoted(allowed)} can {operation}"
        message = f"Submission {submission.id} is {submission.status}: {allowing}."
        raise Conflict(message, submission=submission.id, status=submission.status)


def _check_version(subject: str, version: int, given: int | None, **details: Any) -> None:
    if given is not None and given != version:
        message = f"{subject} is at version {version}, not {given}: read it again, then decide."
        raise StaleVersion(message, **details, version=version, given=given)
