"""Summarise an architecture: in a list, in full, and beside similar ones."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..schema import Config, schema_config
from .architectures import ARCHITECTURE_EXAMPLE, Architecture, ArchitectureName, PromptFacts
from .layers import SLOT_EXAMPLE, Slot
from .mappings import MAPPING_EXAMPLE, Mapping
from .versions import VersionedRename
from .vocabulary import SourceKind, Tower


@dataclass(frozen=True, slots=True)
class ArchitectureSummary:
    """An architecture in the list of architectures."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (SUMMARY_EXAMPLE,))

    architecture: Architecture
    sources: tuple[SourceKind, ...]
    """Kinds of source of its mappings, sorted."""
    peft_types: tuple[str, ...]
    """PEFT types of its mappings, sorted."""
    presets: tuple[str, ...]
    """Presets of its mappings, sorted."""


@dataclass(frozen=True, slots=True)
class ArchitecturePage:
    """A page of architectures; ``next`` is the ``after`` of the next page, null on the last one."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (ArchitecturePage((SUMMARY_EXAMPLE,), "transformers:llama"),)
    )

    architectures: tuple[ArchitectureSummary, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class ArchitectureDetail:
    """Everything the registry holds about one architecture."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (DETAIL_EXAMPLE,))

    architecture: Architecture
    method: str | None
    """Method of the latest scan, ``names`` or ``dataflow``; null if it was never scanned."""
    proof: str | None
    """How the latest scan proved layers live, or why it could not."""
    prompt_facts: PromptFacts | None
    """Depth and widths for methods that name no layers; null if it was never scanned."""
    towers: dict[Tower, tuple[str, ...]]
    """Path prefixes of the sub-models of each tower."""
    slots: tuple[Slot, ...]
    mappings: tuple[Mapping, ...]
    """The recommended mapping for each PEFT type and preset."""
    revisions: tuple[Mapping, ...]
    """Every revision of every mapping, oldest first, without yanked ones."""
    renames: tuple[VersionedRename, ...] = ()
    """Names of its layers in other library versions."""


@dataclass(frozen=True, slots=True)
class ArchitectureSlots:
    """The slots of an architecture in model order; none if it was never scanned."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (ArchitectureSlots(MAPPING_EXAMPLE.architecture, (SLOT_EXAMPLE,)),)
    )

    architecture: ArchitectureName
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An architecture similar to the queried one."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    architecture: Architecture
    similarity: float = field(metadata={"ge": 0, "le": 1})
    """Share of the slots that both have."""
    also: tuple[str, ...]
    """References of other architectures with the same fingerprint."""
    differences: tuple[str, ...]
    """Differences from the queried architecture, in words."""


@dataclass(frozen=True, slots=True)
class NeighbourList:
    """The architectures with the most similar slots, nearest first."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (NeighbourList((NEIGHBOUR_EXAMPLE,)),))

    similar: tuple[Neighbour, ...]


SUMMARY_EXAMPLE: ArchitectureSummary = ArchitectureSummary(
    ARCHITECTURE_EXAMPLE, ("peft", "scanner"), ("IA3", "LORA"), ("all-linear", "attention", "default", "mlp")
)
DETAIL_EXAMPLE: ArchitectureDetail = ArchitectureDetail(
    architecture=ARCHITECTURE_EXAMPLE,
    method="dataflow",
    proof="proved on a small build",
    prompt_facts=PromptFacts(32, 32, 4096, 32, 4096),
    towers={"language": ("model",)},
    slots=(SLOT_EXAMPLE,),
    mappings=(MAPPING_EXAMPLE,),
    revisions=(MAPPING_EXAMPLE,),
)
NEIGHBOUR_EXAMPLE: Neighbour = Neighbour(
    architecture=replace(ARCHITECTURE_EXAMPLE, name="qwen3", class_name="Qwen3ForCausalLM"),
    similarity=0.8462,
    also=("transformers:qwen3_text",),
    differences=("has norms in its attention: q_norm and k_norm",),
)
