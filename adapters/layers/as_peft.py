"""The view that PEFT's functions, transformers and diffusers have of adapter layers: PEFT's classes and attributes.

They check ``isinstance(module, BaseTunerLayer)``, and call ``set_adapter`` or ``enable_adapters`` on each layer. So do
PEFT's ``get_layer_status``, ``get_peft_model_state_dict`` and ``hotswap_adapter``. Source: peft 0.21.2.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import nn

from ...extras import require


def find_peft_class(name: str, otherwise: type) -> type:
    """Return a class of PEFT by the path of its module and its name, if that module is imported."""
    module, _, own = name.rpartition(".")
    found: type = getattr(sys.modules.get(f"peft.{module}"), own, otherwise)
    return found


class PeftInstance:
    """An object that answers ``isinstance`` as one of PEFT's, where PEFT is imported."""

    peft_name: ClassVar[str] = ""
    """PEFT's class, as the path of its module and its name."""

    def peft_class(self) -> str:
        """Return PEFT's class for this object, as the path of its module and its name."""
        return self.peft_name

    @property
    def __class__(self) -> type:
        """PEFT's class where peft is imported: trainers, launchers and PEFT's functions check it.

        The methods that they then call have the same names here. ``type()`` returns loradar's class.
        """
        return find_peft_class(self.peft_class(), type(self)) if "_modules" in self.__dict__ else type(self)

    @__class__.setter
    def __class__(self, changed: type) -> None:
        """Set a class that was derived from ``__class__``, as by ``fully_shard``: derived from loradar's instead."""
        bases = tuple(type(self) if base is self.__class__ else base for base in changed.__bases__)
        own = changed if bases == changed.__bases__ else type(changed.__name__, bases, {**changed.__dict__})
        object.__dict__["__class__"].__set__(self, own)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an instance of ``type(self)``, not of ``__class__``."""
        return object.__new__, (type(self),), self.__dict__


class PeftMethods(PeftInstance):
    """Methods of PEFT's models that are PEFT's own functions, for which it has to be installed."""

    _is_prompt_learning = False

    def get_layer_status(self) -> list[Any]:
        """Return PEFT's record of each adapter layer: its adapters, gradients, devices and switches.

        Raises:
            MissingExtra: If PEFT is not installed.
        """
        require("peft", "peft")
        records: list[Any] = import_module("peft.peft_model").get_layer_status(self)
        return records

    def get_model_status(self) -> Any:
        """Return PEFT's record of the whole model.

        Raises:
            MissingExtra: If PEFT is not installed.
        """
        require("peft", "peft")
        return import_module("peft.peft_model").get_model_status(self)

    def _get_monteclora_loss(self, adapter_names: str | Sequence[str] | None = None) -> Any:
        """Return the loss of MonteCLoRA to add in training, of these adapters or the active ones."""
        return self._of_lora("_get_monteclora_loss", adapter_names)

    def _get_kasa_loss(self, adapter_names: str | Sequence[str] | None = None) -> Any:
        """Return the loss of KaSA to add in training, of these adapters or the active ones."""
        return self._of_lora("_get_kasa_loss", adapter_names)

    def _of_lora(self, name: str, *args: Any) -> Any:
        """Call a method of PEFT's LoRA model."""
        require("peft", "peft")
        return getattr(import_module("peft.tuners.lora").LoraModel, name)(self, *args)

    @staticmethod
    def _check_target_module_exists(peft_config: Any, key: str) -> bool:
        """Return whether a configuration targets the module at a path; PEFT's ``inspect_matched_modules`` calls it."""
        require("peft", "peft")
        return bool(import_module("peft.tuners.tuners_utils").check_target_module_exists(peft_config, key))

    def prepare_model_for_gradient_checkpointing(self, model: Any) -> Any:
        """Let the input of a model's blocks require gradients, as its embeddings' output, and return the model."""
        if enable := getattr(model, "enable_input_require_grads", None):
            enable()
        return model


class OwnAdapters:
    """A wrapper that takes adapters without a part on it for inactive, as PEFT's of saved modules and rows do."""

    steering: Any

    @property
    def active_adapters(self) -> list[str]:
        """Names of the active adapters that are on this layer."""
        return [name for name in self.steering.active if name in self.adapters()]  # type: ignore[attr-defined]


