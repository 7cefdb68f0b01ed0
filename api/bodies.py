"""What a request may send: so many bytes, of JSON that means one thing."""

from asyncio import get_running_loop, timeout_at
from collections.abc import Callable, Coroutine, Mapping
from email.message import Message as Header
from http import HTTPStatus
from itertools import chain
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InvalidRequest
from ..validation.strict_json import parse_json
from .authentication import needs_actor, require_actor
from .errors import answer_http

KIBIBYTE = 1 << 10
LARGEST_BODY = 64 * KIBIBYTE
"""Bytes of a body; its longest text may have 4,000 characters, of up to 12 bytes each as JSON escapes them."""

LARGEST_BATCH = 256 * KIBIBYTE
LARGEST_STATEMENT = 1024 * KIBIBYTE
LARGEST_SCAN = 16 * 1024 * KIBIBYTE
"""A list of layers is long."""

LARGER = {"/v1/targets:batch": LARGEST_BATCH, "/v1/submissions": LARGEST_STATEMENT, "/v1/scan": LARGEST_SCAN}
"""Bytes of a body on the routes that need more."""

JSON = "application/json"
IDENTITY = "identity"
"""The encoding of what is not packed."""

ONCE = ("Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key", "If-Match")
"""Headers that decide what is done, or for whom."""

MOST_NAMES = 64
"""Names of an object in a body; of an architecture's own configuration there may be more."""

BODY_SECONDS = 60.0
"""Time for a body, from the head on."""


class BodyLimit:
    """Middleware: a body over its limit, of size or of time, is refused before the rest of it is read.

    It need not say its length.
    """

    def __init__(self, app: ASGIApp, limit: int = LARGEST_BODY, larger: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._limit = limit
        self._larger = LARGER if larger is None else larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its body counted as it is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit)
        refusal = _too_large(limit)
        if _length(scope) > limit:
            await answer_http(Request(scope), refusal)(scope, receive, send)
            return
        read, is_whole = 0, False
        deadline = get_running_loop().time() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal read, is_whole
            if is_whole:  # what comes now is only that the client hangs up
                return await receive()
            try:
                async with timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _too_slow() from None
            read += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if read > limit:
                raise refusal
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> HTTPException:
    """Return what a body over the limit is answered with; the rest of it may be on its way: the connection ends."""
    detail = f"A body here has at most {limit} bytes; this one has more. Send less, or in parts."
    return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, {"Connection": "close"})


def _too_slow() -> HTTPException:
    detail = f"The body was not there within {BODY_SECONDS:g} s. Send it again, faster."
    return HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"})


def _length(scope: Scope) -> int:
    given = dict(scope["headers"]).get(b"content-length", b"0")
    return int(given) if given.isdigit() else 0


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def json(self) -> Any:
        """Return what the body says.

        Raises:
            InvalidRequest: If it is no JSON, or could be read in two ways.
        """
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose body is JSON, called JSON, and read strictly; where a token is needed, not without one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, after the checks of the body."""
        handle = super().get_route_handler()
        is_for_some = needs_actor(self.dependant)

        async def handle_strictly(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            require_once(request)
            if is_for_some:
                await require_actor(strict)
            if self.body_field:
                require_json(request)
                if await strict.body():  # here: what is raised where the framework reads it becomes a bare 400
                    require_narrow(await strict.json())
            return await handle(strict)

        return handle_strictly


def require_once(request: Request) -> None:
    """Check that no header that decides something is there twice: two readers could each take another.

    Raises:
        InvalidRequest: If one is.
    """
    for name in ONCE:
        if len(request.headers.getlist(name)) > 1:
            message = f"The header {name} is there twice. Send it once."
            raise InvalidRequest(message, field=f"header.{name}")


def require_narrow(body: Any) -> None:
    """Check that no object has more names than any of ours: each would be found fault with, one by one.

    Raises:
        InvalidRequest: If one has.
    """
    lists = (value for value in body.values() if isinstance(value, list)) if isinstance(body, dict) else ()
    for one in chain([body], *lists):
        if isinstance(one, dict) and len(one) > MOST_NAMES:
            message = f"An object in the body has {len(one)} names. None has more than {MOST_NAMES}: see /openapi.json."
            raise InvalidRequest(message, field="body", limit=MOST_NAMES)


def require_json(request: Request) -> None:
    """Check that a request calls its body JSON.

    Raises:
        HTTPException: 415, saying what it is called and what would do.
    """
    given = request.headers.get("Content-Type", "")
    header = Header()
    header["Content-Type"] = given
    if not given or header.get_content_type() != JSON:
        detail = f"The body is called {given[:100]!r}. Send JSON, with 'Content-Type: {JSON}'."
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, {"Accept": JSON})
    packed = request.headers.get("Content-Encoding", IDENTITY)
    if packed.strip().lower() != IDENTITY:
        detail = f"The body is packed with {packed[:100]!r}, and nothing is unpacked here. Send it as it is."
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, {"Accept-Encoding": IDENTITY})
