"""``/v1/targets``: look up the mapping to use, for one architecture or for many."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from ...domain.choosing.query import MOST_RANK
from ...domain.mappings import BatchAnswers, Mapping
from ...errors import DatabaseUnusable, LoradarError
from ...references import parse_parts
from ...registry import Registry
from ...schema import to_json
from ..dependencies import NAME_LENGTH, AnyLibraryQuery, OpenRegistry, ReferencePath, VersionQuery, cached
from ..errors import NOT_FOUND, error_responses
from ..requests import (
    BUDGET,
    BUDGET_LENGTH,
    EXPERT_RANK,
    LISTED,
    MOST_PARTS,
    SELECTING_LENGTH,
    SERVABLE,
    BatchQuestions,
    Question,
    StrictRoute,
)

PART_PATTERN = r"^[^\s=\x00-\x1f\x7f-\x9f]+=[^\s\x00-\x1f\x7f-\x9f]+$"

router = APIRouter(prefix="/v1", tags=["targets"], route_class=StrictRoute)

PeftTypeQuery = Annotated[
    str, Query(pattern=r"^[A-Za-z0-9_]+$", max_length=64, description="PEFT's name of the method", examples=["LORA"])
]
PresetQuery = Annotated[
    str | None,
    Query(
        pattern=r"^[A-Za-z0-9_-]+$",
        max_length=32,
        description="`default`, `recommended`, `attention`, `mlp`, `all-linear`, `experts` or `everything`; if not "
        "given, the service's `LORADAR_PRESET`, else `default`",
        examples=["default"],
    ),
]
PartQuery = Annotated[
    list[Annotated[str, Field(max_length=2 * NAME_LENGTH, pattern=PART_PATTERN)]] | None,
    Query(
        max_length=MOST_PARTS,
        description="A model in a composite one, as `NAME=TYPE`; repeated for several",
        examples=[["text=t5"]],
    ),
]
TowersQuery = Annotated[
    str | None,
    Query(max_length=SELECTING_LENGTH, pattern=LISTED, description="Towers to adapt, or `all`", examples=["vision"]),
]
RolesQuery = Annotated[
    str | None,
    Query(
        max_length=SELECTING_LENGTH,
        pattern=LISTED,
        description="Roles to adapt, or patterns of them",
        examples=["attention.*"],
    ),
]
BlocksQuery = Annotated[
    str | None,
    Query(
        max_length=SELECTING_LENGTH,
        pattern=LISTED,
        description="Blocks of each stack: `last 8`, `first 4`, `every 2`, `10-20`",
        examples=["last 8"],
    ),
]
RankQuery = Annotated[int | None, Query(ge=1, le=MOST_RANK, description="Rank of LoRA that sizes are stated for")]
ExpertRankQuery = Annotated[
    str | None,
    Query(
        pattern=EXPERT_RANK,
        description="Rank of routed experts: `auto` (`rank` over the experts that run for a token), `shared`, a number",
        examples=["auto"],
    ),
]
BudgetQuery = Annotated[
    str | None,
    Query(
        max_length=BUDGET_LENGTH,
        pattern=BUDGET,
        description="Parameters to train at most, which decide the rank, and the preset if that is `default`",
        examples=["20M", "0.5%"],
    ),
]
ServableQuery = Annotated[
    str | None,
    Query(
        max_length=SELECTING_LENGTH,
        pattern=SERVABLE,
        description="An engine that is to apply the adapter on every layer: `vllm`, `sglang` or `llama_cpp`",
        examples=["vllm"],
    ),
]


@router.get(
    "/targets/{model_type:path}",
    summary="Look up targets",
    responses={
        200: {"model": Mapping, "description": "The mapping to use"},
        304: {"description": "The client has it already: `If-None-Match` names its `ETag`"},
        **NOT_FOUND,
    },
)
def get_targets(  # noqa: PLR0913 - the query's fields
    request: Request,
    registry: OpenRegistry,
    model_type: ReferencePath,
    *,
    peft_type: PeftTypeQuery = "LORA",
    preset: PresetQuery = None,
    library: AnyLibraryQuery = None,
    library_version: VersionQuery = None,
    part: PartQuery = None,
    towers: TowersQuery = None,
    roles: RolesQuery = None,
    blocks: BlocksQuery = None,
    rank: RankQuery = None,
    expert_rank: ExpertRankQuery = None,
    budget: BudgetQuery = None,
    servable: ServableQuery = None,
) -> Response:
    """Return the mapping to use for an architecture: target spec, source, revision and verification.

    `model_type` may be in any spelling; `understood` tells how it was read, and whether that is a guess.
    """
    parts = parse_parts(part or ())
    choice = {"towers": towers, "roles": roles, "blocks": blocks, "rank": rank}
    choice |= {"expert_rank": expert_rank, "budget": budget, "servable": servable}
    mapping = registry.lookup(model_type, peft_type, preset, library, library_version, parts, **choice)
    return cached(request, JSONResponse(to_json(mapping)))


@router.post(
    "/targets:batch",
    summary="Look up many targets",
    responses={200: {"model": BatchAnswers, "description": "The results, in order"}, **error_responses(413, 415)},
)
def get_targets_of_many(registry: OpenRegistry, body: BatchQuestions) -> JSONResponse:
    """Return the mapping to use for each of up to 256 queries, or the error of its lookup."""
    return JSONResponse({"answers": [_look_up(registry, query) for query in body.questions]})


def _look_up(registry: Registry, query: Question) -> dict[str, Any]:
    """Return the result of one query; only an error that concerns all of them fails the call."""
    try:
        mapping = registry.lookup(
            query.model_type,
            query.peft_type,
            query.preset,
            query.library,
            query.library_version,
            query.parts,
            towers=query.towers,
            roles=query.roles,
            blocks=query.blocks,
            rank=query.rank,
            expert_rank=query.expert_rank,
            budget=query.budget,
            servable=query.servable,
        )
    except DatabaseUnusable:
        raise
    except LoradarError as error:
        return error.to_dict()
    return {"mapping": to_json(mapping)}
