"""``/search``: the meanings of a text; a text with one sure meaning leads straight to its page."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Query, Request
from starlette.responses import RedirectResponse, Response

from ...references import explain_invalid_repo
from ..dependencies import OpenRegistry
from .rendering import HEADERS, PageRouter, join_link, page

LONGEST_QUERY = 4_000
MOST_RESULTS = 40

router = PageRouter()


@router.page("/search", twin="/v1/search")
def show_search(
    request: Request, registry: OpenRegistry, q: Annotated[str, Query(max_length=LONGEST_QUERY)] = ""
) -> Response:
    """Return the meanings of a text."""
    answer = registry.browsing.search(q, MOST_RESULTS)
    sure = [one for one in answer.results if not one.is_guess]
    if len(sure) == 1 and not answer.says and sure[0].how != "layer":
        root = str(request.scope.get("root_path", ""))
        link = join_link(root, "/architectures", sure[0].library, sure[0].name, model=sure[0].model)
        return RedirectResponse(link, HTTPStatus.SEE_OTHER, {**HEADERS, "Cache-Control": "no-store"})
    text = q.strip().removeprefix("hub:")
    is_repo = text.count("/") == 1 and ":" not in text and explain_invalid_repo(text) is None
    return page(request, "search.html", q=q, answer=answer, repo=text if is_repo else None)
