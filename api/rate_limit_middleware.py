"""Stands before everything: counts requests by address, tells what is left, and notes what was refused."""

import logging
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import TooManyRequests
from .errors import answer_error
from .rate_limits import Limiter, address_of, cost_of

LOGGER = logging.getLogger("loradar.api")
"""One line for each write that was refused. It never has a secret: who is told by name, what by route."""

READS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Middleware: every answer tells the limits it met; what is over them goes no further."""

    def __init__(self, app: ASGIApp, limiter: Limiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        met: dict[str, tuple[int, int]] = {}
        state["met"] = met
        state["address"] = address_of(scope)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._limiter.headers(met))
                _note(scope, message["status"])
            await send(message)

        app = self._app
        try:
            self._limiter.take("address", state["address"], met, cost_of(scope["path"]))
        except TooManyRequests as refusal:
            app = answer_error(Request(scope), refusal)
        await app(scope, receive, told)


def _note(scope: Scope, status: int) -> None:
    """Log a refused write: who, what, why. Everything a client chose is quoted, so that it cannot forge a line."""
    if scope["method"] in READS or status < HTTPStatus.BAD_REQUEST:
        return
    state = scope["state"]
    actor = state.get("actor")
    route = getattr(scope.get("route"), "path", None) or ascii(scope["path"][:200])
    LOGGER.warning(
        "refused %s %s: %d %s; by %s from %s",
        ascii(scope["method"][:20])[1:-1],
        route,
        status,
        state.get("code", "error"),
        ascii(actor.name) if actor else "nobody known",
        state["address"],
    )
