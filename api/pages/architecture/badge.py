"""``/architectures/{library}/{name}/badge.svg``: the state of an architecture's targets, for a README."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from ....domain.methods import TARGETED
from ...dependencies import LibraryName, Name, OpenRegistry, cached
from ..rendering import render
from .answer import Answer, Choice

LETTER = 6.6
"""Width of a letter at size 11, on average; the text is fitted to it (``textLength``)."""
PADDING = 12

COLOURS = {"live": "#17683a", "partial": "#855000", "unproven": "#5d615f", "dead": "#a32626"}
WORDS = {
    "live": "proved live",
    "partial": "in part",
    "unproven": "not proved",
    "dead": "does not work",
}
NO_TARGETS = "no target modules", COLOURS["unproven"]

router = APIRouter(include_in_schema=False)


@router.get("/architectures/{library}/{name}/badge.svg")
def show_badge(request: Request, registry: OpenRegistry, library: LibraryName, name: Name) -> Response:
    """Return the badge of an architecture."""
    detail = registry.get_architecture(library, name)
    text, colour = describe_state(Answer(registry, detail, Choice())) if detail.mappings else NO_TARGETS
    widths = [round(len(each) * LETTER) for each in ("loradar", text)]
    context = {"text": text, "colour": colour, "widths": widths, "padding": PADDING, "name": name}
    svg = render(request, "architecture/badge.svg", **context)
    headers = {"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"}
    return cached(request, Response(svg, headers=headers, media_type="image/svg+xml"))


def describe_state(answer: Answer) -> tuple[str, str]:
    """Return the state of the targets of an answer in words, and its colour."""
    verified = answer.mapping.verification
    status = verified.status if verified else "unproven"
    method = "LoRA" if answer.method == TARGETED else answer.method
    hit, of = sum(hit for _, hit, _ in answer.reach), sum(of for *_, of in answer.reach)
    blocks = f", {hit} of {of} blocks" if of else ""
    return f"{method} {WORDS[status]}{blocks}", COLOURS[status]
