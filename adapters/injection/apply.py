"""Build a planned adapter, attach it to a model and detach it again."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import torch
from torch import nn

from ...domain.vocabulary import Kind
from ...errors import InvalidConfig
from ...warn import warn
from ..config import AdapterConfig
from ..layers.base_layer import offload_device
from ..layers.dora import fill_magnitude
from ..layers.ia3 import IA3Layer
from ..layers.lora import LoraConv, LoraEmbedding, LoraLinear
from ..layers.parameters import LoraMultihead, LoraParameter
from ..layers.planned import PlannedAdapter
from ..layers.saved import SavedModule, widen
from ..layers.tokens import TokenLayer
from ..layers.wrappers import AdapterLayer, Child, Steering, on_device, state_of
from .ambient import without_modes
from .host_model import Site, Survey, survey_model
from .plan import Expand, Plan, make_plan
from .replication import Replication, replicated

PREFIX = "base_model.model."
"""Prefix of every key of an adapter file."""

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
"""The LoRA layer for each kind of layer."""


class Part(NamedTuple):
    """The part of an adapter on one layer: its plan, the class of its adapter layer, and its tensors."""

    planned: PlannedAdapter
    layer: type[AdapterLayer]
    children: dict[str, Child]

    def on(self, device: torch.device) -> "Part":
        """Return the part with its tensors on a device, without values."""
        children = {
            name: on_device(each, device) if isinstance(each, torch.Tensor) else each.to_empty(device=device)
            for name, each in self.children.items()
        }
        return self._replace(children=children)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An adapter that is checked and built, but in no model yet.

    Attributes:
        name: Key of the adapter in the state dict.
        config: Its configuration.
        parts: Its part on each layer; of several on one module the innermost first.
        copies: The copies of the modules it trains in full, by path.
        statistics: The running statistics of norms in its file, by key.
        is_fresh: Whether it has its first values, not those of a file.
        is_frozen: Whether its tensors require no gradient, as those of a file that is loaded for inference.
        replication: The blocks from before they were repeated for it, if they were.
    """

    name: str
    config: AdapterConfig
    parts: tuple[Part, ...]
    copies: dict[str, nn.Module]
    statistics: dict[str, torch.Tensor] = field(default_factory=dict)
    is_fresh: bool = False
    is_frozen: bool = False
    replication: Replication | None = None

    def initialise(self, survey: Survey) -> None:
        """Fill every part as the configuration states; ``survey`` is of the model that it was built for."""
        for planned, layer, children in self.parts:
            layer.initialise(children, how=self.config.initialisation)
            fill_magnitude(children, survey.sites[planned.path].module, planned)

    def on_meta(self) -> Self:
        """Return the adapter with its factors on the meta device, where they take no memory and have no values."""
        return replace(self, parts=tuple(part.on(torch.device("meta")) for part in self.parts))

    def state(self) -> dict[str, torch.Tensor]:
        """Return its tensors under their keys in PEFT's files."""
        state: dict[str, torch.Tensor] = {}
        for planned, _, children in self.parts:
            state.update({f"{PREFIX}{planned.location}.{name}": each for name, each in state_of(children).items()})
        for path, copy in self.copies.items():
            state.update({f"{PREFIX}{path}.{name}": each for name, each in copy.state_dict(keep_vars=True).items()})
        return state


