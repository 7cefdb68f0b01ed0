"""``/architectures/{library}/{name}/badge.svg``: the state of an architecture's targets, for a README."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from ...dependencies import LibraryName, Name, OpenRegistry, cached
from ..rendering import render
from .answer import Answer, Choice

LETTER = 6.6
"""Width of a letter at size 11, on average; the text is fitted to it (``textLength``)."""
PADDING = 12

COLOURS = {"live": "#17683a", "partial": "#855000", "unproven": "#5d615f", "dead": "#a32626"}
WORDS = {
    "live": "LoRA proved live",
    "partial": "LoRA in part",
    "unproven": "LoRA not proved",
    "dead": "LoRA does not work",
}

router = APIRouter(include_in_schema=False)


@router.get("/architectures/{library}/{name}/badge.svg")
def show_badge(request: Request, registry: OpenRegistry, library: LibraryName, name: Name) -> Response:
    """Return the badge of an architecture."""
    answer = Answer(registry, registry.get_architecture(library, name), Choice())
    verified = answer.mapping.verification
    status = verified.status if verified else "unproven"
    hit, of = sum(hit for _, hit, _ in answer.reach), sum(of for *_, of in answer.reach)
    text = f"{WORDS[status]}, {hit} of {of} blocks" if of else WORDS[status]
    widths = [round(len(each) * LETTER) for each in ("loradar", text)]
    context = {"text": text, "colour": COLOURS[status], "widths": widths, "padding": PADDING, "name": name}
    svg = render(request, "architecture/badge.svg", **context)
    headers = {"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"}
    return cached(request, Response(svg, headers=headers, media_type="image/svg+xml"))
