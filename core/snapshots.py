"""Write and verify snapshots: a whole registry as lines of JSON, the last of them signed.

The first line is ``{"format", "loradar", "serial", "head", "since"}``, then there is a line for each architecture, and
the last one is ``{"signed": {"digest", "serial", "head", "since", "architectures"}, "signature"}``: an Ed25519
signature over the canonical JSON of ``signed``, whose ``digest`` is over the bytes of all lines before.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

from .errors import SignatureInvalid
from .schema import Config, schema_config, to_json
from .signing import Signer, check_signature

FORMAT = 1

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


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
    """Return the canonical JSON text of a value on a line: keys sorted, no spaces, ASCII only."""
    return _ENCODER.encode(value) + "\n"


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
    yield canonical_line({"signed": info, "signature": signer.sign(_ENCODER.encode(info).encode())}).encode()


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
        statement = _ENCODER.encode(signed).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        message = "Incomplete snapshot: there is no signature at its end. Fetch it again."
        raise SignatureInvalid(message) from None
    check_signature(key, statement, str(signature))
    if signed != to_json(found):
        message = f"Altered snapshot: the signed digest is {signed.get('digest')!r}, the actual one {found.digest!r}."
        raise SignatureInvalid(message, signed=signed, found=to_json(found))
    return found
