"""The schema's revisions: up, down, up, and no difference to the tables in code."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect

from loradar.registry.db.schema import HEAD, OUR_TABLES
from loradar.registry.db.tables import metadata


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
