"""Tidy the queries of pages with forms, which send an empty value for each field that was left alone."""

from http import HTTPStatus
from urllib.parse import urlencode

from fastapi import Request
from starlette.responses import RedirectResponse


def tidy(request: Request) -> RedirectResponse | None:
    """Return a redirect to the same page without empty values, so that each choice has one address; else ``None``."""
    query = request.query_params.multi_items()
    kept = [(name, value) for name, value in query if value.strip()]
    if len(kept) == len(query):
        return None
    target = request.url.path + (f"?{urlencode(kept)}" if kept else "")
    return RedirectResponse(target, HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})
