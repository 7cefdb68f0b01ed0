"""One connection to a service: JSON there and back, and its refusals as the errors the registry itself would raise."""

import time
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2

from ..domain.schema import from_json
from ..errors import NotAuthenticated, ServiceUnreachable, to_error

Record = TypeVar("Record")

PAUSES = (0.2, 0.8)
"""Seconds before a write whose answer was lost is sent again, each time under the same idempotency key."""

DOWNLOAD_SECONDS = 60.0
"""How long to wait for the next piece of a download: a service may have to make it first."""

_LOST = (httpx2.NetworkError, httpx2.RemoteProtocolError)


class Connection:
    """A connection to a loradar service; also a context manager that closes it.

    Attributes:
        url: Where the service is.

    Raises:
        NotAuthenticated: If ``token`` cannot be a token.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        headers = {"Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {_sound(token)}"
        self._http = httpx2.Client(timeout=timeout, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def _get(self, record: type[Record], path: str, query: Json[str, str | None]) -> Record:
        """Return the record at ``path``."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._answer(record, lambda: self._http.get(self.url + path, params=given))

    def _send(
        self,
        record: type[Record],
        path: str,
        body: Json[str, Any],
        *,
        version: int | None = None,
        key: str | None = None,
    ) -> Record:
        """Post ``body`` and return the record in the response.

        Args:
            record: Class of the record.
            path: Where to.
            body: The JSON.
            version: The version the thing must still have (``If-Match``).
            key: Idempotency key; made anew if not given. A connection that breaks is tried again under the same one, so
                that nothing is written twice.
        """
        headers = {"Idempotency-Key": key or str(uuid4())}
        if version is not None:
            headers["If-Match"] = f'"v{version}"'
        return self._answer(record, lambda: self._post(path, body, headers, PAUSES))

    def _send_once(self, record: type[Record], path: str, body: Json[str, Any]) -> Record:
        """Post ``body`` without a key, and so without a second attempt."""
        return self._answer(record, lambda: self._post(path, body, {}, ()))

    def _post(
        self, path: str, body: Json[str, Any], headers: dict[str, str], pauses: Iterable[float]
    ) -> httpx2.Response:
        for pause in pauses:
            try:
                return self._http.post(self.url + path, json=body, headers=headers)
            except _LOST:
                time.sleep(pause)
        return self._http.post(self.url + path, json=body, headers=headers)

    def _download(self, path: str, query: Json[str, str | None], out: Path) -> None:
        """Write what is at ``path`` to a file, however much it is.

        Raises:
            OSError: If the file cannot be written.
        """
        given = {name: value for name, value in query.items() if value is not None}
        try:
            with self._stream(path, given) as response, out.open("wb") as file:
                if response.is_success:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                    return
                response.read()
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(f"{type(error).__name__}: {error}") from error
        self._answer(object, lambda: response)

    def _stream(self, path: str, query: Json[str, str]) -> AbstractContextManager[httpx2.Response]:
        return self._http.stream("GET", self.url + path, params=query, timeout=DOWNLOAD_SECONDS)

    def _answer(self, record: type[Record], ask: Callable[[], httpx2.Response]) -> Record:
        try:
            response = ask()
            body = response.json()
            if response.is_success:
                return from_json(record, body)
            refusal = to_error(body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(f"{type(error).__name__}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreachable("what answers there is no loradar service") from error
        raise refusal

    def _unreachable(self, reason: str) -> ServiceUnreachable:
        message = f"No usable answer from {self.url}: {reason}. Start a service with: loradar serve."
        return ServiceUnreachable(message, url=self.url, reason=reason)


def _sound(token: str) -> str:
    """Return a token that can be sent in a header; what cannot is not repeated, for it may be half of a real one."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        message = "The token has characters that no token has. Make one with: loradar token create NAME --role ROLE"
        raise NotAuthenticated(message)
    return token


def quoted_segment(segment: str) -> str:
    """Return a name as one segment of a URL's path."""
    return quote(segment, safe="")
