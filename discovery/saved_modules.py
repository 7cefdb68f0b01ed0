"""The modules trained in full beside an adapter: heads made anew, and the layers around a library's model."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..domain.layers import Layer
from ..domain.patterns import list_prefixes, pattern_of
from ..domain.presets import ADAPTABLE_KINDS
from ..domain.vocabulary import list_some
from .facts.model_facts import ModelFacts
from .facts.towers import is_below
from .names.heads import is_over_vocabulary

MOST_NAMES = 8
"""Modules that a reason lists."""
ANEW = "made anew around a library's model"
BESIDE = "outside the base model: name it in modules_to_save if it was made anew"


@dataclass(frozen=True, slots=True)
class Saved:
    """The modules to train in full, with remarks for the user.

    Attributes:
        names: Their paths, as ``modules_to_save``.
        reasons: Why, in words.
        frozen: What was made anew and stays as it was initialised, in words; a user should be warned of it.
    """

    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()


def find_saved(
    layers: Sequence[Layer], facts: ModelFacts, module_paths: Sequence[str], parameter_paths: Iterable[str] = ()
) -> Saved:
    """Return the modules to train in full.

    In a model of a library those are the heads made anew for a task. In a user's own module around one, everything else
    was made anew: it is saved too, but for blocks of a network of its own, which are left to the user.
    """
    parts = [tuple(x for x in layers if is_below(x.path, path)) for path in facts.library_models or ("",)]
    fresh = _list_fresh(layers, facts)
    chosen = [*(head.path for part in parts for head in _list_task_heads(part, facts)), *(x.path for x in fresh)]
    modules = dict.fromkeys(find_savable(path, layers, facts, {*chosen}) for path in chosen)
    clashing = {name: clash for name in modules if (clash := _find_clash(name, modules, facts, module_paths))}
    names = tuple(name for name in modules if name not in clashing)
    others = _list_frozen(layers, facts, parameter_paths, (*names, *clashing))
    beside = dict.fromkeys(map(pattern_of, _list_beside_base(layers, facts) if names else ()))
    reasons = [f"trained in full and saved: {list_some(names, MOST_NAMES)}, {ANEW}"] if fresh and names else []
    frozen = [
        *(
            f"left frozen: {x}, because modules_to_save=[{x!r}] would save {y} too: rename it"
            for x, y in clashing.items()
        ),
        *([f"left frozen as initialised: {list_some(others, MOST_NAMES)}, {ANEW}"] if others else ()),
        *([f"left frozen: {list_some(beside, MOST_NAMES)}, {BESIDE}"] if beside else ()),
    ]
    return Saved(names, (*reasons, *frozen), tuple(frozen))


def _list_task_heads(layers: Sequence[Layer], facts: ModelFacts) -> list[Layer]:
    """Return the heads of a model that were made anew for a task.

    A head that writes logits over the vocabulary was trained with the model, and so was everything around it: one the
    model declares, one tied to an embedding, or one as wide as the largest embedding. In a user's own module each head
    counts by itself, and that of a frozen teacher not at all; where no other layer takes an adapter, the one over the
    vocabulary is trained in full too.
    """
    heads = [layer for layer in layers if layer.role == "head"]
    declared = facts.language_heads.union(*(model.heads for model in facts.sub_models))
    trained = [x for x in heads if is_over_vocabulary(x, layers) or any(is_below(x.path, path) for path in declared)]
    if facts.architecture.library == "torch" and not facts.library_models:
        others = [head for head in heads if head not in trained]
        return _without_dead(heads if _are_alone(layers) else others)
    return [] if trained or (facts.language_heads and not facts.library_models) else heads


def _without_dead(heads: Iterable[Layer]) -> list[Layer]:
    return [head for head in heads if head.live is not False]


def _are_alone(layers: Iterable[Layer]) -> bool:
    """Return whether no layer but heads takes an adapter."""
    return all(layer.role == "head" for layer in layers if layer.kind in ADAPTABLE_KINDS)


def _list_fresh(layers: Sequence[Layer], facts: ModelFacts) -> list[Layer]:
    """Return the layers around the models of a library that are in no block of a network, nor tied to those models.

    The weight of the model itself, as of a margin head, belongs to no module that could be saved.
    """
    inside = {layer.block for layer in layers if layer.role not in ("head", "norm")} - {None}
    return [x for x in layers if x.path and facts.is_fresh(x.path) and not x.tied_to and x.block not in inside]


def _list_beside_base(layers: Sequence[Layer], facts: ModelFacts) -> Iterator[str]:
    """Yield the layers of a task model that stand outside its base and all blocks, and are no heads."""
    base = facts.sub_models[0].base_path if facts.has_base else ""
    for layer in layers:
        is_outside = bool(base) and not layer.depth and not is_below(layer.path, base)
        if is_outside and layer.kind not in ("norm", "embedding", "other") and layer.role not in ("head", "projector"):
            yield layer.path


def find_savable(path: str, layers: Sequence[Layer], facts: ModelFacts, chosen: Collection[str]) -> str:
    """Return the declared head around ``path``, else the outermost module that can be saved in its place.

    That one is no mere list of modules, and holds no layers but chosen ones and norms.
    """
    savable = [prefix for prefix in list_prefixes(path) if prefix not in facts.containers]
    others = [layer.path for layer in layers if layer.path not in chosen and layer.kind != "norm"]
    declared = (prefix for prefix in savable if any(is_below(prefix, head) for head in facts.task_heads))
    alone = (prefix for prefix in savable if not any(is_below(other, prefix) for other in others))
    return next(declared, None) or next(alone, path)


def _find_clash(name: str, names: Collection[str], facts: ModelFacts, module_paths: Iterable[str]) -> str | None:
    """Return a module that saving ``name`` would save too, or could not.

    PEFT's ``modules_to_save`` matches the end of a path, even within a segment, and rejects a list of modules.
    """
    others = [path for path in module_paths if path.endswith(name) and path != name]
    is_own = facts.architecture.library == "torch" or bool(facts.library_models)
    for path in others:
        is_chosen = any(is_below(path, other) for other in (*names, *facts.aliases))
        if path in facts.containers or (is_own and not is_chosen):
            return path
    return None


def _list_frozen(
    layers: Sequence[Layer], facts: ModelFacts, parameter_paths: Iterable[str], saved: Collection[str]
) -> list[str]:
    """Return the owners of parameters that were made anew and are not saved: blocks by pattern, modules, parameters."""
    blocks = {layer.block for layer in layers if layer.block and facts.is_fresh(layer.block)}
    found: dict[str, None] = {}
    for path in parameter_paths:
        if facts.is_fresh(path) and not any(is_below(path, name) for name in saved):
            owner = path.rpartition(".")[0] or path
            found[pattern_of(next((p for p in list_prefixes(path) if p in blocks), owner))] = None
    tied = {layer.path for layer in layers if layer.tied_to}
    return [owner for owner in found if owner not in tied]
