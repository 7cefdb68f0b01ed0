"""Identify architectures and describe the build of each that was scanned."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ..schema import Config, schema_config
from .vocabulary import Library


@dataclass(frozen=True, slots=True)
class ArchitectureName:
    """The identity of an architecture."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    library: Library
    name: str
    """A ``model_type``, a timm architecture without tag, a class name or a qualified name."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model architecture and the build of it that was scanned; nulls if none was."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (ARCHITECTURE_EXAMPLE,))

    library: Library
    name: str
    """A ``model_type``, a timm architecture without tag, a class name or a qualified name."""
    class_name: str | None = None
    """The model class that was scanned."""
    library_version: str | None = None
    """Version of the library that was scanned."""
    fingerprint: str | None = None
    """``sha256:`` digest of the structure with its names, the same for every width and depth."""
    structure: str | None = None
    """Digest of the structure without names, so that a renamed copy shares it; null unless the model was traced."""

    @property
    def reference(self) -> str:
        """The reference that names it, such as ``timm:resnet50``."""
        return f"{self.library}:{self.name}"


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """Depth and widths of the language model, which prompt-learning methods need; null where unknown."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    num_layers: int | None = None
    """Number of blocks."""
    num_attention_heads: int | None = None
    """Query heads of one attention."""
    token_dim: int | None = None
    """Width of a token's embedding."""
    num_key_value_heads: int | None = None
    """Cached heads: fewer than the query heads where several share one."""
    key_value_dim: int | None = None
    """Width of all cached heads together."""


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A model inside a composite one, with a configuration of its own."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (PART_EXAMPLE,))

    name: str
    """Field of the configuration that holds its own, without ``_config``: ``text``."""
    model_type: str
    """Type of the model: that of the default configuration, or the one asked for."""
    is_free: bool
    """Whether the configuration may have a model of another type here."""
    prefix: str | None = None
    """Path of the model inside the composite; null where it could not be found."""
    class_name: str | None = None
    """Class of the model there."""
    is_bare: bool = True
    """Whether that class is a base model, without the head its type is registered with."""


def is_composite(parts: Iterable[ModelPart]) -> bool:
    """Return whether an architecture with these parts leaves the type of one to its configuration."""
    return any(part.is_free for part in parts)


PART_EXAMPLE: ModelPart = ModelPart("text", "opt", True, "language_model", "OPTForCausalLM", False)  # noqa: FBT003
ARCHITECTURE_EXAMPLE: Architecture = Architecture(
    "transformers", "llama", "LlamaForCausalLM", "5.23.0", "sha256:0f3b5d1c", "sha256:a8aa960f"
)
