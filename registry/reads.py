"""What a registry tells beside lookups: its mappings as a list, what was changed, and all of it at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..domain.changes import AuditLogReport, Change, Revision
from ..domain.layers import Slot
from ..domain.mappings import Mapping
from ..domain.submissions import Difference
from . import mirror
from .db import audit_verification as verify_log
from .db.schema import Reader
from .mappings import compare, history
from .mappings import listing as browse
from .mappings import search as find
from .versions import stored_names as names


class Reads:
    """The reads of a registry that no lookup needs."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def find_mappings(  # noqa: PLR0913, PLR0917 - the filters
        self,
        source: str | None = None,
        peft_type: str | None = None,
        status: str | None = None,
        q: str = "",
        library: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[Mapping, ...]:
        """Return mappings in use, sorted by what they answer, each with its verification for the newest version.

        Args:
            source: Only those of this kind of source.
            peft_type: Only those for this method.
            status: Only those whose verification has this status.
            q: Only those of architectures whose name contains this, whatever the case.
            library: Only those of this library.
            after: Only those beyond this place (``mapping_place``).
            limit: At most so many.

        Raises:
            InvalidRequest: If ``after`` is no place in the list.
        """
        wanted = find.Wanted(source, peft_type and peft_type.upper(), status, q, library)
        return find.find_mappings(self._reader, wanted, after, limit)

    def compare(self, mapping_id: str, other_id: str) -> Difference:
        """Return which layers a mapping reaches that another of its architecture does not, and the other way round.

        Raises:
            UnknownMapping: If no revision has one of the ids.
            InvalidRequest: If they are of different architectures.
            NotRegistered: If nobody scanned the architecture.
        """
        return compare.compare(self._reader, mapping_id, other_id)

    def list_slots(self, library: str, name: str) -> tuple[Slot, ...]:
        """Return the slots of an architecture, in the order of the model; none if nobody scanned it.

        Raises:
            UnknownArchitecture: If the registry has never heard of it.
        """
        slots = names.list_slots(self._reader, library, name)
        return slots or browse.get_architecture(self._reader, library, name).slots

    def list_changes(self, since: int = 0, limit: int = 100) -> tuple[Change, ...]:
        """Return up to ``limit`` changes after a serial, oldest first; what tokens are about is left out."""
        return history.list_changes(self._reader, since, limit)

    def list_history(self, library: str, name: str) -> tuple[Revision, ...]:
        """Return every revision ever of an architecture, yanked ones too, with what was done to each.

        Raises:
            UnknownArchitecture: If the registry has never heard of it.
        """
        return history.list_history(self._reader, library, name)

    def verify_log(self, expect: str | None = None) -> AuditLogReport:
        """Compute the log of changes again and return what is wrong with it, if anything is.

        Args:
            expect: A digest kept elsewhere, which has to be in the log.
        """
        return verify_log.verify_log(self._reader, expect)

    def can_tell_since(self, since: int) -> bool:
        """Tell whether the changes after a serial say what they touched; a seed does not, it touches everything."""
        return mirror.can_tell_since(self._reader, since)

    @contextmanager
    def snapshot(self, since: int | None = None) -> Iterator[Iterator[str]]:
        """Lend the lines of a snapshot of one state of the registry; they lack the signature.

        Args:
            since: Only the architectures touched after this serial, each whole; ``None`` for all.
        """
        with self._reader.steady() as steady:
            yield mirror.snapshot_lines(steady, since)

    def count_submissions(self) -> dict[str, int]:
        """Return how many submissions there are, by status; only those there are any of."""
        rows = self._reader.rows("SELECT status, COUNT(*) AS n FROM submissions GROUP BY status ORDER BY status")
        return {row["status"]: row["n"] for row in rows}


mapping_place = find.place_of
"""Where a mapping stands in the list of ``find_mappings``: the ``after`` of what follows."""
