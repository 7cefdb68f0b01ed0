"""The schema's revisions: up, down, up, no row lost, and no difference to the tables in code."""

import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect

from loradar.catalog.entries import list_catalogs
from loradar.registry import Registry
from loradar.registry.db import HEAD
from loradar.registry.db.database import connect_to, transaction
from loradar.registry.db.prepare import OUR_TABLES
from loradar.registry.db.tables import metadata
from loradar.settings import Settings


@pytest.fixture(params=["sqlite", "postgres"])
def connection(request, tmp_path):
    """A connection to an empty database of either kind, in a transaction."""
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/registry.sqlite3" if is_sqlite else request.getfixturevalue("postgres_url")
    engine = create_engine(url)
    with engine.begin() as opened:
        yield opened
    engine.dispose()


def config_for(connection: Connection) -> Config:
    """Return Alembic's configuration as the registry makes it."""
    config = Config()
    config.set_main_option("script_location", "loradar.migrations:")
    config.attributes["connection"] = connection
    return config


def tables_of(connection: Connection) -> set[str]:
    """Return the tables there are."""
    return set(inspect(connection).get_table_names())


def test_up_down_up_and_check(connection):
    """A downgrade leaves nothing but Alembic's own table; after the way back nothing differs from the code."""
    config = config_for(connection)
    command.upgrade(config, "head")
    assert tables_of(connection) == {*metadata.tables, "alembic_version"}
    command.downgrade(config, "base")
    assert tables_of(connection) == {"alembic_version"}
    command.upgrade(config, "head")
    command.check(config)


@pytest.fixture(params=["sqlite", "postgres"])
def seeded_connection(request, seeded, tmp_path, monkeypatch):
    """A connection to a seeded registry of either kind, in a transaction as the registry begins it.

    PostgreSQL gets one library, a tenth of all rows: there the whole takes a minute on a busy machine.
    """
    if request.param == "sqlite":
        url = f"sqlite:///{shutil.copy(seeded, tmp_path)}"
    else:
        url = request.getfixturevalue("postgres_url")
        diffusers = [file for file in list_catalogs() if file.name == "diffusers.jsonl"]
        monkeypatch.setattr("loradar.registry.catalogs.list_catalogs", lambda: diffusers)
        monkeypatch.setattr("loradar.registry.catalogs.list_older", list)
        Registry.open(Settings(tmp_path, url)).close()
    engine = connect_to(url)
    with transaction(engine) as opened:
        yield opened
    engine.dispose()


Content = dict[str, tuple[list[str], set[tuple[object, ...]]]]
"""By table: its columns, and its rows."""


def content_of(connection: Connection) -> Content:
    """Return every table but Alembic's own."""
    content = {}
    for table in sorted(tables_of(connection) - {"alembic_version"}):
        cursor = connection.connection.cursor()  # the driver's own: rows by the hundred thousand
        cursor.execute(f"SELECT * FROM {table}")  # noqa: S608 - a table's own name
        content[table] = [column[0] for column in cursor.description], set(cursor.fetchall())
    return content


def assert_same(before: Content, after: Content) -> None:
    """Compare the rows of the tables in both, in the columns in both."""
    assert {"architectures", "slots", "mappings", "verifications", "constants", "sources"} <= {*before} & {*after}
    for table in {*before} & {*after}:
        common = sorted({*before[table][0]} & {*after[table][0]})
        old, new = (
            {tuple(row[columns.index(name)] for name in common) for row in rows}
            for columns, rows in (before[table], after[table])
        )
        assert len(before[table][1]) == len(after[table][1]), f"{table}: another number of rows"
        assert old == new, f"{table}: other rows"


def test_no_revision_loses_a_row_of_a_registry_in_use(seeded_connection):
    """Down one by one and up again: what a revision does not by its nature drop is as it was."""
    config = config_for(seeded_connection)
    script = ScriptDirectory.from_config(config)
    downwards = [revision.revision for revision in script.walk_revisions()]
    before = content_of(seeded_connection)
    assert len(before["verifications"][1]) > 0
    steps = [(command.downgrade, revision) for revision in downwards[1:]]
    for step, revision in (*steps, (command.upgrade, "head")):
        step(config, revision)
        after = content_of(seeded_connection)
        assert_same(before, after)
        before = after
    command.check(config)


