"""The files a registry is seeded from, and the digest that tells one seed from another. No SQLAlchemy in here."""

import os
from hashlib import sha256
from importlib.resources.abc import Traversable

from ...catalog.entries import list_catalogs
from ...catalog.older_versions import list_older
from ..peft_constants.reading import constants_file

_TAIL = 1 << 16


def seed_catalogs() -> list[Traversable]:
    """Return the catalog files a registry is seeded from."""
    return list_catalogs()


def seed_older() -> list[Traversable]:
    """Return the files on older versions of libraries a registry is seeded from."""
    return list_older()


def seed_digest() -> str:
    """Return ``sha256:`` and the digest of what a registry of this loradar is seeded from.

    It is asked for whenever a registry is opened, so of a scan's file only its header, its size and its last lines
    are read: together they change with any scan of a library.
    """
    digest = sha256(constants_file().read_bytes())
    for file in (*seed_catalogs(), *seed_older()):
        with file.open("rb") as content:
            digest.update(content.readline())
            size = content.seek(0, os.SEEK_END)
            content.seek(max(0, size - _TAIL))
            digest.update(f"{size}".encode() + content.read())
    return f"sha256:{digest.hexdigest()}"
