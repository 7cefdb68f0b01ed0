"""What the registry, the service and its client say about an architecture as a whole."""

from collections.abc import Mapping as Json
from dataclasses import dataclass
from typing import Any, Self

from .mappings import Mapping
from .prompt_facts import PromptFacts
from .scans import Architecture, Slot
from .versions import VersionedRename


@dataclass(frozen=True, slots=True)
class ArchitectureSummary:
    """One line of the list of architectures.

    Attributes:
        sources: Kinds of source that have a mapping for it, sorted.
        peft_types: PEFT types it has a mapping for, sorted.
        presets: Presets it has a mapping for, sorted.
    """

    architecture: Architecture
    sources: tuple[str, ...]
    peft_types: tuple[str, ...]
    presets: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "architecture": self.architecture.to_dict(),
            "sources": list(self.sources),
            "peft_types": list(self.peft_types),
            "presets": list(self.presets),
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a summary from its JSON form."""
        lists = (tuple(data[name]) for name in ("sources", "peft_types", "presets"))
        return cls(Architecture.from_dict(data["architecture"]), *lists)


@dataclass(frozen=True, slots=True)
class ArchitectureDetail:
    """Everything known about one architecture.

    Attributes:
        method: How its latest scan told roles, or ``None`` if nobody scanned it.
        proof: How its latest scan proved layers live, or why it could not.
        prompt_facts: What methods that name no layers need to know; ``None`` as for ``method``.
        towers: Path prefixes of the sub-models of each tower.
        mappings: The recommended mapping for each PEFT type and preset.
        revisions: Every revision of every mapping, oldest first, yanked ones left out.
        renames: What its layers were called in other versions.
    """

    architecture: Architecture
    method: str | None
    proof: str | None
    prompt_facts: PromptFacts | None
    towers: dict[str, tuple[str, ...]]
    slots: tuple[Slot, ...]
    mappings: tuple[Mapping, ...]
    revisions: tuple[Mapping, ...]
    renames: tuple[VersionedRename, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "architecture": self.architecture.to_dict(),
            "method": self.method,
            "proof": self.proof,
            "prompt_facts": self.prompt_facts.to_dict() if self.prompt_facts else None,
            "towers": {name: list(prefixes) for name, prefixes in self.towers.items()},
            "slots": [slot.to_dict() for slot in self.slots],
            "mappings": [mapping.to_dict() for mapping in self.mappings],
            "revisions": [mapping.to_dict() for mapping in self.revisions],
            "renames": [rename.to_dict() for rename in self.renames],
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a detail from its JSON form."""
        return cls(
            architecture=Architecture.from_dict(data["architecture"]),
            method=data["method"],
            proof=data["proof"],
            prompt_facts=PromptFacts.from_dict(data["prompt_facts"]) if data["prompt_facts"] else None,
            towers={name: tuple(prefixes) for name, prefixes in data["towers"].items()},
            slots=tuple(Slot(**slot) for slot in data["slots"]),
            mappings=tuple(Mapping.from_dict(mapping) for mapping in data["mappings"]),
            revisions=tuple(Mapping.from_dict(mapping) for mapping in data["revisions"]),
            renames=tuple(VersionedRename.from_dict(rename) for rename in data["renames"]),
        )


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An architecture near the one asked for.

    Attributes:
        similarity: Share of what their slots are that both have, 0 to 1.
        also: References of others with its fingerprint, of which the same holds.
        differences: What it has and the one asked for has not, or the other way round, in words.
    """

    architecture: Architecture
    similarity: float
    also: tuple[str, ...]
    differences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "architecture": self.architecture.to_dict(),
            "similarity": self.similarity,
            "also": list(self.also),
            "differences": list(self.differences),
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a neighbour from its JSON form."""
        architecture = Architecture.from_dict(data["architecture"])
        return cls(architecture, data["similarity"], tuple(data["also"]), tuple(data["differences"]))
