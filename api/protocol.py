"""Speak HTTP/1.1 as uvicorn does, with our error shape, a time limit for headers and unambiguous body lengths.

uvicorn limits the size of headers but not their time, and answers invalid HTTP with a line of plain text.
"""

import asyncio
import json
import logging
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

LOGGER = logging.getLogger("loradar.api")

HEAD_SECONDS = 20.0
"""Time to receive the request line and headers, from the connection or the first byte on."""

LARGEST_HEAD = 64 * 1024
"""Bytes of the request line and headers."""


class _Connection(h11.Connection):
    """h11's state machine, which rejects a request whose framing two readers could understand differently."""

    ambiguity: str | None = None

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event of the connection.

        Raises:
            h11.RemoteProtocolError: If what was received is invalid HTTP, or ambiguous (RFC 9112, 6.1 and 6.3).
        """
        event = super().next_event()
        if isinstance(event, h11.Request) and (ambiguity := _ambiguity(event)):
            self.ambiguity = ambiguity
            raise h11.RemoteProtocolError(ambiguity)
        return event


def _ambiguity(request: h11.Request) -> str | None:
    """Return why the length of a request's body is ambiguous; ``None`` if it is not."""
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" not in names:
        return None
    if b"content-length" in names:
        return "Both Transfer-Encoding and Content-Length are given: send one of them"
    if request.http_version < b"1.1":
        return "Transfer-Encoding is not part of HTTP/1.0: send Content-Length"
    return None


class Protocol(H11Protocol):
    """The protocol of one connection."""

    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, config: uvicorn.Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.conn: _Connection = _Connection(h11.SERVER, LARGEST_HEAD)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the time limit of the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Process received bytes, and start the time limit if a request's headers are incomplete."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limit."""
        super().connection_lost(exc)
        self._unwatch()

    def send_400_response(self, msg: str) -> None:
        """Reject invalid HTTP in our error shape."""
        expected = "send HTTP/1.1, with at most 64 KiB of headers"
        self._reject(HTTPStatus.BAD_REQUEST, f"{self.conn.ambiguity or msg.rstrip('.') + ': ' + expected}.")

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
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
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            return
        if self.conn.trailing_data[0]:
            message = f"Timed out after {HEAD_SECONDS:g} s waiting for the request headers."
            self._reject(HTTPStatus.REQUEST_TIMEOUT, message)
        else:
            self.transport.close()

    def _reject(self, status: HTTPStatus, message: str) -> None:
        code = status.phrase.lower().replace(" ", "_")
        body: dict[str, Any] = {"error": {"code": code, "message": message, "details": {}}}
        content = json.dumps(body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(content)), "cache-control": "no-store"}
        response = h11.Response(
            status_code=status, headers=[*headers.items(), ("connection", "close")], reason=status.phrase
        )
        for event in (response, h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        address = self.client[0] if self.client else "unknown"
        LOGGER.warning("rejected invalid HTTP: %d %s; by anonymous from %s", status, code, address)
