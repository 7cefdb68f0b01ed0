"""HTTP/1.1 as uvicorn speaks it, but every refusal has the one shape, and nobody takes for ever over a request."""

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
"""Time for the line and the headers of a request, from the connection or the first byte on."""

LARGEST_HEAD = 64 * 1024
"""Bytes of the line and the headers of a request."""


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
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, config: uvicorn.Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.conn: _Connection = _Connection(h11.SERVER, LARGEST_HEAD)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin, and wait for a request no longer than it may take."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came, and wait for the rest of a head no longer than it may take."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, with nothing left to wait for."""
        super().connection_lost(exc)
        self._unwatch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; uvicorn's own answer is a bare line."""
        if self.conn.ambiguity:
            self._refuse(HTTPStatus.BAD_REQUEST, f"{self.conn.ambiguity}.")
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, f"{msg.rstrip('.')}. Send HTTP/1.1, with a head of at most 64 KiB.")

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def _unwatch(self) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = None

    def _late(self) -> None:
        """Hang up: with an answer if a request was begun, and without if nothing ever came."""
        self._deadline = None
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            return
        if self.conn.trailing_data[0]:
            message = f"The head of the request was not there within {HEAD_SECONDS:g} s. Send it again, faster."
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, message)
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        code = status.phrase.lower().replace(" ", "_")
        body: dict[str, Any] = {"error": {"code": code, "message": message, "details": {}}}
        said = json.dumps(body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(said)), "cache-control": "no-store"}
        answer = h11.Response(
            status_code=status, headers=[*headers.items(), ("connection", "close")], reason=status.phrase
        )
        for event in (answer, h11.Data(data=said), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        LOGGER.warning("refused what is no request: %d %s; by nobody known from %s", status, code, self._address)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else "unknown"
