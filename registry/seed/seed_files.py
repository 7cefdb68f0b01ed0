"""List the files a registry is seeded from, and compute their digest. Must not import SQLAlchemy: lookups load it."""

import os
from hashlib import sha256
from importlib.resources.abc import Traversable

from ...catalog.entries import list_catalogs, list_older
from ..peft_constants.reading import constants_file

_TAIL = 1 << 16


def seed_catalogs() -> list[Traversable]:
    """Return the catalog files a registry is seeded from."""
    return list_catalogs()


def seed_older() -> list[Traversable]:
    """Return the files on older library versions a registry is seeded from."""
    return list_older()


def seed_digest() -> str:
    """Return ``sha256:`` and the digest of the files a registry is seeded from.

    It is computed whenever a registry is opened. Of a scan's file only the header, the size and the last lines are
    read, which together change with any scan of a library.
    """
    digest = sha256(constants_file().read_bytes())
    for file in (*seed_catalogs(), *seed_older()):
        with file.open("rb") as content:
            digest.update(content.readline())
            size = content.seek(0, os.SEEK_END)
            content.seek(max(0, size - _TAIL))
            digest.update(f"{size}".encode() + content.read())
    return f"sha256:{digest.hexdigest()}"
