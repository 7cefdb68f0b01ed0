"""Send responses that depend on the registry alone from memory: each is rendered once per serial of the registry.

A repeated lookup passes neither routing nor validation nor the database; it is counted and limited as every request.
"""

from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import DatabaseUnusable
from ..registry import State
from .dependencies import RENDERED, LazyRegistry, names_tag
from .negotiation import accepts_gzip, prefers_page
from .single_flight import SingleFlight

if TYPE_CHECKING:
    from ..registry import StateWatch

MOST_BYTES = 32 << 20
"""Bytes of bodies that are kept; the oldest make room for new ones."""

FROZEN_SECONDS = 2.0
"""Time after which a database that does not answer counts as frozen: stored responses are sent, marked as stale."""

STALE = [(b"cache-status", b"loradar; hit; ttl=-1"), (b"cache-control", b"no-store")]
"""Headers of a stale response (RFC 9211, 2.4): of an unknown age, for this client alone."""

_IN_A_304 = (b"etag", b"cache-control", b"cache-status", b"vary")

Key = tuple[str, bytes, bool, bool]
"""Path and query of a request, and whether its client prefers a page, and accepts gzip."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response of a route, ready to be sent.

    Attributes:
        body: Its content.
        headers: Its headers.
        tag: Its ``ETag``.
        route: The route, under which it is counted.
    """

    body: bytes
    headers: list[tuple[bytes, bytes]]
    tag: str
    route: Any

    async def send(self, scope: Scope, send: Send, *, is_stale: bool) -> None:
        """Send it, or 304 if ``If-None-Match`` names its tag."""
        scope["route"] = self.route
        status, headers, body = HTTPStatus.OK, self.headers, self.body
        if is_stale:
            headers = [*(each for each in headers if each[0] != b"cache-control"), *STALE]
        for name, value in scope["headers"]:
            if name == b"if-none-match" and names_tag(value.decode("latin-1"), self.tag):
                status, body = HTTPStatus.NOT_MODIFIED, b""
                headers = [each for each in headers if each[0] in _IN_A_304]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body})


class StoredResponses:
    """Store the responses that ``cached`` renders, and send them as long as the registry does not change.

    Args:
        app: The application.
        registry: Its registry.
    """

    def __init__(self, app: ASGIApp, registry: LazyRegistry) -> None:
        self._app = app
        self._registry = registry
        self._watch: StateWatch | None = None
        self._renewal = SingleFlight(self._renew, FROZEN_SECONDS)
        self._state: State | None = None
        self._stored: dict[Key, StoredResponse] = {}
        self._size = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request from memory, or pass it on and store the response if it can be stored."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            if self._watch:
                self._watch.expire()
            return
        key = scope["path"], scope["query_string"], prefers_page(scope), accepts_gzip(scope)
        stored, state, is_stale = self._stored.get(key), self._state, False
        if stored:
            try:
                state = await self._find_state()
            except TimeoutError:
                is_stale = True
            if self._stored.get(key) is stored:
                await stored.send(scope, send, is_stale=is_stale)
                return
        await self._app(scope, receive, send)
        rendered = scope["state"].get(RENDERED)
        with suppress(TimeoutError):
            if rendered is not None and await self._find_state() == state is not None:
                self._store(key, rendered, scope["route"])

    async def _find_state(self) -> State | None:
        """Return the state of the registry, and drop the responses of another; ``None`` if it cannot be read.

        Raises:
            TimeoutError: If the database does not answer.
        """
        if self._watch and self._watch.is_unchanged():
            return self._state
        try:
            state = await self._renewal.result()
        except DatabaseUnusable:  # the route answers with the reason
            state = None
        if state != self._state or state is None:
            self._stored.clear()
            self._size = 0
        self._state = state
        return state

    def _renew(self) -> State:
        self._watch = self._watch or self._registry.get().watch()
        return self._watch.renew()

    def _store(self, key: Key, rendered: Response, route: Any) -> None:
        body = bytes(rendered.body)
        if len(body) > MOST_BYTES or key in self._stored:
            return
        self._stored[key] = StoredResponse(body, rendered.raw_headers, rendered.headers["ETag"], route)
        self._size += len(body)
        while self._size > MOST_BYTES:
            self._size -= len(self._stored.pop(next(iter(self._stored))).body)
