"""Wrap every request: limit its rate and its body, and log rejected writes.

Each process counts its own requests, in memory. Rate limits have windows of a minute that begin with the first request:
several processes behind one address allow that many times as much. The headers are those of
draft-ietf-httpapi-ratelimit-headers.
"""

import logging
import time
from asyncio import get_running_loop, timeout_at
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from threading import Lock
from typing import Any

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import TooManyRequests
from ..settings import RequestLimits
from .errors import error_response, http_error_response

LOGGER = logging.getLogger("loradar.api")
"""One line for each rejected write. It holds no secret: it names the token's owner and the route."""

READS = ("GET", "HEAD", "OPTIONS")

WINDOW = 60
"""Seconds of a rate-limit window."""

NETWORK_BITS = 64
"""Prefix length of an IPv6 network counted as one client: a customer has at least so many addresses to rotate."""

COSTS = {
    "/v1/targets:batch": 30,
    "/v1/snapshot": 30,
    "/v1/check": 10,
    "/v1/submissions:preview": 2,
    "/submissions/preview": 2,
}
"""Requests that a call to an expensive path counts as."""

PROBES = ("/healthz", "/readyz")
"""Paths without a limit: whoever restarts or routes by them must not be told to come again later."""

SIMILAR, SIMILAR_COST = "/similar", 5

_LIMITED = {
    "address": "requests from your address",
    "token": "requests with your tokens",
    "failed": "requests with invalid tokens from your address",
    "scan": "scans from your address",
}

KIBIBYTE = 1 << 10
LARGEST_BODY = 64 * KIBIBYTE
"""Bytes of a body; its longest text may have 4,000 characters, of up to 12 bytes each as JSON escapes."""

LARGEST_BATCH = 256 * KIBIBYTE
LARGEST_STATEMENT = 1024 * KIBIBYTE
LARGEST_SCAN = 16 * 1024 * KIBIBYTE
"""Bytes of a scan request: a list of layers is long."""
LARGEST_ADAPTER = 16 * 1024 * KIBIBYTE
"""Bytes of an adapter that is sent: of its header, or of a small file in Base64."""

LARGER = {
    "/v1/targets:batch": LARGEST_BATCH,
    "/v1/submissions": LARGEST_STATEMENT,
    "/v1/submissions:preview": LARGEST_STATEMENT,
    "/submissions/new": LARGEST_STATEMENT,
    "/submissions/preview": LARGEST_STATEMENT,
    "/v1/scan": LARGEST_SCAN,
    "/scan": LARGEST_SCAN,
    "/v1/doctor": LARGEST_ADAPTER,
}
"""Bytes of a body on the routes that need more."""

BODY_SECONDS = 60.0
"""Time to receive a body, counted from the end of the headers."""


