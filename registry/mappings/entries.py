"""Mappings as somebody states them, before they have a revision: a scan's proposals, or PEFT's tables."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...domain.architectures import Architecture, ArchitectureName
from ...domain.layers import Coverage
from ...domain.mappings import Mapping, Source
from ...domain.scans import Proposal
from ...domain.targets import Formula, TargetSpec
from ...domain.versions import Versions
from ...domain.vocabulary import Library, Preset
from ..db.canonical import Question, mapping_id
from ..versions.ranges import find_unchanged


@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping as somebody states it, before it has a revision."""

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
    def question(self) -> Question:
        """What it answers."""
        return Question(self.library, self.name, self.peft_type, self.preset)

    def revise(self, source: Source, known: Sequence[Mapping], version: str | None = None) -> Mapping:
        """Return the revision among ``known`` that says the same for a library version, else the next one.

        A known one comes back as it is, or with its range extended to the version.
        """
        same = find_unchanged(known, self.spec, version)
        if same:
            return same
        revision = max((mapping.revision for mapping in known), default=0) + 1
        return Mapping(
            id=mapping_id(self.question, source.kind, revision, self.spec),
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
    """Yield what a scan proposes for an architecture."""
    for p in proposals:
        named = (architecture.library, architecture.name)
        yield Entry(*named, p.peft_type, p.preset, p.spec, p.matched, p.formula, p.reasons, p.coverage)
