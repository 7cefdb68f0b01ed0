"""Browsing: lists of architectures, one architecture in full, and the names a message needs."""

import json
from collections import defaultdict
from typing import Any

from ...domain.architectures import Architecture
from ...domain.mappings import Mapping, Source
from ...domain.summaries import ArchitectureDetail, ArchitectureSummary
from ...errors import UnknownArchitecture
from ..db.schema import Reader
from ..results import Constant
from ..versions.stored_names import list_renames, list_slots
from .resolve import SELECT_MAPPINGS, best, in_todays_names, latest_revisions, question, to_mapping, to_prompt_facts

_COLUMNS = "SELECT a.library, a.name, a.class_name, a.library_version, a.fingerprint, a.structure"

_LIST = (
    _COLUMNS
    + """
FROM architectures a
WHERE (CAST(:library AS VARCHAR(32)) IS NULL OR a.library = :library)
  AND lower(a.name) LIKE :pattern ESCAPE '!'
  AND (a.library > :after_library OR (a.library = :after_library AND a.name > :after_name))
ORDER BY a.library, a.name
LIMIT :limit
"""
)

_QUESTIONS = """
SELECT DISTINCT a.library, a.name, m.source_kind, m.peft_type, m.preset
FROM mappings m JOIN architectures a ON a.id = m.architecture_id
WHERE m.yanked_at IS NULL
  AND (a.library > :first_library OR (a.library = :first_library AND a.name >= :first_name))
  AND (a.library < :last_library OR (a.library = :last_library AND a.name <= :last_name))
"""

_ONE = (
    _COLUMNS
    + ", a.method, a.proof, a.prompt_facts, a.towers FROM architectures a WHERE a.library = :library AND a.name = :name"
)

_REVISIONS = SELECT_MAPPINGS + (
    "WHERE a.library = :library AND a.name = :name AND m.yanked_at IS NULL "
    "ORDER BY m.peft_type, m.preset, s.kind, m.revision"
)

_OF_LIBRARY = SELECT_MAPPINGS + "WHERE a.library = :library AND m.yanked_at IS NULL"

_CONSTANT = """
SELECT c.name, c.value, c.conditional, s.kind, s.version
FROM constants c JOIN sources s ON s.id = c.source_id
WHERE c.name = :name AND (CAST(:version AS VARCHAR(64)) IS NULL OR s.version = :version)
ORDER BY c.id DESC
LIMIT 1
"""


def list_architectures(
    reader: Reader, library: str | None, q: str, after: tuple[str, str], limit: int
) -> tuple[ArchitectureSummary, ...]:
    """Return up to ``limit`` architectures whose name contains ``q``, in order, from beyond ``after``."""
    found = reader.rows(
        _LIST,
        library=library,
        pattern=containing(q),
        after_library=after[0],
        after_name=after[1],
        limit=limit,
    )
    answers = _answers_between(reader, found)
    return tuple(_to_summary(row, answers[row["library"], row["name"]]) for row in found)


def containing(q: str) -> str:
    """Return the pattern of LIKE, with ``!`` as its escape, for names in lower case that contain ``q``."""
    escaped = "".join("!" + character if character in "!%_" else character for character in q.lower())
    return f"%{escaped}%"


