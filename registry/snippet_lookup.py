"""``snippet``: look up targets and write them for a training tool."""

from typing import Any

from ..domain.mappings import Mapping
from ..errors import UnknownArchitecture
from ..settings import Settings
from ..snippets import Snippet, Subject, write_snippet
from . import lookup
from .registry import Registry


def snippet(  # noqa: PLR0913 - what identifies a mapping, and what a snippet has beside it
    reference: str,
    tool: str,
    peft_type: str = "LORA",
    preset: str | None = None,
    library: str | None = None,
    *,
    model: str | None = None,
    alpha: int | None = None,
    **choice: Any,
) -> Snippet:
    """Write a configuration or a script with the targets of an architecture for a training tool.

    Args:
        reference: The architecture or model, in any spelling, as in ``lookup``.
        tool: ``loradar``, ``peft``, ``trl``, ``axolotl``, ``llama-factory``, ``ms-swift``, ``unsloth``, ``diffusers``.
        peft_type: Method: ``LORA`` or ``IA3``, which not every tool has.
        preset: Preset; that of ``LORADAR_PRESET``, else ``default``, if not given.
        library: Only names of this library.
        model: Model to train, an id on the hub or a folder; by default the one of ``reference``, else a known one.
        alpha: ``lora_alpha``; by default in the proportion to the rank that the recommendation starts with.
        choice: ``rank``, ``towers``, ``roles``, ``blocks``, ``parts`` and the like, as in ``lookup``.

    Raises:
        UnknownTool: If there is no such tool.
        MethodDoesNotFit: If the tool does not train such a model, or has not the method.
        LoradarError: As ``lookup``.
    """
    mapping = lookup(reference, peft_type, preset, library, **choice)
    with Registry.open(Settings.from_environment()) as registry:
        return write_snippet(mapping, tool, model, subject=find_subject(registry, mapping), alpha=alpha)


def find_subject(registry: Registry, mapping: Mapping) -> Subject:
    """Return the facts of the model of a mapping in a registry; none of one that it does not know."""
    try:
        return Subject.of(registry.get_architecture(mapping.library, mapping.name))
    except UnknownArchitecture:
        return Subject()
