"""An adapter that is checked and built, and how it gets into a model and out again."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from ...domain.vocabulary import Kind
from ..config import AdapterConfig
from ..layers.base_layer import AdapterLayer, Child, Steering, state_of
from ..layers.ia3 import IA3Layer
from ..layers.lora import LoraConv, LoraEmbedding, LoraLinear, LoraMultihead, LoraParameter
from ..layers.saved_modules import SavedModule
from .plan import PlannedAdapter
from .sites import Site, Survey, survey_model

PREFIX = "base_model.model."
"""What every key of an adapter file begins with."""

LORA_LAYERS: dict[Kind, type[AdapterLayer]] = {
    "linear": LoraLinear,
    "transposed_linear": LoraLinear,
    "conv1d": LoraConv,
    "conv2d": LoraConv,
    "conv3d": LoraConv,
    "embedding": LoraEmbedding,
    "expert_parameter": LoraParameter,
    "multihead_attention": LoraMultihead,
}
"""What goes on each kind of layer with LoRA."""


def layer_class(peft_type: str, kind: Kind, base: nn.Module) -> type[AdapterLayer]:
    """Return the class that adapts a kind of layer, or a parameter of ``base``."""
    if isinstance(base, nn.MultiheadAttention):  # its projections are bare parameters, and named so too
        kind = "multihead_attention"
    return IA3Layer if peft_type == "IA3" else LORA_LAYERS[kind]


class Part(NamedTuple):
    """The share of one layer in an adapter: what is planned, the class that will hold it, and its tensors."""

    planned: PlannedAdapter
    layer: type[AdapterLayer]
    children: dict[str, Child]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An adapter that is checked and built, and in no model yet.

    Attributes:
        name: Key of the adapter in the state dict.
        config: Its configuration.
        parts: Its share in each layer, of several on one module the innermost first.
        copies: The copies of the modules it trains in full, by path.
    """

    name: str
    config: AdapterConfig
    parts: tuple[Part, ...]
    copies: dict[str, nn.Module]

    def state(self) -> dict[str, torch.Tensor]:
        """Return its tensors under the keys they have in PEFT's files."""
        state: dict[str, torch.Tensor] = {}
        for planned, _, children in self.parts:
            state.update({f"{PREFIX}{planned.location}.{name}": each for name, each in state_of(children).items()})
        for path, copy in self.copies.items():
            state.update({f"{PREFIX}{path}.{name}": each for name, each in copy.state_dict(keep_vars=True).items()})
        return state


def attach(survey: Survey, prepared: Prepared, steering: Steering) -> None:
    """Put an adapter into the model it was prepared for; whatever goes wrong on the way, the model stays as it was."""
    try:
        for planned, layer_type, children in prepared.parts:
            site = survey.sites[planned.path]
            layer = _layer_for(site, planned)
            if layer is None:
                layer = _put(survey, site, layer_type, steering)
                if isinstance(site.parent, nn.TransformerEncoderLayer):
                    layer.register_forward_hook(_call_me)
            layer.hold(prepared.name, planned, children)
        for path, copy in prepared.copies.items():
            site = survey.sites[path]
            saved = _hanging(site)
            if not isinstance(saved, SavedModule):
                saved = SavedModule(saved, steering)
                survey.hang(site, saved)
            saved.hold(prepared.name, copy)
    except BaseException:
        detach(survey.model, prepared.name)
        raise


def _call_me(module: nn.Module, args: object, output: object) -> None:
    """Do nothing: a hook keeps PyTorch's encoder layers off their fast path, which reads weights and calls nobody."""


def detach(model: nn.Module, adapter: str | None = None) -> None:
    """Take an adapter out of a model, or all of them, and with it every layer that carries none any more."""
    survey = survey_model(model)
    for site in survey.sites.values():
        left = []
        for wrapper in _adapting(site):
            for name in wrapper.adapters() if adapter is None else (adapter,):
                wrapper.drop(name)
            if wrapper.adapters():
                left.append(wrapper)
        if len(left) < len(site.wrappers):
            inside = site.module
            for wrapper in reversed(left):
                wrapper._modules[wrapper.inner_name] = inside  # noqa: SLF001 - its own assignment sorts what it is given
                inside = wrapper
            survey.hang(site, inside)


def copy_of(module: nn.Module) -> nn.Module:
    """Return a copy of a module of the user's, to train in full, without the adapters of others in it."""
    copy = deepcopy(module)
    detach(copy)
    return copy


def adapters_in(survey: Survey) -> Iterator[AdapterLayer | SavedModule]:
    """Yield everything in a model that holds adapters."""
    for site in survey.sites.values():
        yield from _adapting(site)


def layers_in(survey: Survey) -> Iterator[tuple[str, AdapterLayer]]:
    """Yield the adapted layers of a model with their paths."""
    for path, site in survey.sites.items():
        for wrapper in site.wrappers:
            if isinstance(wrapper, AdapterLayer):
                yield path, wrapper


def file_state(survey: Survey, adapter: str) -> dict[str, torch.Tensor]:
    """Return an adapter's tensors under PEFT's file keys, which leave the adapter's name out."""
    state: dict[str, torch.Tensor] = {}
    for path, site in survey.sites.items():
        for wrapper in _adapting(site):
            if adapter in wrapper.adapters():
                where = wrapper.location(adapter, path)
                state.update({f"{PREFIX}{where}.{name}": each for name, each in wrapper.adapter_state(adapter).items()})
    return state


def _adapting(site: Site) -> tuple[AdapterLayer | SavedModule, ...]:
    return tuple(wrapper for wrapper in site.wrappers if isinstance(wrapper, AdapterLayer | SavedModule))


def _hanging(site: Site) -> nn.Module:
    """Return what hangs at a site now."""
    return site.parent._modules[site.name]  # type: ignore[return-value]  # noqa: SLF001


def _put(survey: Survey, site: Site, layer_type: type[AdapterLayer], steering: Steering) -> AdapterLayer:
    """Put a new layer around what hangs at a site, but inside of a saved module: its copies answer for themselves."""
    hanging = _hanging(site)
    if isinstance(hanging, SavedModule):
        layer = layer_type(hanging.original_module, steering)
        hanging._modules[hanging.inner_name] = layer  # noqa: SLF001
    else:
        layer = layer_type(hanging, steering)
        survey.hang(site, layer)
    return layer


def _layer_for(site: Site, planned: PlannedAdapter) -> AdapterLayer | None:
    """Return the layer that another adapter of the same kind has put there, on the same weight."""
    for wrapper in site.wrappers:
        if isinstance(wrapper, AdapterLayer) and wrapper.carries(planned):
            return wrapper
    return None
