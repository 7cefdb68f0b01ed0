"""What was proved of an architecture, taken over for a model that is built alike: nobody tries it again."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from ...domain.architectures import Architecture
from ...domain.layers import Layer, Slot
from ...domain.patterns import pattern_of
from ...domain.summaries import ArchitectureDetail
from ...errors import LoradarError
from ...references import Reference
from ..facts.data_files import read_facts
from ..facts.model_facts import list_settings, settings_of
from ..sources import find_recipe
from .proofs import Proof, Verdict

Recall = Callable[[Architecture], ArchitectureDetail | None]
"""Finds what is on record of an architecture."""


def recall_proof(recall: Recall, model: nn.Module, found: Architecture, layers: Iterable[Layer]) -> Proof | None:
    """Return the verdicts on record for the layers of a model; ``None`` if they are not about a model like this one.

    Where indices decide (a last block that nothing reads), the slot holds both verdicts, and none is returned for its
    layers.
    """
    known = recall(found)
    if known is None or known.proof is None or not any(slot.live is False for slot in known.slots):
        return None  # nothing that a scan would not propose anyway
    if not proof_holds(known.architecture, model, found):
        return None
    verdicts = _verdicts(known.slots)
    paths = (layer.path for layer in layers)
    return Proof(known.proof, {path: verdicts[at] for path in paths if (at := pattern_of(path)) in verdicts})


def proof_holds(made_for: Architecture, model: nn.Module, found: Architecture) -> bool:
    """Tell whether what was proved of an architecture holds for a model: its version, class and settings are those."""
    made = (made_for.library_version, made_for.class_name)
    return made == (found.library_version, found.class_name) and _is_built_alike(model, found)


def _verdicts(slots: Iterable[Slot]) -> dict[str, Verdict]:
    """Return the verdict on each pattern that all of its slots agree on."""
    found: dict[str, set[Verdict]] = defaultdict(set)
    for slot in slots:
        found[slot.pattern].add(Verdict(slot.live, slot.proof))
    agreed = {pattern: next(iter(said)) for pattern, said in found.items() if len({v.live for v in said}) == 1}
    return {pattern: verdict for pattern, verdict in agreed.items() if verdict.live is not None}


def _is_built_alike(model: nn.Module, found: Architecture) -> bool:
    """Tell whether a model is configured as its architecture is scanned: by default, as far as that builds.

    Models fill in what was left open, and change it: where they differ, another one is built to be compared with.
    """
    own = settings_of(model)
    try:
        recipe = find_recipe(Reference.parse(found.reference)) if own else None
        return recipe is not None and (
            _alike(own, list_settings(recipe.settings)) or _alike(own, settings_of(recipe.build_on_meta()))
        )
    except LoradarError:
        return False


def _alike(own: Any, other: Any) -> bool:
    """Compare settings; numbers may differ, because a proof is made on a build with smaller ones itself."""
    if isinstance(own, Mapping) and isinstance(other, Mapping):
        compared = own.keys() & other.keys() - {*read_facts("liveness.toml")["unrelated"]}
        return all(_alike(own[name], other[name]) for name in compared)
    if isinstance(own, list | tuple) and isinstance(other, list | tuple):
        return [*own] == [*other]
    return (_is_size(own) and _is_size(other)) or bool(own == other)


def _is_size(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
