"""Write, sign and verify snapshots: a whole registry as lines of JSON, the last of them signed with Ed25519.

The first line is ``{"format", "loradar", "serial", "head", "since"}``, then there is a line for each architecture, and
the last one is ``{"signed": {"digest", "serial", "head", "since", "architectures"}, "signature"}``: a signature over
the canonical JSON of ``signed``, whose ``digest`` is over the bytes of all lines before. Signing and verifying need
``cryptography``, of the extra ``server``.
"""

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from .errors import InvalidConfig, SignatureInvalid
from .extras import require
from .schema import Config, canonical, schema_config, to_json
from .settings import SIGNING_KEY_VARIABLE, Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = 1

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


@dataclass(frozen=True, slots=True)
class SnapshotKey:
    """The public half of the key that signs snapshots."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (SnapshotKey("ed25519", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="),)
    )

    algorithm: Literal["ed25519"]
    key: str
    """Base64 of its 32 bytes."""


def canonical_line(value: Any) -> str:
    """Return the canonical JSON text of a value as a line."""
    return canonical(value) + "\n"


class _Summary:
    """Collect the digest of lines and the facts of the first one."""

    def __init__(self) -> None:
        self._digest = sha256()
        self._first: dict[str, Any] = {}
        self._lines = 0

    def add(self, line: bytes) -> None:
        if not self._lines:
            self._first = json.loads(line)
        self._lines += 1
        self._digest.update(line)

    def info(self) -> SnapshotInfo:
        first = {name: self._first[name] for name in ("serial", "head", "since")}
        return SnapshotInfo(digest=f"sha256:{self._digest.hexdigest()}", architectures=self._lines - 1, **first)


def signed_lines(lines: Iterable[str], signer: Signer) -> Iterator[bytes]:
    """Yield the lines of a snapshot, followed by one with the signature."""
    total = _Summary()
    for line in lines:
        encoded = line.encode()
        total.add(encoded)
        yield encoded
    info = to_json(total.info())
    yield canonical_line({"signed": info, "signature": signer.sign(canonical(info).encode())}).encode()


def write_snapshot(out: Path, lines: Iterable[str], signer: Signer) -> SnapshotInfo:
    """Write a snapshot and return its facts; the file appears once it is complete.

    Raises:
        OSError: If it cannot be written.
    """
    with part_of(out) as part:
        with part.open("wb") as file:
            file.writelines(signed_lines(lines, signer))
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
        MissingExtra: If ``cryptography`` is not installed.
    """
    total, last = _Summary(), b""
    try:
        for line in lines:
            if last:
                total.add(last)
            last = line
        trailer = json.loads(last)
        signed, signature, found = trailer["signed"], trailer["signature"], total.info()
        statement = canonical(signed).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        message = "Incomplete snapshot: there is no signature at its end. Fetch it again."
        raise SignatureInvalid(message) from None
    check_signature(key, statement, str(signature))
    if signed != to_json(found):
        message = f"Altered snapshot: the signed digest is {signed.get('digest')!r}, the actual one {found.digest!r}."
        raise SignatureInvalid(message, signed=signed, found=to_json(found))
    return found
