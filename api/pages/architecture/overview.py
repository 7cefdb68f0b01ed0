"""``/architectures/{library}/{name}``: the targets of an architecture, why, their cost, and its servers."""

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from starlette.responses import Response

from ....domain.choosing.query import MOST_RANK
from ....domain.explaining.module_tree import make_tree
from ....domain.mappings import ArchitectureDetail, Mapping
from ....domain.methods import TARGETED
from ....domain.vocabulary import STANDS_FOR
from ....errors import LoradarError
from ....registry import Registry
from ....snippets import Snippet, Subject, list_tools, write_snippet
from ...dependencies import NAME_LENGTH, REFERENCE_PATTERN, LibraryName, Name, OpenRegistry
from ..rendering import PageRouter, fresh_page, page
from .answer import Answer, Choice, find_answer
from .beside import find_peft_entry, list_latest, list_pitfalls, list_similar

MOST_SIMILAR = 6
MOST_REVISIONS = 10
MOST_REASONS = 40
"""Reasons that are listed: of 128 experts, each has its own."""

WORD = r"^[A-Za-z0-9_.-]{1,64}$"
LIST = r"^[a-z]+(,[a-z]+)*$"

STAMPS = {
    "live": "Proved live",
    "partial": "Reaches only a part",
    "dead": "Does not work",
    "unproven": "Not proved",
}
"""What the status of a verification means to a reader."""

router = PageRouter()

WordQuery = Annotated[str | None, Query(pattern=WORD)]
TowersQuery = Annotated[str | None, Query(pattern=LIST, max_length=64)]
RankQuery = Annotated[int | None, Query(ge=1, le=MOST_RANK)]
ModelQuery = Annotated[str | None, Query(pattern=REFERENCE_PATTERN, max_length=NAME_LENGTH)]


def read_choice(  # noqa: PLR0913, PLR0917 - the choices of the page
    preset: WordQuery = None,
    towers: TowersQuery = None,
    method: WordQuery = None,
    server: WordQuery = None,
    rank: RankQuery = None,
    model: ModelQuery = None,
) -> Choice:
    """Return the choices in the query of a page."""
    return Choice(preset, towers, method, server, rank, model)


ChoiceQuery = Annotated[Choice, Depends(read_choice)]


@router.page("/architectures/{library}/{name}", twin="/v1/architectures/{library}/{name}")
def show_architecture(
    request: Request, registry: OpenRegistry, library: LibraryName, name: Name, choice: ChoiceQuery
) -> Response:
    """Return the page of an architecture."""
    detail = registry.get_architecture(library, name)
    if not detail.mappings:  # nothing to choose
        return page(request, "architecture/untargeted.html", **explain_untargeted(detail), scanned=None)
    context, error = gather(registry, detail, choice)
    if error is not None:
        return fresh_page(request, "architecture/architecture.html", status_code=HTTPStatus(error.status), **context)
    return page(request, "architecture/architecture.html", **context)


def explain_untargeted(detail: ArchitectureDetail) -> dict[str, Any]:
    """Return the facts on the page of an architecture without targets, which states why."""
    tree, pitfalls = make_tree(detail.slots, [0] * len(detail.slots)), [*list_pitfalls(detail)]
    return {"detail": detail, "architecture": detail.architecture, "tree": tree, "pitfalls": pitfalls}


def gather(
    registry: Registry, detail: ArchitectureDetail, choice: Choice
) -> tuple[dict[str, Any], LoradarError | None]:
    """Return the facts on the page of an architecture for a choice, and the error if the choice has no answer."""
    own = detail.architecture
    answer, error = find_answer(registry, detail, choice)
    similar = list_similar(registry, detail, MOST_SIMILAR)
    latest, revisions = list_latest(registry, detail, MOST_REVISIONS)
    return {
        "own_path": ("/architectures", own.library, own.name),
        "scanned": None,
        "detail": detail,
        "architecture": detail.architecture,
        "answer": answer,
        "mapping": answer.mapping,
        "error": error,
        "most_reasons": MOST_REASONS,
        "stamps": STAMPS,
        "others": compare_presets(answer),
        "snippets": write_snippets(answer),
        "tree": make_tree(detail.slots, answer.adapted),
        "pitfalls": [*list_pitfalls(detail, answer.mapping)],
        "peft": find_peft_entry(registry, detail),
        "similar": similar,
        "latest": latest,
        "revisions": revisions,
        "usage": registry.crawls.get_usage(own.library, own.name),
    }, error


def write_snippets(answer: Answer) -> list[Snippet]:
    """Return a snippet for each tool that can train it."""
    snippets, subject = [], Subject.of(answer.detail)
    for tool in list_tools():
        try:
            snippets.append(write_snippet(answer.mapping, tool.name, answer.choice.model, subject=subject))
        except LoradarError:  # the tool has not the method, or does not train such a model
            continue
    return snippets


def compare_presets(answer: Answer) -> list[Mapping]:
    """Return the mappings of LoRA's presets, for a table."""
    own: dict[str, Mapping] = {one.preset: one for one in answer.detail.mappings if one.peft_type == TARGETED}
    for preset, other in STANDS_FOR.items():
        if preset not in own and other in own:
            own[preset] = replace(own[other], preset=preset)
    return [own[preset] for preset in dict.fromkeys((*answer.presets, *own)) if preset in own]
