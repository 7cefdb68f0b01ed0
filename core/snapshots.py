"""Write, sign and verify snapshots: a whole registry as lines of JSON, the last of them signed with Ed25519.

The first line is ``{"format", "loradar", "serial", "head", "since"}``, then there is a line ``{"change"}`` for each
entry of the audit log and one for each architecture. The last one is ``{"signed": {"digest", "serial", "head", "since",
"architectures", "issued", "expires"}, "signature"}``: a signature over the canonical JSON of ``signed``, whose
``digest`` is over the bytes of all lines before. Signing and verifying need ``cryptography``, of the extra ``server``.
"""

import gzip
import json
import os
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final, Literal, cast

from .errors import InvalidConfig, SignatureInvalid, SnapshotRejected
from .extras import require
from .schema import Config, canonical, schema_config, to_json
from .settings import SIGNING_KEY_VARIABLE, Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = 2
"""Counted up with every change of the lines: a mirror must not lose what it does not know."""

VALID = timedelta(days=7)
"""Time for which a snapshot may be loaded."""

LARGEST_LINE = 32 << 20
"""Bytes of a line: the largest architecture in the catalog has a thirtieth."""

LARGEST_SNAPSHOT = 2 << 30
"""Bytes of a snapshot, decompressed: sixty times the catalog."""

KEY_FILE = "signing-key"
"""Name of the key file in ``Settings.home``."""

ALGORITHM: Final = "ed25519"
_KEY_BYTES = 32


class Signer:
    """Sign for one registry.

    Attributes:
        key: The public key, base64 of its 32 bytes.
    """

    def __init__(self, private: "Ed25519PrivateKey") -> None:
        self._private = private
        self.key = b64encode(private.public_key().public_bytes_raw()).decode()

    @classmethod
    def of(cls, settings: Settings) -> "Signer":
        """Return a signer with the configured key, or with a key made on first use and kept in a file.

        Raises:
            InvalidConfig: If the key is not base64 of 32 bytes, or its file cannot be read or written.
            MissingExtra: If ``cryptography`` is not installed.
        """
        require("server", "cryptography")
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - optional

        text, place = settings.signing_key, SIGNING_KEY_VARIABLE
        if not text:
            path = settings.home / KEY_FILE
            place = str(path)
            try:
                text = _read_or_make(path)
            except OSError as error:
                message = f"Cannot use the signing key file {place!r}: {error.strerror}. Set {SIGNING_KEY_VARIABLE}."
                raise InvalidConfig(message, path=place) from error
        raw = _decode(text)
        if raw is None:  # the value is not shown: it may be a real key with a typo
            way_out = "Make one with: head -c 32 /dev/urandom | base64"
            message = f"Invalid signing key in {place}: it must be base64 of {_KEY_BYTES} bytes. {way_out}"
            raise InvalidConfig(message, place=place)
        return cls(Ed25519PrivateKey.from_private_bytes(raw))

    def sign(self, message: bytes) -> str:
        """Return the signature of a message, as base64."""
        return b64encode(self._private.sign(message)).decode()


def _read_or_make(path: Path) -> str:
    """Return the text of the key file; if there is none, make one that only the user can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.", encoding="ascii") as made:  # mode 0600
            made.write(b64encode(os.urandom(_KEY_BYTES)).decode() + "\n")
            made.flush()
            with suppress(FileExistsError):
                os.link(made.name, path)  # unlike a rename, it fails if another process was faster
    return path.read_text("utf-8", errors="replace")  # undecodable bytes are rejected as base64


def _decode(text: str, size: int = _KEY_BYTES) -> bytes | None:
    try:
        raw = b64decode(text.strip(), validate=True)
    except ValueError:
        return None
    return raw if len(raw) == size else None


def check_signature(key: str, message: bytes, signature: str) -> None:
    """Verify that a message was signed with the private half of a key.

    Args:
        key: The public key, base64 of its 32 bytes.
        message: The signed bytes.
        signature: Base64.

    Raises:
        SignatureInvalid: If it was not, or the key or signature is not base64 of the right length.
        MissingExtra: If ``cryptography`` is not installed.
    """
    require("server", "cryptography")
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - optional
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    public, signed = _decode(key), _decode(signature, 2 * _KEY_BYTES)
    if public is None or signed is None:
        what, value = ("key", key) if public is None else ("signature", signature)
        malformed = f"Malformed {ALGORITHM} {what} {value[:100]!r}: give the one that the service sent."
        raise SignatureInvalid(malformed, key=key[:100])
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signed, message)
    except (InvalidSignature, ValueError):
        mismatch = f"The signature does not match the key {key}: the snapshot was altered, or signed with another key."
        raise SignatureInvalid(mismatch, key=key) from None


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """The signed facts about a snapshot."""

    digest: str
    """``sha256:`` over the bytes of all lines but the last."""
    serial: int
    """Serial of the registry when the snapshot was made."""
    head: str | None
    """Digest of the change with this serial; null without any change."""
    since: int | None
    """Serial after which the architectures changed; null for the whole registry."""
    architectures: int
    """Number of architecture lines."""
    issued: str
    """ISO 8601 time in UTC at which it was signed."""
    expires: str
    """Time from which it is not loaded any more."""


@dataclass(frozen=True, slots=True)
class SnapshotKey:
    """The public half of the key that signs snapshots."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (SnapshotKey("ed25519", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),)
    )

    algorithm: Literal["ed25519"]
    key: str
    """Base64 of its 32 bytes."""


