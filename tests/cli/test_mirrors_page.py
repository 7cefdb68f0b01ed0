"""docs/service/mirrors.md works as it is written: every command and every line of Python, one after the other."""

import re
import shlex
from pathlib import Path

import pytest
from documents import read_blocks
from records_zoo import make_scan, proposal
from seeding import PEFT_ALONE, make_seeded, seeds_of

import loradar
from loradar.api import running
from loradar.registry import Registry
from loradar.settings import DATABASE_URL_VARIABLE, Settings
from loradar.snapshots import Signer

PAGE = Path(__file__).parents[2] / "docs/service/mirrors.md"


@pytest.fixture(scope="module", autouse=True)
def catalogs():
    """Seed from PEFT's tables alone."""
    with seeds_of(PEFT_ALONE):
        yield


@pytest.fixture
def source(home):
    """The settings of the registry that the page begins with, and two of its mappings."""
    home.mkdir()
    make_seeded(home / "registry.sqlite3", PEFT_ALONE)
    settings = Settings.from_environment()
    with Registry.open(settings) as registry:
        specs = (proposal("q_proj", "v_proj"), proposal("q_proj", preset="attention"))
        ids = [mapping.id for mapping in registry.add_scan(make_scan(proposals=specs)).added]
    return settings, ids


def export(settings):
    """Return the canonical export of a registry."""
    with Registry.open(settings) as registry, registry.snapshot() as lines:
        return [*lines]


@pytest.mark.first_use
def test_the_page_works_as_it_is_written(run, source, tmp_path, monkeypatch):
    """What is the reader's own is put in its place; the mirror that it makes is equal to the source."""
    settings, ids = source
    head = re.search(r"head +(\S+)", run("audit-log", "verify")[1])[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "srv").mkdir()
    kinds = set()
    with running(settings) as url:
        key = Signer.of(settings).key
        own = {
            "OTHER-ID": ids[1],
            r"\bID\b": ids[0],
            r"\bDIGEST\b": head,
            r"https://(\.\.\.|loradar\.example\.org)": url,
        }
        for block in read_blocks(PAGE):
            code = block.code.replace("/srv/loradar", str(tmp_path / "srv"))
            for pattern, value in own.items():
                code = re.sub(pattern, value, code)
            if block.language == "python":
                names = {"loradar": loradar, "Path": Path, "KEY": key}
                exec(compile(code, block.place, "exec"), names)  # noqa: S102 - our own document
                assert names["info"].serial == 2
                continue
            for line in re.sub(r"\bKEY\b", key, code).splitlines():
                command, *words = shlex.split(line, comments=True)
                kinds.add(" ".join(words[:2]))
                if command == "export":
                    monkeypatch.setenv(*words[0].split("=", 1))
                    continue
                assert command == "loradar"
                code, out, err = run(*words)
                assert code == 0, f"{block.place}: {line}: {out}{err}"
    mirror = Settings.from_environment()
    assert mirror.database_url.endswith("srv/mirror.sqlite3")
    assert {"snapshot load", f"sync {url}", "db restore"} <= kinds
    assert export(mirror) == export(settings)
    assert (tmp_path / "backup.sqlite3").exists()
    monkeypatch.delenv(DATABASE_URL_VARIABLE)
