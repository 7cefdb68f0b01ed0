"""The modules around the user's modules: adapter layers, with merging and unmerging."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ...errors import InvalidConfig
from .as_peft import PeftInstance, PeftLayer
from .base_layer import first_tensor, list_computed, offload_device
from .planned import PlannedAdapter

PARAMETER_CONTAINERS = ("lora_embedding_A", "lora_embedding_B", "ia3_l")
"""The containers of bare parameters; the others hold modules."""
FEATURES = (
    ("in_features", "out_features"),
    ("in_channels", "out_channels"),
    ("num_embeddings", "embedding_dim"),
)
"""The attributes of layers that hold their numbers of inputs and outputs."""
Child = nn.Module | nn.Parameter | torch.Tensor
"""One part of an adapter: a factor module, a bare parameter, or a tensor that does not train."""
MAGNITUDE = "lora_magnitude_vector"
"""The name of DoRA's magnitudes. PEFT keeps them in a module, and leaves its ``weight`` out of the key in a file."""


_EMPTY = nn.Module().__dict__
_CONSTANTS = {name: value for name, value in _EMPTY.items() if value is None or isinstance(value, bool)}
_CONTAINERS = tuple((name, type(value)) for name, value in _EMPTY.items() if name not in _CONSTANTS)


def init_module(module: nn.Module, **attributes: Any) -> None:
    """Initialise a module as ``nn.Module.__init__`` does, in half its time, and set plain attributes.

    An adapter is five modules: with ``nn.Module.__init__``, injecting into all linear layers takes 1.3 times as long.
    """
    own = module.__dict__
    own.update(_CONSTANTS, **attributes)
    for name, make in _CONTAINERS:
        own[name] = make()


@dataclass(slots=True)
class Steering:
    """The switch of a model's adapters: one object shared by all layers, so that switching is one assignment.

    Attributes:
        active: Names of the active adapters.
        disabled: Whether all adapters are switched off.
        samples: The adapter of each sample of the batch, during a forward with ``adapter_names``.
        model: The switch of the whole model, if this one is a layer's own.
    """

    active: tuple[str, ...]
    disabled: bool = False
    samples: tuple[str, ...] | None = None
    model: "Steering | None" = None


class Wrapper(PeftInstance, nn.Module):
    """A module in place of another one, with the other's attributes where it has none of the name.

    Model code reads ``layer.weight.dtype``, ``embedding.num_embeddings`` or ``model.config`` of the module it knows.

    Attributes:
        inner_name: Name of the child that holds the replaced module.
    """

    inner_name: str
    containers: ClassVar[tuple[str, ...]] = ()
    """Names of the children that hold the parts of all adapters, by adapter."""

    def inner(self) -> nn.Module | None:
        """Return the module to look attributes up on; ``None`` while construction or unpickling is incomplete."""
        children: dict[str, nn.Module | None] = self.__dict__.get("_modules", {})
        return children.get(self.inner_name)

    def wrapped(self) -> nn.Module:
        """Return the replaced module."""
        return self._modules[self.inner_name]  # type: ignore[return-value]  # set in every constructed wrapper

    def put(self, module: nn.Module) -> None:
        """Put a module in the place of the replaced one."""
        self._modules[self.inner_name] = module  # past nn.Module's slow assignment

    def train(self, mode: bool = True) -> Self:
        """Set the mode of this module and of all inside of it, each by its own method if its class has one."""
        for child in self._modules.values():
            _set_mode(child, mode)
        self.training = mode
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in self.containers and "_modules" in self.__dict__:
                return self._add_container(name)
            inner = self.inner()
            if inner is None or name.startswith("__"):
                raise
            return getattr(inner, name)

    def _add_container(self, name: str) -> nn.Module:
        """Return a new, empty child for parts of adapters: PEFT's layers have every container, used or not."""
        holder = nn.ParameterDict() if name in PARAMETER_CONTAINERS else nn.ModuleDict()
        holder.training = self.training
        self._modules[name] = holder
        return holder


