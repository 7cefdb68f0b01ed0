"""``/login`` and ``/logout``: sign in with a token, and out."""

import re
from http import HTTPStatus

from fastapi import Request
from starlette.responses import Response

from ....errors import NotAuthenticated
from ...dependencies import OpenRegistry
from ..rendering import PageRouter, fresh_page
from .visitors import CheckedFields, SeenVisitor, give_cookie, go_to, make_visitor, sign_in, take_cookies

HOME = "/submissions"
"""Page after signing in, where no other one asked for it."""

_OUR_PAGE = re.compile(r"/(?:[A-Za-z0-9_.:~-]+(?:/[A-Za-z0-9_.:~-]+)*)?")
"""A path on this site: no scheme, no host, no query."""

router = PageRouter()


def path_after(given: str | None) -> str:
    """Return the page to go to after signing in; only one of ours is followed."""
    return given if given and _OUR_PAGE.fullmatch(given) else HOME


@router.page("/login", twin="/v1/tokens/me")
def show_login(request: Request, visitor: SeenVisitor, after: str | None = None) -> Response:
    """Return the form that takes a token, or who is signed in."""
    visitor = make_visitor(visitor)
    response = fresh_page(request, "people/login.html", visitor=visitor, after=path_after(after), problem=None)
    if visitor.actor is None:
        give_cookie(request, response, visitor.secret)
    return response


@router.post("/login")
def log_in(request: Request, registry: OpenRegistry, visitor: SeenVisitor, fields: CheckedFields) -> Response:
    """Begin a session, and go on to the page that needs it."""
    after = path_after(fields.get("after"))
    try:
        _, session = sign_in(request, registry, fields.get("token", "").strip())
    except NotAuthenticated as error:
        request.state.code = error.code
        context = {"visitor": visitor, "after": after, "problem": error.message}
        return fresh_page(request, "people/login.html", status_code=HTTPStatus.UNAUTHORIZED, **context)
    if visitor.actor:
        registry.tokens.sign_out(visitor.secret)
    response = go_to(request, after)
    give_cookie(request, response, session)
    return response


@router.post("/logout")
def log_out(request: Request, registry: OpenRegistry, visitor: SeenVisitor, _: CheckedFields) -> Response:
    """End the session, here and on the service."""
    registry.tokens.sign_out(visitor.secret)
    response = go_to(request, "/login")
    take_cookies(request, response)
    return response