@pytest.mark.parametrize("scheme", ["sqlite", "postgres"])
def test_ids_continue_where_those_of_an_older_loradar_end(scheme, request, tmp_path, monkeypatch):
    """The database assigns the next id, though the ids before were chosen by loradar."""
    for name in ("list_catalogs", "list_older"):
        monkeypatch.setattr(f"loradar.registry.catalogs.{name}", list)
    is_sqlite = scheme == "sqlite"
    url = f"sqlite:///{tmp_path}/registry.sqlite3" if is_sqlite else request.getfixturevalue("postgres_url")
    engine = connect_to(url)
    token = {"name": "ada", "role": "admin", "prefix": "lrd_", "hash": "0", "created_by": "local", "created_at": "2026"}
    with transaction(engine) as opened:
        command.upgrade(config_for(opened), "0006")
        opened.execute(metadata.tables["tokens"].insert().values(id=7, **token))
    engine.dispose()
    with Registry.open(Settings(tmp_path, url)) as registry:
        assert [registry.tokens.create("bob", "contributor")[0].id for _ in range(2)] == [8, 9]


def test_head_is_known_without_alembic():
    """The constant the registry compares with is the newest revision."""
    script = ScriptDirectory.from_config(config_for(None))
    assert script.get_current_head() == HEAD
    assert OUR_TABLES <= set(metadata.tables)


def test_revisions_are_numbered_and_can_be_taken_back():
    """File names start with the revision's number; each has a downgrade."""
    script = ScriptDirectory.from_config(config_for(None))
    for revision in script.walk_revisions():
        assert re.fullmatch(r"\d{4}", revision.revision)
        assert Path(revision.path).name.startswith(f"{revision.revision}_")
        assert callable(revision.module.downgrade)


def test_the_command_line_makes_the_environment_s_registry(home, capsys):
    """``alembic upgrade head`` works without a connection handed over, and so does ``--sql``."""
    config = Config()
    config.set_main_option("script_location", "loradar.migrations:")
    command.upgrade(config, "head")
    assert (home / "registry.sqlite3").is_file()
    command.upgrade(config, "head", sql=True)
    assert "CREATE TABLE mappings" in capsys.readouterr().out


def test_every_constraint_has_a_name():
    """SQLite can drop a constraint only by its name."""
    tables = import_module("loradar.registry.db.tables").metadata.tables.values()
    assert all(constraint.name for table in tables for constraint in table.constraints)


def test_what_was_scanned_before_holds_for_the_version_known(connection):
    """0004 gives a scan's mapping the architecture's version as its range, and leaves a stated one without."""
    config = config_for(connection)
    command.upgrade(config, "0003")
    row = "INSERT INTO {} ({}) VALUES ({})"
    connection.exec_driver_sql(
        row.format("architectures", "id, library, name, library_version", "1, 'transformers', 'vit', '5.23.0'")
    )
    columns = (
        "id, architecture_id, source_id, source_kind, peft_type, preset, revision, spec, reasons, serial, created_at"
    )
    for number, kind in enumerate(("scanner", "peft"), start=1):
        connection.exec_driver_sql(row.format("sources", "id, kind, version", f"{number}, '{kind}', '1'"))
        values = f"'{kind}', 1, {number}, '{kind}', 'LORA', 'default', 1, '{{}}', '[]', 1, '2026-01-01 00:00:00'"
        connection.exec_driver_sql(row.format("mappings", columns, values))
    command.upgrade(config, "0004")
    found = connection.exec_driver_sql("SELECT id, since, until FROM mappings ORDER BY id").all()
    assert [tuple(one) for one in found] == [("peft", None, None), ("scanner", "5.23.0", "5.23.0")]