def _answers_between(reader: Reader, found: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return what the architectures from first to last have a mapping for, by library and name."""
    answers: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    if found:
        ends = {
            f"{end}_{part}": row[part]
            for end, row in (("first", found[0]), ("last", found[-1]))
            for part in ("library", "name")
        }
        for row in reader.rows(_QUESTIONS, **ends):
            answers[row["library"], row["name"]].append(row)
    return answers


def _to_summary(row: dict[str, Any], answers: list[dict[str, Any]]) -> ArchitectureSummary:
    kinds, peft_types, presets = (
        tuple(sorted({answer[column] for answer in answers})) for column in ("source_kind", "peft_type", "preset")
    )
    return ArchitectureSummary(to_architecture(row), kinds, peft_types, presets)


def get_architecture(reader: Reader, library: str, name: str) -> ArchitectureDetail:
    """Return everything known about an architecture.

    Raises:
        UnknownArchitecture: If the registry has never heard of it.
    """
    found = reader.rows(_ONE, library=library, name=name)
    if not found:
        way_out = f"Scan it with: {scan_command(library, name)}"
        raise UnknownArchitecture(name, list_names(reader, library), way_out, library=library)
    towers = json.loads(found[0]["towers"])
    rows = reader.rows(_REVISIONS, library=library, name=name, library_version=None)
    revisions = tuple(to_mapping(row) for row in rows)
    return ArchitectureDetail(
        architecture=to_architecture(found[0]),
        method=found[0]["method"],
        proof=found[0]["proof"],
        prompt_facts=to_prompt_facts(found[0]["prompt_facts"]),
        towers={tower: tuple(prefixes) for tower, prefixes in towers.items()},
        slots=list_slots(reader, library, name),
        mappings=tuple(in_todays_names(reader, mapping) for mapping in _recommended(revisions)),
        revisions=revisions,
        renames=list_renames(reader, library, name),
    )


def _recommended(revisions: tuple[Mapping, ...]) -> tuple[Mapping, ...]:
    by_question: dict[tuple[str, ...], list[Mapping]] = defaultdict(list)
    for mapping in revisions:
        by_question[question(mapping)].append(mapping)
    found = (best(group) for group in by_question.values())
    return tuple(mapping for mapping in found if mapping)


def to_architecture(row: dict[str, Any]) -> Architecture:
    """Return the record of a row with an architecture's columns."""
    seen = ("library", "name", "class_name", "library_version", "fingerprint", "structure")
    return Architecture(*(row[column] for column in seen))


def list_mappings(reader: Reader, library: str, source: str | None, library_version: str | None) -> tuple[Mapping, ...]:
    """Return the revisions of a library that stand at a version, each with its verification for it, sorted."""
    rows = reader.rows(_OF_LIBRARY, library=library, library_version=library_version)
    standing = latest_revisions(map(to_mapping, rows), library_version)
    found = (mapping for mapping in standing if source in (None, mapping.source.kind))
    return tuple(sorted(found, key=lambda mapping: (question(mapping), mapping.source.kind)))


def find_constant(reader: Reader, name: str, version: str | None) -> Constant | None:
    """Return one of PEFT's constants, from the version stored last if none is asked for, or ``None``."""
    for row in reader.rows(_CONSTANT, name=name, version=version):
        conditional = tuple(json.loads(row["conditional"]))
        return Constant(row["name"], json.loads(row["value"]), conditional, Source(row["kind"], row["version"]))
    return None


def list_constants(reader: Reader) -> list[str]:
    """Return the names of all constants, sorted."""
    return [row["name"] for row in reader.rows("SELECT DISTINCT name FROM constants ORDER BY name")]


def list_names(reader: Reader, library: str) -> list[str]:
    """Return the names of all architectures of a library, sorted."""
    sql = "SELECT name FROM architectures WHERE library = :library ORDER BY name"
    return [row["name"] for row in reader.rows(sql, library=library)]


def list_answers(reader: Reader, library: str, name: str) -> dict[str, list[str]]:
    """Return the presets an architecture has a mapping for, by PEFT type, sorted."""
    ends = {
        f"{end}_{part}": value for end in ("first", "last") for part, value in (("library", library), ("name", name))
    }
    answers: dict[str, set[str]] = defaultdict(set)
    for row in reader.rows(_QUESTIONS, **ends):
        answers[row["peft_type"]].add(row["preset"])
    return {peft_type: sorted(answers[peft_type]) for peft_type in sorted(answers)}


def list_libraries_with(reader: Reader, name: str) -> list[str]:
    """Return the libraries that have an architecture of this name, sorted."""
    sql = "SELECT library FROM architectures WHERE name = :name ORDER BY library"
    return [row["library"] for row in reader.rows(sql, name=name)]


def scan_command(library: str, name: str) -> str:
    """Return the command that would register an architecture."""
    return f"loradar scan {name if library == 'transformers' else f'{library}:{name}'} --store"
