"""Mappings as somebody states them, before they have a revision: a scan's proposals, or PEFT's tables."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...domain.coverage import Coverage
from ...domain.mappings import Mapping, Source
from ...domain.scans import Architecture, Proposal
from ...domain.targets import TargetSpec
from ...domain.vocabulary import Library, Preset
from ..db.canonical import Question, mapping_id
from ..peft_constants.reading import PeftConstants, peft_type_of
from ..versions.ranges import first_range, reaching

IA3_FEEDFORWARD_TABLE = "TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING"


@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping as somebody states it, before it has a revision."""

    library: Library
    name: str
    peft_type: str
    preset: Preset
    spec: TargetSpec
    matched: int | None = None
    per_rank: int | None = None
    fixed: int | None = None
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
        same = reaching(known, self.spec, version)
        if same:
            return same
        revision = max((mapping.revision for mapping in known), default=0) + 1
        return Mapping(
            id=mapping_id(self.question, source.kind, revision, self.spec),
            library=self.library,
            name=self.name,
            peft_type=self.peft_type,
            preset=self.preset,
            spec=self.spec,
            source=source,
            revision=revision,
            matched=self.matched,
            per_rank=self.per_rank,
            fixed=self.fixed,
            reasons=self.reasons,
            coverage=self.coverage,
            versions=first_range(version),
        )


def entries_of_proposals(architecture: Architecture, proposals: Iterable[Proposal]) -> Iterator[Entry]:
    """Yield what a scan proposes for an architecture."""
    for p in proposals:
        named = (architecture.library, architecture.name)
        yield Entry(*named, p.peft_type, p.preset, p.spec, p.matched, p.per_rank, p.fixed, p.reasons, p.coverage)


def peft_mappings(constants: PeftConstants) -> list[tuple[str, str, TargetSpec]]:
    """Return (model type, PEFT type, spec) of every entry of PEFT's tables of targets, sorted."""
    entries = entries_of_constants(constants)
    return sorted(((e.name, e.peft_type, e.spec) for e in entries), key=lambda entry: entry[:2])


def entries_of_constants(constants: PeftConstants) -> Iterator[Entry]:
    """Yield every entry of PEFT's tables of targets."""
    feedforward = constants.tables.get(IA3_FEEDFORWARD_TABLE, {})
    for table in constants.tables:
        peft_type = peft_type_of(table)
        for name, targets, condition in constants.entries(table) if peft_type else ():
            spec = {"target_modules": targets}
            if peft_type == "IA3":
                spec["feedforward_modules"] = feedforward.get(name)
            reasons = (f"PEFT sets it only if {condition}",) if condition else ()
            yield Entry("transformers", name, str(peft_type), "default", TargetSpec.from_dict(spec), reasons=reasons)