class AdapterLayer(PeftLayer, Wrapper):
    """A layer with adapters, around the replaced layer, which is the child ``base_layer`` as in PEFT.

    Attributes:
        base_layer: The replaced layer, unchanged, or another adapter layer on the same module.
        steering: The switch shared by the model.
        planned: The plan of each adapter on this layer, by name.
        merged_adapters: Names of the adapters merged into the base weights.
    """

    inner_name = "base_layer"
    base_layer: nn.Module
    takes_samples = False
    """Whether each sample of a batch can use another adapter."""

    steering: Steering
    planned: dict[str, PlannedAdapter]
    merged_adapters: list[str]
    _kept: dict[str, torch.Tensor]

    def __init__(self, base_layer: nn.Module, steering: Steering) -> None:
        init_module(self, steering=steering, planned={}, merged_adapters=[], _kept={})
        self.__dict__["training"] = base_layer.training
        self._modules["base_layer"] = base_layer

    @classmethod
    @abstractmethod
    def create_parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Create the parts of an adapter for ``base``, uninitialised, by the name of their container."""

    @classmethod
    @abstractmethod
    def initialise(cls, parts: Mapping[str, Child], *, how: bool | str) -> None:
        """Fill the parts of an adapter; ``how`` is ``init_lora_weights`` or ``init_ia3_weights``."""

    def reset(self, adapter: str, *, how: bool | str) -> None:
        """Fill the parts of an adapter on this layer again."""
        self.initialise(self.parts(adapter), how=how)

    @abstractmethod
    def updated(self, adapters: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return the base layer's parameters, by name, with the updates of these adapters applied."""

    def insert(self, adapter: str, planned: PlannedAdapter, parts: Mapping[str, Child]) -> None:
        """Add an adapter to this layer."""
        self.planned[adapter] = planned
        for container, part in parts.items():
            holder: Any = self._modules.get(container)
            if holder is None:
                holder = nn.ParameterDict() if isinstance(part, nn.Parameter) else nn.ModuleDict.__new__(nn.ModuleDict)
                if isinstance(part, nn.Module):
                    init_module(holder)
                holder.__dict__["training"] = self.training
                self._modules[container] = holder
            if isinstance(part, nn.Module):
                part.__dict__["training"] = self.training
                holder._modules[adapter] = part  # noqa: SLF001 - past the checks of ModuleDict, per adapted layer
            else:
                holder[adapter] = part

    def give_storage(self, adapter: str) -> None:
        """Create the tensors of an adapter that is on meta on the device of the base layer, without values."""
        device = offload_device(self.base()) or first_tensor(self.base()).device
        for container, part in self.parts(adapter).items():
            if isinstance(part, nn.Module) and any(each.is_meta for each in part.parameters()):
                part.to_empty(device=device)
            elif isinstance(part, torch.Tensor) and part.is_meta:
                holder: Any = self._modules[container]
                holder[adapter] = on_device(part, device)

    def remove(self, adapter: str) -> None:
        """Remove an adapter, if it is on this layer."""
        for container in self.parts(adapter):
            del self._modules[container][adapter]  # type: ignore[union-attr, operator]  # as inserted
        self.planned.pop(adapter, None)

    def parts(self, adapter: str) -> dict[str, Child]:
        """Return the parts of an adapter by the name of their container; empty if it is not on this layer."""
        containers: dict[str, Any] = {name: self._modules.get(name) for name in self.containers}
        return {name: each[adapter] for name, each in containers.items() if each is not None and adapter in each}

    def adapts(self, planned: PlannedAdapter) -> bool:
        """Return whether this layer adapts the same weight as ``planned``, in the same way."""
        return self._plan.parameter == planned.parameter and not planned.tokens

    def adapters(self) -> list[str]:
        """Return the names of the adapters on this layer."""
        return [*self.planned]

    def effective_adapters(self) -> list[str]:
        """Return the adapters whose update the next forward adds."""
        steering = self.steering
        if steering.disabled or self.merged_adapters:
            return []
        return [name for name in steering.active if name in self.planned]

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether the weight of the replaced layer is stored as (in, out)."""
        return self._plan.fan_in_fan_out

    @property
    def in_features(self) -> int:
        """Number of features, channels or ids that the replaced layer reads."""
        return self._features()[0]

    @property
    def out_features(self) -> int:
        """Number of features or channels that it writes."""
        return self._features()[1]

    def _features(self) -> tuple[int, int]:
        base: Any = self.base()
        for read, written in FEATURES:
            if hasattr(base, read):
                return getattr(base, read), getattr(base, written)
        written, read = getattr(base, self._weight_name).shape[-2:]
        return (written, read) if self._plan.fan_in_fan_out else (read, written)

    @property
    def merged(self) -> bool:
        """Whether an adapter is merged into the base weights."""
        return bool(self.merged_adapters)

    def check_mergeable(self, path: str, adapters: Iterable[str]) -> None:  # noqa: ARG002 - of LoRA, some have a bias
        """Reject a base layer whose weight no update of these adapters can be merged into.

        Raises:
            InvalidConfig: Naming the layer, by ``path``, and the reason.
        """
        base = self.base()
        if offload_device(base) is not None:
            way_out = "Keep the adapter apart, or merge it before the model is dispatched"
            raise InvalidConfig(f"{path!r} has weights that accelerate offloads: {way_out}.", path=path)
        weight = base._parameters.get(self._weight_name)  # noqa: SLF001 - a packed or computed weight has other names
        if weight is None or not weight.is_floating_point():
            state, way_out = "packed" if weight is None else str(weight.dtype), "load the model unquantised"
            if self._weight_name in list_computed(base):
                state, way_out = "computed", "remove the parametrization, weight norm or pruning before the injection"
            message = f"{path!r} ({type(base).__name__}) has weights ({state}) that no update can be merged into."
            raise InvalidConfig(f"{message} Keep the adapter apart, or {way_out}.", path=path)

    @torch.no_grad()
    def check_finite(self, path: str, adapters: Iterable[str]) -> None:
        """Reject adapters with which a weight would hold NaN or infinite values.

        Raises:
            InvalidConfig: Naming the layer, by ``path``, and the adapters.
        """
        names = [name for name in adapters if name in self.planned and name not in self.merged_adapters]
        if names and not all(weight.isfinite().all() for weight in self.updated(names).values()):
            message = f"NaNs detected in the merged weights. The adapter {', '.join(names)} seems to be broken"
            raise InvalidConfig(f"{message} at {path!r}: load another checkpoint of it.", path=path, adapters=names)

    @torch.no_grad()
    def merge(
        self, safe_merge: bool = False, adapter_names: str | Sequence[str] | None = None, *, keep: bool = True
    ) -> None:
        """Merge adapters into the base weights; those already merged stay merged once.

        Args:
            safe_merge: Whether to reject weights that are not finite after it.
            adapter_names: Names; those that are not on this layer are passed over. The active ones if ``None``.
            keep: Whether to copy the weights to main memory, so that ``unmerge`` restores them bit for bit.

        Raises:
            InvalidConfig: If ``safe_merge`` rejects them.
        """
        given = (adapter_names,) if isinstance(adapter_names, str) else adapter_names
        adapters = self.steering.active if given is None else given
        if safe_merge:
            self.check_finite(type(self.base()).__name__, adapters)
        wanted = [*dict.fromkeys((*self.merged_adapters, *(name for name in adapters if name in self.planned)))]
        if wanted == self.merged_adapters:
            return
        self.unmerge()
        base = self.base()
        for name, updated in self.updated(wanted).items():
            parameter: Any = base._parameters[name]  # noqa: SLF001 - a Wrapper looks names up on its inner module
            if any(self.planned[adapter].shares_weight for adapter in wanted):
                self._kept[name] = parameter  # the module that shares it keeps it unmerged
                base._parameters[name] = nn.Parameter(updated, parameter.requires_grad)  # noqa: SLF001
                continue
            if keep:  # in main memory, which an accelerator has more of; a meta tensor has nothing to copy
                device = parameter.device if parameter.is_meta else torch.device("cpu")
                self._kept[name] = parameter.detach().to(device, copy=True)
            parameter.data.copy_(updated)
        self.merged_adapters.extend(wanted)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Restore the base weights, bit for bit."""
        base = self.base()
        for name, kept in self._kept.items():
            if isinstance(kept, nn.Parameter):
                base._parameters[name] = kept  # noqa: SLF001
            else:
                base._parameters[name].data.copy_(kept)  # type: ignore[union-attr]  # noqa: SLF001
        self._kept.clear()
        self.merged_adapters.clear()

    def get_base_layer(self) -> nn.Module:
        """Return the user's module, inside of all adapter layers."""
        return self.base()

    def base(self) -> nn.Module:
        """Return the user's module, inside of all adapter layers."""
        base = self.wrapped()
        while isinstance(base, Wrapper):
            base = base.wrapped()
        return base

    @property
    def _plan(self) -> PlannedAdapter:
        """The plan of any adapter: all describe the same base layer."""
        return next(iter(self.planned.values()))

    @property
    def _weight_name(self) -> str:
        """The name of the base layer's parameter that is adapted."""
        return self._plan.parameter or "weight"

    def adapter_state(self, adapter: str) -> dict[str, torch.Tensor]:
        """Return an adapter's tensors under their names in PEFT's files, without the layer's path."""
        return dict(state_of(self.parts(adapter)))

    def location(self, adapter: str, path: str) -> str:  # noqa: ARG002 - `SavedModule` needs the path
        """Return the prefix of an adapter's tensors in a file."""
        return self.planned[adapter].location


def _set_mode(module: nn.Module | None, mode: bool) -> None:
    """Set the mode of a module as ``nn.Module.train`` does, past its slow assignment and its generators."""
    if module is None:
        return
    own = module.__dict__
    if type(module).train is not nn.Module.train or "train" in own or "training" not in own:
        module.train(mode)
        return
    own["training"] = mode
    for child in module._modules.values():  # noqa: SLF001
        _set_mode(child, mode)


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor like another one, or a parameter like it, on a device and without values."""
    empty = torch.empty_like(tensor, device=device)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def state_of(parts: Mapping[str, Child]) -> dict[str, Any]:
    """Return the tensors of an adapter's parts under their names in PEFT's files, such as ``lora_A.weight``."""
    state = {}
    for container, part in parts.items():
        if isinstance(part, nn.Module):  # of nn.Parameter, isinstance takes ten times as long
            own = {**part._parameters, **part._buffers}.items()  # noqa: SLF001 - factors have no children, some no bias
            named: dict[str, Any] = {f"{container}.{name}": tensor for name, tensor in own if tensor is not None}
            state.update(named if container != MAGNITUDE else {MAGNITUDE: named[f"{MAGNITUDE}.weight"]})
        else:
            state[container] = part
    return state
