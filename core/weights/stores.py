"""Where a model is stored: a folder, or a repo on a hub; both list their files and give parts of them."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from errno import ENOENT
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from ..errors import HubFailed, WeightsUnreadable
from ..extras import require
from ..hub_errors import explain_missing, translate_errors
from ..references import HubFolder

AT_ONCE = 8
"""Requests that are made at once."""
MOST_REDIRECTS = 5
MOST_SECONDS = 60.0
"""Time for one part of a file, however slowly it drips."""
PART, BEYOND_THE_END = 206, 416
"""Statuses of answers to a request for a part of a file."""
OWN_STORAGE = {"huggingface.co": (".hf.co", ".huggingface.co")}
"""Hosts that a hub keeps large files on, by the hub's own."""


class Store(Protocol):
    """The files of a model. A part that begins beyond the end of a file is empty.

    Attributes:
        most_shards: Shards up to which the header of each is read.
    """

    most_shards: int

    def list_files(self) -> frozenset[str]:
        """Return the names of its files."""

    def read(self, name: str, start: int, length: int) -> tuple[bytes, int | None]:
        """Return up to ``length`` bytes of a file from ``start``, and the size of the whole file, if known."""

    def read_each(self, parts: dict[str, int]) -> Iterator[tuple[str, bytes, int | None]]:
        """Yield the name, the beginning and the size of several files, of which so many bytes are asked for."""


class Folder:
    """A folder of this machine."""

    most_shards = 4096

    def __init__(self, path: Path) -> None:
        self.path = path

    def list_files(self) -> frozenset[str]:
        """Return the names of its files."""
        return frozenset(entry.name for entry in os.scandir(self.path) if entry.is_file())

    def read(self, name: str, start: int, length: int) -> tuple[bytes, int | None]:
        """Return a part of a file and its size."""
        try:
            if not (self.path / name).is_file():  # a pipe would be waited for, a device read for ever
                raise FileNotFoundError(ENOENT, "it is no file of this folder")
            with (self.path / name).open("rb") as file:
                file.seek(start)
                return file.read(length), os.fstat(file.fileno()).st_size
        except OSError as error:
            message = f"{self.path / name} cannot be read: {error.strerror or error}."
            raise WeightsUnreadable(message, file=str(self.path / name)) from error

    def read_each(self, parts: dict[str, int]) -> Iterator[tuple[str, bytes, int | None]]:
        """Yield the beginnings of files."""
        for name, length in parts.items():
            yield name, *self.read(name, 0, length)


