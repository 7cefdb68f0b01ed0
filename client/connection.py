"""Send requests to a loradar service, and raise its errors as the registry's own."""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Json
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2

from ..errors import LoradarError, NotAuthenticated, ServiceUnreachable
from ..progress import Show
from ..received_errors import to_error
from ..schema import from_json
from ..settings import Settings
from ..static_files import INDEX, StaticIndex
from ..warn import warn
from .download import SECONDS, download
from .transport import STALE, HttpClient, ServerFailing, open_storage

Record = TypeVar("Record")

QueryValue = str | int | Sequence[str]
"""A value of a query; a sequence repeats its parameter."""

STORE = "responses.sqlite3"
"""Name of the file that stores responses, in the folder of loradar's files."""

NO_SERVICE = "the response is not from a loradar service"
"""Reason of ``ServiceUnreachable`` for a response that is none of ours."""

_PRIVATE = ("/v1/submissions", "/v1/tokens", "/v1/changes")
"""Paths whose responses are never stored: they are of one person, or must be current."""


class Connection:
    """A connection to a loradar service; also a context manager that closes it.

    Attributes:
        url: URL of the service; no other host is contacted, and redirects are rejected.

    Raises:
        NotAuthenticated: If ``token`` cannot be a token.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        store: Path | bool = True,
        revalidate: bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        headers = {"Accept": "application/json"}
        if token is not None:
            if not token or not token.isascii() or not token.isprintable() or " " in token:
                # Not repeated in the message: it may be half of a real one.
                message = "The token has invalid characters. Create one with: loradar token create NAME --role ROLE"
                raise NotAuthenticated(message)
            headers["Authorization"] = f"Bearer {token}"
        file = Settings.from_environment().home / STORE if store is True else store
        self._reading = {"Cache-Control": "no-cache"} if revalidate else {}
        self._index: StaticIndex | None = None
        self._is_static: bool | None = None  # not known yet
        self._http = HttpClient(open_storage(file) if file else None, timeout=timeout, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def _get(self, record: type[Record], path: str, **query: QueryValue | None) -> Record:
        """Return the record at ``path``; parameters that are ``None`` are left out."""
        headers = {"Cache-Control": "no-store"} if path.startswith(_PRIVATE) else self._reading
        return self._receive(record, lambda: self._http.get(self.url + path, params=_given(query), headers=headers))

    def _post(
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
            path: Path of the resource.
            body: JSON to send.
            version: Version that what is changed must still have (``If-Match``).
            key: Idempotency key, a new one if not given. A request whose connection breaks is repeated under the same
                key, so that nothing is written twice.
        """
        headers = {"Idempotency-Key": key or str(uuid4())}
        if version is not None:
            headers["If-Match"] = f'"v{version}"'
        return self._receive(record, lambda: self._http.post(self.url + path, json=body, headers=headers))

    def _find_index(self) -> StaticIndex | None:
        """Return the index of static files at the URL; ``None`` if a service is there.

        Raises:
            ServiceUnreachable: If neither is.
        """
        if self._is_static is None:
            try:
                self._index = self._get(StaticIndex, f"/{INDEX}")
            except ServiceUnreachable:
                raise
            except LoradarError:  # of a service, which has no such route
                self._is_static = False
            else:
                self._is_static = True
        return self._index

    def _post_once(self, record: type[Record], path: str, body: Json[str, Any]) -> Record:
        """Post ``body`` without an idempotency key, and so without repeating it."""
        return self._receive(record, lambda: self._http.post(self.url + path, json=body))

    def _download(self, path: str, out: Path, show: Show | None = None, **query: str | int | None) -> None:
        """Write the response at ``path`` to a file as it is sent, and continue the part in ``out`` (``download``).

        Raises:
            OSError: If the file cannot be written.
        """
        try:
            request = self._http.build_request("GET", self.url + path, params=_given(query), timeout=SECONDS)
            response = download(request, self._http, out, show)
        except ServerFailing as error:
            response = error.response
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(f"{type(error).__name__}: {error}") from error
        if response is not None:
            self._receive(object, lambda: response)  # raises the error in the response

    def _receive(self, record: type[Record], send: Callable[[], httpx2.Response]) -> Record:
        try:
            response = _answer(send)
            if response.is_redirect:
                place = response.headers.get("Location", "")[:200]
                raise self._unreachable(f"it redirects to {place!r}, which is not followed: give the URL it serves at")
            body = response.json()
            if response.is_success:
                found = from_json(record, body)
                if stale := response.extensions.get(STALE):
                    warn(f"{self.url} fails {stale}, which may be out of date.")
                return found
            raised = to_error(body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(f"{type(error).__name__}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._unreachable(NO_SERVICE) from error
        raise raised

    def _unreachable(self, reason: str) -> ServiceUnreachable:
        message = f"No usable response from {self.url}: {reason}. Start a service with: loradar serve."
        return ServiceUnreachable(message, url=self.url, reason=reason)


def _answer(send: Callable[[], httpx2.Response]) -> httpx2.Response:
    """Return a response, also an error of the service."""
    try:
        return send()
    except ServerFailing as error:
        return error.response


def _given(query: Json[str, QueryValue | None]) -> dict[str, QueryValue]:
    return {name: value for name, value in query.items() if value is not None}


def quoted_segment(segment: str) -> str:
    """Return a name as one segment of a URL's path."""
    return quote(segment, safe="")
