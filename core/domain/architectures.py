"""Identify architectures and describe the build of each that was scanned."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..data import list_peft_types
from ..errors import InvalidRequest, UnknownName
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

    @property
    def has_peft_entry(self) -> bool:
        """Whether PEFT has default targets of LoRA for it."""
        return self.library == "transformers" and self.name in list_peft_types()


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """Depth and widths of the language model, for prompt learning, and sizes for ranks; null where unknown."""

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
    active_experts: int | None = None
    """Routed experts that run for a token."""
    parameters: int | None = None
    """Parameters of the whole model."""


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


def describe_make_up(parts: Iterable[ModelPart]) -> str:
    """Return parts in words: ``text model opt, vision model blip_2_vision_model``."""
    return ", ".join(f"{part.name} model {part.model_type}" for part in parts)


def choose_parts(reference: str, parts: Sequence[ModelPart], chosen: Mapping[str, str]) -> tuple[ModelPart, ...]:
    """Return the parts of an architecture with other models, given as types by the names of parts.

    Raises:
        InvalidRequest: If the architecture has no free part on record, or a part is not free.
        UnknownName: If it has no part of a name.
    """
    free = [f"{part.name} ({part.model_type})" for part in parts if part.is_free]
    if not free:
        command = f"loradar scan {reference.removeprefix('transformers:')} --store --prove"
        message = f"{reference} has no part of a free type on record. Ask without parts, or scan it anew: {command}."
        raise InvalidRequest(message, field="part", parts=[])
    known = {part.name: part for part in parts}
    types = {name.removesuffix("_config") if name not in known else name: kind for name, kind in chosen.items()}
    for name, kind in types.items():
        part = known.get(name)
        if part is None:
            raise UnknownName(name, known, f"The parts of {reference} that can be chosen: {', '.join(free)}.")
        if not part.is_free and kind != part.model_type:
            message = f"The part {name!r} of {reference} is always {part.model_type!r}. Free: {', '.join(free)}."
            raise InvalidRequest(message, field="part", part=name, parts=[one.name for one in parts if one.is_free])
    return tuple(replace(part, model_type=types.get(part.name, part.model_type)) for part in parts)


def name_make_up(name: str, chosen: Mapping[str, str]) -> str:
    """Return the name of an architecture built with these types of model as its parts: ``blip-2[text=t5]``."""
    return f"{name}[{','.join(f'{part}={chosen[part]}' for part in sorted(chosen))}]"


def split_make_up(name: str) -> tuple[str, dict[str, str]]:
    """Return the name of an architecture, and the types of model that ``name_make_up`` put behind it."""
    plain, _, inside = name.removesuffix("]").partition("[")
    pairs = (pair.partition("=") for pair in inside.split(",") if pair)
    return plain, {part: model_type for part, _, model_type in pairs}


PART_EXAMPLE: ModelPart = ModelPart("text", "opt", True, "language_model", "OPTForCausalLM", False)  # noqa: FBT003
ARCHITECTURE_EXAMPLE: Architecture = Architecture(
    "transformers", "llama", "LlamaForCausalLM", "5.24.0", "sha256:0f3b5d1c", "sha256:a8aa960f"
)


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """Facts read from a stored model, and how its weights fit the architecture that its configuration names."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    tensors: int
    """Number of tensors that are stored."""
    files: int
    """Number of files of weights."""
    headers: int
    """Number of headers that were read."""
    transferred: int = 0
    """Bytes that came from a hub."""
    packed: tuple[str, ...] = ()
    """Formats of quantised weights."""
    notes: tuple[str, ...] = ()
    """What was not read but taken to be so, in words."""
    verdict: str | None = None
    """``fits``, ``fits with renames`` or ``differs``, against the layers of the architecture; null if it is unknown."""
    renames: tuple[str, ...] = ()
    """Names in the file of layers with other names in the model: ``model.layers.* = transformer.h.*``."""
    missing: tuple[str, ...] = ()
    """Layers of the architecture that are not stored, ``*`` in place of each index."""
    beyond: tuple[str, ...] = ()
    """Stored weights that are no layers of the architecture, such as heads of other tasks."""
    shapes: tuple[str, ...] = ()
    """Weights with other shapes or another number than in the architecture."""


@dataclass(frozen=True, slots=True)
class FoundArchitecture:
    """An architecture that a text may mean."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (FOUND_EXAMPLE,))

    library: Library
    name: str
    how: str
    """How the text was understood, as in a lookup (``checkpoint``, ``class``, ``near name``), or ``layer`` for the name
    of one of its layers."""
    because: str
    """The reason, in words."""
    is_guess: bool
    model: str | None = None
    """The checkpoint that the text names; null if it names none."""


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The architectures that a text may mean, best first."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (SearchAnswer("Qwen/Qwen3-8B", "", (FOUND_EXAMPLE,), 1),)
    )

    query: str
    says: str
    """The meaning of the text as the message of an error; empty if it is none."""
    results: tuple[FoundArchitecture, ...]
    total: int
    """Number of all results, also those beyond the limit."""


FOUND_EXAMPLE: FoundArchitecture = FoundArchitecture(
    "transformers", "qwen3", "checkpoint", "a checkpoint, 'Qwen/Qwen3-8B'", is_guess=False, model="Qwen/Qwen3-8B"
)
