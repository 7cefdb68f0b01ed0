"""Lookups of an SQLite file with the standard library give what the registry gives."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing, nullcontext

import pytest
from records_zoo import VERSION, make_scan, proposal
from sqlalchemy.dialects import sqlite

from loradar.errors import InvalidRequest, NotRegistered, UnknownPeftType, UnknownPreset
from loradar.registry import Registry, lookup, sqlite_lookup
from loradar.registry.mappings.resolve import LOOKUP
from loradar.registry.mappings.stored_names import RECORD, SEEN_VERSIONS


@pytest.mark.parametrize(
    ("text", "query"),
    [(sqlite_lookup.MAPPINGS, LOOKUP), (sqlite_lookup.VERSIONS, SEEN_VERSIONS), (sqlite_lookup.RECORD, RECORD)],
)
def test_the_queries_are_those_of_the_registry(text, query):
    """Their text is what SQLAlchemy compiles, but for spaces."""
    compiled = str(query.compile(dialect=sqlite.dialect(paramstyle="named")))
    assert re.sub(r"\s+", "", text) == re.sub(r"\s+", "", compiled)


QUESTIONS = [
    ("olmo2",),
    ("olmo2", "lora"),
    ("olmo2", "ADALORA"),
    ("olmo2", "LORA", "default", "transformers", VERSION),
    ("olmo2", "LORA", "default", "transformers", "4.0.0"),
    ("olmo3",),
    ("olmo3", "LORA", "attention"),
    ("olmo2", "LOHA"),
    ("llama", "IA3"),
]


def test_a_lookup_finds_what_the_registry_finds(registry, monkeypatch):
    """For any method, preset and version, without opening the registry: kept rows are those of the question."""
    registry.add_scan(make_scan())
    registry.add_scan(make_scan("olmo3", proposals=(proposal("k_proj"), proposal("q_proj", preset="attention"))))
    monkeypatch.setattr(registry, "_fast", None)
    expected = {question: registry.find(*question) for question in QUESTIONS}
    assert None not in expected.values()
    monkeypatch.setattr(Registry, "open", lambda _: pytest.fail("opened the registry"))
    assert {question: lookup(*question) for question in QUESTIONS} == expected


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (("ghost",), NotRegistered),
        (("llama", "LORA", "experts"), NotRegistered),
        (("llama", "NONE"), UnknownPeftType),
        (("llama", "LORA", "none"), UnknownPreset),
        (("olmo2", "LORA", "default", "transformers", "no version"), InvalidRequest),
    ],
)
def test_errors_are_those_of_the_registry(registry, question, error):
    """With the same message."""
    registry.add_scan(make_scan())
    with pytest.raises(error) as own:
        lookup(*question)
    with pytest.raises(error) as expected:
        registry.lookup(*question)
    assert own.value.to_dict() == expected.value.to_dict()


def test_a_stale_mapping_comes_in_the_newest_names(registry, monkeypatch):
    """The registry translates it, since that takes the slots and renames."""
    registry.add_scan(make_scan("llama"))
    monkeypatch.setattr(sqlite_lookup, "is_stale", lambda _: True)
    opened = []
    monkeypatch.setattr(Registry, "open", lambda settings: opened.append(settings) or nullcontext(registry))
    assert lookup("llama") == registry.lookup("llama")
    assert len(opened) == 1


@pytest.mark.usefixtures("seeded_settings")
def test_a_lookup_imports_neither_sqlalchemy_nor_torch():
    """Reading a seeded registry needs the standard library alone, in any spelling, and so does the package's import."""
    heavy = {"sqlalchemy", "alembic", "torch", "pydantic", "httpx2", "fastapi", "peft"}
    spellings = ["llama", "LlamaForCausalLM", "meta-llama/Llama-2-7b-hf", "vicuna", "somebody/llama-3-tuned"]
    alone = "import loradar.registry.catalogs as of; of.list_catalogs = of.list_older = list"  # the seed of this folder
    code = f"import sys, loradar; {alone}; [*map(loradar.lookup, {spellings})]; print({heavy} & {{*sys.modules}})"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    "statement", ["DELETE FROM seeds", "UPDATE alembic_version SET version_num = '0001'", "DROP TABLE seeds"]
)
def test_a_file_that_is_not_ready_is_left_to_the_registry(seeded_settings, statement, monkeypatch):
    """It seeds, migrates or rejects the file."""
    path = seeded_settings.home / "registry.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)

    def fail(*_: object) -> None:
        raise NotRegistered("llama", (), "opened the registry")

    monkeypatch.setattr(Registry, "open", fail)
    with pytest.raises(NotRegistered, match="opened the registry"):
        lookup("llama")
