"""``loradar db check|backup|restore``, as an operator meets them."""

import json
import sqlite3
from contextlib import closing

import pytest
from records_zoo import make_scan
from seeding import PEFT_ALONE, make_seeded, seeds_of

from loradar.registry import Registry


@pytest.fixture(scope="module", autouse=True)
def catalogs():
    """Seed from PEFT's tables alone."""
    with seeds_of(PEFT_ALONE):
        yield


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A registry file seeded from them."""
    return make_seeded(tmp_path_factory.mktemp("seeded-by-peft") / "registry.sqlite3", PEFT_ALONE)


@pytest.fixture
def used(seeded_settings):
    """The settings of a registry with a change of its own."""
    with Registry.open(seeded_settings) as registry:
        registry.add_scan(make_scan("early"))
    return seeded_settings


def test_a_backup_goes_there_and_back(run, used, tmp_path):
    """What is said names serial and file; nothing is replaced without --force."""
    file, database = tmp_path / "backup.sqlite3", used.home / "registry.sqlite3"
    assert run("db", "backup", str(file))[:2] == (0, f"{file}: serial 2, {file.stat().st_size:,} bytes\n")
    for command in ("backup", "restore"):
        code, _, err = run("db", command, str(file))
        assert (code, "--force" in err) == (2, True)
    with Registry.open(used) as registry:
        registry.add_scan(make_scan("late"))
    told = json.loads(run("db", "restore", str(file), "--force", "--json")[1])
    assert (told["file"], told["serial"]) == (str(database), 2)
    assert run("lookup", "late")[0] == 2
    code, out, _ = run("db", "restore", told["kept"], "--force")
    assert (code, out.startswith(f"{database} is at serial 3; the one before is in {database}.before-")) == (0, True)
    assert run("lookup", "late")[0] == 0
    assert "cannot be written" in run("db", "backup", str(tmp_path / "nowhere" / "x"))[2]


def test_a_check_ends_with_what_it_found(run, used, tmp_path, monkeypatch):
    """0 for a sound database, 1 for a fault, 2 where there is none; as text and as JSON."""
    code, out, _ = run("db", "check")
    assert (code, [line.split(":")[0] for line in out.splitlines()]) == (
        0,
        ["sound  pages", "sound  references", "sound  schema", "sound  audit log"],
    )
    with closing(sqlite3.connect(used.home / "registry.sqlite3")) as connection, connection:
        connection.execute("UPDATE changes SET actor = 'eve' WHERE serial = 2")
    code, out, _ = run("db", "check")
    assert (code, "FAULT  audit log: serial 2 was altered" in out) == (1, True)
    code, out, _ = run("db", "check", "--json")
    assert (code, len(json.loads(out)["faults"])) == (1, 1)
    monkeypatch.setenv("LORADAR_HOME", str(tmp_path / "none"))
    code, _, err = run("db", "check")
    assert (code, "it is not there" in err) == (2, True)
    assert not (tmp_path / "none").exists()
