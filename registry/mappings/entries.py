"""Number mappings as revisions: those a scan proposes, and those PEFT's tables or a contributor state."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...domain.architectures import Architecture, ArchitectureName
from ...domain.layers import Coverage
from ...domain.mappings import Mapping, Source
from ...domain.scans import Proposal
from ...domain.targets import Formula, TargetSpec
from ...domain.versions import Versions
from ...domain.vocabulary import Library, Preset
from ..db.encoding import MappingKey, mapping_id
from .ranges import find_unchanged


@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping before it has a revision."""

    library: Library
    name: str
    peft_type: str
    preset: Preset
    spec: TargetSpec
    matched: int | None = None
    formula: Formula | None = None
    reasons: tuple[str, ...] = ()
    coverage: tuple[Coverage, ...] = ()

    @property
    def key(self) -> MappingKey:
        """The architecture, PEFT type and preset."""
        return MappingKey(self.library, self.name, self.peft_type, self.preset)

    def revise(self, source: Source, known: Sequence[Mapping], version: str | None = None) -> Mapping:
        """Return the known revision with the same spec for a library version, else the next revision.

        A known one is returned unchanged, or with its range extended to the version.
        """
        same = find_unchanged(known, self.spec, version)
        if same:
            return same
        revision = max((mapping.revision for mapping in known), default=0) + 1
        return Mapping(
            id=mapping_id(self.key, source.kind, revision, self.spec),
            architecture=ArchitectureName(self.library, self.name),
            peft_type=self.peft_type,
            preset=self.preset,
            **self.spec.values,
            source=source,
            revision=revision,
            matched=self.matched,
            formula=self.formula,
            reasons=self.reasons,
            coverage=self.coverage,
            versions=Versions(version, version) if version else None,
        )


def entries_of_proposals(architecture: Architecture, proposals: Iterable[Proposal]) -> Iterator[Entry]:
    """Yield the proposals of a scan as entries."""
    named = (architecture.library, architecture.name)
    for p in proposals:
        yield Entry(*named, p.peft_type, p.preset, p.spec, p.matched, p.formula, p.reasons, p.coverage)
