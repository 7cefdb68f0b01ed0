"""Speak HTTP/1.1 by httptools as uvicorn does, with our error shape and limits of headers, time and connections.

uvicorn limits neither the size of headers nor their time, and answers invalid HTTP with a line of plain text.
"""

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .process.descriptors import TURNED_AWAY, Descriptors

LOGGER = logging.getLogger("loradar.api")

HEAD_SECONDS = 20.0
"""Time to receive the request line and headers, from the connection or the first byte on."""

LARGEST_HEAD = 64 * 1024
"""Bytes of the request line and headers."""

AWAY_SECONDS = 1.0
"""Time for which a connection beyond the limit is kept for its request, so that the client reads the response."""

RETRY_SECONDS = 5
"""When a client may come again whose connection was beyond the limit."""


class ServiceConfig(uvicorn.Config):
    """uvicorn's configuration, with the connections that a process may have."""

    def __init__(self, app: Any, descriptors: Descriptors, **options: Any) -> None:
        super().__init__(app, **options)
        self.descriptors = descriptors


class InvalidHead(Exception):
    """A request's head that is rejected though it can be parsed."""


class Protocol(HttpToolsProtocol):
    """The protocol of one connection."""

    config: ServiceConfig

    def __init__(self, config: uvicorn.Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.parser = httptools.HttpRequestParser(self)  # without uvicorn's leniencies
        self.drained = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._is_in_head = True
        self._is_over = False
        """Whether nothing more is read."""
        self._is_away = False
        """Whether the connection is beyond the limit."""
        self._head_size = 0
        self._rejection: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the time limit of the first request, or turn away a connection beyond the limit."""
        super().connection_made(transport)
        beyond = len(self.connections) - self.config.descriptors.most
        if beyond <= 0:
            self._watch()
            return
        self.config.descriptors.turn_away(len(self.connections))
        self._is_away = True
        if beyond > TURNED_AWAY:
            transport.abort()
        else:
            self._deadline = self.loop.call_later(AWAY_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Process received bytes, and start the time limit if a request's headers are incomplete."""
        if self._is_away:
            message = "The service has as many connections as it can have: try again later."
            self._reject(HTTPStatus.SERVICE_UNAVAILABLE, message)
            return
        if self._is_over:
            return
        self._unset_keepalive_if_required()
        if self._is_in_head:
            self._head_size += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken here; what follows would be of that protocol, or of a smuggled request.
            self._is_over = True
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            self._be_invalid(_explain(error))
        if self._is_in_head and self._head_size > LARGEST_HEAD and not self._is_over:
            self._be_invalid("Too long headers")
        self._watch()

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a head."""
        super().on_message_begin()
        self._is_in_head = True

    def on_url(self, url: bytes) -> None:
        """Take a part of the target of the request."""
        super().on_url(url)
        if len(self.url) > LARGEST_HEAD:
            raise InvalidHead("Too long request line")

    def on_headers_complete(self) -> None:
        """Check a head, and begin to answer the request.

        Raises:
            InvalidHead: If it is too long, or two readers could understand differently where the request ends or for
                whom it is (RFC 9112, 3.2, 6.1 and 6.3).
        """
        if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > LARGEST_HEAD:
            raise InvalidHead("Too long headers")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise InvalidHead(f"Unsupported HTTP/{version}")
        if not self.url.startswith(b"/"):
            raise InvalidHead("Unsupported request target: send a path")
        if codings and version != "1.1":
            raise InvalidHead("Transfer-Encoding is not part of HTTP/1.0: send Content-Length")
        if codings not in ([], [b"chunked"]):
            raise InvalidHead("Unknown Transfer-Encoding: send 'chunked', or Content-Length")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (version == "1.1" and not hosts):
            raise InvalidHead(f"{hosts} Host headers: send one")
        self._is_in_head = False
        self._head_size = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request; the next bytes are of another head."""
        self._is_in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End a response; one to an invalid request that follows comes after it."""
        super().on_response_complete()
        if self._rejection and not self.pipeline and self.cycle.response_complete:
            self._reject(HTTPStatus.BAD_REQUEST, self._rejection)

    def resume_writing(self) -> None:
        """Go on to send, and note that the client reads (``SlowReaders``)."""
        self.drained += 1
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limit."""
        self._is_over = True
        super().connection_lost(exc)
        self._unwatch()

    def _be_invalid(self, reason: str) -> None:
        """Reject invalid HTTP in our error shape, after the responses to the requests before it."""
        self._is_over = True
        self._rejection = f"{reason.rstrip('.')}: send HTTP/1.1, with at most 64 KiB of headers."
        if self._is_idle:
            self._reject(HTTPStatus.BAD_REQUEST, self._rejection)
        elif not self._is_in_head:  # within the body of the request that is being answered
            is_begun = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if is_begun:
                self.transport.close()
            else:
                self._reject(HTTPStatus.BAD_REQUEST, self._rejection)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not (self._is_in_head and self._is_idle) or self.transport.is_closing():
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._time_out)

    def _unwatch(self) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = None

    def _time_out(self) -> None:
        """Close the connection, with 408 if a request was begun."""
        self._deadline = None
        if self.transport.is_closing() or not (self._is_in_head and self._is_idle):
            return
        if self._head_size:
            message = f"Timed out after {HEAD_SECONDS:g} s waiting for the request headers."
            self._reject(HTTPStatus.REQUEST_TIMEOUT, message)
        else:
            self.transport.close()

    def _reject(self, status: HTTPStatus, message: str) -> None:
        if self.transport.is_closing():
            return
        code = status.phrase.lower().replace(" ", "_")
        body: dict[str, Any] = {"error": {"code": code, "message": message, "details": {}}}
        content = json.dumps(body).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "cache-control": "no-store",
            "connection": "close",
        }
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers["retry-after"] = str(RETRY_SECONDS)
        lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + content)
        self.transport.close()
        if not self._is_away:  # those are logged together
            address = self.client[0] if self.client else "unknown"
            LOGGER.warning("rejected invalid HTTP: %d %s; by anonymous from %s", status, code, address)


def _explain(error: httptools.HttpParserError) -> str:
    """Return why a request is invalid."""
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
    if isinstance(cause, InvalidHead):
        return str(cause)
    return "Invalid request target" if cause else str(error)