class HeadMiddleware:
    """Answer HEAD as GET is answered, without the content (RFC 9110, 9.3.2); it is counted as GET."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_content(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, send_without_content)


@dataclass(slots=True)
class _Window:
    """The requests of a client since its window began, and the monotonic time at which that ends."""

    end: float
    count: int = 0


class Limiter:
    """Count requests by policy: ``address``, ``token``, ``failed`` or ``scan``.

    A window follows the monotonic clock: one that follows the time of day, as those of ``limits`` and its relatives,
    lasts an hour longer when that is set back an hour.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits: dict[str, int] = asdict(limits)
        self._windows: dict[tuple[str, str], _Window] = {}
        self._policies: dict[tuple[str, ...], tuple[bytes, bytes]] = {}
        self._lock = Lock()
        self._clean_at = 0.0

    def take(self, policy: str, client: str, applied: MutableMapping[str, tuple[int, int]], cost: int = 1) -> None:
        """Count a request, and record the remaining quota in ``applied``.

        Args:
            policy: Name of the limit.
            client: Address or token owner the request is counted for.
            applied: Remaining requests and seconds by policy, for the response's headers.
            cost: Requests it counts as, capped at the limit so that it stays possible.

        Raises:
            TooManyRequests: If the quota is used up; states the seconds until it is renewed.
        """
        limit, now = self._limits[policy], time.monotonic()
        with self._lock:
            window = self._windows.get((policy, client))
            if window is None or window.end <= now:
                self._clean(now)
                window = self._windows[policy, client] = _Window(now + WINDOW)
            window.count += min(cost, limit)
            applied[policy] = limit - min(window.count, limit), ceil(window.end - now)
        if window.count > limit:
            raise self._too_many(policy, applied[policy][1])

    def require_left(self, policy: str, client: str, applied: MutableMapping[str, tuple[int, int]]) -> None:
        """Check that a client has quota left, without counting a request.

        Raises:
            TooManyRequests: If it has none.
        """
        window, now = self._windows.get((policy, client)), time.monotonic()
        if window and window.count >= self._limits[policy] and now < window.end:
            applied[policy] = 0, ceil(window.end - now)
            raise self._too_many(policy, applied[policy][1])

    def headers(self, applied: Mapping[str, tuple[int, int]]) -> list[tuple[bytes, bytes]]:
        """Return the ``RateLimit`` headers for the policies applied to a request."""
        names = tuple(applied)
        policies = self._policies.get(names)
        if policies is None:
            text = ", ".join([f'"{name}";q={self._limits[name]};w={WINDOW}' for name in names])
            policies = self._policies[names] = (b"ratelimit-policy", text.encode())
        left = ", ".join([f'"{name}";r={left};t={seconds}' for name, (left, seconds) in applied.items()])
        return [policies, (b"ratelimit", left.encode())]

    def _clean(self, now: float) -> None:
        """Forget the windows that have ended, once in a window's time."""
        if now >= self._clean_at:
            self._clean_at = now + WINDOW
            self._windows = {key: window for key, window in self._windows.items() if window.end > now}

    def _too_many(self, policy: str, seconds: int) -> TooManyRequests:
        limit = self._limits[policy]
        message = f"More than {limit} {_LIMITED[policy]} within a minute: try again in {seconds} s."
        return TooManyRequests(message, retry_after=seconds, limit=limit, policy=policy)


class RateLimitMiddleware:
    """Apply the limit of the client's address, and add the headers of every limit applied."""

    def __init__(self, app: ASGIApp, limiter: Limiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it with 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        applied: dict[str, tuple[int, int]] = {}
        state["limits_applied"] = applied
        state["address"] = client_of(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if applied:
                    message["headers"] = [*message.get("headers", ()), *self._limiter.headers(applied)]
                _log_rejected_write(scope, message["status"])
            await send(message)

        app, path = self._app, scope["path"]
        cost = COSTS.get(path) or (SIMILAR_COST if path.endswith(SIMILAR) else 1)
        try:
            if path not in PROBES:
                self._limiter.take("address", state["address"], applied, cost)
        except TooManyRequests as error:
            app = error_response(Request(scope), error)
        await app(scope, receive, send_with_headers)


def _log_rejected_write(scope: Scope, status: int) -> None:
    """Log a rejected write: client, route and error code; client-chosen text is quoted, so it cannot forge a line."""
    if scope["method"] in READS or status < HTTPStatus.BAD_REQUEST:
        return
    state = scope["state"]
    actor = state.get("actor")
    route = getattr(scope.get("route"), "path", None) or ascii(scope["path"][:200])
    LOGGER.warning(
        "rejected %s %s: %d %s; by %s from %s",
        ascii(scope["method"][:20])[1:-1],
        route,
        status,
        state.get("code", "error"),
        ascii(actor.name) if actor else "anonymous",
        state["address"],
    )


def client_of(scope: Mapping[str, Any]) -> str:
    """Return the client a request is counted for: its IPv4 address, its IPv6 network, or its host as it stands."""
    return _client_at((scope.get("client") or ("unknown", 0))[0])


@lru_cache(maxsize=4096)
def _client_at(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped or ip_network((int(address), NETWORK_BITS), strict=False))
    return str(address)


class BodyLimitMiddleware:
    """Reject a body over its limit of size or time before the rest is read, with or without a ``Content-Length``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its body as it is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = LARGER.get(scope["path"], LARGEST_BODY)
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
