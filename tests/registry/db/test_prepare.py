"""Opening a registry: first use, several first uses at once, and databases that are not ours to touch."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from patience import patience

from loradar.errors import DatabaseUnusable, MissingExtra
from loradar.registry import Registry
from loradar.registry.db import HEAD, database, prepare
from loradar.schema import to_json
from loradar.settings import Settings

pytestmark = pytest.mark.first_use

LOOKUP = """
import sys
from loradar.registry import Registry
from loradar.registry.db import shipped
shipped.find_shipped = lambda digest: None
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
        modes = [file.stat().st_mode & 0o777 for file in home.iterdir()]
    assert modes
    assert set(modes) == {0o600}
    assert (home / "registry.sqlite3").is_file()


def test_the_second_use_changes_nothing(settings):
    """Opening again neither migrates nor seeds again."""
    for _ in range(2):
        with Registry.open(settings) as registry:
            info = registry.info()
            assert (info.serial, info.revision) == (1, HEAD)
            assert [to_json(source) for source in info.sources] == [{"kind": "peft", "version": "0.21.2"}]


def test_first_uses_at_once_all_succeed(home):
    """Of eight processes seven wait, and find the registry made, once."""
    processes = [run() for _ in range(8)]
    assert {output_of(process)[0] for process in processes} == {"('q_proj', 'v_proj') 1"}
    with closing(sqlite3.connect(home / "registry.sqlite3")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM sources WHERE kind = 'peft'").fetchone() == (1,)


@pytest.mark.parametrize("case", ["log", "journal", "upgrade"])
def test_a_first_use_that_is_killed_is_made_up_for(case, home, seeded, tmp_path):
    """Killed at seven moments with and without write-ahead log, or while it upgrades: the next two at once succeed."""
    home.mkdir()
    older = tmp_path / "older.sqlite3"
    if case == "upgrade":
        shutil.copy(seeded, older)
        downgrade(older, "0003")
    code = "from first_use import main; main()"
    arguments = [sys.executable, "-c", code, case, str(older)]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        arguments, cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=patience()
    )
    assert done.returncode == 0, done.stderr
    serial = 2 if case == "upgrade" else 1
    assert done.stdout.splitlines() == [f"('q_proj', 'v_proj') {serial}"] * 14


def downgrade(path: Path, revision: str) -> None:
    """Take a registry file back to an older schema, without its seed's mark and without write-ahead log."""
    config = Config()
    config.set_main_option("script_location", "loradar.migrations:")
    opened = database.connect_to(f"sqlite:///{path}")
    with database.transaction(opened) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.exec_driver_sql("DELETE FROM seeds")
    opened.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def test_opening_waits_for_the_process_that_fills_the_file(home, settings, monkeypatch, capsys):
    """Even where the file begins with zeros meanwhile; who waits long reads why, on standard error."""
    home.mkdir()
    path = home / "registry.sqlite3"
    noticed = threading.Event()
    _report = prepare._report

    def report(url: str) -> None:
        _report(url)
        noticed.set()

    monkeypatch.setattr(prepare, "_report", report)
    monkeypatch.setattr(prepare, "QUIET_SECONDS", 0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor() as pool:
        for statement in ("PRAGMA cache_size = 4", "BEGIN", "CREATE TABLE filling (content BLOB)"):
            other.execute(statement)
        other.execute("INSERT INTO filling VALUES (zeroblob(100000))")
        assert path.read_bytes()[:16] == bytes(16)
        opened = pool.submit(Registry.open, settings)
        opened.add_done_callback(lambda _: noticed.set())  # an error ends the wait too
        assert noticed.wait(patience())
        assert not opened.done()
        other.execute("ROLLBACK")
        with opened.result() as registry:
            assert registry.lookup("llama").revision == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"Preparing the registry in {path} (first use of this version of loradar) ...\n"


def test_a_quick_first_use_is_silent(settings, monkeypatch, capsys):
    """No line where nobody waits for it."""
    monkeypatch.setattr(prepare, "QUIET_SECONDS", 3600)
    Registry.open(settings).close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "has_journal"), [(bytes(8192), False), (bytes(8192), True), (b"x", True), (b"notes" * 100, True)]
)
def test_a_file_of_zeros_is_refused_unless_sqlite_recovers_it(home, settings, content, has_journal):
    """A journal that is none does not make a registry of another file."""
    home.mkdir()
    (home / "registry.sqlite3").write_bytes(content)
    if has_journal:
        (home / "registry.sqlite3-journal").write_bytes(b"no journal of SQLite's" * 100)
    with pytest.raises(DatabaseUnusable, match="file is not a database"):
        Registry.open(settings)
    assert (home / "registry.sqlite3").read_bytes() == content


def test_a_folder_without_write_permission_is_named(home, settings, monkeypatch):
    """The message states the folder as the reason, and the way out."""
    home.mkdir()
    monkeypatch.setattr(prepare.os, "access", lambda path, _mode: path != home)
    with pytest.raises(
        DatabaseUnusable, match=r"its folder is not writable\. Make the folder writable, or set LORADAR_"
    ):
        Registry.open(settings)
    assert list(home.iterdir()) == []


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
    monkeypatch.setattr("loradar.registry.db.prepare.HEAD", "9999")
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

    monkeypatch.setattr(database, "create_engine", refuse)
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
    masked = database.masked
    assert masked("postgresql://me:pw@host/x?sslpassword=pw2&a=b") == "postgresql://me:***@host/x?a=b&sslpassword=***"
    assert masked("sqlite:////data/registry.sqlite3") == "sqlite:////data/registry.sqlite3"
