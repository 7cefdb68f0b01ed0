"""Opening a registry: first use, two first uses at once, and databases that are not ours to touch."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from patience import patience

from loradar.errors import DatabaseUnusable, MissingExtra
from loradar.registry import Registry
from loradar.registry.db import engine
from loradar.registry.db.schema import HEAD
from loradar.settings import Settings

LOOKUP = """
import sys
from loradar.registry import Registry
with Registry.open() as registry:
    print(registry.lookup("llama").spec.target_modules, registry.serial())
    print(sorted(name for name in sys.modules if name in {modules}))
"""


def at(url: str, home: Path) -> Settings:
    """Return settings for a database URL."""
    return Settings(home, url)


def run(modules: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a process that opens the registry of the environment and looks llama up."""
    code = LOOKUP.format(modules=modules)
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def output_of(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines a process wrote; it must have gone well."""
    out, err = process.communicate(timeout=patience())
    assert process.returncode == 0, err
    return out.splitlines()


def test_first_use_creates_migrates_and_seeds(settings, home):
    """A lookup in an empty home answers at once."""
    with Registry.open(settings) as registry:
        assert registry.lookup("llama").spec.target_modules == ("q_proj", "v_proj")
        assert registry.serial() == 1
    assert (home / "registry.sqlite3").is_file()


def test_the_second_use_changes_nothing(settings):
    """Opening again neither migrates nor seeds again."""
    for _ in range(2):
        with Registry.open(settings) as registry:
            info = registry.info()
            assert (info.serial, info.revision) == (1, HEAD)
            assert [source.to_dict() for source in info.sources] == [{"kind": "peft", "version": "0.21.2"}]


def test_two_first_uses_at_once_both_succeed(home):
    """Of two processes the second waits, and finds the registry made, once."""
    processes = [run(), run()]
    assert {output_of(process)[0] for process in processes} == {"('q_proj', 'v_proj') 1"}
    with closing(sqlite3.connect(home / "registry.sqlite3")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM sources WHERE kind = 'peft'").fetchone() == (1,)


def test_a_lookup_imports_neither_sqlalchemy_nor_torch():
    """Reading a seeded registry needs the standard library alone, and so does the import of the package."""
    output_of(run())  # a process of its own seeds from all there is
    heavy = ("sqlalchemy", "sqlalchemy.orm", "alembic", "torch", "pydantic", "httpx2", "fastapi", "peft")
    assert output_of(run(heavy))[1] == "[]"


def test_first_use_imports_neither_the_orm_nor_torch():
    """Not even making the registry needs them."""
    assert output_of(run(("sqlalchemy.orm", "torch", "pydantic", "peft")))[1] == "[]"


def test_a_database_in_memory_works(home):
    """Any URL of SQLAlchemy's will do; this one is read through SQLAlchemy too."""
    with Registry.open(at("sqlite://", home)) as registry:
        assert registry.lookup("llama", "ia3").spec.feedforward_modules == ("down_proj",)
        assert registry.info().counts["constants"] > 40
        registry.serial()
    assert not home.exists()


def test_an_empty_file_becomes_a_registry(home, settings):
    """A file of no bytes is an SQLite database without tables."""
    home.mkdir()
    (home / "registry.sqlite3").touch()
    with Registry.open(settings) as registry:
        assert registry.serial() == 1


def test_a_migrated_but_unseeded_database_is_seeded(seeded_settings, home):
    """Whoever ran ``alembic upgrade head`` by hand gets the facts on first use."""
    with closing(sqlite3.connect(home / "registry.sqlite3")) as connection, connection:
        for table in ("change_subjects", "changes", "mappings", "architectures", "constants", "sources", "seeds"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names from the line above
        connection.execute("UPDATE serial SET value = 0")
    with Registry.open(seeded_settings) as registry:
        assert registry.lookup("llama").revision == 1


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to have a header" * 50, b"x"])
def test_a_corrupted_file_is_refused_and_left_alone(home, settings, content):
    """The message names the file and the way out; not a byte changes."""
    home.mkdir()
    (home / "registry.sqlite3").write_bytes(content)
    with pytest.raises(DatabaseUnusable, match=r"registry\.sqlite3' cannot be used: file is not a database"):
        Registry.open(settings)
    assert [(path.name, path.read_bytes()) for path in home.iterdir()] == [("registry.sqlite3", content)]


def test_a_truncated_registry_is_refused(seeded_settings, home):
    """A file that breaks off is found out by the lookup at the latest."""
    path = home / "registry.sqlite3"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 4])

    def look_up() -> None:
        with Registry.open(seeded_settings) as registry:
            registry.lookup("llama")

    with pytest.raises(DatabaseUnusable, match="cannot be used"):
        look_up()


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE people (name TEXT)",),
        ("CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('0001')"),
        ("CREATE TABLE alembic_version (version_num TEXT)", "CREATE TABLE people (name TEXT)"),
        (
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('ab12')",
            "CREATE TABLE architectures (x)",
            "CREATE TABLE mappings (x)",
            "CREATE TABLE serial (x)",
        ),
    ],
)
@pytest.mark.parametrize("scheme", ["sqlite:///{}", "sqlite:///file:{}?uri=true"])
def test_a_foreign_database_is_refused_and_left_alone(tmp_path, statements, scheme):
    """Somebody else's tables, with or without Alembic, stay as they are, byte for byte."""
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusable, match="is not a loradar registry"):
        Registry.open(at(scheme.format(path), tmp_path))
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["other.sqlite3"]


