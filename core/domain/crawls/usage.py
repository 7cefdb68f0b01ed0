"""How much an architecture is used: repos on a hub with its structures, and the targets that their adapters chose."""

from dataclasses import dataclass, field
from typing import ClassVar

from ...schema import Config, schema_config
from ..architectures import ArchitectureName


@dataclass(frozen=True, slots=True)
class UsedStructure:
    """A structure of an architecture, and the repos whose stored weights have it."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (USAGE_EXAMPLE.structures[0],))

    digest: str
    """``sha256:`` over the names of the stored weights, numbers left out; sizes and depth do not count."""
    class_name: str | None
    """Class that the configurations name."""
    layers: tuple[str, ...]
    """The weights by name and number of dimensions, ``*`` in place of each index."""
    repos: int = field(metadata={"ge": 0})
    """Repos with this structure."""
    examples: tuple[str, ...]
    """Some of them."""


@dataclass(frozen=True, slots=True)
class ChosenTargets:
    """Targets that authors of adapters chose."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (USAGE_EXAMPLE.targets[0],))

    peft_type: str
    """Method, as the configurations state it; `UNKNOWN` if none does."""
    targets: tuple[str, ...]
    """Names of layers, or one regex; empty if the adapters do not state them."""
    adapters: int = field(metadata={"ge": 0})
    """Repos with an adapter that has these targets."""
    examples: tuple[str, ...]
    """Some of them."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Repos that use an architecture, as crawls of hubs have counted them."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (USAGE_EXAMPLE,))

    architecture: ArchitectureName
    repos: int = field(metadata={"ge": 0})
    """Repos that store a model of this architecture."""
    structures: tuple[UsedStructure, ...]
    """Its structures, the most frequent first; a repo of several models counts for each structure once."""
    adapters: int = field(metadata={"ge": 0})
    """Repos with an adapter of a model of this architecture."""
    targets: tuple[ChosenTargets, ...]
    """What these adapters target, the most frequent first."""
    crawled: int = field(metadata={"ge": 0})
    """Repos visited by all crawls, whatever they hold; 0 if there was no crawl yet."""


USAGE_EXAMPLE: Usage = Usage(
    ArchitectureName("transformers", "llama"),
    2,
    (
        UsedStructure(
            "sha256:0f3b5d1c",
            "LlamaForCausalLM",
            ("model.embed_tokens 2", "model.layers.*.self_attn.q_proj 2"),
            2,
            ("org/llama-8b", "org/llama-70b"),
        ),
    ),
    1,
    (ChosenTargets("LORA", ("q_proj", "v_proj"), 1, ("org/llama-8b-lora",)),),
    3,
)
