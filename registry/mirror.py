"""Write the registry as a snapshot for mirrors: a header line, then a line for each architecture with all its data."""

import json
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from ..domain.schema import to_json
from ..snapshots import FORMAT, canonical_line
from .db.schema import Reader, serial_of
from .db.times import to_time
from .mappings.listing import to_architecture

PAGE = 100
"""Architectures read and kept in memory at once."""

_HEAD = "SELECT digest FROM changes WHERE serial = :serial"

_TOUCHED = """
SELECT m.architecture_id FROM mappings m WHERE m.serial > :since
UNION
SELECT m.architecture_id FROM verifications v JOIN mappings m ON m.id = v.mapping_id WHERE v.serial > :since
UNION
SELECT m.architecture_id FROM change_subjects u JOIN mappings m ON u.subject = 'mapping:' || m.id
WHERE u.serial > :since
UNION
SELECT a.id FROM change_subjects u JOIN architectures a ON u.subject = 'architecture:' || a.library || ':' || a.name
WHERE u.serial > :since
"""
"""Architectures touched after a serial, by the rows written or by the subjects of the log."""

_WITHOUT_SUBJECTS = "SELECT COUNT(*) AS n FROM changes WHERE serial > :since AND action IN ('seed', 'log.start')"
"""Changes whose subjects are not all recorded."""

_ARCHITECTURES = f"""
SELECT a.id, a.library, a.name, a.class_name, a.library_version, a.fingerprint, a.structure, a.method, a.proof,
       a.prompt_facts, a.towers
FROM architectures a
WHERE a.id > :beyond AND (:since < 0 OR a.id IN ({_TOUCHED}))
ORDER BY a.id
LIMIT :limit
"""  # noqa: S608 - ours

_SLOTS = """
SELECT architecture_id, tower, role, kind, pattern, count, layout, bypassed, kernel, live, proof
FROM slots
WHERE architecture_id >= :first AND architecture_id <= :last
ORDER BY architecture_id, position
"""

_RENAMES = """
SELECT architecture_id, from_version, to_version, old, new, says
FROM renames
WHERE architecture_id >= :first AND architecture_id <= :last
ORDER BY architecture_id, id
"""

_REVISIONS = """
SELECT m.architecture_id, m.id, m.peft_type, m.preset, m.revision, m.spec, m.matched, m.per_rank, m.fixed, m.coverage,
       m.reasons, m.since, m.until, m.serial, m.created_at, m.yanked_at, m.yank_reason, m.version,
       s.kind, s.version AS source_version
FROM mappings m JOIN sources s ON s.id = m.source_id
WHERE m.architecture_id >= :first AND m.architecture_id <= :last
ORDER BY m.architecture_id, m.peft_type, m.preset, s.kind, m.revision
"""

_VERIFICATIONS = """
SELECT v.mapping_id, v.library_version, v.status, v.counts, v.reached, v.findings, v.serial
FROM verifications v JOIN mappings m ON m.id = v.mapping_id
WHERE m.architecture_id >= :first AND m.architecture_id <= :last
ORDER BY v.mapping_id, v.id
"""

Row = dict[str, Any]


def snapshot_lines(reader: Reader, since: int | None = None) -> Iterator[str]:
    """Yield the lines of a snapshot without its signature, each with its line end.

    The same registry gives the same bytes.

    Args:
        reader: Must see one state of the database throughout (``Reader.steady``).
        since: Only the architectures touched after this serial, each complete; ``None`` for all.
    """
    serial = serial_of(reader)
    is_whole = since is None or not can_tell_since(reader, since)
    head = reader.rows(_HEAD, serial=serial)
    yield canonical_line(
        {
            "format": FORMAT,
            "loradar": metadata.version("loradar"),
            "serial": serial,
            "head": head[0]["digest"] if head else None,
            "since": None if is_whole else since,
        }
    )
    beyond, after = 0, -1 if is_whole or since is None else since
    while page := reader.rows(_ARCHITECTURES, beyond=beyond, since=after, limit=PAGE):
        yield from map(canonical_line, _to_documents(reader, page))
        beyond = page[-1]["id"]


def can_tell_since(reader: Reader, since: int) -> bool:
    """Return whether the changes after a serial record their subjects; ``False`` for a serial not yet reached."""
    return since <= serial_of(reader) and not reader.rows(_WITHOUT_SUBJECTS, since=since)[0]["n"]


def _to_documents(reader: Reader, page: list[Row]) -> Iterator[Row]:
    ends = {"first": page[0]["id"], "last": page[-1]["id"]}
    checks = _grouped(reader.rows(_VERIFICATIONS, **ends), "mapping_id")
    parts = {
        name: _grouped(reader.rows(sql, **ends), "architecture_id")
        for name, sql in (("slots", _SLOTS), ("renames", _RENAMES), ("revisions", _REVISIONS))
    }
    for row in page:
        own = {name: rows[row["id"]] for name, rows in parts.items()}
        yield {
            "architecture": to_json(to_architecture(row)),
            "method": row["method"],
            "proof": row["proof"],
            "prompt_facts": row["prompt_facts"] and json.loads(row["prompt_facts"]),
            "towers": json.loads(row["towers"]),
            "slots": [slot | {"live": None if slot["live"] is None else bool(slot["live"])} for slot in own["slots"]],
            "renames": own["renames"],
            "revisions": [_to_revision(revision, checks[revision["id"]]) for revision in own["revisions"]],
        }


def _grouped(rows: list[Row], column: str) -> dict[Any, list[Row]]:
    """Return rows grouped by a column, which they lose."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.pop(column)].append(row)
    return groups


def _to_revision(row: Row, checks: list[Row]) -> Row:
    texts = {name: json.loads(row[name]) for name in ("spec", "coverage", "reasons")}
    times = {name: to_time(row[name]) for name in ("created_at", "yanked_at")}
    kept = {name: row[name] for name in ("id", "peft_type", "preset", "revision", "yank_reason", "version", "serial")}
    formula = None if row["per_rank"] is None else {"per_rank": row["per_rank"], "fixed": row["fixed"]}
    return {
        **kept,
        **texts,
        **times,
        "source": {"kind": row["kind"], "version": row["source_version"]},
        "matched": row["matched"],
        "formula": formula,
        "versions": {"since": row["since"], "until": row["until"]} if row["since"] else None,
        "verifications": [
            check | {name: json.loads(check[name]) for name in ("counts", "findings")} for check in checks
        ],
    }
