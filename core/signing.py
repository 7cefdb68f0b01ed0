"""Sign snapshots and verify signatures with Ed25519; needs ``cryptography``, of the extra ``server``."""

import os
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Final

from .errors import InvalidConfig, SignatureInvalid
from .extras import require
from .settings import SIGNING_KEY_VARIABLE, Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = "signing-key"
"""Name of the key file in ``Settings.home``."""

ALGORITHM: Final = "ed25519"
_BYTES = 32


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
        if settings.signing_key:
            return cls._from_text(settings.signing_key, SIGNING_KEY_VARIABLE)
        path = settings.home / FILE
        try:
            return cls._from_text(_read_or_make(path), str(path))
        except OSError as error:
            message = f"Cannot use the signing key file {str(path)!r}: {error.strerror}. Set {SIGNING_KEY_VARIABLE}."
            raise InvalidConfig(message, path=str(path)) from error

    @classmethod
    def _from_text(cls, text: str, place: str) -> "Signer":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - optional

        raw = _decode(text)
        if raw is None:  # the value is not shown: it may be a real key with a typo
            way_out = "Make one with: head -c 32 /dev/urandom | base64"
            message = f"Invalid signing key in {place}: it must be base64 of {_BYTES} bytes. {way_out}"
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
            made.write(b64encode(os.urandom(_BYTES)).decode() + "\n")
            made.flush()
            with suppress(FileExistsError):
                os.link(made.name, path)  # unlike a rename, it fails if another process was faster
    return path.read_text("utf-8", errors="replace")  # undecodable bytes are rejected as base64


def _decode(text: str, size: int = _BYTES) -> bytes | None:
    try:
        raw = b64decode(text.strip(), validate=True)
    except (NotBase64, ValueError):
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

    public, signed = _decode(key), _decode(signature, 2 * _BYTES)
    if public is None or signed is None:
        what, value = ("key", key) if public is None else ("signature", signature)
        malformed = f"Malformed {ALGORITHM} {what} {value[:100]!r}: give the one that the service sent."
        raise SignatureInvalid(malformed, key=key[:100])
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signed, message)
    except (InvalidSignature, ValueError):
        mismatch = f"The signature does not match the key {key}: the snapshot was altered, or signed with another key."
        raise SignatureInvalid(mismatch, key=key) from None