def build(survey: Survey, plan: Plan, adapter_name: str, *, autocast: bool = True) -> Prepared:
    """Create every part of an adapter, uninitialised; the model stays as it is.

    Args:
        survey: The walk over the model.
        plan: The plan.
        adapter_name: Key of the adapter in the state dict.
        autocast: Whether its tensors are float32 where the layers have half precision.

    Raises:
        InvalidConfig: If ``adapter_name`` cannot be a key of a ``ModuleDict``.
    """
    _check_name(adapter_name)
    parts = []
    for planned in plan.adapters:
        base = survey.sites[planned.path].module
        # The projections of an attention are bare parameters, and planned as such.
        kind: Kind = "multihead_attention" if isinstance(base, nn.MultiheadAttention) else planned.kind
        layer: type[AdapterLayer] = IA3Layer if plan.config.method == "IA3" else LORA_LAYERS[kind]
        layer = TokenLayer if planned.tokens else layer
        part = _place(Part(planned, layer, layer.create_parts(base, planned)), base)
        if not autocast:
            _store_like(getattr(base, planned.parameter or "weight", None), part)
        parts.append(part)
    copies = {path: _copy(path, survey.sites[path].module, autocast=autocast) for path in plan.saved}
    for path in plan.tied[1:]:
        copies[path].weight = copies[plan.tied[0]].weight
    is_transposed = any(planned.fan_in_fan_out and not planned.parameter for planned in plan.adapters)
    origin = survey.model.__dict__.get("name_or_path")  # of a transformers model
    name = plan.config.base_model_name_or_path or (origin if isinstance(origin, str) and origin else None)
    config = replace(plan.config, fan_in_fan_out=is_transposed, base_model_name_or_path=name)
    config.fix_layer_fields()
    return Prepared(adapter_name, config, tuple(parts), copies)


def _place(part: Part, base: nn.Module) -> Part:
    """Return a part where its layer computes: on meta it would have no values, if accelerate offloads the weight."""
    device = offload_device(base)
    return part if device is None else part.on(device)


def _copy(path: str, module: nn.Module, *, autocast: bool) -> nn.Module:
    """Return a copy to train in full, without the adapters in the module."""
    try:
        copy = deepcopy(module)
    except RuntimeError as error:  # a tensor that hooks compute: torch copies leaves of the graph alone
        why = f"cannot be copied, so modules_to_save cannot train it: {str(error).partition('.')[0]}"
        way_out = "Remove its weight norm or pruning (remove_weight_norm, prune.remove) before the injection."
        raise InvalidConfig(f"{path!r} ({type(module).__name__}) {why}. {way_out}", path=path) from error
    detach(copy)
    if autocast:
        widen(copy)
    return copy


def _check_name(name: str) -> None:
    """Reject a name that is reserved, or cannot be a key of a ``ModuleDict``."""
    if not name or "." in name or name == "__base__" or hasattr(nn.ModuleDict, name):
        message = f"adapter_name={name!r} is not usable: give a word such as 'default'."
        raise InvalidConfig(message, adapter_name=name)


def _store_like(weight: object, part: Part) -> None:
    """Convert the tensors of a part to the dtype of the weight, unless that is packed."""
    if isinstance(weight, torch.Tensor) and weight.is_floating_point():
        for tensor in state_of(part.children).values():
            tensor.data = tensor.data.to(weight.dtype)


@without_modes()
def prepare(
    survey: Survey,
    config: AdapterConfig,
    adapter_name: str,
    expand: Expand | None = None,
    *,
    autocast: bool = True,
    on_meta: bool = False,
) -> Prepared:
    """Plan, check, build and initialise an adapter; the model stays as it is.

    Args:
        survey: The walk over the model.
        config: The configuration, with targets.
        adapter_name: Key of the adapter in the state dict.
        expand: The function that resolves shorthands in the targets.
        autocast: As in ``build``.
        on_meta: Whether its tensors are on the meta device, without values.

    Raises:
        TargetsNotFound: As ``make_plan``.
        NoAdaptableLayers: As ``make_plan``.
        InvalidConfig: As ``make_plan`` and ``build``.
    """
    with replicated(survey, config) as replication:
        prepared = build(survey, make_plan(survey, config, expand), adapter_name, autocast=autocast)
        if not on_meta:
            prepared.initialise(survey)
    first = next(survey.model.parameters(), None)
    if first is not None and first.is_inference() and not config.inference_mode:
        message = f"The parameters of {type(survey.model).__name__} were made under torch.inference_mode()"
        warn(f"{message}, and torch rejects a backward through them: to train, make or load the model outside of it.")
    prepared = replace(prepared, is_fresh=not on_meta, replication=replication)
    return prepared.on_meta() if on_meta else prepared


