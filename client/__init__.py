"""The REST client: what the registry answers in process, asked of a service, without torch or SQLAlchemy."""

from collections.abc import Iterator

from ..domain.mappings import Mapping
from ..domain.summaries import ArchitectureDetail, ArchitecturePage, ArchitectureSummary, Neighbour, NeighbourList
from .connection import quoted_segment
from .reads import Reading
from .writes import Contributions

PAGE = 200
"""Architectures asked for at once."""


class Client(Contributions, Reading):
    """A connection to a loradar service; also a context manager that closes it.

    The service's errors are raised as the classes the registry itself would raise.

    Args:
        url: Where the service is.
        token: What to write with; reading needs none.
        timeout: Seconds to wait for an answer.
    """

    def targets(
        self,
        name: str,
        peft_type: str = "LORA",
        preset: str = "default",
        library: str = "transformers",
        library_version: str | None = None,
    ) -> Mapping:
        """Return the mapping to use for an architecture.

        Raises:
            NotRegistered: If the service has none.
            UnknownPeftType: If it has none of this PEFT type for any architecture.
            UnknownPreset: If ``preset`` is no preset.
            InvalidRequest: If an argument is out of bounds.
            ServiceUnreachable: If there is no usable answer.
        """
        query = {
            "peft_type": peft_type,
            "preset": preset,
            "library": library,
            "library_version": library_version,
        }
        return self._get(Mapping, f"/v1/targets/{quoted_segment(name)}", query)

    def architectures(self, library: str | None = None, q: str = "") -> tuple[ArchitectureSummary, ...]:
        """Return all architectures of a library, or of all, whose name contains ``q``, sorted.

        Raises:
            ServiceUnreachable: If there is no usable answer.
        """
        return tuple(self._pages({"library": library, "q": q, "limit": str(PAGE)}))

    def _pages(self, query: dict[str, str | None]) -> Iterator[ArchitectureSummary]:
        after = None
        while True:
            page = self._get(ArchitecturePage, "/v1/architectures", {**query, "after": after})
            yield from page.architectures
            after = page.next
            if after is None:
                return

    def architecture(self, library: str, name: str) -> ArchitectureDetail:
        """Return everything the service knows about an architecture.

        Raises:
            UnknownArchitecture: If it has never heard of it.
            ServiceUnreachable: If there is no usable answer.
        """
        path = f"/v1/architectures/{quoted_segment(library)}/{quoted_segment(name)}"
        return self._get(ArchitectureDetail, path, {})

    def similar(self, library: str, name: str, limit: int = 10) -> tuple[Neighbour, ...]:
        """Return the nearest architectures by what their slots are, nearest first.

        Raises:
            UnknownArchitecture: If the service has never heard of the one asked for.
            NotRegistered: If nobody scanned it.
            InvalidRequest: If ``limit`` is out of bounds.
            ServiceUnreachable: If there is no usable answer.
        """
        path = f"/v1/architectures/{quoted_segment(library)}/{quoted_segment(name)}/similar"
        return self._get(NeighbourList, path, {"limit": str(limit)}).similar
