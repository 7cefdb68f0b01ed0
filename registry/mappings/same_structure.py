"""Who else is built like this: architectures with the same fingerprint, or the same structure under other names."""

from collections import defaultdict

from ...domain.architectures import Architecture
from ...domain.mappings import Mapping
from ..db.canonical import Question
from ..db.schema import Reader
from .listing import to_architecture
from .resolve import SELECT_MAPPINGS, best, rank, to_mapping

_OF_STRUCTURE = SELECT_MAPPINGS + (
    "WHERE a.structure = :structure AND m.yanked_at IS NULL AND m.peft_type = :peft_type AND m.preset = :preset"
)

_ALIKE = """
SELECT a.library, a.name, a.class_name, a.library_version, a.fingerprint, a.structure
FROM architectures a
WHERE (a.fingerprint = :fingerprint OR a.structure = :structure) AND NOT (a.library = :library AND a.name = :name)
ORDER BY a.library DESC, a.name
"""

_ANSWERING = """
SELECT b.library, b.name
FROM architectures a
JOIN architectures b ON b.fingerprint = a.fingerprint AND b.id <> a.id
JOIN mappings m ON m.architecture_id = b.id
WHERE a.library = :library AND a.name = :name
  AND m.peft_type = :peft_type AND m.preset = :preset AND m.yanked_at IS NULL
ORDER BY b.library DESC, b.name
LIMIT 1
"""


def list_by_structure(reader: Reader, structure: str, peft_type: str, preset: str) -> tuple[Mapping, ...]:
    """Return the mapping to use of each architecture with this structure, whatever its layers are called, best first.

    What is known dead or partial where it was stated is left out.
    """
    asked = {"structure": structure, "peft_type": peft_type, "preset": preset}
    by_architecture: dict[tuple[str, str], list[Mapping]] = defaultdict(list)
    for mapping in map(to_mapping, reader.rows(_OF_STRUCTURE, **asked, library_version=None)):
        by_architecture[mapping.library, mapping.name].append(mapping)
    found = filter(None, map(best, by_architecture.values()))
    return tuple(sorted((mapping for mapping in found if not _is_refuted(mapping)), key=rank))


def _is_refuted(mapping: Mapping) -> bool:
    return mapping.verification is not None and mapping.verification.status in ("dead", "partial")


def list_alike(reader: Reader, architecture: Architecture) -> tuple[Architecture, ...]:
    """Return the other architectures with the fingerprint of this one, then those with its structure alone."""
    asked = {
        "library": architecture.library,
        "name": architecture.name,
        "fingerprint": architecture.fingerprint or "",
        "structure": architecture.structure or "",
    }
    found = [to_architecture(row) for row in reader.rows(_ALIKE, **asked)]
    return tuple(sorted(found, key=lambda other: other.fingerprint != architecture.fingerprint))


def find_answering(reader: Reader, question: Question) -> str | None:
    """Return the reference of an architecture with the same fingerprint that has what this one lacks, or ``None``."""
    rows = reader.rows(_ANSWERING, **question._asdict())
    return f"{rows[0]['library']}:{rows[0]['name']}" if rows else None
