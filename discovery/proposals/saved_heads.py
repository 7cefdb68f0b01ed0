"""Which modules are trained in full: the heads that a task made afresh."""

from collections.abc import Sequence

from ...domain.layers import Layer
from ..facts.model_facts import ModelFacts
from ..facts.towers import is_below


def saved_heads(layers: Sequence[Layer], facts: ModelFacts) -> tuple[str, ...]:
    """Return the modules to train in full: heads a task made afresh.

    A head that writes logits over the vocabulary was trained with the model, and so was all around it: one the model
    declares, one tied to an embedding, or one as wide as the largest embedding.
    """
    vocabulary = max((layer.shape[0] for layer in layers if layer.role == "embedding.token"), default=-1)
    heads = [layer for layer in layers if layer.role == "head"]
    if facts.language_heads or any(head.tied_to or head.out_features == vocabulary for head in heads):
        return ()
    named = dict.fromkeys(_topmost(head.path, facts) for head in heads)
    return tuple(name for name in named if not _also_names_a_container(name, facts))


def _also_names_a_container(name: str, facts: ModelFacts) -> bool:
    """PEFT takes what ends with a name for it, even within a segment, and refuses a list of modules it so finds."""
    return any(path.endswith(name) and path != name for path in facts.containers)


def _topmost(path: str, facts: ModelFacts) -> str:
    """Return the declared head that holds ``path``, else the outermost module that can be saved in its place.

    That is one that holds no base model and is no mere container.
    """
    segments = path.split(".")
    prefixes = [".".join(segments[:end]) for end in range(1, len(segments) + 1)]
    savable = [prefix for prefix in prefixes if prefix not in facts.containers]
    declared = (prefix for prefix in savable if any(is_below(prefix, head) for head in facts.task_heads))
    bases = [model.base_path for model in facts.sub_models]
    alone = (prefix for prefix in savable if bases and not any(is_below(base, prefix) for base in bases))
    return next(declared, None) or next(alone, path)
