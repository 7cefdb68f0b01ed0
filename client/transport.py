"""Send requests of a client: again where that can do no harm, and from its store on disk if the service fails.

The store is hishel's, which follows RFC 9111 (ETags, ``Cache-Control``); what it leaves out is here: stale-if-error.
"""

import sqlite3
from pathlib import Path
from typing import Any

import httpx2
from hishel import CacheOptions, SqliteStorage
from hishel.httpx2 import CacheTransport
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from typing_extensions import override

from ..warn import warn

ATTEMPTS = 3
"""Times that a request is sent at most."""

PAUSE = wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.4)
"""Pause before the next attempt, unless the service states one."""

LONGEST_PAUSE = 5.0
"""Seconds that a service may ask a client to wait before the next attempt; if it asks for more, there is none."""

MOST_STORED = 64 << 20
"""Bytes of responses on disk; the least recently used make room for new ones."""

STALE = "loradar.stale"
"""Extension of a response that was stored before the service failed: the reason."""

_STORED_ONLY = "loradar.stored_only"
"""Extension of a request that no service is asked."""

_BUSY = frozenset({429, 502, 503, 504})
"""Statuses of a service that may answer soon."""

_FAILING = 500
_RFC = CacheOptions(shared=True)  # shared: what was sent with a token is not stored, unless it is public
_RFC_STALE = CacheOptions(shared=True, allow_stale=True)


class ServerFailing(httpx2.TransportError):
    """A response of a service that cannot answer.

    Attributes:
        response: The response, read.
        pause: Seconds to wait before the next attempt, if it states them.
    """

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(f"HTTP {response.status_code}")
        self.response = response
        stated = response.headers.get("Retry-After", "")
        self.pause = float(stated) if stated.isdecimal() else None


class PatientTransport(httpx2.BaseTransport):
    """Send a request up to ``ATTEMPTS`` times, with growing pauses and jitter, and raise if the service fails.

    Args:
        transport: The transport that sends.
    """

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        self._transport = transport

    @override
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.extensions.get(_STORED_ONLY):
            message = "nothing is stored"
            raise httpx2.ConnectError(message, request=request)
        is_repeatable = request.method in {"GET", "HEAD"} or "Idempotency-Key" in request.headers
        condition = retry_if_exception(_may_pass if is_repeatable else _was_not_sent)
        again = Retrying(retry=condition, stop=stop_after_attempt(ATTEMPTS), wait=_find_pause, reraise=True)
        return again(self._send, request)

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        response = self._transport.handle_request(request)
        if response.status_code >= _FAILING or response.status_code in _BUSY:
            response.read()
            raise ServerFailing(response)
        return response

    @override
    def close(self) -> None:
        self._transport.close()


def _was_not_sent(error: BaseException) -> bool:
    return isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)


def _may_pass(error: BaseException) -> bool:
    """Return whether a request that can be repeated is to be sent again after an error."""
    if isinstance(error, ServerFailing):
        return error.response.status_code in _BUSY and (error.pause or 0) <= LONGEST_PAUSE
    return isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError | httpx2.ConnectTimeout)


def _find_pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    stated = error.pause if isinstance(error, ServerFailing) else None
    return PAUSE(state) if stated is None else stated


class StoringTransport(CacheTransport):
    """Store responses on disk, revalidate them by their ETag, and return one that is stale if the service fails.

    Args:
        transport: The transport that asks the service.
        storage: Where responses are stored.
    """

    def __init__(self, transport: httpx2.BaseTransport, storage: SqliteStorage) -> None:
        super().__init__(transport, storage, rfc=_RFC)

    @override
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "GET" or request.headers.get("Cache-Control") == "no-store":
            return self.next_transport.handle_request(request)
        try:
            return super().handle_request(request)
        except httpx2.TransportError as error:
            stored = self._find_stored(request)
            if stored is None:
                raise
            since = f" of {stored.headers['Date']}" if "Date" in stored.headers else ""
            stored.extensions[STALE] = f"({type(error).__name__}: {error}): its stored response{since} is used"
            return stored
        except sqlite3.Error as error:
            warn(f"Responses are not stored: {error}.")
            return self.next_transport.handle_request(request)

    def _find_stored(self, request: httpx2.Request) -> httpx2.Response | None:
        """Return the stored response to a request, however old; ``None`` if there is none."""
        headers = httpx2.Headers([pair for pair in request.headers.multi_items() if pair[0] != "cache-control"])
        extensions = {**request.extensions, _STORED_ONLY: True, "caching": {"rfc": _RFC_STALE}}
        again = httpx2.Request(request.method, request.url, headers=headers, extensions=extensions)
        try:
            return super().handle_request(again)
        except (httpx2.TransportError, sqlite3.Error):
            return None


class HttpClient(httpx2.Client):
    """A client of httpx2 whose requests go through the transports above, also those through a proxy.

    Args:
        storage: Where responses are stored; ``None`` for nowhere.
        options: As in ``httpx2.Client``.
    """

    def __init__(self, storage: SqliteStorage | None, **options: Any) -> None:
        self._storage = storage
        super().__init__(**options, follow_redirects=False)

    @override
    def _init_transport(self, *arguments: Any, **options: Any) -> httpx2.BaseTransport:
        return self._wrap(super()._init_transport(*arguments, **options))

    @override
    def _init_proxy_transport(self, *arguments: Any, **options: Any) -> httpx2.BaseTransport:
        return self._wrap(super()._init_proxy_transport(*arguments, **options))

    def _wrap(self, transport: httpx2.BaseTransport) -> httpx2.BaseTransport:
        patient = PatientTransport(transport)
        return StoringTransport(patient, self._storage) if self._storage else patient


def open_storage(file: Path) -> SqliteStorage | None:
    """Return the storage in a file that its owner alone can read; ``None``, with a warning, if it cannot be used."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA schema_version")
        except sqlite3.Error:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as error:
        warn(f"Responses are not stored in {file}: {error}.")
        return None
    return SqliteStorage(connection=connection, max_size=MOST_STORED)
