"""Read the slots of a stored architecture, their names in other versions, and the versions it was verified at."""

from ...domain.layers import Slot
from ...domain.versions import VersionedRename
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

_SEEN = """
SELECT DISTINCT v.library_version AS version
FROM verifications v
JOIN mappings m ON m.id = v.mapping_id
JOIN architectures a ON a.id = m.architecture_id
WHERE a.library = :library AND a.name = :name
"""


def list_slots(reader: Reader, library: str, name: str) -> tuple[Slot, ...]:
    """Return the slots of an architecture, in the order of the model."""
    rows = reader.rows(_SLOTS, library=library, name=name)
    # SQLite stores booleans as 0 and 1.
    return tuple(Slot(**{**row, "live": None if row["live"] is None else bool(row["live"])}) for row in rows)


def list_renames(reader: Reader, library: str, name: str) -> tuple[VersionedRename, ...]:
    """Return the renames of an architecture's layers between versions."""
    rows = reader.rows(_RENAMES, library=library, name=name)
    return tuple(VersionedRename(**row) for row in rows)


def list_versions(reader: Reader, library: str, name: str) -> list[str]:
    """Return the library versions at which mappings of an architecture were verified."""
    return [row["version"] for row in reader.rows(_SEEN, library=library, name=name)]
