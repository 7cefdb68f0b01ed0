"""What the registry does is tested on PEFT's entries and scans made by hand; the catalog has tests of its own."""

from pathlib import Path

import pytest
from seeding import PEFT_ALONE, make_seeded

from loradar.registry import Registry
from loradar.settings import Settings


@pytest.fixture(scope="session")
def seeded(tmp_path_factory):
    """A registry file seeded from PEFT's tables alone."""
    return make_seeded(tmp_path_factory.mktemp("seeded-by-peft") / "registry.sqlite3", PEFT_ALONE)


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    """Seed a registry that a test makes from PEFT's tables alone."""
    # By the test's own monkeypatch: what it replaces besides is put back in the order of both.
    for name, function in PEFT_ALONE.items():
        monkeypatch.setattr(f"loradar.registry.catalogs.{name}", function)


@pytest.fixture(params=["file", "memory", "postgres"])
def any_registry(request, tmp_path):
    """A registry read by the standard library, and two read through SQLAlchemy: in memory and on PostgreSQL."""
    if request.param == "file":
        yield request.getfixturevalue("registry")
        return
    if request.param == "memory":
        with Registry.open(Settings(tmp_path, "sqlite://")) as opened:
            yield opened
        return
    with request.getfixturevalue("postgres_server").database(seed) as uri, open_postgres(uri) as opened:
        yield opened


def seed(uri: str) -> None:
    """Seed the database at ``uri`` from PEFT's tables alone."""
    open_postgres(uri).close()


def open_postgres(uri: str) -> Registry:
    """Open the registry at the URI of a PostgreSQL database."""
    return Registry.open(Settings(Path(), uri.replace("postgresql://", "postgresql+psycopg://", 1)))
