"""Embeddings of the base model that a saved adapter needs, because its checkpoint has others: PEFT's rule (0.21.2)."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...discovery import read_attribute
from ...errors import InvalidConfig
from ...warn import warn
from ..injection.apply import PREFIX
from ..injection.host_model import Site, Survey
from ..layers.saved import SavedModule
from ..layers.tokens import TokenLayer

AUTO = "auto"
UNKNOWN = -1
"""The size of a vocabulary that is not on this machine."""


def list_embeddings(survey: Survey, adapter: str, base: str | None, wanted: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of the input and output embeddings to save with an adapter, under their keys in PEFT's files.

    Args:
        survey: The walk over the model.
        adapter: Name of the adapter; what it trains in full is in its own tensors.
        base: Name or folder of the checkpoint that the adapter will be loaded onto.
        wanted: Whether to save them; ``"auto"`` saves those that the adapter adapts, or all if the model's vocabulary
            is not that of the checkpoint.

    Raises:
        InvalidConfig: If ``wanted`` is something else, or ``True`` and the model tells no embeddings.
    """
    if wanted not in (True, False, AUTO):
        message = f"save_embedding_layers={wanted!r}: give True, False or {AUTO!r}."
        raise InvalidConfig(message, save_embedding_layers=repr(wanted))
    if wanted is False:
        return {}
    sites = find_embeddings(survey)
    if wanted == AUTO:
        sites = _find_needed(survey, sites, adapter, base) if sites else {}
    elif not sites:
        message = "save_embedding_layers=True: the model has no get_input_embeddings that returns one of its modules."
        raise InvalidConfig(message, save_embedding_layers=True)
    state: dict[str, torch.Tensor] = {}
    for path, site in sites.items():
        state |= _read_tensors(path, site, adapter)
    return state


def _read_tensors(path: str, site: Site, adapter: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one embedding under their keys; none if the adapter trains it in full."""
    own = [wrapper for wrapper in site.wrappers if adapter in wrapper.adapters()]
    if any(isinstance(wrapper, SavedModule) for wrapper in own):
        return {}
    inside = f"{own[0].inner_name}." if own else ""
    tensors = site.module.state_dict(keep_vars=True)
    return {f"{PREFIX}{path}.{inside}{name}": tensor for name, tensor in tensors.items()}


def find_embeddings(survey: Survey) -> dict[str, Site]:
    """Return the positions of a transformers model's input and output embeddings by path, if they are of a vocabulary.

    A vision model calls its convolution over patches an input embedding.
    """
    layers = []
    for getter in ("get_input_embeddings", "get_output_embeddings"):
        method: Any = read_attribute(survey.model, getter)
        try:
            layers.append(method() if callable(method) else None)
        except (NotImplementedError, AttributeError):  # a model without a vocabulary
            layers.append(None)
    ids = {id(layer) for layer in layers if layer is not None}
    found = ((path, site) for path, site in survey.sites.items() if ids & {id(site.module), id(site.current())})
    return {path: site for path, site in found if isinstance(site.module, nn.Embedding | nn.Linear)}


def _find_needed(survey: Survey, sites: dict[str, Site], adapter: str, base: str | None) -> dict[str, Site]:
    """Return the embeddings with which the adapter was trained and that the checkpoint lacks, and say why."""
    adapted = {path: site for path, site in sites.items() if _is_adapted(site, adapter)}
    config = read_attribute(survey.model, "config")
    own = _vocabulary_of(config)
    saved = _read_vocabulary(config, base) if own is not None and base else own
    if saved not in (UNKNOWN, own):
        message = f"The vocabulary was resized from {saved} to {own}: the embeddings are saved too"
        warn(f"{message} (save_embedding_layers).")
        return sites
    for path in adapted:
        warn(f"{path!r} is adapted: its weight is saved too (save_embedding_layers).")
    if saved == UNKNOWN and len(adapted) < len(sites):
        message = f"The config.json of {base!r} is not on this machine: the vocabulary is taken to be as it has it"
        warn(f"{message}. If it was resized, save with save_embedding_layers=True.")
    return adapted


def _is_adapted(site: Site, adapter: str) -> bool:
    """Return whether an adapter updates an embedding; the rows of tokens and a copy are whole in its own tensors."""
    others = (each for each in site.wrappers if not isinstance(each, SavedModule | TokenLayer))
    return any(adapter in each.adapters() for each in others)


def _vocabulary_of(config: Any) -> int | None:
    """Return the size of a configuration's vocabulary, that of its text model if it has several."""
    text = config.get_text_config() if callable(getattr(config, "get_text_config", None)) else config
    size = getattr(text, "vocab_size", None)
    return size if isinstance(size, int) else None


def _read_vocabulary(config: Any, base: str) -> int | None:
    """Return the size of a checkpoint's vocabulary, read from its folder or the cache of the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    file: Any = Path(base, "config.json")
    if not file.is_file():
        try:
            file = try_to_load_from_cache(base, "config.json")
        except HFValidationError:  # neither a folder nor the id of a repository
            return UNKNOWN
    if not isinstance(file, str | Path):
        return UNKNOWN
    try:
        data = json.loads(Path(file).read_text("utf-8"))
        return _vocabulary_of(type(config).from_dict(data))
    except (OSError, ValueError, TypeError, AttributeError):
        return UNKNOWN
