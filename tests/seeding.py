"""Seeded registries: one per process of pytest is made, and what else would be seeded with the same copies it."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from loradar.registry import Registry, catalogs
from loradar.registry.db import prepare, shipped
from loradar.registry.db.database import Database
from loradar.settings import Settings

PREPARE = prepare._prepare
LISTS: Mapping[str, Callable[[], Any]] = {name: getattr(catalogs, name) for name in ("list_catalogs", "list_older")}
"""What the packaged registry is seeded from, whatever a test puts in its place."""
PEFT_ALONE: Mapping[str, Callable[[], Any]] = dict.fromkeys(LISTS, list)
"""PEFT's tables and no catalog: a tenth of a second, and a tenth of the rows."""


@contextmanager
def seeds_of(lists: Mapping[str, Callable[[], Any]]) -> Iterator[None]:
    """Seed registries from other lists of catalogs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, function in lists.items():
            patch.setattr(catalogs, name, function)
        yield


def digest_of(lists: Mapping[str, Callable[[], Any]]) -> str:
    """Return the digest of a seed from lists of catalogs."""
    with seeds_of(lists):
        return catalogs.seed_digest()


KNOWN = frozenset(map(digest_of, (LISTS, PEFT_ALONE)))
"""Digests of the seeds that tests share."""


def make_seeded(path: Path, lists: Mapping[str, Callable[[], Any]] = LISTS) -> Path:
    """Make a registry file, seeded from the packaged catalogs or others, and return its path."""
    with pytest.MonkeyPatch.context() as patch, seeds_of(lists):
        patch.setattr(prepare, "_prepare", PREPARE)
        patch.setattr(shipped, "find_shipped", lambda _digest: None)
        Registry.open(Settings(path.parent, f"sqlite:///{path}")).close()
    return path


def copy_seeded(request: pytest.FixtureRequest, database: Database, seed: prepare.Seed) -> None:
    """Prepare a database; a new file is a copy of the test's ``seeded`` one, if that has the same content.

    That file may be made now, within a test that has replaced parts of what seeds: then its digest is another.
    """
    if database.file and not database.file.exists() and seed.digest in KNOWN:
        source = request.getfixturevalue("seeded")
        with closing(sqlite3.connect(source)) as connection:
            is_same = connection.execute("SELECT 1 FROM seeds WHERE digest = ?", (seed.digest,)).fetchone()
        if is_same:
            prepare.create_folder(database.url)
            shutil.copy(source, database.file)
    PREPARE(database, seed)
