"""Limit, check and parse request bodies: a bounded number of bytes of unambiguous JSON."""

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
from ..validation.text import parse_json
from .authentication import needs_actor, require_actor
from .errors import http_error_response

KIBIBYTE = 1 << 10
LARGEST_BODY = 64 * KIBIBYTE
"""Bytes of a body; its longest text may have 4,000 characters, of up to 12 bytes each as JSON escapes."""

LARGEST_BATCH = 256 * KIBIBYTE
LARGEST_STATEMENT = 1024 * KIBIBYTE
LARGEST_SCAN = 16 * 1024 * KIBIBYTE
"""Bytes of a scan request: a list of layers is long."""

LARGER = {"/v1/targets:batch": LARGEST_BATCH, "/v1/submissions": LARGEST_STATEMENT, "/v1/scan": LARGEST_SCAN}
"""Bytes of a body on the routes that need more."""

JSON = "application/json"
IDENTITY = "identity"
"""The ``Content-Encoding`` of an uncompressed body."""

SINGLE_HEADERS = ("Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key", "If-Match")
"""Headers that decide what is done, or for whom."""

MOST_NAMES = 64
"""Names of an object in a body; an architecture's own configuration may have more."""

BODY_SECONDS = 60.0
"""Time to receive a body, counted from the end of the headers."""


class BodyLimitMiddleware:
    """Reject a body over its limit of size or time before the rest is read, with or without a ``Content-Length``."""

    def __init__(self, app: ASGIApp, limit: int = LARGEST_BODY, larger: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._limit = limit
        self._larger = LARGER if larger is None else larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its body as it is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit)
        # The rest of a rejected body may be on its way, so the connection is closed.
        too_large = HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The request body exceeds the limit of {limit} bytes: send less, or send it in parts.",
            {"Connection": "close"},
        )
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            await http_error_response(Request(scope), too_large)(scope, receive, send)
            return
        read, is_complete = 0, False
        deadline = get_running_loop().time() + BODY_SECONDS

        async def receive_within_limits() -> Message:
            nonlocal read, is_complete
            if is_complete:  # the only message left is the client's disconnect
                return await receive()
            try:
                async with timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"Timed out after {BODY_SECONDS:g} s waiting for the request body."
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from None
            read += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if read > limit:
                raise too_large
            return message

        await self._app(scope, receive_within_limits, send)


class StrictRequest(Request):
    """A request whose JSON is parsed strictly."""

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            InvalidRequest: If it is not JSON, or is ambiguous.
        """
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose body is declared as JSON and parsed strictly, after the token is checked if it needs one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, wrapped in the checks of headers, token and body."""
        handle = super().get_route_handler()
        is_protected = needs_actor(self.dependant)

        async def handle_strictly(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            require_single_headers(request)
            if is_protected:
                await require_actor(strict)
            if self.body_field:
                require_json(request)
                if await strict.body():  # parsed here: an error raised where FastAPI parses it becomes a bare 400
                    require_narrow(await strict.json())
            return await handle(strict)

        return handle_strictly


def require_single_headers(request: Request) -> None:
    """Check that no deciding header is repeated: two readers could each use another value.

    Raises:
        InvalidRequest: If one is repeated.
    """
    for name in SINGLE_HEADERS:
        if len(request.headers.getlist(name)) > 1:
            message = f"The header {name} is repeated: send it once."
            raise InvalidRequest(message, field=f"header.{name}")


def require_narrow(body: Any) -> None:
    """Check that no object has more names than any of ours: validation would report every one of them.

    Raises:
        InvalidRequest: If one has.
    """
    lists = (value for value in body.values() if isinstance(value, list)) if isinstance(body, dict) else ()
    for item in chain([body], *lists):
        if isinstance(item, dict) and len(item) > MOST_NAMES:
            message = f"An object in the body has {len(item)} names; the limit is {MOST_NAMES}. See /openapi.json."
            raise InvalidRequest(message, field="body", limit=MOST_NAMES)


def require_json(request: Request) -> None:
    """Check that the headers declare an uncompressed JSON body.

    Raises:
        HTTPException: 415, with the value sent and the one to send.
    """
    given = request.headers.get("Content-Type", "")
    header = Header()
    header["Content-Type"] = given
    if not given or header.get_content_type() != JSON:
        detail = f"Unsupported Content-Type {given[:100]!r}: send {JSON}."
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, {"Accept": JSON})
    encoding = request.headers.get("Content-Encoding", IDENTITY)
    if encoding.strip().lower() != IDENTITY:
        detail = f"Unsupported Content-Encoding {encoding[:100]!r}: send the body uncompressed."
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, {"Accept-Encoding": IDENTITY})
