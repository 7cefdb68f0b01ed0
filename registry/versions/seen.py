"""Which library versions an architecture was seen at, and what to say when another one is asked for."""

from collections.abc import Sequence
from dataclasses import replace

from ...domain.mappings import Mapping
from ...domain.versions import nearest, neighbours
from ..db.schema import Reader

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


def nearest_seen(asked: str | None, seen: Sequence[str]) -> str | None:
    """Return the version seen that is nearest to the one asked for; the latter itself if nothing was ever seen."""
    return asked if asked is None or not seen or asked in seen else nearest(asked, seen)


def with_distance(mapping: Mapping, asked: str | None, seen: Sequence[str]) -> Mapping:
    """Return the mapping with a reason that says how far what was seen is from what was asked for, if it is."""
    if asked is None or not seen or (mapping.versions.hold(asked) if mapping.versions else asked in seen):
        return mapping
    at, around = nearest(asked, seen), neighbours(asked, seen)
    if mapping.versions and asked in seen:
        ends = dict.fromkeys((mapping.versions.since, mapping.versions.until))
        says = f"seen at {' and '.join(ends)}, not at {asked}"
    elif len(around) == 1:
        says = f"seen at {at}, the nearest to {asked}"
    else:
        changed = ", where targets changed" if mapping.versions else ""
        says = f"seen at {' and '.join(around)}; {asked} lies between{changed}: this is as of {at}"
    return replace(mapping, reasons=(says, *mapping.reasons))
