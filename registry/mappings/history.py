"""What was changed: the feed for mirrors, and every revision of an architecture with who, when and why."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ...domain.changes import Change, Revision
from ..db.schema import Reader
from ..db.times import to_time
from .listing import get_architecture
from .mapping_ids import whole_id
from .resolve import SELECT_MAPPINGS, to_mapping

_COLUMNS = "c.serial, c.at, c.actor, c.action, c.details, c.previous, c.digest"

_SINCE = f"SELECT {_COLUMNS} FROM changes c WHERE c.serial > :since ORDER BY c.serial LIMIT :limit"  # noqa: S608 - ours

_CHANGES = f"""
SELECT m.id AS mapping_id, {_COLUMNS}
FROM architectures a
JOIN mappings m ON m.architecture_id = a.id
JOIN changes c ON c.serial = m.serial
WHERE a.library = :library AND a.name = :name
UNION
SELECT m.id AS mapping_id, {_COLUMNS}
FROM architectures a
JOIN mappings m ON m.architecture_id = a.id
JOIN change_subjects u ON u.subject = 'mapping:' || m.id
JOIN changes c ON c.serial = u.serial
WHERE a.library = :library AND a.name = :name
ORDER BY 2
"""  # noqa: S608 - ours
"""What brought each revision, as a write of very many, such as a seed, does not name them; and what names it."""

_STORIES = """
SELECT m.id, m.created_at, m.yanked_at, m.yank_reason, m.version
FROM mappings m JOIN architectures a ON a.id = m.architecture_id
WHERE a.library = :library AND a.name = :name
"""

_REVISIONS = SELECT_MAPPINGS + (
    "WHERE a.library = :library AND a.name = :name ORDER BY m.peft_type, m.preset, s.kind, m.revision"
)

_OWNER = """
SELECT a.library, a.name FROM mappings m JOIN architectures a ON a.id = m.architecture_id WHERE m.id = :mapping_id
"""

_WITHHELD = "token."
"""Start of the actions whose details are nobody's business but an admin's: who has a token, and which role."""


def list_changes(reader: Reader, since: int, limit: int) -> tuple[Change, ...]:
    """Return up to ``limit`` changes after a serial, oldest first; what tokens are about is left out."""
    return tuple(map(to_public_change, reader.rows(_SINCE, since=since, limit=limit)))


def to_change(row: dict[str, Any]) -> Change:
    """Return the record of a row of the log."""
    told = {name: row[name] for name in ("serial", "at", "actor", "action", "previous", "digest")}
    return Change(details=json.loads(row["details"]), **told)


def to_public_change(row: dict[str, Any]) -> Change:
    """Return the record of a row as anybody may see it: of what is done to a token, only that and when."""
    is_secret = row["action"].startswith(_WITHHELD)
    return to_change(row | {"details": '{"withheld": true}'} if is_secret else row)


def list_history(reader: Reader, library: str, name: str) -> tuple[Revision, ...]:
    """Return every revision ever of an architecture, yanked ones too, by question and source, oldest first.

    Raises:
        UnknownArchitecture: If the registry has never heard of it.
    """
    asked = {"library": library, "name": name}
    rows = reader.rows(_REVISIONS, **asked, library_version=None)
    if not rows:
        get_architecture(reader, library, name)  # which raises if there is none
    stories = {row["id"]: row for row in reader.rows(_STORIES, **asked)}
    changes = _changes_by_mapping(reader.rows(_CHANGES, **asked))
    return tuple(_to_revision(row, stories[row["id"]], changes[row["id"]]) for row in rows)


def get_revision(reader: Reader, mapping_id: str) -> Revision:
    """Return one revision with its story; the first digits of its id will do.

    Raises:
        UnknownMapping: If no revision has this id, or more than one.
    """
    mapping_id = whole_id(reader, mapping_id)
    found = reader.rows(_OWNER, mapping_id=mapping_id)
    history = list_history(reader, found[0]["library"], found[0]["name"])
    return next(revision for revision in history if revision.mapping.id == mapping_id)


def _changes_by_mapping(rows: Iterable[dict[str, Any]]) -> dict[str, list[Change]]:
    found: dict[str, list[Change]] = defaultdict(list)
    for row in rows:
        found[row["mapping_id"]].append(to_change(row))
    return found


def _to_revision(row: dict[str, Any], story: dict[str, Any], changes: list[Change]) -> Revision:
    return Revision(
        mapping=to_mapping(row),
        created_at=to_time(story["created_at"]) or "",
        yanked_at=to_time(story["yanked_at"]),
        yank_reason=story["yank_reason"],
        version=story["version"],
        changes=tuple(changes),
    )