_ARCHITECTURE = b'{"architecture":'
"""Start of the line of an architecture: the keys are sorted."""


def canonical_line(value: Any) -> str:
    """Return the canonical JSON text of a value as a line."""
    return canonical(value) + "\n"


class _Summary:
    """Collect the digest of lines and the facts of the first one."""

    def __init__(self) -> None:
        self._digest = sha256()
        self._first: dict[str, Any] = {}
        self._architectures = 0

    def add(self, line: bytes) -> None:
        self._first = self._first or json.loads(line)
        self._architectures += line.startswith(_ARCHITECTURE)
        self._digest.update(line)

    def require_format(self) -> None:
        written = self._first["format"]
        if written != FORMAT:
            message = f"The snapshot was written by loradar {self._first['loradar']} as format {written}, not {FORMAT}."
            raise SnapshotRejected(f"{message} Run one version of loradar on both sides.", format=written)

    def info(self, issued: str, expires: str) -> SnapshotInfo:
        first = {name: self._first[name] for name in ("serial", "head", "since")}
        digest = f"sha256:{self._digest.hexdigest()}"
        return SnapshotInfo(digest=digest, architectures=self._architectures, issued=issued, expires=expires, **first)


def signed_lines(lines: Iterable[str], signer: Signer, valid: timedelta = VALID) -> Iterator[bytes]:
    """Yield the lines of a snapshot, followed by one with the signature, which is valid for a time from its start."""
    total, issued = _Summary(), datetime.now(UTC)
    for line in lines:
        encoded = line.encode()
        total.add(encoded)
        yield encoded
    info = to_json(total.info(_to_text(issued), _to_text(issued + valid)))
    yield canonical_line({"signed": info, "signature": signer.sign(canonical(info).encode())}).encode()


def _to_text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def write_snapshot(out: Path, lines: Iterable[str], signer: Signer, valid: timedelta = VALID) -> SnapshotInfo:
    """Write a snapshot and return its facts; the file appears once it is complete.

    Raises:
        OSError: If it cannot be written.
    """
    with part_of(out) as part:
        with part.open("wb") as file:
            file.writelines(signed_lines(lines, signer, valid))
        with part.open("rb") as file:
            return check_snapshot(file, signer.key)


@contextmanager
def part_of(out: Path) -> Iterator[Path]:
    """Give a temporary file beside ``out`` that replaces it at the end, unless an error is raised."""
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def check_snapshot(lines: Iterable[bytes], key: str) -> SnapshotInfo:
    """Verify a snapshot and return its facts.

    Args:
        lines: The lines with their line ends.
        key: The public key of the signer.

    Raises:
        SignatureInvalid: If it was cut off, altered, or signed with another key.
        SnapshotRejected: If it is of another format.
        MissingExtra: If ``cryptography`` is not installed.
    """
    total, last = _Summary(), b""
    try:
        for line in lines:
            if last:
                total.add(last)
            last = line
        trailer = json.loads(last)
        total.require_format()
        signed, signature = trailer["signed"], trailer["signature"]
        found = total.info(signed["issued"], signed["expires"])
        statement = canonical(signed).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        message = "Incomplete snapshot: there is no signature at its end. Fetch it again."
        raise SignatureInvalid(message) from None
    check_signature(key, statement, str(signature))
    if signed != to_json(found):
        message = f"Altered snapshot: the signed digest is {signed.get('digest')!r}, the actual one {found.digest!r}."
        raise SignatureInvalid(message, signed=signed, found=to_json(found))
    return found


def require_current(info: SnapshotInfo) -> None:
    """Raise ``SnapshotRejected`` if a snapshot has expired: whoever sends an old one would hide what came after it."""
    now = datetime.now(UTC)
    try:
        is_current = datetime.fromisoformat(info.issued) <= datetime.fromisoformat(info.expires)
        is_current = is_current and now < datetime.fromisoformat(info.expires)
    except (TypeError, ValueError):
        is_current = False
    if not is_current:
        message = (
            f"This snapshot, issued at {info.issued}, expired at {info.expires}; by this machine's clock it is "
            f"{_to_text(now)}. Fetch a new one from its source, or correct the clock."
        )
        raise SnapshotRejected(message, issued=info.issued, expires=info.expires)


@contextmanager
def open_snapshot(path: Path) -> Iterator[Iterator[bytes]]:
    """Open a snapshot, plain or compressed with gzip, and yield its lines, of bounded length in total and each.

    Raises:
        SnapshotRejected: While reading, if it exceeds a limit or is not gzip to its end.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        with gzip.open(file) if is_packed else file as content:
            yield _bounded(cast("BinaryIO", content), str(path))


def _bounded(content: BinaryIO, place: str) -> Iterator[bytes]:
    total = 0
    try:
        while line := content.readline(LARGEST_LINE + 1):
            total += len(line)
            if len(line) > LARGEST_LINE or total > LARGEST_SNAPSHOT:
                limit = f"{LARGEST_LINE >> 20} MiB a line, {LARGEST_SNAPSHOT >> 20} MiB in total"
                message = f"{place} is larger than any snapshot of loradar ({limit}). Fetch it again from its source."
                raise SnapshotRejected(message, file=place)
            yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SignatureInvalid(f"{place} was cut off or altered: {error}. Fetch it again.", file=place) from None