class HubStore:
    """A folder in a repo, at one commit. ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` apply.

    A redirect is followed on the host of the endpoint and to the storage of the public hub; no token goes along where
    host or port differ. For others it stays on the endpoint's own port: another may be a service of this network.
    """

    most_shards = 16

    def __init__(self, folder: HubFolder, *, is_anonymous: bool = False) -> None:
        require("scan", "huggingface_hub")
        from huggingface_hub import HfApi  # noqa: PLC0415 - an extra

        self.folder = folder
        self.is_anonymous = is_anonymous
        self.api = HfApi(token=False if is_anonymous else None)
        self.transferred = 0
        self._revision = folder.revision

    def find_cached(self) -> Folder | None:
        """Return the folder in the cache, of which any file may be missing, if ``HF_HUB_OFFLINE`` is set."""
        from huggingface_hub import constants, errors, snapshot_download  # noqa: PLC0415

        if not constants.HF_HUB_OFFLINE:
            return None
        try:
            path = snapshot_download(self.folder.repo, revision=self.folder.revision, local_files_only=True)
        except errors.LocalEntryNotFoundError as error:
            message = f"{self.folder} is not in the cache, and HF_HUB_OFFLINE is set. Unset it once."
            raise HubFailed(message, reference=str(self.folder), endpoint=self.api.endpoint) from error
        return Folder(Path(path) / self.folder.subfolder)

    def list_files(self) -> frozenset[str]:
        """Return the names of the files of the folder, and keep to the commit they were listed at."""
        with self._translating():
            info = self.api.model_info(self.folder.repo, revision=self.folder.revision)
        self._revision = info.sha or self._revision
        start = f"{self.folder.subfolder}/" if self.folder.subfolder else ""
        paths = [sibling.rfilename for sibling in info.siblings or () if sibling.rfilename.startswith(start)]
        return frozenset(path.removeprefix(start) for path in paths)

    def read(self, name: str, start: int, length: int) -> tuple[bytes, int | None]:
        """Return a part of a file and its size."""
        from huggingface_hub import hf_hub_url  # noqa: PLC0415

        path, repo = self.folder.path_of(name), self.folder.repo
        url = hf_hub_url(repo, path, revision=self._revision, endpoint=self.api.endpoint)
        with self._translating():
            content, size = self._request(url, start, length)
        self.transferred += len(content)
        return content, size

    def read_each(self, parts: dict[str, int]) -> Iterator[tuple[str, bytes, int | None]]:
        """Yield the beginnings of files, several requests at a time."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for name, (content, size) in zip(
                parts, threads.map(lambda part: self.read(part[0], 0, part[1]), parts.items()), strict=True
            ):
                yield name, content, size

    @contextmanager
    def _translating(self) -> Iterator[None]:
        reference = str(self.folder)
        with translate_errors(self.api.endpoint, reference, self.folder.repo, explain_missing):
            yield

    def _request(self, url: str, start: int, length: int) -> tuple[bytes, int | None]:
        """Return a part of the content at an address; a server that ignores the range is not read any further."""
        from huggingface_hub import constants, get_session  # noqa: PLC0415
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined] # noqa: PLC0415

        wanted = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        headers = build_hf_headers(token=self.api.token) | wanted
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        for _ in range(MOST_REDIRECTS + 1):
            with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=False) as response:
                if response.status_code == BEYOND_THE_END:
                    return b"", None
                if not response.has_redirect_location:
                    hf_raise_for_status(response)
                    return _receive(response, start, length)
                target = urljoin(url, response.headers["Location"])
            check_redirect(target, self.api.endpoint, str(self.folder), is_own_port=self.is_anonymous)
            if urlsplit(target).netloc != urlsplit(url).netloc:
                headers.pop("authorization", None)
            url = target
        message = f"{self.folder} is redirected more than {MOST_REDIRECTS} times by {self.api.endpoint}."
        raise HubFailed(f"{message} Check HF_ENDPOINT.", reference=str(self.folder), endpoint=self.api.endpoint)


def check_redirect(target: str, endpoint: str, reference: str, *, is_own_port: bool) -> None:
    """Check that a hub redirects to itself or to its own storage.

    Args:
        target: The address it redirects to.
        endpoint: Its own address.
        reference: What is read, for the error.
        is_own_port: Whether another port of its host is another service.

    Raises:
        HubFailed: If it does not.
    """
    own, other = urlsplit(endpoint), urlsplit(target)
    storage = OWN_STORAGE.get(own.hostname or "", ())
    is_same = (other.scheme, other.netloc) == (own.scheme, own.netloc)
    is_own = is_same or (other.hostname == own.hostname and not is_own_port)
    is_stored = bool(storage) and (other.hostname or "").endswith(storage)
    if (is_own or is_stored) and (other.scheme == "https" or other.scheme == own.scheme == "http"):
        return
    way_out = "which is not followed. Check HF_ENDPOINT."
    message = f"{reference} is redirected away from {endpoint}, to {other.scheme}://{other.netloc}, {way_out}"
    raise HubFailed(message, reference=reference, endpoint=endpoint)


def _receive(response: Any, start: int, length: int) -> tuple[bytes, int | None]:
    """Return a part of a file and its size from an answer, whose server may have ignored the range."""
    is_part = response.status_code == PART
    skipped, size = (0, "content-range") if is_part else (start, "content-length")
    content, started = bytearray(), time.monotonic()
    for piece in response.iter_raw():
        content += piece
        if len(content) >= skipped + length:
            break
        if time.monotonic() - started > MOST_SECONDS:
            raise TimeoutError(f"sent {len(content)} bytes in {MOST_SECONDS:.0f} s")
    total = response.headers.get(size, "").rpartition("/")[2]
    return bytes(content[skipped : skipped + length]), int(total) if total.isdecimal() else None
