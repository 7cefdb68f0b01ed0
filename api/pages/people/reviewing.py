"""``/submissions``: submitted mappings, their checks and evidence, and the decisions of those who may make them."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from secrets import token_hex
from typing import Annotated

from fastapi import Path, Query
from starlette.responses import Response

from ....domain.submissions import OPEN_STATUSES, Filters, Origin, Submission, SubmissionStatus
from ....domain.vocabulary import Library
from ....errors import Conflict, InvalidRequest, LoradarError
from ....registry import Key, LocalBackend
from ...dependencies import LARGEST_NUMBER, NAME_LENGTH, NAME_PATTERN
from ...requests import ReasonRequest, ReviewRequest
from ..rendering import PageRouter, fresh_page
from .visitors import CheckedFields, Visit, Visiting, go_to, parse_fields

PAGE = 50
"""Submissions on a page."""

QUEUE = ("needs_review", "checking", "published", "rejected", "failed", "withdrawn")
"""The states to choose from, those with work to do first; ``approved`` is the moment before ``published``."""

router = PageRouter()

Number = Annotated[int, Path(ge=1, le=LARGEST_NUMBER)]


@router.page("/submissions", twin="/v1/submissions")
def list_submissions(  # noqa: PLR0913 - the query's fields
    visit: Visiting,
    *,
    status: SubmissionStatus | None = None,
    library: Library | None = None,
    name: Annotated[str | None, Query(max_length=NAME_LENGTH, pattern=NAME_PATTERN)] = None,
    submitter: Annotated[str | None, Query(max_length=64, pattern=r"^[a-z0-9._-]+$")] = None,
    origin: Origin | None = None,
    before: Annotated[int | None, Query(ge=1, le=LARGEST_NUMBER)] = None,
) -> Response:
    """Return a page of submissions, newest first, with the number in each state."""
    filters = Filters(status=status, library=library, name=name, submitter=submitter, origin=origin)
    registry = visit.registry
    found = registry.submissions.list(**filters, before=before, limit=PAGE + 1)
    return fresh_page(
        visit.request,
        "people/submissions.html",
        visitor=visit.visitor,
        submissions=found[:PAGE],
        filters=filters,
        states=QUEUE,
        counts=registry.submissions.count(),
        next=found[PAGE - 1].id if len(found) > PAGE else None,
    )


@router.page("/submissions/{submission_id}", twin="/v1/submissions/{submission_id}")
def show_submission(visit: Visiting, submission_id: Number) -> Response:
    """Return a submission with its checks, its difference from the served mapping, its discussion and decisions."""
    return _show(visit, visit.registry.submissions.get(submission_id))


def _show(
    visit: Visit,
    submission: Submission,
    problem: LoradarError | None = None,
    fields: Mapping[str, str] | None = None,
) -> Response:
    registry, actor = visit.registry, visit.visitor.actor
    revision = registry.get_revision(submission.mapping_id) if submission.mapping_id else None
    operations = registry.backend(actor).list_operations(submission, revision) if actor else frozenset()
    preview = None
    if submission.status in OPEN_STATUSES:  # decided by what is served now; later its evidence says what was
        with suppress(LoradarError):
            preview = registry.submissions.preview(submission.statement)
    return fresh_page(
        visit.request,
        "people/submission.html",
        status_code=HTTPStatus(problem.status) if problem else HTTPStatus.OK,
        visitor=visit.visitor,
        submission=submission,
        statement=submission.statement,
        evidence=submission.evidence,
        revision=revision,
        operations=operations,
        preview=preview,
        problem=problem.message if problem else None,
        fields=fields or {},
        key=token_hex(16),
    )


Act = Callable[[LocalBackend, Submission, int, Key | None], object]
"""Do an operation on a submission or its revision at a version of it, once for each key."""


def _act(visit: Visit, submission_id: int, fields: Mapping[str, str], act: Act) -> Response:
    """Do an operation on behalf of the visitor, and show the submission: with the problem, if there is one."""
    submissions = visit.registry.submissions
    submission = submissions.get(submission_id)
    try:
        act(visit.registry.backend(visit.actor), submission, _version_of(fields), visit.key_of(fields))
    except LoradarError as error:
        visit.note(error)
        return _show(visit, submissions.get(submission_id), error, fields)
    return go_to(visit.request, "/submissions", submission_id)


def _version_of(fields: Mapping[str, str]) -> int:
    given = fields.get("version", "")
    if not re.fullmatch("[1-9][0-9]{0,8}", given):
        message = "The form does not tell which version it decides on. Open it again, then decide."
        raise InvalidRequest(message, field="version")
    return int(given)


@router.post("/submissions/{submission_id}/review")
def review(visit: Visiting, submission_id: Number, fields: CheckedFields) -> Response:
    """Approve or reject a submission."""

    def act(backend: LocalBackend, submission: Submission, version: int, key: Key | None) -> None:
        body = parse_fields(ReviewRequest, fields, "decision", "comment")
        backend.review(submission.id, body.decision, body.comment, version=version, key=key)

    return _act(visit, submission_id, fields, act)


@router.post("/submissions/{submission_id}/withdrawal")
def withdraw(visit: Visiting, submission_id: Number, fields: CheckedFields) -> Response:
    """Withdraw a submission."""

    def act(backend: LocalBackend, submission: Submission, version: int, key: Key | None) -> None:
        backend.withdraw(submission.id, parse_fields(ReasonRequest, fields, "reason").reason, version=version, key=key)

    return _act(visit, submission_id, fields, act)


@router.post("/submissions/{submission_id}/yank")
def yank(visit: Visiting, submission_id: Number, fields: CheckedFields) -> Response:
    """Take the published revision out of use."""

    def act(backend: LocalBackend, submission: Submission, version: int, key: Key | None) -> None:
        reason = parse_fields(ReasonRequest, fields, "reason").reason
        backend.yank(_published(submission), reason, version=version, key=key)

    return _act(visit, submission_id, fields, act)


@router.post("/submissions/{submission_id}/restoration")
def restore(visit: Visiting, submission_id: Number, fields: CheckedFields) -> Response:
    """Take the published revision into use again."""

    def act(backend: LocalBackend, submission: Submission, version: int, key: Key | None) -> None:
        reason = parse_fields(ReasonRequest, fields, "reason").reason
        backend.restore(_published(submission), reason, version=version, key=key)

    return _act(visit, submission_id, fields, act)


def _published(submission: Submission) -> str:
    if submission.mapping_id is None:
        message = f"Submission {submission.id} is {submission.status}: only a published one has a revision."
        raise Conflict(message, submission=submission.id, status=submission.status)
    return submission.mapping_id
