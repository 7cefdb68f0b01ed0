"""The list of mappings, filtered: page by page, in the order of what they answer."""

import re
from typing import Any, NamedTuple

from ...domain.mappings import Mapping
from ...errors import InvalidRequest
from ..db.schema import Reader
from .listing import containing
from .resolve import SELECT_MAPPINGS, to_mapping

_IS_WANTED = """
WHERE m.yanked_at IS NULL
  AND (CAST(:library AS VARCHAR(32)) IS NULL OR a.library = :library)
  AND (CAST(:source AS VARCHAR(16)) IS NULL OR m.source_kind = :source)
  AND (CAST(:peft_type AS VARCHAR(64)) IS NULL OR m.peft_type = :peft_type)
  AND (CAST(:status AS VARCHAR(16)) IS NULL OR v.status = :status)
  AND lower(a.name) LIKE :pattern ESCAPE '!'
"""

_IS_BEYOND = """
  AND (a.library > :after_library OR (a.library = :after_library AND a.name >= :after_name))
  AND (a.library, a.name, m.peft_type, m.preset, m.source_kind, m.revision)
      > (:after_library, :after_name, :after_peft_type, :after_preset, :after_source, :after_revision)
"""
"""The first line repeats a part of the second in a form for which both databases use the index of names."""

_ORDER = "ORDER BY a.library, a.name, m.peft_type, m.preset, m.source_kind, m.revision LIMIT :limit"

_FIND = SELECT_MAPPINGS + _IS_WANTED + _IS_BEYOND + _ORDER


class Wanted(NamedTuple):
    """Which mappings are wanted; ``None`` and an empty text stand for all."""

    source: str | None = None
    peft_type: str | None = None
    status: str | None = None
    q: str = ""
    library: str | None = None


class _Place(NamedTuple):
    library: str
    name: str
    peft_type: str
    preset: str
    source: str
    revision: int


_PLACE = re.compile(r"([^:]+):(.+)/([^/]+)/([^/]+)/([^/]+)/([0-9]{1,9})", re.DOTALL)

_START = _Place("", "", "", "", "", 0)


def find_mappings(reader: Reader, wanted: Wanted, after: str | None, limit: int) -> tuple[Mapping, ...]:
    """Return up to ``limit`` mappings in use, by what they answer, from beyond ``after``.

    Each carries the verification of the version its architecture is known at, or else the last one: ``status`` is
    that one's.

    Raises:
        InvalidRequest: If ``after`` is no place in the list.
    """
    place = _parse(after) if after is not None else _START
    beyond = {f"after_{name}": value for name, value in place._asdict().items()}
    values: dict[str, Any] = {**wanted._asdict(), **beyond, "limit": limit, "library_version": None}
    values["pattern"] = containing(values.pop("q"))
    return tuple(map(to_mapping, reader.rows(_FIND, **values)))


def place_of(mapping: Mapping) -> str:
    """Return where a mapping stands in the list: ``transformers:llama/LORA/default/peft/1``."""
    asked = f"{mapping.library}:{mapping.name}/{mapping.peft_type}/{mapping.preset}"
    return f"{asked}/{mapping.source.kind}/{mapping.revision}"


def _parse(after: str) -> _Place:
    found = _PLACE.fullmatch(after)
    if found is None:
        message = f"'after' is {after!r}, which is no place in the list. Give the 'next' of a page."
        raise InvalidRequest(message, field="query.after", value=after)
    library, name, peft_type, preset, source, revision = found.groups()
    return _Place(library, name, peft_type, preset, source, int(revision))
