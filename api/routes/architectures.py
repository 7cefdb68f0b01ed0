"""``/v1/architectures``: list architectures, get one, and list those similar to it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse

from ...domain.explaining.explanations import Explanation, Subject, explain
from ...domain.mappings import ArchitectureDetail, ArchitecturePage, NeighbourList
from ...domain.vocabulary import Library, Tower
from ...schema import to_json
from ..dependencies import NAME_LENGTH, PLACE_PATTERN, LibraryName, Name, OpenRegistry
from ..errors import NOT_FOUND

router = APIRouter(prefix="/v1", tags=["architectures"])

MAX_PAGE = 200
MAX_SIMILAR = 50

FACET = r"^[a-z]+( [a-z]+)*$"
LAYER = r"^[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_*-]+)*$"
Known = Literal["live", "partial", "dead", "unproven", "none"]
"""A status, or ``none`` where nothing has one."""

NameQuery = Annotated[
    str,
    Query(max_length=NAME_LENGTH, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", description="Part of the name, in any case"),
]
LayerQuery = Annotated[
    str,
    Query(
        min_length=1,
        max_length=NAME_LENGTH,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]*$",
        description="A path, a pattern with `*`, the end of paths as in a target, or a module",
        examples=["q_proj", "model.layers.*.mlp.down_proj"],
    ),
]


@dataclass(frozen=True)
class ArchitectureQuery:
    """The query of a list of architectures: the properties they have, and where a page begins."""

    library: Annotated[Library | None, Query(description="Only those of this library")] = None
    task: Annotated[
        str | None,
        Query(max_length=64, pattern=FACET, description="Only those for this task", examples=["text generation"]),
    ] = None
    status: Annotated[Known | None, Query(description="Only those whose default targets of LoRA have this status")] = (
        None
    )
    peft: Annotated[Known | None, Query(description="Only those whose entry of PEFT has this status")] = None
    method: Annotated[
        str | None, Query(max_length=64, pattern=r"^[A-Z0-9_]+$", description="Only those with mappings of this method")
    ] = None
    tower: Annotated[Tower | None, Query(description="Only those with layers in this tower")] = None
    engine: Annotated[
        str | None,
        Query(max_length=64, pattern=r"^[a-z_]+$", description="Only those whose adapters this engine serves"),
    ] = None
    layer: Annotated[
        str | None,
        Query(
            max_length=NAME_LENGTH, pattern=LAYER, description="Only those with a layer of this name", examples=["Wqkv"]
        ),
    ] = None
    q: NameQuery = ""
    after: Annotated[
        str | None,
        Query(
            max_length=NAME_LENGTH + len("transformers:"),
            pattern=PLACE_PATTERN + "$",
            description="`next` of the page before",
            examples=["transformers:llama"],
        ),
    ] = None

    @property
    def properties(self) -> dict[str, str]:
        """The properties that are given, by name."""
        given = {"library": self.library, "task": self.task, "status": self.status, "peft": self.peft}
        given |= {"method": self.method, "tower": self.tower, "engine": self.engine}
        return {name: value for name, value in given.items() if value is not None}


@router.get(
    "/architectures",
    summary="List architectures",
    responses={200: {"model": ArchitecturePage}, **NOT_FOUND},
)
def list_architectures(
    registry: OpenRegistry,
    query: Annotated[ArchitectureQuery, Depends()],
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Architectures per page")] = 50,
) -> JSONResponse:
    """Return a page of the architectures that have all the properties given, sorted by library and name."""
    found = registry.browsing.browse(query.properties, query.q, query.layer, query.after, limit)
    return JSONResponse(to_json(ArchitecturePage(found.page, found.following)))


@router.get(
    "/architectures/{library}/{name}",
    summary="Get an architecture",
    responses={200: {"model": ArchitectureDetail}, **NOT_FOUND},
)
def get_architecture(registry: OpenRegistry, library: LibraryName, name: Name) -> JSONResponse:
    """Return everything registered for an architecture: slots, towers, mappings and their revisions."""
    return JSONResponse(to_json(registry.get_architecture(library, name)))


@router.get(
    "/architectures/{library}/{name}/explain",
    summary="Explain a layer",
    responses={200: {"model": Explanation}, **NOT_FOUND},
)
def explain_layer(registry: OpenRegistry, library: LibraryName, name: Name, layer: LayerQuery) -> JSONResponse:
    """Return why the layers of a name are targets or not: role, evidence, presets, and reasons against."""
    return JSONResponse(to_json(explain(Subject.of_registry(registry.get_architecture(library, name)), layer)))


@router.get(
    "/architectures/{library}/{name}/similar",
    summary="List similar architectures",
    responses={200: {"model": NeighbourList}, **NOT_FOUND},
)
def list_similar(
    registry: OpenRegistry,
    library: LibraryName,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=MAX_SIMILAR, description="Architectures at most")] = 10,
) -> JSONResponse:
    """Return the nearest architectures by their slots, with the differences in words."""
    return JSONResponse(to_json(NeighbourList(registry.list_similar(library, name, limit))))
