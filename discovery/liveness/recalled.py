"""Proofs on record: reuse the verdicts on an architecture for a model that is built alike."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from ...data import read_facts
from ...domain.architectures import Architecture
from ...domain.layers import Layer
from ...domain.mappings import ArchitectureDetail
from ...domain.patterns import pattern_of
from ...errors import LoradarError
from ...references import Reference
from ..facts.model_facts import list_settings, settings_of
from ..sources import find_recipe
from .proofs import Proof, Verdict

Recall = Callable[[Architecture], ArchitectureDetail | None]
"""Finds the record of an architecture."""


def recall_proof(recall: Recall, model: nn.Module, architecture: Architecture, layers: Iterable[Layer]) -> Proof | None:
    """Return the verdicts on record for the layers of a model; ``None`` if they are about another kind of model.

    Where indices decide (a last block that nothing reads), the slot has both verdicts, and its layers get none.
    """
    record = recall(architecture)
    if record is None or record.proof is None or not any(slot.live is False for slot in record.slots):
        return None  # no verdict would change a proposal
    if not proof_holds(record.architecture, model, architecture):
        return None
    by_pattern: dict[str, set[Verdict]] = defaultdict(set)
    for slot in record.slots:
        by_pattern[slot.pattern].add(Verdict(slot.live, slot.proof))
    agreed = {pattern: next(iter(known)) for pattern, known in by_pattern.items() if len({v.live for v in known}) == 1}
    verdicts = {layer.path: agreed.get(pattern_of(layer.path)) for layer in layers}
    return Proof(record.proof, {path: known for path, known in verdicts.items() if known and known.live is not None})


def proof_holds(made_for: Architecture, model: nn.Module, architecture: Architecture) -> bool:
    """Return whether a proof of an architecture holds for a model: they share version, class and settings.

    A model must be configured as its architecture is scanned: by default, as far as that builds. Models complete and
    change their settings: where these differ, another model is built to be compared with.
    """
    expected = (architecture.library_version, architecture.class_name)
    settings = settings_of(model) if (made_for.library_version, made_for.class_name) == expected else None
    if not settings:
        return False
    try:
        recipe = find_recipe(Reference.parse(architecture.reference))
        return _is_alike(settings, list_settings(recipe.settings)) or _is_alike(
            settings, settings_of(recipe.build_on_meta())
        )
    except LoradarError:
        return False


def _is_alike(own: Any, other: Any) -> bool:
    """Compare settings; numbers may differ, because a proof is made on a build with smaller ones itself."""
    if isinstance(own, Mapping) and isinstance(other, Mapping):
        compared = own.keys() & other.keys() - {*read_facts("liveness.toml")["unrelated"]}
        return all(_is_alike(own[name], other[name]) for name in compared)
    if isinstance(own, list | tuple) and isinstance(other, list | tuple):
        return [*own] == [*other]
    return (_is_size(own) and _is_size(other)) or bool(own == other)


def _is_size(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
