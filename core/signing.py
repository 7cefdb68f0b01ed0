"""Ed25519: who signs a snapshot, and whether a signature is theirs. Needs ``cryptography``, of the extra ``server``."""

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
"""Name of the file with the key in the folder of the settings."""

ALGORITHM: Final = "ed25519"
_BYTES = 32


class Signer:
    """Signs for one registry.

    Attributes:
        key: The public key, base64 of its 32 bytes.
    """

    def __init__(self, private: "Ed25519PrivateKey") -> None:
        self._private = private
        self.key = b64encode(private.public_key().public_bytes_raw()).decode()

    @classmethod
    def of(cls, settings: Settings) -> "Signer":
        """Return the signer of an environment: its key is the one given, or one made on first use and kept.

        Raises:
            InvalidConfig: If the key is no base64 of 32 bytes, or cannot be read or kept.
            MissingExtra: If ``cryptography`` is not installed.
        """
        require("server", "cryptography")
        if settings.signing_key:
            return cls._from_text(settings.signing_key, SIGNING_KEY_VARIABLE)
        path = settings.home / FILE
        try:
            return cls._from_text(_read_or_make(path), str(path))
        except OSError as error:
            message = f"The signing key {str(path)!r} cannot be used: {error.strerror}. Set {SIGNING_KEY_VARIABLE}."
            raise InvalidConfig(message, path=str(path)) from error

    @classmethod
    def _from_text(cls, text: str, place: str) -> "Signer":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - optional

        raw = _decode(text)
        if raw is None:  # without its value: it may be a real one with a slip
            way_out = "Make one with: head -c 32 /dev/urandom | base64"
            message = f"The signing key in {place} is no base64 of {_BYTES} bytes. {way_out}"
            raise InvalidConfig(message, place=place)
        return cls(Ed25519PrivateKey.from_private_bytes(raw))

    def sign(self, message: bytes) -> str:
        """Return the signature of a message, as base64."""
        return b64encode(self._private.sign(message)).decode()


def _read_or_make(path: Path) -> str:
    """Return the text of a key's file; one that nobody else can read is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.", encoding="ascii") as made:  # mode 0600
            made.write(b64encode(os.urandom(_BYTES)).decode() + "\n")
            made.flush()
            with suppress(FileExistsError):
                os.link(made.name, path)  # unlike a rename, it fails where somebody else was faster
    return path.read_text("utf-8", errors="replace")  # what is no text is no base64 either


def _decode(text: str, size: int = _BYTES) -> bytes | None:
    try:
        raw = b64decode(text.strip(), validate=True)
    except (NotBase64, ValueError):
        return None
    return raw if len(raw) == size else None


def check_signature(key: str, message: bytes, signature: str) -> None:
    """Make sure that a message was signed with the private half of a key.

    Args:
        key: The public key, base64 of its 32 bytes.
        message: What was signed.
        signature: Base64.

    Raises:
        SignatureInvalid: If it was not, or one of them is no base64 of the right length.
        MissingExtra: If ``cryptography`` is not installed.
    """
    require("server", "cryptography")
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - optional
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    public, signed = _decode(key), _decode(signature, 2 * _BYTES)
    if public is None or signed is None:
        what, value = ("key", key) if public is None else ("signature", signature)
        malformed = f"The {what} {value[:100]!r} is none of {ALGORITHM}: give the one that was served."
        raise SignatureInvalid(malformed, key=key[:100])
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signed, message)
    except (InvalidSignature, ValueError):
        refused = f"The signature does not fit the key {key}: it was altered on the way, or signed by somebody else."
        raise SignatureInvalid(refused, key=key) from None
