"""The part of the client that reads beside lookups: lists, changes, histories, and snapshots that it verifies."""

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Json
from pathlib import Path

from ..domain.changes import ArchitectureHistory, Change, ChangePage, Revision
from ..domain.layers import Slot
from ..domain.mappings import BatchAnswers, Mapping, MappingFound, MappingPage
from ..domain.schema import to_json
from ..domain.submissions import Difference
from ..domain.summaries import ArchitectureSlots
from ..errors import LoradarError, SignatureInvalid, to_error
from ..snapshots import SnapshotInfo, SnapshotKey, check_snapshot, part_of
from .connection import Connection, quoted_segment

BATCH = 256
"""Questions asked at once."""

PAGE = 200
"""Mappings, and changes, asked for at once."""


class Reading(Connection):
    """What a client may ask beside lookups."""

    def targets_of_many(self, questions: Sequence[Json[str, str | None]]) -> tuple[Mapping | LoradarError, ...]:
        """Return the answer to each question: a mapping, or the error a lookup would have raised.

        Args:
            questions: Each with ``model_type``, and ``peft_type``, ``preset``, ``library`` and ``library_version`` as
                far as they are not the default; any number.

        Raises:
            InvalidRequest: If a question is out of bounds.
            ServiceUnreachable: If there is no usable answer.
        """
        parts = (questions[start : start + BATCH] for start in range(0, len(questions), BATCH))
        batches = (self._send(BatchAnswers, "/v1/targets:batch", {"questions": [*map(dict, part)]}) for part in parts)
        return tuple(
            answer.mapping if isinstance(answer, MappingFound) else to_error(to_json(answer))
            for batch in batches
            for answer in batch.answers
        )

    def mappings(
        self,
        *,
        source: str | None = None,
        peft_type: str | None = None,
        status: str | None = None,
        q: str = "",
        library: str | None = None,
    ) -> Iterator[Mapping]:
        """Yield the mappings in use, sorted, page by page.

        Args:
            source: Only those of this kind of source.
            peft_type: Only those for this method.
            status: Only those whose newest verification has this status.
            q: Only those of architectures whose name contains this.
            library: Only those of this library.

        Raises:
            InvalidRequest: If a filter is out of bounds.
            ServiceUnreachable: If there is no usable answer.
        """
        query = {"source": source, "peft_type": peft_type, "status": status, "q": q, "library": library}
        after = None
        while True:
            page = self._get(MappingPage, "/v1/mappings", {**query, "limit": str(PAGE), "after": after})
            yield from page.mappings
            after = page.next
            if after is None:
                return

    def diff(self, mapping_id: str, other_id: str) -> Difference:
        """Return which layers a mapping reaches that another of its architecture does not, and the other way round.

        Raises:
            UnknownMapping: If no revision has one of the ids.
            InvalidRequest: If one is no id, or they are of different architectures.
            NotRegistered: If nobody scanned the architecture.
            ServiceUnreachable: If there is no usable answer.
        """
        path = f"/v1/mappings/{quoted_segment(mapping_id)}/diff"
        return self._get(Difference, path, {"against": other_id})

    def changes(self, since: int = 0) -> Iterator[Change]:
        """Yield every change after a serial, oldest first, page by page.

        Raises:
            InvalidRequest: If ``since`` is out of bounds.
            ServiceUnreachable: If there is no usable answer.
        """
        beyond: int | None = since
        while beyond is not None:
            page = self._get(ChangePage, "/v1/changes", {"since": str(beyond), "limit": str(PAGE)})
            yield from page.changes
            beyond = page.next

    def history(self, library: str, name: str) -> tuple[Revision, ...]:
        """Return every revision ever of an architecture, yanked ones too.

        Raises:
            UnknownArchitecture: If the service has never heard of it.
            ServiceUnreachable: If there is no usable answer.
        """
        path = f"/v1/architectures/{quoted_segment(library)}/{quoted_segment(name)}/history"
        return self._get(ArchitectureHistory, path, {}).revisions

    def layers(self, library: str, name: str) -> tuple[Slot, ...]:
        """Return the slots of an architecture, in the order of the model; none if nobody scanned it.

        Raises:
            UnknownArchitecture: If the service has never heard of it.
            ServiceUnreachable: If there is no usable answer.
        """
        path = f"/v1/architectures/{quoted_segment(library)}/{quoted_segment(name)}/layers"
        return self._get(ArchitectureSlots, path, {}).slots

    def snapshot_key(self) -> str:
        """Return the public key the service signs snapshots with: keep it, and hold every snapshot against it.

        Raises:
            ServiceUnreachable: If there is no usable answer.
        """
        return self._get(SnapshotKey, "/v1/snapshot/key", {}).key

    def snapshot(self, out: Path, key: str | None = None, since: int | None = None) -> SnapshotInfo:
        """Fetch a snapshot and verify it; the file is there only if it is as it was signed.

        Args:
            out: File to write, of lines of JSON (see ``loradar.snapshots``).
            key: The public key it has to be signed with. Without it the service is asked, which proves that nothing
                was lost on the way, and not who sent it.
            since: Only the architectures touched after this serial, each whole.

        Raises:
            SignatureInvalid: If it was cut off or altered, signed by somebody else, or another one than was asked for.
            ServiceUnreachable: If there is no usable answer.
            MissingExtra: If ``cryptography`` is not installed.
        """
        key = key or self.snapshot_key()
        with part_of(out) as part:
            self._download("/v1/snapshot", {"since": None if since is None else str(since)}, part)
            with part.open("rb") as file:
                info = check_snapshot(file, key)
            if info.since not in (None, since):  # truly signed, once, for another question
                message = (
                    f"{self.url} sent what was touched after serial {info.since}, which nobody asked for. Ask again."
                )
                raise SignatureInvalid(message, since=since, found=info.since)
            return info
