"""Choose the form of a response: page or JSON by ``Accept``, compressed by ``Accept-Encoding`` (RFC 9110, 12.5)."""

import gzip
import re
from collections.abc import Iterable, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFERS_PAGE = "prefers_page"
"""Name in a request's state: whether the client is answered with a page."""

HTML, JSON = "text/html", "application/json"

_JSON_ALONE = re.compile(r"/(?:v1(?:/.*)?|openapi\.json|healthz|readyz|metrics)", re.DOTALL)
"""Paths whose responses, errors too, are the same for every client."""

LEAST_BYTES = 1024
"""Bytes of a body below which it is sent as it is: compressed, it takes the same number of packets."""

GZIP_LEVEL = 6

_SETTING = re.compile(r";\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|$)", re.IGNORECASE)


@lru_cache(maxsize=512)
def prefers_html(accept: str) -> bool:
    """Return whether an ``Accept`` header prefers a page to JSON; one that accepts both alike, as ``*/*``, does not."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        setting = _SETTING.search(part)
        weights[kind] = max(weights.get(kind, 0.0), float(setting.group(1)) if setting else 1.0)

    def quality_of(kind: str) -> float:
        ranges = (kind, kind.partition("/")[0] + "/*", "*/*")
        return next((weights[each] for each in ranges if each in weights), 0.0)

    return quality_of(HTML) > quality_of(JSON)


def prefers_page(scope: MutableMapping[str, Any]) -> bool:
    """Return whether a request is answered with a page."""
    return bool(scope.get("state", {}).get(PREFERS_PAGE))


@lru_cache(maxsize=512)
def allows_gzip(accept_encoding: str) -> bool:
    """Return whether an ``Accept-Encoding`` header allows gzip by its name; a weight of 0 forbids it."""
    offers = accept_encoding.replace(" ", "").lower().split(",")
    weights = dict(offer.partition(";")[::2] for offer in offers)
    return "gzip" in weights and not re.fullmatch(r"q=0(\.0*)?", weights["gzip"])


def accepts_gzip(scope: MutableMapping[str, Any]) -> bool:
    """Return whether the client of a request accepts gzip."""
    return allows_gzip(
        ",".join([value.decode("latin-1") for name, value in scope["headers"] if name == b"accept-encoding"])
    )


def compress(scope: MutableMapping[str, Any], response: Response) -> bool:
    """Compress the body of a response if its client accepts that; return whether it did.

    For responses that hold no secret: the size of one with a secret beside text of a stranger gives the secret away.
    """
    if len(response.body) < LEAST_BYTES:
        return False
    response.headers.add_vary_header("Accept-Encoding")
    if not accepts_gzip(scope):
        return False
    response.body = gzip.compress(bytes(response.body), GZIP_LEVEL, mtime=0)
    response.headers.update({"Content-Encoding": "gzip", "Content-Length": str(len(response.body))})
    return True


class NegotiationMiddleware:
    """Decide between page and JSON; a program that requests a page is answered by its JSON twin.

    Args:
        app: The application.
        twins: Path templates of pages, each with that of its twin; the twin of ``/`` has the same path.
    """

    def __init__(self, app: ASGIApp, twins: Iterable[tuple[str, str]]) -> None:
        self._app = app
        self._twins = [(compile_path(page)[0], twin) for page, twin in twins]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its choice in the state."""
        path = scope.get("path", "")
        if scope["type"] != "http" or _JSON_ALONE.fullmatch(path):
            await self._app(scope, receive, send)
            return
        accept = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
        is_page = scope.setdefault("state", {})[PREFERS_PAGE] = prefers_html(accept)
        if not is_page and scope["method"] == "GET":
            self._turn_to_twin(scope, path)

        async def send_with_vary(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "immutable" not in headers.get("cache-control", ""):
                    headers.add_vary_header("Accept")
            await send(message)

        await self._app(scope, receive, send_with_vary)

    def _turn_to_twin(self, scope: Scope, path: str) -> None:
        """Set the path of a request to that of the twin; in place, since the metrics read the route found there."""
        for pattern, twin in self._twins:
            if twin != path and (matched := pattern.fullmatch(path)):
                scope["path"] = twin.format(**matched.groupdict())
                scope["raw_path"] = quote(scope["path"]).encode()
                return