def attach(survey: Survey, prepared: Prepared, steering: Steering) -> None:
    """Put an adapter into the model it was built for; if that fails, the model stays as it was."""
    try:
        for planned, layer_type, children in prepared.parts:
            site = survey.sites[planned.path]
            same = (each for each in site.wrappers if isinstance(each, AdapterLayer) and each.adapts(planned))
            layer = next(same, None) or _add_layer(survey, site, layer_type, steering)
            layer.insert(prepared.name, planned, children)
            if planned.tied_to and isinstance(layer, TokenLayer):
                layer.sources[prepared.name] = survey.sites[planned.tied_to].current()  # type: ignore[assignment]  # planned first
        for path, copy in prepared.copies.items():
            site = survey.sites[path]
            saved = site.current()
            if not isinstance(saved, SavedModule):
                saved = SavedModule(saved, steering)
                survey.replace(site, saved)
            saved.insert(prepared.name, copy)
    except BaseException:
        detach(survey.model, prepared.name)
        raise


def _add_layer(survey: Survey, site: Site, layer_type: type[AdapterLayer], steering: Steering) -> AdapterLayer:
    """Put a new layer around a site's module and its adapters, but inside of a saved module, which has its copies."""
    current = site.current()
    if isinstance(current, SavedModule):
        layer = layer_type(current.original_module, steering)
        current.put(layer)
    else:
        layer = layer_type(current, steering)
        survey.replace(site, layer)
    if isinstance(site.parent, nn.TransformerEncoderLayer):
        layer.register_forward_hook(_leave_fast_path)
    return layer


def _leave_fast_path(module: nn.Module, args: object, output: object) -> None:
    """Do nothing: any hook keeps PyTorch's encoder layers off their fast path, which calls no layer."""


def detach(model: nn.Module, adapter: str | None = None) -> None:
    """Remove an adapter, or all, from a model, and with it every wrapper that holds no other adapter."""
    survey = survey_model(model)
    for site in survey.sites.values():
        own = [*_adapting(site)]
        for wrapper in own:
            for name in wrapper.adapters() if adapter is None else (adapter,):
                wrapper.remove(name)
        left = [wrapper for wrapper in own if wrapper.adapters()]
        if len(left) < len(site.wrappers):
            survey.wrap(site, left)


def _adapting(site: Site) -> Iterator[AdapterLayer | SavedModule]:
    return (wrapper for wrapper in site.wrappers if isinstance(wrapper, AdapterLayer | SavedModule))


def adapters_in(survey: Survey) -> Iterator[tuple[str, AdapterLayer | SavedModule]]:
    """Yield every wrapper of a model that holds adapters, with the path of its module."""
    for path, site in survey.sites.items():
        for wrapper in _adapting(site):
            yield path, wrapper


def layers_in(survey: Survey) -> Iterator[tuple[str, AdapterLayer]]:
    """Yield the adapted layers of a model with their paths."""
    return ((path, wrapper) for path, wrapper in adapters_in(survey) if isinstance(wrapper, AdapterLayer))


def file_state(survey: Survey, adapter: str) -> dict[str, torch.Tensor]:
    """Return an adapter's tensors under their keys in PEFT's files, which leave the adapter's name out."""
    state: dict[str, torch.Tensor] = {}
    for path, wrapper in adapters_in(survey):
        if adapter in wrapper.adapters():
            key = f"{PREFIX}{wrapper.location(adapter, path)}"
            state.update({f"{key}.{name}": each for name, each in wrapper.adapter_state(adapter).items()})
    return state


def biases(survey: Survey, adapter: str, which: str) -> dict[str, nn.Parameter]:
    """Return the biases of the base model that ``bias="all"`` or ``"lora_only"`` trains, under PEFT's file keys."""
    state: dict[str, nn.Parameter] = {}
    saved: tuple[str, ...] = ()
    for path, site in survey.sites.items():
        own = [wrapper for wrapper in _adapting(site) if adapter in wrapper.adapters()]
        if any(isinstance(wrapper, SavedModule) for wrapper in own):
            saved += (f"{path}.",)
        bias = site.module._parameters.get("bias")  # noqa: SLF001 - a Wrapper looks names up on its inner module
        is_adapted = any(not isinstance(wrapper, TokenLayer) for wrapper in own)
        if bias is None or f"{path}.".startswith(saved) or not (is_adapted or which == "all"):
            continue
        state[f"{PREFIX}{path}.{own[0].inner_name + '.' if own else ''}bias"] = bias
    return state
