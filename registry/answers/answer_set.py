"""List every answer of a registry: for each architecture, each method and each preset."""

from collections.abc import Iterator
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
    answers = [*_find_all(registry, library, name, sorted(stored, key=lambda one: (one != first, one)))]
    return ArchitectureAnswers(detail, next((one for one in answers if _is_default(one)), None), tuple(answers))


def _find_all(registry: Registry, library: str, name: str, choices: list[tuple[str, str]]) -> Iterator[Mapping]:
    for peft_type, preset in choices:
        found = registry.find(name, peft_type, preset, library)
        if found:
            yield found


def _is_default(mapping: Mapping) -> bool:
    return (mapping.peft_type, mapping.preset) == (TARGETED, "default")
