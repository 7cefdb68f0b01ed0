"""What the layers of one stored architecture are called: its slots, and their names in other versions."""

from typing import Any

from ...domain.scans import Slot
from ...domain.versions import Rename, VersionedRename
from ..db.schema import Reader

_SLOTS = """
SELECT s.tower, s.role, s.kind, s.pattern, s.count, s.layout, s.bypassed, s.kernel, s.live, s.proof
FROM slots s JOIN architectures a ON a.id = s.architecture_id
WHERE a.library = :library AND a.name = :name
ORDER BY s.position
"""

_RENAMES = """
SELECT r.from_version, r.to_version, r.old, r.new, r.says
FROM renames r JOIN architectures a ON a.id = r.architecture_id
WHERE a.library = :library AND a.name = :name
ORDER BY r.id
"""


def list_slots(reader: Reader, library: str, name: str) -> tuple[Slot, ...]:
    """Return the slots of an architecture, in the order of the model."""
    return tuple(map(_to_slot, reader.rows(_SLOTS, library=library, name=name)))


def _to_slot(row: dict[str, Any]) -> Slot:
    """SQLite has no booleans: it returns 0 and 1."""
    return Slot(**{**row, "live": None if row["live"] is None else bool(row["live"])})


def list_renames(reader: Reader, library: str, name: str) -> tuple[VersionedRename, ...]:
    """Return what the layers of an architecture were called in other versions."""
    rows = reader.rows(_RENAMES, library=library, name=name)
    return tuple(
        VersionedRename(row["from_version"], row["to_version"], Rename(row["old"], row["new"], row["says"]))
        for row in rows
    )


_SEEN = """
SELECT DISTINCT v.library_version AS version
FROM verifications v
JOIN mappings m ON m.id = v.mapping_id
JOIN architectures a ON a.id = m.architecture_id
WHERE a.library = :library AND a.name = :name
"""


def list_versions(reader: Reader, library: str, name: str) -> list[str]:
    """Return the library versions at which mappings of an architecture were checked."""
    return [row["version"] for row in reader.rows(_SEEN, library=library, name=name)]