def test_a_newer_schema_is_refused_and_left_alone(seeded_settings, home):
    """A registry made by a later loradar is not touched; the message says to upgrade."""
    path = home / "registry.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusable, match=r"revision 0999; this version of loradar knows up to .* Upgrade"):
        Registry.open(seeded_settings)
    assert path.read_bytes() == before


def test_an_older_schema_is_migrated(settings, monkeypatch):
    """A registry that is behind is brought up by Alembic, not refused."""
    Registry.open(settings).close()
    asked = []
    monkeypatch.setattr("loradar.registry.db.schema.HEAD", "9999")
    monkeypatch.setattr("loradar.registry.db.prepare.migrate", asked.append)
    Registry.open(settings).close()
    assert len(asked) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A file where the folder should be is a clear error."""
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(DatabaseUnusable, match="its folder cannot be made"):
        Registry.open(at(f"sqlite:///{tmp_path}/home/deep/registry.sqlite3", tmp_path))


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    """What is there but is no file cannot be opened."""
    with pytest.raises(DatabaseUnusable, match="Is a directory"):
        Registry.open(at(f"sqlite:///{tmp_path}", tmp_path))


@pytest.mark.parametrize("url", ["nonsense", "oracle12://x", "", "sqlite"])
def test_an_unknown_url_is_refused(tmp_path, url):
    """The message shows URLs that would work."""
    with pytest.raises(DatabaseUnusable, match=r"Use an URL such as sqlite:"):
        Registry.open(at(url, tmp_path))


def test_an_unreachable_server_is_refused_without_its_password(tmp_path):
    """A PostgreSQL that does not answer is named, its password is not."""
    with pytest.raises(DatabaseUnusable, match="cannot be used") as caught:
        Registry.open(at("postgresql+psycopg://me:secret@127.0.0.1:9/registry?connect_timeout=1", tmp_path))
    assert "secret" not in str(caught.value)
    assert "me:***@127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    ("module", "expected", "words"),
    [("psycopg", MissingExtra, r"loradar\[postgres\]"), ("MySQLdb", DatabaseUnusable, "Use SQLite or PostgreSQL")],
)
def test_a_missing_driver_is_named(tmp_path, monkeypatch, module, expected, words):
    """PostgreSQL's driver is an extra; other databases are not supported."""

    def refuse(*_args: object, **_options: object) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(engine, "create_engine", refuse)
    with pytest.raises(expected, match=words):
        Registry.open(at("postgresql://x", tmp_path))


def test_a_database_that_goes_away_is_reported_by_ping(registry, home):
    """A registry whose file is spoiled while open says so."""
    registry.close()
    (home / "registry.sqlite3").write_bytes(b"spoiled" * 1000)
    with pytest.raises(DatabaseUnusable, match="file is not a database"):
        registry.serial()


def test_info_masks_the_password():
    """What ``db info`` shows may be pasted into an issue."""
    from loradar.registry.db.urls import masked  # noqa: PLC0415 - private to the registry

    assert masked("postgresql://me:pw@host/x?sslpassword=pw2&a=b") == "postgresql://me:***@host/x?sslpassword=***&a=b"
    assert masked("sqlite:////data/registry.sqlite3") == "sqlite:////data/registry.sqlite3"
