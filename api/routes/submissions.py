"""``/v1/submissions``: submit mappings, review and withdraw them."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from ...domain.identities import Actor
from ...domain.submissions import (
    CHECKING_EXAMPLE,
    SUBMISSION_EXAMPLE,
    Filters,
    Origin,
    Statement,
    StatementPreview,
    Submission,
    SubmissionPage,
    SubmissionStatus,
)
from ...domain.vocabulary import Library
from ...registry import Key, Registry
from ...sandbox.tasks import precheck
from ...schema import to_json
from ..dependencies import (
    LARGEST_NUMBER,
    NAME_LENGTH,
    NAME_PATTERN,
    TAGGED,
    Contributor,
    OpenRegistry,
    Reviewer,
    Version,
    WriteKey,
    tagged,
    version_tag,
    versioned,
)
from ..errors import NOT_FOUND, WRITES, error_responses
from ..requests import ReasonRequest, ReviewRequest, StrictRoute, SubmissionRequest

router = APIRouter(prefix="/v1/submissions", tags=["submissions"], route_class=StrictRoute)

MAX_PAGE = 100

Number = Annotated[int, Path(ge=1, le=LARGEST_NUMBER, description="Number of the submission", examples=[7])]

_ID = {"submission_id": "$response.body#/id"}
_LINKS = {
    "get": {"operationId": "get_submission", "parameters": _ID},
    "review": {"operationId": "review_submission", "parameters": _ID},
    "withdraw": {"operationId": "withdraw_submission", "parameters": _ID},
}
_ETAG_EXAMPLE = {"content": {"application/json": {"example": to_json(SUBMISSION_EXAMPLE)}}}


def _documented(description: str) -> dict[str, Any]:
    return {"model": Submission, "description": description, "links": _LINKS, **TAGGED}


def submit(request: Request, registry: Registry, by: Actor, statement: Statement, key: Key | None) -> Submission:
    """Submit a statement on behalf of a person, and have it checked.

    Raises:
        LoradarError: As ``precheck`` and ``Backend.submit``.
    """
    if request.app.state.workers.missing is None:  # else a process that has the extra checks it
        precheck(statement)
    submission = registry.backend(by).submit(statement, key=key)
    request.app.state.checker.wake()
    return submission


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    summary="Submit a mapping",
    responses={
        202: _documented("The submission, being checked; `Location` is its path")
        | {"content": {"application/json": {"example": to_json(CHECKING_EXAMPLE)}}},
        **WRITES,
        **error_responses(409),
    },
)
def add_submission(
    request: Request, registry: OpenRegistry, by: Contributor, key: WriteKey, body: SubmissionRequest
) -> JSONResponse:
    """Submit a mapping: machine checks run first, then another person reviews it. For contributors.

    A regex is matched against the known layers in linear time and never published: the published targets are generated
    from the layers it matches.
    """
    submission = submit(request, registry, by, body.to_statement(), key)
    root = request.scope.get("root_path", "")
    return versioned(submission, HTTPStatus.ACCEPTED, Location=f"{root}/v1/submissions/{submission.id}")


@router.post(
    ":preview",
    summary="Preview a submission",
    response_model=StatementPreview,
    responses=error_responses(413, 415, 501),
)
def preview_submission(registry: OpenRegistry, body: SubmissionRequest) -> JSONResponse:
    """Return the layers that each name of a statement matches, as the registry has them; nothing is stored or scanned.

    A statement that lists its layers is compared with these where the registry has none.
    """
    return JSONResponse(to_json(registry.submissions.preview(body.to_statement())))


@router.get(
    "",
    summary="List submissions",
    responses={200: {"model": SubmissionPage, "description": "A page, newest first"}},
)
def list_submissions(  # noqa: PLR0913 - the query's fields
    registry: OpenRegistry,
    *,
    status: Annotated[SubmissionStatus | None, Query(description="Only those in this state")] = None,
    library: Annotated[Library | None, Query(description="Only those for its architectures")] = None,
    name: Annotated[
        str | None,
        Query(max_length=NAME_LENGTH, pattern=NAME_PATTERN, description="Only those for this architecture"),
    ] = None,
    submitter: Annotated[
        str | None, Query(max_length=64, pattern=r"^[a-z0-9._-]+$", description="Only this person's", examples=["ada"])
    ] = None,
    origin: Annotated[
        Origin | None, Query(description="Only those of contributors, or those that loradar opened")
    ] = None,
    before: Annotated[
        int | None, Query(ge=1, le=LARGEST_NUMBER, description="`next` of the page before: only lower numbers")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Submissions per page")] = 50,
) -> JSONResponse:
    """Return a page of submissions, newest first, without their evidence and lists of layers."""
    filters = Filters(status=status, library=library, name=name, submitter=submitter, origin=origin)
    found = registry.submissions.list(**filters, before=before, limit=limit + 1)
    page = found[:limit]
    last = page[-1].id if len(found) > limit else None
    return JSONResponse(to_json(SubmissionPage(page, last)))


@router.get(
    "/{submission_id}",
    summary="Get a submission",
    responses={
        200: _documented("The submission with its evidence and reviews"),
        304: {"description": "The client has it already: `If-None-Match` names its `ETag`"},
        **NOT_FOUND,
    },
)
def get_submission(request: Request, registry: OpenRegistry, submission_id: Number) -> Response:
    """Return a submission: its statement, evidence and reviews."""
    found = registry.submissions.get(submission_id)
    return tagged(request, JSONResponse(to_json(found)), version_tag(found.version), "no-cache")


@router.post(
    "/{submission_id}/reviews",
    summary="Review a submission",
    responses={
        200: _documented("The submission, decided") | _ETAG_EXAMPLE,
        **WRITES,
        **error_responses(404, 409, 412),
    },
)
def review_submission(  # noqa: PLR0913, PLR0917 - a decision and its basis
    registry: OpenRegistry,
    by: Reviewer,
    submission_id: Number,
    version: Version,
    key: WriteKey,
    body: ReviewRequest,
) -> JSONResponse:
    """Approve or reject another person's submission; an approved one is published at once. For reviewers."""
    decision, comment = body.decision, body.comment
    return versioned(registry.backend(by).review(submission_id, decision, comment, version=version, key=key))


@router.post(
    "/{submission_id}/withdrawal",
    summary="Withdraw a submission",
    responses={
        200: _documented("The submission, withdrawn") | _ETAG_EXAMPLE,
        **WRITES,
        **error_responses(404, 409, 412),
    },
)
def withdraw_submission(  # noqa: PLR0913, PLR0917 - as above
    registry: OpenRegistry,
    by: Contributor,
    submission_id: Number,
    version: Version,
    key: WriteKey,
    body: ReasonRequest,
) -> JSONResponse:
    """Withdraw a submission before it is decided. For its submitter, and for admins."""
    return versioned(registry.backend(by).withdraw(submission_id, body.reason, version=version, key=key))
