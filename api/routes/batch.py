"""``POST /v1/targets:batch``: many lookups in one call."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from ...domain.mappings import BatchAnswers
from ...errors import DatabaseUnusable, LoradarError
from ...registry import Registry
from ...schema import to_json
from ..dependencies import OpenRegistry
from ..error_responses import error_responses
from ..json_bodies import StrictRoute
from ..requests import BatchQuestions, Question

router = APIRouter(prefix="/v1", tags=["targets"], route_class=StrictRoute)


@router.post(
    "/targets:batch",
    summary="Look up many targets",
    responses={200: {"model": BatchAnswers, "description": "The answers, in order"}, **error_responses(413, 415)},
)
def get_targets_of_many(registry: OpenRegistry, body: BatchQuestions) -> JSONResponse:
    """Return the mapping to use for each of up to 256 questions, or why there is none."""
    return JSONResponse({"answers": [_answer(registry, question) for question in body.questions]})


def _answer(registry: Registry, asked: Question) -> dict[str, Any]:
    """Return the answer to one question; only what would fail for all of them fails the call."""
    try:
        version = asked.library_version
        found = registry.lookup(asked.model_type, asked.peft_type, asked.preset, asked.library, version)
    except DatabaseUnusable:
        raise
    except LoradarError as error:
        return error.to_dict()
    return {"mapping": to_json(found)}
