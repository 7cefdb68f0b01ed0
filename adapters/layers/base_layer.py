"""What LoRA and IA3 layers have in common: the base layer inside, which adapters answer, merging and its inverse."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ...errors import InvalidConfig
from ..injection.plan import PlannedAdapter
from .blank import blank_dict, make_blank
from .wrapper import Wrapper

Child = nn.Module | nn.Parameter
"""One of an adapter's own parts: a factor module, or a bare parameter."""


@dataclass(slots=True)
class Steering:
    """Which adapters of a model answer. One object, shared by all its layers, so that switching is one assignment.

    Attributes:
        active: The adapters whose updates are added.
        disabled: Whether the base model answers alone.
        samples: The adapter of each sample of the batch, while a forward with ``adapter_names`` runs.
    """

    active: tuple[str, ...]
    disabled: bool = False
    samples: tuple[str, ...] | None = None


class AdapterLayer(Wrapper):
    """A layer with adapters on it. It holds the layer that was there as a child, under PEFT's name ``base_layer``.

    Attributes:
        base_layer: The layer that was there, unchanged, or another adapter's layer on the same module.
        steering: Which adapters answer.
        planned: What was planned for each adapter on this layer, by name.
        merged_adapters: The adapters whose updates are in the base weights now.
    """

    inner_name = "base_layer"
    base_layer: nn.Module
    containers: ClassVar[tuple[str, ...]]
    """Names of the dictionaries that hold the adapters' parts, by adapter."""
    takes_samples = False
    """Whether each sample of a batch can have its own adapter."""

    steering: Steering
    planned: dict[str, PlannedAdapter]
    merged_adapters: list[str]
    _kept: dict[str, torch.Tensor]

    def __init__(self, base_layer: nn.Module, steering: Steering) -> None:
        make_blank(self, steering=steering, planned={}, merged_adapters=[], _kept={})
        self.__dict__["training"] = base_layer.training
        self._modules["base_layer"] = base_layer

    @classmethod
    @abstractmethod
    def parts(cls, base: nn.Module, planned: PlannedAdapter) -> dict[str, Child]:
        """Return the parts of a new adapter for ``base``, uninitialised, by the container each goes into."""

    @classmethod
    @abstractmethod
    def initialise(cls, parts: Mapping[str, Child], *, how: bool | str) -> None:
        """Fill the parts of a new adapter, as ``init_lora_weights`` or ``init_ia3_weights`` says."""

    @abstractmethod
    def updated(self, adapters: Iterable[str]) -> dict[str, torch.Tensor]:
        """Return the parameters of the base layer, by name, as they are with these adapters' updates in them."""

    def hold(self, adapter: str, planned: PlannedAdapter, parts: Mapping[str, Child]) -> None:
        """Take an adapter in."""
        self.planned[adapter] = planned
        for container, part in parts.items():
            holder: Any = self._modules.get(container)
            if holder is None:
                holder = blank_dict() if isinstance(part, nn.Module) else nn.ParameterDict()
                self._modules[container] = holder
            if isinstance(part, nn.Module):
                holder._modules[adapter] = part  # noqa: SLF001 - past ModuleDict's checks of what it is given
            else:
                holder[adapter] = part
            if not self.training:
                holder.train(mode=False)

    def drop(self, adapter: str) -> None:
        """Let go of an adapter; it is no error if it is not here."""
        if self.planned.pop(adapter, None) is not None:
            for container in self.containers:
                held: Any = self._modules.get(container)
                if held is not None and adapter in held:
                    del held[adapter]

    def carries(self, planned: PlannedAdapter) -> bool:
        """Tell whether this is the layer for another adapter so planned: both go on the same weight."""
        return self._plan().parameter == planned.parameter

    def adapters(self) -> list[str]:
        """Return the names of the adapters on this layer."""
        return [*self.planned]

    def held(self, adapter: str) -> dict[str, Child]:
        """Return the parts of an adapter, by container; none if it is not on this layer."""
        if adapter not in self.planned:
            return {}
        containers: dict[str, Any] = {name: self._modules.get(name) for name in self.containers}
        return {name: each[adapter] for name, each in containers.items() if each is not None and adapter in each}

    def answering(self) -> list[str]:
        """Return the adapters whose update has to be added in a forward now."""
        steering = self.steering
        if steering.disabled or self.merged_adapters:
            return []
        return [name for name in steering.active if name in self.planned]

    @property
    def merged(self) -> bool:
        """Whether an update is in the base weights now."""
        return bool(self.merged_adapters)

    def check_mergeable(self, path: str) -> None:
        """Refuse, in words, a base layer whose weights cannot take an update; ``path`` is for those words.

        Raises:
            InvalidConfig: Naming the layer and why.
        """
        base, name = self.base(), self._weights()[0]
        weight = base._parameters.get(name)  # noqa: SLF001 - a packed or computed weight has other names
        if weight is None or not weight.is_floating_point():
            what = "packed or computed" if weight is None else str(weight.dtype)
            message = f"{path!r} ({type(base).__name__}) has weights ({what}) that no update can be merged into."
            raise InvalidConfig(f"{message} Keep the adapter apart, or load the model unquantised.", path=path)

    @torch.no_grad()
    def merge(self, adapters: Iterable[str], *, keep: bool = True) -> None:
        """Put the updates of these adapters into the base weights. Merging what is merged changes nothing.

        Args:
            adapters: Names; those that are not on this layer are passed over.
            keep: Whether to keep the weights as they are, so that ``unmerge`` restores them bit for bit. They are
                kept in main memory, so that merging takes none of an accelerator's.
        """
        wanted = [*self.merged_adapters, *(name for name in adapters if name in self.planned)]
        wanted = [*dict.fromkeys(wanted)]
        if wanted == self.merged_adapters:
            return
        self.unmerge()
        base = self.base()
        for name, updated in self.updated(wanted).items():
            parameter: Any = base._parameters[name]  # noqa: SLF001 - a Wrapper would answer for its inner module
            if any(self.planned[adapter].shares_weight for adapter in wanted):
                self._kept[name] = parameter  # the other layer keeps the weight it has
                base._parameters[name] = nn.Parameter(updated, parameter.requires_grad)  # noqa: SLF001
            else:
                if keep:
                    self._kept[name] = _copy(parameter)
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

    def base(self) -> nn.Module:
        """Return the module that was there, below any other adapter's layer."""
        base = self.base_layer
        while isinstance(base, Wrapper):
            base = base.wrapped()
        return base

    def _plan(self) -> PlannedAdapter:
        """Return what is planned for one of the adapters; of the base layer, all say the same."""
        return next(iter(self.planned.values()))

    def _weights(self) -> tuple[str, ...]:
        """Return the names of the base layer's parameters that an update goes into."""
        return ("weight",)

    def adapter_state(self, adapter: str) -> dict[str, torch.Tensor]:
        """Return an adapter's tensors under the names they have in PEFT's files, without the layer's."""
        return dict(state_of(self.held(adapter)))

    def location(self, adapter: str, path: str) -> str:
        """Return what the names of an adapter's tensors begin with in a file; ``path`` alone does not tell."""
        del path
        return self.planned[adapter].location


def state_of(parts: Mapping[str, Child]) -> dict[str, nn.Parameter]:
    """Return the tensors of an adapter's parts under the names they have in PEFT's files: ``lora_A.weight``."""
    state = {}
    for container, part in parts.items():
        if isinstance(part, nn.Module):  # asked of nn.Parameter, isinstance takes ten times as long
            own = part._parameters.items()  # noqa: SLF001 - factors have no children, and some no bias
            state.update({f"{container}.{name}": parameter for name, parameter in own if parameter is not None})
        else:
            state[container] = part
    return state


def _copy(parameter: torch.Tensor) -> torch.Tensor:
    """Copy a weight into main memory; one on meta has nothing to copy."""
    device = parameter.device if parameter.is_meta else torch.device("cpu")
    return parameter.detach().to(device, copy=True)
