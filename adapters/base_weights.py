"""The base model's weights under their original names, as in its checkpoint, while adapters are in the model.

PEFT has the same as functions (``get_base_model_state_dict``, 0.21.2).
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from ..discovery import find_inner
from ..errors import InvalidConfig
from .files.checkpoint import without_wrappers
from .injection.apply import PREFIX, adapters_in
from .layers.saved import SavedModule
from .layers.wrappers import AdapterLayer, Wrapper, on_device

MOST_KEYS = 3
"""Number of keys that an error lists."""


class LoadedKeys(NamedTuple):
    """The keys that ``load_base_state_dict`` left out.

    Attributes:
        missing_keys: Names of the model's that the state dict lacks; a tied weight has several, of which one is enough.
        unexpected_keys: Names of the state dict that the model lacks.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


def base_key_map(self: Any) -> dict[str, str]:
    """Return the name of each tensor of the base model in ``state_dict()`` of the adapted one, by its original name.

    Sharded state dicts (FSDP) have the latter names, and checkpoints of the base model the former.
    """
    return {name: PREFIX + own for name, own in _list_keys(self.get_base_model())}


def get_base_model_state_dict(self: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of the base model under their original names; merged updates are in them."""
    state = self.get_base_model().state_dict()
    return {name: state[own] for name, own in _list_keys(self.get_base_model()) if own in state}


def load_base_state_dict(
    self: Any, state_dict: Mapping[str, torch.Tensor], *, strict: bool = True, assign: bool = False
) -> LoadedKeys:
    """Load weights of the base model under their original names, as a checkpoint of it has them.

    Modules that an adapter trains in full keep their copies; ``reset_adapter`` fills them from the loaded weights.

    Args:
        self: The ``PeftModel``.
        state_dict: The weights. Names of wrappers in the keys (``module.``, ``_orig_mod.``) are passed over.
        strict: Whether to reject missing and unexpected names.
        assign: Whether to put these tensors into the model instead of copying their values: for a model on meta. What
            an adapter has on meta beside them is then created on their device and initialised.

    Raises:
        InvalidConfig: If names or shapes do not fit, adapters are merged, or the model is on meta without ``assign``;
            nothing is loaded.
    """
    model: nn.Module = self.get_base_model()
    if any(layer.merged for layer in self._layers()):
        raise InvalidConfig("The adapters are merged into the base weights: call unmerge_adapter first.")
    given = {without_wrappers(name): tensor for name, tensor in state_dict.items()}
    own = model.state_dict(keep_vars=True)
    keys = dict(_list_keys(model))
    groups = _group_tied(keys, own)
    missing = chain.from_iterable(filter(given.keys().isdisjoint, groups))
    found = LoadedKeys([*missing], sorted(given.keys() - keys.keys()))
    if strict:
        _check_names(found)
    values: dict[str, torch.Tensor] = {}
    for names in groups:
        if name := next(filter(given.__contains__, names), None):
            value = _fit(name, given[name], own[keys[name]], assign=assign)
            values.update(dict.fromkeys((keys[each] for each in names), value))
    model.load_state_dict(values, strict=False, assign=assign)
    if assign:
        _leave_meta(self)
    return found


def _check_names(found: LoadedKeys) -> None:
    """Reject missing and unexpected names."""
    for what, names in (("lacks", found.missing_keys), ("has unexpected", found.unexpected_keys)):
        if names:
            more = f" and {len(names) - MOST_KEYS} more" if len(names) > MOST_KEYS else ""
            listed = ", ".join(map(repr, names[:MOST_KEYS])) + more
            raise InvalidConfig(f"The state dict {what} {listed}: load it with strict=False, or correct the names.")


def _fit(name: str, value: torch.Tensor, own: torch.Tensor, *, assign: bool) -> torch.Tensor:
    """Return a tensor to load in the place of the model's own; a parameter to assign is one for all its names."""
    if value.shape != own.shape:
        shapes = f"{tuple(value.shape)}, and the model's has {tuple(own.shape)}"
        raise InvalidConfig(f"{name!r} has shape {shapes}: it is of another model.", key=name)
    if own.is_meta and not assign:
        way_out = "load with assign=True, or give the model storage first (to_empty)"
        raise InvalidConfig(f"{name!r} is on the meta device and would stay there: {way_out}.", key=name)
    return nn.Parameter(value, own.requires_grad) if assign and isinstance(own, nn.Parameter) else value


def _list_keys(module: nn.Module, name: str = "", own: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys of a module's state dict without wrappers and with them, and no adapter's."""
    while inner := (module.inner_name if isinstance(module, Wrapper) else find_inner(module)):
        module, own = module._modules[inner], f"{own}{inner}."  # type: ignore[assignment]  # noqa: SLF001
    state: dict[str, torch.Tensor] = {}
    module._save_to_state_dict(state, "", keep_vars=True)  # noqa: SLF001 - its own alone
    yield from ((name + key, own + key) for key in state)
    for key, child in module._modules.items():  # noqa: SLF001 - named_children skips doubles
        if child is not None:
            yield from _list_keys(child, f"{name}{key}.", f"{own}{key}.")


def _group_tied(keys: Mapping[str, str], own: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Return the names, those of one tensor together."""
    groups: dict[int, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(id(own[key]), []).append(name)
    return [*groups.values()]


def _leave_meta(self: Any) -> None:
    """Create the adapters' tensors that are on meta on the device of their base layers, and initialise them."""
    new: dict[str, None] = {}
    for _, wrapper in adapters_in(self._survey()):
        for name in wrapper.adapters():
            if any(tensor.is_meta for tensor in wrapper.adapter_state(name).values()):
                new[name] = None
                if isinstance(wrapper, AdapterLayer):
                    _create(wrapper, name)
    for name in new:
        self.reset_adapter(name)


def _create(layer: AdapterLayer, adapter: str) -> None:
    """Give the parts of an adapter on meta storage on the device of the base layer."""
    base = next((tensor for tensor in layer.base().parameters() if not tensor.is_meta), None)
    for container, part in layer.parts(adapter).items():
        if base is not None and isinstance(part, nn.Module):
            part.to_empty(device=base.device)
        elif base is not None and isinstance(part, torch.Tensor):
            holder: Any = layer._modules[container]  # noqa: SLF001 - its own containers
            holder[adapter] = on_device(part, base.device)


def fill_copy(wrapper: SavedModule, adapter: str) -> None:
    """Give the copy of a saved module the values of its original, in its own dtypes; on meta, their storage too."""
    copy, keys = wrapper.modules_to_save[adapter], dict(_list_keys(wrapper.original_module))
    values, own = wrapper.original_module.state_dict(), copy.state_dict()
    filled = {name: values[keys[name]].to(tensor.dtype, copy=True) for name, tensor in own.items() if name in keys}
    on_meta = any(tensor.is_meta for tensor in own.values())
    if not any(value.is_meta for value in filled.values()):
        copy.load_state_dict(filled, strict=False, assign=on_meta)
