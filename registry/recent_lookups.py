"""Keep the mappings that were looked up in SQLite files, as long as the files do not change.

Imports no SQLAlchemy, since ``sqlite_lookup`` does without.
"""

from ..domain.mappings import Mapping
from .db.watch import StateWatch

MOST = 4096
"""Mappings that are kept, a few KiB each."""


class RecentLookups:
    """The mappings found in one registry file; none of another state of it is ever returned.

    Args:
        file: Path of the file.
    """

    def __init__(self, file: str) -> None:
        self._watch = StateWatch(file)
        self._found: dict[str, Mapping] = {}

    def find(self, query: str) -> Mapping | None:
        """Return the mapping of a query, or ``None`` if it has to be looked up; a changed file is watched anew."""
        if self._watch.is_unchanged():
            return self._found.get(query)
        self._found.clear()
        self._watch.renew()
        return None

    def keep(self, query: str, mapping: Mapping) -> None:
        """Keep the mapping that was found after ``find`` returned ``None``."""
        if len(self._found) >= MOST:
            self._found.clear()
        self._found[query] = mapping
