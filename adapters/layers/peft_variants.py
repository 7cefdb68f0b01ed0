"""Variants of LoRA on linear layers, computed by PEFT's own classes (0.21.2) on loradar's layers.

PEFT's class of a variant makes the parts that plain LoRA lacks, and runs the forward and the merge. It reads a layer's
attributes alone, which loradar's layers have under the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ...errors import InvalidConfig
from .dora import DoraLayer
from .planned import PlannedAdapter
from .wrappers import Child, Steering

CLASSES = {
    "velora_config": "VeloraLinearVariant",
    "monteclora_config": "MontecloraLinearVariant",
    "kasa_config": "KasaLinearVariant",
    "use_bdlora": "BdLoraLinearVariant",
    "mica": "MiCALinearVariant",
}
"""PEFT's class of each variant, by the field of the configuration, or the initialisation, that asks for it."""
ONE = "adapter"


@dataclass(slots=True)
class Variant:
    """The variant of one adapter on one layer.

    Attributes:
        name: The field or the initialisation that asks for it.
        options: The value of that field.
        settings: What PEFT's class keeps of an adapter in dictionaries of the layer, by their names.
    """

    name: str
    options: Any
    settings: dict[str, Any] = field(default_factory=dict)

    def find_class(self) -> Any:
        """Return PEFT's class."""
        return getattr(import_module("peft.tuners.lora.variants"), CLASSES[self.name])


class VariantLayer(DoraLayer):
    """What PEFT's variants need of a LoRA layer; each adapter on the layer may be one or not.

    Attributes:
        lora_variant: PEFT's object of each adapter that is one.
    """

    fan_in_fan_out: bool
    lora_variant: Mapping[str, Any] = {}

    def insert_variant(self, adapter: str, planned: PlannedAdapter, parts: Mapping[str, Child]) -> None:
        """Add an adapter that is a variant to this layer, with the attributes that PEFT's class reads."""
        variant: Variant = planned.variant
        others = [name for name in parts if name not in self.containers]
        self.__dict__["containers"] = (*self.containers, *others)
        for name in (name for name in others if isinstance(parts[name], torch.Tensor)):
            if name not in self._modules and not isinstance(parts[name], nn.Parameter):
                self._modules[name] = import_module("peft.tuners._buffer_dict").BufferDict({}, persistent=True)
        dropout = nn.Dropout(planned.dropout) if planned.dropout else nn.Identity()
        super().insert(adapter, planned, {**parts, "lora_dropout": dropout})  # past LoRA's, which calls this
        self.__dict__["fan_in_fan_out"] = planned.fan_in_fan_out
        self.__dict__.setdefault("lora_variant", {})[adapter] = variant.find_class()()
        for name, value in variant.settings.items():
            self.__dict__.setdefault(name, {})[adapter] = value
        self._freeze_non_trainable_peft_weights(adapter)

    def remove(self, adapter: str) -> None:
        """Remove an adapter, if it is on this layer."""
        variant = self.planned[adapter].variant if adapter in self.planned else None
        super().remove(adapter)
        for name in ("lora_variant", *variant.settings) if variant is not None else ():
            self.__dict__[name].pop(adapter, None)

    def reset(self, adapter: str, *, how: bool | str) -> None:
        """Fill the parts of an adapter again; those of a variant as PEFT's class makes them."""
        planned = self.planned[adapter]
        if planned.variant is not None:
            fresh, own = self.create_parts(self.base(), planned), self.parts(adapter)
            for name, part in fresh.items():
                _copy_part(own[name], part)
            for name, value in planned.variant.settings.items():
                self.__dict__[name][adapter] = value
        super().reset(adapter, how=how)

    def run_variant(self, output: torch.Tensor, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return the layer's output with the update of an adapter that is a variant."""
        x = self._cast_input_dtype(x, self.lora_A[adapter].weight.dtype)
        result: torch.Tensor = self.lora_variant[adapter].forward(self, active_adapter=adapter, x=x, result=output)
        return result

    def _cast_input_dtype(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return an input in the dtype of the factors; PEFT's classes call it."""
        return x.to(dtype) if self.cast_input_dtype_enabled else x


def _copy_part(own: Child, fresh: Child) -> None:
    """Give a part the values of another one."""
    with torch.no_grad():
        if isinstance(own, torch.Tensor):
            own.copy_(fresh)  # type: ignore[arg-type]  # made alike
        else:
            own.load_state_dict(fresh.state_dict())  # type: ignore[union-attr]


def add_variant_parts(
    layer_class: type[VariantLayer], base: nn.Module, planned: PlannedAdapter, factors: Mapping[str, Child]
) -> dict[str, Child]:
    """Return the parts of an adapter that is a variant, as PEFT's class makes them, in the dtype of the factors.

    Args:
        layer_class: The class of the layer.
        base: The base layer, which stays as it is.
        planned: The plan of the adapter, whose variant keeps its settings for the layer.
        factors: The plain factors.

    Raises:
        InvalidConfig: If the layer does not fit, in PEFT's words.
    """
    variant: Variant = planned.variant
    first: Any = next(iter(factors.values()))
    if variant.name == "kasa_config":  # what it takes out of the base weight is up to `injection.beginnings`
        return {**factors, "lora_diag": nn.Parameter(torch.randn_like(first.weight[:, 0]))}
    stand_in = type(layer_class.__name__, (layer_class,), {"adapter_layer_names": ()})  # a class of PEFT's adds to them
    layer: Any = stand_in(base, Steering((ONE,)))
    layer.insert(ONE, planned._replace(variant=None, dropout=0.0), factors)
    before = {*layer.__dict__}
    config = SimpleNamespace(**{variant.name: variant.options})
    try:
        variant.find_class().init(layer, adapter_name=ONE, config=config, target_name=planned.path)
    except ValueError as error:
        raise InvalidConfig(f"{planned.path!r}: {error}", path=planned.path) from error
    held = ((name, value) for name, value in layer.__dict__.items() if name not in before)
    variant.settings = {name: value[ONE] for name, value in held if isinstance(value, dict) and ONE in value}
    containers: Any = {name: each for name, each in layer._modules.items() if name != layer.inner_name}  # noqa: SLF001
    parts = {name: holder[ONE] for name, holder in containers.items() if ONE in holder}
    return {name: _in_dtype(part, first.weight.dtype) for name, part in parts.items()}


def _in_dtype(part: Child, dtype: torch.dtype) -> Child:
    """Return a part whose tensors have a dtype."""
    if isinstance(part, torch.Tensor):
        part.data = part.data.to(dtype)
        return part
    return part.to(dtype)


def truncate_base(base: nn.Module, r: int) -> None:
    """Take the smallest ``r`` singular values out of the weight of a linear layer, as KaSA does."""
    variant = import_module("peft.tuners.lora.variants").KasaLinearVariant
    variant._truncate_base_weight(SimpleNamespace(get_base_layer=lambda: base), r)  # noqa: SLF001 - PEFT's own step
