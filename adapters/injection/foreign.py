"""What the adapters ask of, and tell, models they do not own: the one file here that probes for attributes."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def name_of(model: nn.Module) -> str | None:
    """Return the name or path a transformers model was loaded from, if it says so."""
    name = model.__dict__.get("name_or_path")
    return name if isinstance(name, str) and name else None


def origin_of(model: nn.Module) -> dict[str, str]:
    """Return class and module of a model, as PEFT notes them for its automatic classes (``auto_mapping``)."""
    return {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}


def depth_of(model: nn.Module) -> int | None:
    """Return how many layers a transformers model runs, if its configuration says so."""
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    return depth if isinstance(depth, int) else None


def is_checkpointing(modules: Iterable[nn.Module]) -> bool:
    """Tell whether gradient checkpointing is on in one of a transformers model's modules."""
    # The model's own property asks every module twice over, which costs as much as the rest of an injection.
    return any(module.__dict__.get("gradient_checkpointing", False) for module in modules)


def require_input_gradients(model: nn.Module) -> bool:
    """Make the inputs of the first block require gradients; tell whether this call did it.

    Checkpointed blocks pass no gradient on when none of their inputs requires one, as with a frozen embedding.
    """
    enable = getattr(model, "enable_input_require_grads", None)
    if enable is None or getattr(model, "_require_grads_hook", None) is not None:
        return False
    enable()
    return True


def release_input_gradients(model: Any) -> None:
    """Undo ``require_input_gradients``."""
    model.disable_input_require_grads()
    if getattr(model, "_require_grads_hook", None) is not None:
        model._require_grads_hook = None  # noqa: SLF001 - transformers leaves the removed handle


def leave_fast_path(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Keep PyTorch's encoders from packing padded batches for a fast path that calls no layer; return those that did.

    Their layers are kept off it by a hook (``prepared.attach``).
    """
    encoders: list[Any] = [
        each for each in modules if isinstance(each, nn.TransformerEncoder) and each.use_nested_tensor
    ]
    for encoder in encoders:
        encoder.use_nested_tensor = False
    return encoders


def rejoin_fast_path(encoders: Iterable[Any]) -> None:
    """Undo ``leave_fast_path``."""
    for encoder in encoders:
        encoder.use_nested_tensor = True


def features_of(layer: Any, kind: str) -> tuple[int, int]:
    """Return how many features, or channels, a layer reads and writes."""
    if kind.startswith("conv"):
        return layer.in_channels, layer.out_channels
    if kind == "transposed_linear":
        read, written = layer.weight.shape
        return read, written
    return layer.in_features, layer.out_features


def first_tensor(layer: nn.Module) -> torch.Tensor:
    """Return the weight of a layer, or whatever it holds in its place: packed weights have other names."""
    own = layer._parameters.get("weight")  # noqa: SLF001 - in every injected layer
    return own if own is not None else next(iter([*layer.parameters(), *layer.buffers()]))


def is_transposed(module: nn.Module) -> bool:
    """Tell whether a module of fused experts says that it stores them as (experts, in, out)."""
    return bool(getattr(module, "is_transposed", False))


def looks_up_ids(embedding: nn.Module) -> bool:
    """Tell whether an embedding's input is the ids themselves, not a mask or a length to compute them from.

    Subclasses that only scale the result say so by an ``embed_scale`` (Gemma, Bart).
    """
    return type(embedding).forward is nn.Embedding.forward or hasattr(embedding, "embed_scale")


def embedding_scale(embedding: nn.Module) -> float | torch.Tensor | None:
    """Return the factor an embedding's own forward puts on its result, if it has one."""
    scale: float | torch.Tensor | None = getattr(embedding, "embed_scale", None)
    return scale


def note_untied(model: Any) -> bool:
    """Tell a transformers model that its embeddings are no longer tied, if so; tell whether it had to be told.

    Otherwise saving and reloading would tie them again and drop the trained head.
    """
    config = getattr(model, "config", None)
    if config is None or not getattr(config, "tie_word_embeddings", False):
        return False
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    if read is None or written is None or read.weight is written.weight:
        return False
    config.tie_word_embeddings = False
    return True
