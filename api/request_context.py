"""Give every request its id, and its path without the prefix at a proxy; count, time and log it."""

import logging
import os
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from .process.logs import REQUEST_ID
from .process.metrics import NO_ROUTE, Metrics

LOGGER = logging.getLogger("loradar.requests")
"""One line for each request, at level INFO."""

HEADER = b"x-request-id"
_SOUND = re.compile(rb"[A-Za-z0-9._-]{8,64}")
"""Ids of clients and proxies that are taken over: nothing in them could forge a line of the log."""


class RequestContext:
    """Give requests an id, which their log lines and their response have, and take the prefix from their path.

    It also counts each request under the template of its route: one more wrapper would take microseconds.

    Args:
        app: The application.
        root_path: Prefix such as ``/loradar``, or empty. A proxy may take it from the path or leave it there.
        metrics: Counts the requests.
    """

    def __init__(self, app: ASGIApp, root_path: str, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._root = root_path
        self._inside = root_path + "/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; one that fails without a response counts as 500."""
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
        started, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, number)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path_format", None) or NO_ROUTE  # without converters
            self._metrics.count(scope["method"], route, status, seconds)
            if LOGGER.isEnabledFor(logging.INFO):
                _log(scope, route, status, 1000 * seconds)


def _log(scope: Scope, route: str, status: int, milliseconds: float) -> None:
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
