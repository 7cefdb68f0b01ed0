"""What was proved of an architecture, taken over for a model that is built alike: nobody tries it again."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from torch import nn

from ...errors import LoradarError
from ...patterns import pattern_of
from ...records import Architecture, Layer, Slot
from ...references import Reference
from ...summaries import ArchitectureDetail
from ..facts import list_settings, settings_of
from ..sources import find_recipe
from ..words import read_facts
from .proofs import Proof, Verdict

Recall = Callable[[Architecture], ArchitectureDetail | None]
"""Finds what is on record of an architecture."""


def recall_proof(recall: Recall, model: nn.Module, found: Architecture, layers: Iterable[Layer]) -> Proof | None:
    """Return the verdicts on record for the layers of a model; ``None`` if they are not about a model like this one.

    They are if version, class and settings are those they were made for. Where indices decide (a last block that
    nothing reads), the slot holds both verdicts, and none is returned for its layers.
    """
    known = recall(found)
    if known is None or known.proof is None or not any(slot.live is False for slot in known.slots):
        return None  # nothing that a scan would not propose anyway
    made_for = known.architecture
    if (made_for.library_version, made_for.class_name) != (found.library_version, found.class_name):
        return None
    if not _is_built_alike(model, found):
        return None
    verdicts = _verdicts(known.slots)
    paths = (layer.path for layer in layers)
    return Proof(known.proof, {path: verdicts[at] for path in paths if (at := pattern_of(path)) in verdicts})


def _verdicts(slots: Iterable[Slot]) -> dict[str, Verdict]:
    """Return the verdict on each pattern that all of its slots agree on."""
    found: dict[str, set[Verdict]] = defaultdict(set)
    for slot in slots:
        found[slot.pattern].add(Verdict(slot.live, slot.proof))
    agreed = {pattern: next(iter(said)) for pattern, said in found.items() if len({v.live for v in said}) == 1}
    return {pattern: verdict for pattern, verdict in agreed.items() if verdict.live is not None}


def _is_built_alike(model: nn.Module, found: Architecture) -> bool:
    """Tell whether a model is configured as its architecture is scanned: by default, as far as that builds."""
    try:
        recipe = find_recipe(Reference.parse(found.reference))
    except LoradarError:
        return False
    own = settings_of(model)
    return bool(own) and _alike(own, list_settings(recipe.settings), read_facts("liveness.toml")["unrelated"])


def _alike(own: Any, other: Any, unrelated: Collection[str]) -> bool:
    """Compare settings with those an architecture is scanned with.

    Numbers may differ, because a proof is made on a build with smaller ones itself; and lists that were left open,
    because models fill them in.
    """
    if isinstance(own, Mapping) and isinstance(other, Mapping):
        return all(_alike(own[name], other[name], unrelated) for name in own.keys() & other.keys() - {*unrelated})
    if isinstance(own, list | tuple) and isinstance(other, list | tuple):
        return [*own] == [*other]
    if other is None and isinstance(own, list | tuple):
        return True
    return (_is_size(own) and _is_size(other)) or bool(own == other)


def _is_size(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
