"""Store submissions and queue their machine checks: one row each with its reviews, every change one version more."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from threading import Event, Thread
from typing import Any, Unpack

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select, update

from ...domain.identities import Actor
from ...domain.mappings import Mapping
from ...domain.submissions import (
    OPEN_STATUSES,
    Checked,
    Filters,
    Origin,
    Statement,
    StatementPreview,
    Submission,
    SubmissionStatus,
)
from ...errors import Conflict, DatabaseUnusable, InvalidReference, TooManyRequests, UnknownSubmission
from ...schema import canonical, from_json, to_json
from ..db import tables
from ..db.audit_log import architecture_subject, submission_subject
from ..db.database import Database, Transaction
from ..db.encoding import MappingKey, digest_of, now
from ..mappings.listing import list_references
from ..mappings.resolve import find_mapping, list_answering
from ..mappings.stored_names import list_slots
from ..store import add_scan
from .preview import preview

LEASE = timedelta(seconds=15)
"""Time a process has a claimed submission to itself, unless it renews the claim: a killed one does not."""

RENEW_SECONDS = 3.0
"""Interval of renewals: a busy machine may miss a few."""

_SKEW = timedelta(seconds=10)
"""Difference of the clocks of two machines that share a database."""

MAX_ATTEMPTS = 3
"""Workers that may die while checking one submission."""

CHECKER = "loradar"
"""Actor of the checks in the audit log."""

MAX_OPEN = 100
"""Open submissions of one person."""

DAY = timedelta(days=1)
MAX_A_DAY = 500
"""Submissions of one person within a day: each is kept for good, and may hold a long list of layers."""

RETRY_SECONDS = 3600

_submissions, _reviews = tables.submissions.c, tables.reviews.c
_IS_OPEN = _submissions.status.in_(OPEN_STATUSES)

_UNREAD = ("library", "name", "peft_type", "preset", "digest", "claimed_until", "attempts")
_WHOLE = tuple(column for column in _submissions if column.name not in _UNREAD)
_SHORT = tuple(column for column in _WHOLE if column.name not in {"layers", "evidence"})
"""The columns of a list of submissions: without those that may be long."""

_CHANGING = ("submitter", "origin", "status", "reason", "mapping_id", "version", "updated_at")


class Submissions:
    """The submissions of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, statement: Statement, submitter: Actor, *, origin: Origin = "contributor") -> Submission:
        """Store a statement as a submission that waits for its machine checks; see ``Backend.submit``.

        Args:
            statement: A statement validated by ``validation/statements.py``.
            submitter: Its author.
            origin: ``drift`` for one that loradar opens.

        Raises:
            LoradarError: As ``add_submission``.
        """
        with self._database.write("submission.add", submitter.name) as write:
            return add_submission(write, statement, submitter, origin)

    def get(self, submission_id: int) -> Submission:
        """Return a submission.

        Raises:
            UnknownSubmission: If no submission has this number.
        """
        with self._database.read() as connection:
            return get_submission(connection, submission_id)

    def list(self, *, before: int | None = None, limit: int = 50, **filters: Unpack[Filters]) -> tuple[Submission, ...]:
        """Return submissions, newest first, without evidence and layers; see ``Backend.submissions``."""
        conditions = [_submissions[name] == value for name, value in filters.items() if value is not None]
        conditions += [] if before is None else [_submissions.id < before]
        query = select(*_SHORT).where(*conditions).order_by(_submissions.id.desc()).limit(limit)
        with self._database.read() as connection:
            return _read(connection, query)

    def count(self) -> dict[str, int]:
        """Return the number of submissions by status, without zeros."""
        status = _submissions.status
        with self._database.read() as connection:
            return dict(connection.execute(select(status, func.count()).group_by(status).order_by(status)).all())

    def find_same(self, statement: Statement) -> Submission | None:
        """Return the newest submission of an equal statement, in any state, or ``None``."""
        with self._database.read() as connection:
            equal = _find(connection, _submissions.digest == _digest(statement))
        return equal[0] if equal else None

    def registered(self, statement: Statement) -> tuple[Mapping, ...]:
        """Return the registered mappings that a statement competes with, by precedence."""
        key = MappingKey(statement.library, statement.name, statement.peft_type, statement.preset)
        with self._database.read() as connection:
            return list_answering(connection, key)

    def preview(self, statement: Statement) -> StatementPreview:
        """Return the effect of a statement on the layers on record, or on those that it lists; nothing is stored.

        Raises:
            InvalidStatement: If RE2 rejects a regex.
            MissingExtra: If there is a regex, and google-re2 is not installed.
        """
        key = MappingKey(statement.library, statement.name, statement.peft_type, statement.preset)
        with self._database.read() as connection:
            slots = list_slots(connection, statement.library, statement.name)
            served = find_mapping(connection, key, None)
            known = () if slots or statement.layers else list_references(connection)
        previewed = preview(statement, slots, served)
        if not known:
            return previewed
        from ...references.resolver import resolve  # noqa: PLC0415 - 10 ms, which a known name does without

        with suppress(InvalidReference):  # its name is like none
            candidates = resolve(statement.name, statement.library, frozenset(known))
            previewed = replace(previewed, near=tuple(one.reference for one in candidates))
        return previewed

    def claim(self) -> Submission | None:
        """Claim the oldest submission that waits for its checks, for ``LEASE``; ``None`` if there is none.

        A submission whose checks were begun ``MAX_ATTEMPTS`` times without a result fails.
        """
        if self._database.is_read_only:
            return None
        query = select(_submissions.id, _submissions.attempts).where(_waits_for_worker()).order_by(_submissions.id)
        with self._database.read() as connection:
            waiting = connection.execute(query).all()
        for submission_id, attempts in waiting:
            if attempts >= MAX_ATTEMPTS:
                reason = f"Its machine checks were begun {MAX_ATTEMPTS} times without a result: submit it again."
                self.record_check(submission_id, Checked(None, reason))
                continue
            # The condition is repeated in the update, so that of two workers only one gets it.
            claim = update(tables.submissions).where(_submissions.id == submission_id, _waits_for_worker())
            values = {"claimed_until": now(LEASE), "attempts": _submissions.attempts + 1}
            with self._database.write_unlogged() as connection:
                is_ours = connection.execute(claim.values(**values)).rowcount == 1
            if is_ours:
                return self.get(submission_id)
        return None

    @contextmanager
    def keep(self, claimed: Submission) -> Iterator[None]:
        """Renew the claim on a submission until its check ends; the claims of a process that is killed expire soon."""
        is_over = Event()

        def renew() -> None:
            is_ours = (_submissions.id == claimed.id) & (_submissions.status == "checking")
            while not is_over.wait(RENEW_SECONDS):
                # If the database is away or busy, the next renewal may come in time.
                with suppress(DatabaseUnusable), self._database.write_unlogged() as connection:
                    connection.execute(update(tables.submissions).where(is_ours).values(claimed_until=now(LEASE)))

        thread = Thread(target=renew, name="loradar-claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def release(self, claimed: Submission) -> None:
        """Give back a claim without a result, so that the next process takes it at once."""
        is_ours = (_submissions.id == claimed.id) & (_submissions.status == "checking")
        values = {"claimed_until": None, "attempts": _submissions.attempts - 1}
        with self._database.write_unlogged() as connection:
            connection.execute(update(tables.submissions).where(is_ours).values(**values))

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
    # One that ends later than a lease made now was made before the clock was set back.
    until = _submissions.claimed_until
    return (_submissions.status == "checking") & or_(until.is_(None), until <= now(), until > now(LEASE + _SKEW))


def get_submission(connection: Connection, submission_id: int) -> Submission:
    """Return a submission.

    Raises:
        UnknownSubmission: If no submission has this number.
    """
    matches = _find(connection, _submissions.id == submission_id)
    if not matches:
        raise UnknownSubmission(str(submission_id), (), "List them with: loradar submissions")
    return matches[0]


def _find(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[Submission, ...]:
    """Return the submissions that meet the conditions, newest first."""
    return _read(connection, select(*_WHOLE).where(*conditions).order_by(_submissions.id.desc()))


def _read(connection: Connection, query: Select[Any]) -> tuple[Submission, ...]:
    """Return the submissions that a query selects, with their reviews."""
    rows = connection.execute(query).mappings().all()
    reviews: dict[int, list[dict[str, Any]]] = defaultdict(list)
    is_of_rows = _reviews.submission_id.in_([row["id"] for row in rows])
    found = connection.execute(select(tables.reviews).where(is_of_rows).order_by(_reviews.id)) if rows else None
    for review in found.mappings() if found else ():
        reviews[review["submission_id"]].append(dict(review))

    def parse(text: str | None) -> Any:
        return json.loads(text) if text else None

    return tuple(
        from_json(
            Submission,
            {
                **row,
                "statement": {**parse(row["statement"]), "layers": parse(row.get("layers"))},
                "evidence": parse(row.get("evidence")),
                "reviews": reviews[row["id"]],
            },
        )
        for row in rows
    )


def _digest(statement: Statement) -> str:
    """Return the digest of a statement without its rationale."""
    return digest_of({name: value for name, value in to_json(statement).items() if name != "rationale"})


def add_submission(
    write: Transaction, statement: Statement, submitter: Actor, origin: Origin = "contributor"
) -> Submission:
    """Insert a submission.

    Raises:
        Conflict: If an equal one is open, or the submitter has too many open ones.
        TooManyRequests: If the submitter made too many within a day.
    """
    digest = _digest(statement)
    equal = _find(write.connection, _submissions.digest == digest, _IS_OPEN)
    if equal:
        message = f"Submission {equal[0].id} is equal and open ({equal[0].status}): wait for its review."
        raise Conflict(message, submission=equal[0].id, status=equal[0].status)
    count = select(func.count()).where(_submissions.submitter == submitter.name)
    if write.connection.execute(count.where(_IS_OPEN)).scalar_one() >= MAX_OPEN:
        message = f"{submitter.name} has {MAX_OPEN} open submissions: wait for reviews, or withdraw some."
        raise Conflict(message, open=MAX_OPEN)
    if write.connection.execute(count.where(_submissions.created_at > now(-DAY))).scalar_one() >= MAX_A_DAY:
        message = f"{submitter.name} made {MAX_A_DAY} submissions within a day, withdrawn ones too: try again later."
        raise TooManyRequests(message, retry_after=RETRY_SECONDS, limit=MAX_A_DAY)
    at = now()
    submission = Submission(
        id=0,
        status="checking",
        submitter=submitter.name,
        origin=origin,
        statement=statement,
        created_at=at,
        updated_at=at,
    )
    stated = to_json(statement)
    layers = stated.pop("layers")
    values = {name: stated[name] for name in ("library", "name", "peft_type", "preset")}
    values |= {"statement": canonical(stated), "layers": canonical(layers) if layers else None, "digest": digest}
    number = write.insert(tables.submissions, **values, **_columns(submission), created_at=at)
    submission = replace(submission, id=number)
    _log(write, submission)
    return submission


def update_submission(write: Transaction, changed: Submission) -> Submission:
    """Store a changed submission as its next version."""
    stored = replace(changed, version=changed.version + 1, updated_at=now())
    write.change(update(tables.submissions).where(_submissions.id == stored.id).values(**_columns(stored)))
    _log(write, stored)
    return stored


def _log(write: Transaction, submission: Submission) -> None:
    """Name the submission and its architecture in the audit log."""
    statement = submission.statement
    write.log(
        submission_subject(submission.id),
        architecture_subject(statement.library, statement.name),
        status=submission.status,
        peft_type=statement.peft_type,
        preset=statement.preset,
    )


def _columns(submission: Submission) -> dict[str, Any]:
    """Return the columns of a submission that may change."""
    evidence = canonical(to_json(submission.evidence)) if submission.evidence else None
    return {name: getattr(submission, name) for name in _CHANGING} | {"evidence": evidence}
