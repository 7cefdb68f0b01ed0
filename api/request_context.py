"""Give every request its id, and its path without the prefix under which a proxy serves the application."""

import logging
import os
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from .process.logs import REQUEST_ID

LOGGER = logging.getLogger("loradar.requests")
"""One line for each request, at level INFO."""

HEADER = b"x-request-id"
_SOUND = re.compile(rb"[A-Za-z0-9._-]{8,64}")
"""Ids of clients and proxies that are taken over: nothing in them could forge a line of the log."""


class RequestContext:
    """Give requests an id, which their log lines and their response have, and take the prefix from their path.

    Args:
        app: The application.
        root_path: Prefix such as ``/loradar``, or empty. A proxy may take it from the path or leave it there.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root = root_path
        self._inside = root_path + "/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        number = given if _SOUND.fullmatch(given) else os.urandom(8).hex().encode()
        bind_contextvars(**{REQUEST_ID: number.decode()})
        if self._root:
            scope["root_path"] = self._root
            if scope["path"].startswith(self._inside):
                scope["path"] = scope["path"][len(self._root) :]
            elif scope["path"] == self._root:
                scope["path"] = "/"
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (HEADER, number)]
                if LOGGER.isEnabledFor(logging.INFO):
                    _log(scope, message["status"], 1000 * (time.perf_counter() - started))
            await send(message)

        await self._app(scope, receive, send_with_id)


def _log(scope: Scope, status: int, milliseconds: float) -> None:
    route = getattr(scope.get("route"), "path_format", None)
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "route": route,
        "status": status,
        "milliseconds": round(milliseconds, 2),
        "address": scope.get("state", {}).get("address"),
    }
    path = ascii(scope["path"][:200])[1:-1]
    method = ascii(scope["method"][:20])[1:-1]
    LOGGER.info("%s %s: %d in %.1f ms", method, path, status, milliseconds, extra=fields)
