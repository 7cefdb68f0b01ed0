"""What was changed: the feed for mirrors, and every revision of an architecture with who, when and why."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ..changes import Change, Revision
from .browse import get_architecture
from .mapping_ids import whole_id
from .resolve import SELECT_MAPPINGS, to_mapping
from .schema import Reader
from .times import to_time

_CHANGE = "SELECT c.serial, c.at, c.actor, c.action, c.details, c.previous, c.digest FROM changes c "

_SINCE = _CHANGE + "WHERE c.serial > :since ORDER BY c.serial LIMIT :limit"

_OF_ARCHITECTURE = """
FROM changes c
JOIN change_subjects u ON u.serial = c.serial
JOIN mappings m ON u.subject = 'mapping:' || m.id
JOIN architectures a ON a.id = m.architecture_id
WHERE a.library = :library AND a.name = :name
"""

_TOLD = (
    "SELECT m.id AS mapping_id, c.serial, c.at, c.actor, c.action, c.details, c.previous, c.digest "
    + _OF_ARCHITECTURE
    + "ORDER BY c.serial"
)

_PUBLISHED = """
SELECT m.id AS mapping_id, c.serial, c.at, c.actor, c.action, c.details, c.previous, c.digest
FROM changes c
JOIN mappings m ON m.serial = c.serial
JOIN architectures a ON a.id = m.architecture_id
WHERE a.library = :library AND a.name = :name
"""
"""What brought each revision: a write of very many, such as a seed, does not name them."""

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

MANY = 100
"""Subjects above which the changes of an architecture leave the others out."""


def list_changes(reader: Reader, since: int, limit: int) -> tuple[Change, ...]:
    """Return up to ``limit`` changes after a serial, oldest first; what tokens are about is left out."""
    return tuple(map(to_public_change, reader.rows(_SINCE, since=since, limit=limit)))


def to_change(row: dict[str, Any]) -> Change:
    """Return the record of a row of the log."""
    told = ("serial", "at", "actor", "action")
    details = json.loads(row["details"])
    return Change(*(row[name] for name in told), details, row["previous"], row["digest"])


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
    changes = _changes_by_mapping([*reader.rows(_PUBLISHED, **asked), *reader.rows(_TOLD, **asked)])
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


def _changes_by_mapping(rows: Iterable[dict[str, Any]]) -> dict[str, tuple[Change, ...]]:
    """Return the changes of each mapping, oldest first and each once."""
    found: dict[str, dict[int, Change]] = defaultdict(dict)
    for row in rows:
        found[row["mapping_id"]][row["serial"]] = _without_others(row)
    told = {of: tuple(changes[serial] for serial in sorted(changes)) for of, changes in found.items()}
    return defaultdict(tuple, told)


def _without_others(row: dict[str, Any]) -> Change:
    """A write of very many names them all; in the history of one they are left out."""
    change = to_change(row)
    about = change.details.get("subjects", [])
    return change if len(about) <= MANY else to_change(row | {"details": json.dumps(change.details | {"subjects": []})})


def _to_revision(row: dict[str, Any], story: dict[str, Any], changes: tuple[Change, ...]) -> Revision:
    return Revision(
        mapping=to_mapping(row),
        created_at=to_time(story["created_at"]) or "",
        yanked_at=to_time(story["yanked_at"]),
        yank_reason=story["yank_reason"],
        version=story["version"],
        changes=changes,
    )