class PeftLayer(PeftInstance):
    """A wrapper of a module, with the attributes and methods of PEFT's layers.

    ``set_adapter`` and ``enable_adapters`` switch this layer alone, until a switch of the whole model.

    Attributes:
        merged_adapters: Names of the adapters merged into the base weights.
        quantization_backend: PEFT's description of a packed weight, for its status; loradar needs none.
        cast_input_dtype_enabled: Whether a factor gets its input in its own dtype.
        frozen_peft_weight_names: Names of the children in which a part of an adapter never trains, by adapter.
    """

    steering: Any
    merged_adapters: list[str] = []  # noqa: RUF012 - of modules that never merge, as in PEFT
    quantization_backend: Any = None
    cast_input_dtype_enabled = True
    other_param_names: ClassVar[tuple[str, ...]] = ()
    frozen_peft_weight_names: Mapping[str, tuple[str, ...]] = {}
    containers: ClassVar[tuple[str, ...]]

    def adapters(self) -> list[str]:
        """Return the names of the adapters on this layer."""
        raise NotImplementedError

    def _parameters_of(self, adapter: str) -> list[nn.Parameter]:
        holders: list[Any] = [attrgetter(name)(self) for name in self.adapter_layer_names]
        parts = [holder[adapter] for holder in holders if adapter in holder]
        return [each for part in parts for each in ([part] if isinstance(part, nn.Parameter) else part.parameters())]

    # Reading

    @property
    def adapter_layer_names(self) -> tuple[str, ...]:
        """Names of the children that hold trainable parts."""
        held = self.__dict__["_modules"]
        return tuple(
            name
            for name in self.containers
            if isinstance(held.get(name), nn.ModuleDict | nn.ParameterDict) and name != "lora_dropout"
        )

    @property
    def active_adapters(self) -> list[str]:
        """Names of the active adapters, whether or not they are on this layer."""
        return [*self.steering.active]

    @property
    def active_adapter(self) -> list[str]:
        """Names of the active adapters; PEFT's layers hold a list."""
        return self.active_adapters

    @property
    def _active_adapter(self) -> list[str]:
        return self.active_adapters

    @_active_adapter.setter
    def _active_adapter(self, names: str | Sequence[str]) -> None:
        self._own_steering().active = (names,) if isinstance(names, str) else tuple(names)

    @property
    def disable_adapters(self) -> bool:
        """Whether the adapters of this layer are switched off."""
        disabled: bool = self.steering.disabled
        return disabled

    @property
    def _disable_adapters(self) -> bool:
        return self.disable_adapters

    def _get_available_adapters(self) -> set[str]:
        return {*self.adapters()}

    def _all_available_adapter_names(self) -> list[str]:
        return sorted(self.adapters())

    @property
    def _adapters(self) -> set[str]:
        return {*self.adapters()}

    def adapter_state_dict(
        self, adapter_name: str, state_dict: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """Return what an adapter trains in full or in part, out of this module's state dict, by its names in files."""
        state = self.state_dict() if state_dict is None else state_dict  # type: ignore[attr-defined]  # of a module
        return {name: state[inside] for name, inside in self.adapter_state_dict_load_map(adapter_name).items()}

    def adapter_state_dict_load_map(self, adapter_name: str) -> dict[str, str]:  # noqa: ARG002 - of some layers
        """Return the names of such tensors in this module's state dict, by their names in files; factors are none."""
        return {}

    # Switching one layer

    def _own_steering(self) -> Any:
        """Return a switch of this layer's own, which the next switch of the whole model replaces."""
        if self.steering.model is None:
            self.steering = replace(self.steering, model=self.steering)
        return self.steering

    def follow_model(self) -> bool:
        """Return to the switch of the whole model; return whether it differed."""
        own, model = self.steering, self.steering.model
        if model is None:
            return False
        self.steering = model
        return (own.active, own.disabled) != (model.active, model.disabled)

    def enable_adapters(self, enabled: bool) -> None:
        """Switch the adapters of this layer on or off; those that are off do not train."""
        self._own_steering().disabled = not enabled
        if enabled:
            self.set_adapter(self.active_adapters)
        else:
            self.set_requires_grad(self.adapters(), requires_grad=False)

    def set_adapter(self, adapter_names: str | Sequence[str], inference_mode: bool = False) -> None:
        """Activate adapters on this layer: these train, unless for inference, and the others are frozen."""
        self._active_adapter = adapter_names
        for name in self.adapters():
            self.set_requires_grad(name, name in self.active_adapters and not inference_mode)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Let adapters of this layer train, or freeze them."""
        for name in (adapter_names,) if isinstance(adapter_names, str) else adapter_names:
            for parameter in self._parameters_of(name):
                parameter.requires_grad = requires_grad and parameter.is_floating_point()
            self._freeze_non_trainable_peft_weights(name)

    def _freeze_non_trainable_peft_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        """Freeze the parts of these adapters, or of all, that never train."""
        names = [*self.frozen_peft_weight_names] if adapter_names is None else adapter_names
        for name in (names,) if isinstance(names, str) else names:
            for container in self.frozen_peft_weight_names.get(name, ()):
                part: Any = attrgetter(container)(self)[name]
                part.requires_grad_(requires_grad=False)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move an adapter to the device of the base layer, unless it has no values yet."""
        base: Any = self
        while "base_layer" in base._modules:  # noqa: SLF001 - a Wrapper looks names up on its inner module
            base = base.base_layer
        first = next(iter(base.parameters()), None)
        target = device or (None if first is None else first.device)
        own = self._parameters_of(adapter_name)
        if target is not None and not any(each.is_meta for each in own):
            for parameter in own:
                parameter.data = parameter.data.to(target)
