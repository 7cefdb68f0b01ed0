"""Seeded registries: one per process of pytest is made, and what else would be seeded with the same copies it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from loradar.registry import Registry
from loradar.registry.db import prepare
from loradar.registry.db.database import Database
from loradar.settings import Settings

PREPARE = prepare._prepare
CATALOGS = ("list_catalogs", "list_older")


@contextmanager
def peft_alone() -> Iterator[None]:
    """Seed registries from PEFT's tables alone: a tenth of a second, and a tenth of the rows."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CATALOGS:
            patch.setattr(f"loradar.registry.catalogs.{name}", list)
        yield


def make_seeded(path: Path) -> Path:
    """Make a registry file, seeded from whatever catalogs there are, and return its path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "_prepare", PREPARE)
        Registry.open(Settings(path.parent, f"sqlite:///{path}")).close()
    return path


def copy_seeded(request: pytest.FixtureRequest, database: Database, seed: prepare.Seed) -> None:
    """Prepare a database; a new file is a copy of the test's ``seeded`` one, if that has the same content."""
    if database.file and not database.file.exists():
        source = request.getfixturevalue("seeded")
        with closing(sqlite3.connect(source)) as connection:
            is_same = connection.execute("SELECT 1 FROM seeds WHERE digest = ?", (seed.digest,)).fetchone()
        if is_same:
            prepare.create_folder(database.url)
            shutil.copy(source, database.file)
    PREPARE(database, seed)
