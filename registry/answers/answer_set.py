"""List every answer of a registry: for each architecture, each method and each preset."""

from dataclasses import dataclass

from ...domain.mappings import ArchitectureDetail, Mapping
from ...domain.methods import TARGETED
from ...domain.vocabulary import RECOMMENDED
from ..registry import Registry


@dataclass(frozen=True, slots=True)
class ArchitectureAnswers:
    """The answers for one architecture.

    Attributes:
        detail: What is registered of it.
        default: The answer to a lookup of its name alone; ``None`` if there is none.
        answers: The answers for each method and preset, that of LoRA's default first.
    """

    detail: ArchitectureDetail
    default: Mapping | None
    answers: tuple[Mapping, ...]


def list_references(registry: Registry, wanted: tuple[str, ...] = ()) -> list[str]:
    """Return the references of all architectures, or of those wanted, sorted.

    Raises:
        UnknownArchitecture: If the registry does not know one that is wanted.
    """
    for reference in wanted:
        registry.get_architecture(*split(reference))
    return sorted({":".join(split(one)) for one in wanted} or registry.list_references())


def split(reference: str) -> tuple[str, str]:
    """Return the library and the name of a reference; a bare name is of transformers."""
    library, colon, name = reference.partition(":")
    return (library, name) if colon else ("transformers", library)


def read_answers(registry: Registry, reference: str) -> ArchitectureAnswers:
    """Return every answer for an architecture."""
    library, name = split(reference)
    detail = registry.get_architecture(library, name)
    first = (TARGETED, "default")
    stored = {(one.peft_type, one.preset) for one in detail.mappings} | {(TARGETED, RECOMMENDED)}
    choices = sorted(stored, key=lambda one: (one != first, one))
    answers = [found for choice in choices if (found := registry.find(name, *choice, library))]
    default = next((one for one in answers if (one.peft_type, one.preset) == first), None)
    return ArchitectureAnswers(detail, default, tuple(answers))
