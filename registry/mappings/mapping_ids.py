"""Ids of mappings: a digest that nobody types whole, so that its first digits stand for it."""

import re

from ...errors import UnknownMapping
from ..db.schema import Reader

LEAST_DIGITS = 8
"""Digits of an id that may stand for it."""

_DIGITS = re.compile(rf"(?:sha256:)?([0-9a-f]{{{LEAST_DIGITS},64}})", re.IGNORECASE)

_STARTING = "SELECT id FROM mappings WHERE id >= :first AND id < :beyond ORDER BY id LIMIT 5"


def whole_id(reader: Reader, given: str) -> str:
    """Return the id of a mapping by its first digits, with ``sha256:`` or without.

    Raises:
        UnknownMapping: If no mapping has it, or more than one.
    """
    match = _DIGITS.fullmatch(given)
    first = f"sha256:{match[1].lower()}" if match else ""
    found = [row["id"] for row in reader.rows(_STARTING, first=first, beyond=f"{first}g")] if match else []
    if len(found) == 1:
        return str(found[0])
    way_out = f"Give its id, or the first {LEAST_DIGITS} digits or more; ids are in what a lookup answers under --json."
    if found:
        way_out = f"Ids that start so: {', '.join(found)}. Give more digits."
    raise UnknownMapping(given, (), way_out)
