"""``PeftModel``: the wrapper around a model that carries an adapter."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InvalidConfig
from . import checkpoint, foreign
from .card import write_card
from .config import LoraConfig
from .decision import Decision
from .hub import push
from .layers import LoraConv, LoraLayer
from .placement import Placement, adapter_parameters, biased_modules, file_state, freeze, set_trainable
from .saved import SavedModule
from .sites import Survey
from .wrapper import Wrapper


class AdaptedModel(Wrapper):
    """The level between the wrapper and the user's model, which gives PEFT's keys: ``base_model.model.<path>``."""

    inner_name = "model"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the user's model returns."""
        return self.model(*args, **kwargs)


class PeftModel(Wrapper):
    """A model with an adapter in it, with the methods and the state-dict keys of ``peft.PeftModel`` (0.21.2).

    Made by ``inject`` and ``PeftModel.from_pretrained``. Whatever it lacks (``generate``, ``config``, ``device``) is
    looked up on the user's model, which is ``peft_model.base_model.model``.

    Attributes:
        base_model: The level that holds the user's model.
        peft_config: The configuration, by adapter name.
        active_adapter: Name of the adapter.
        targeted_module_names: Paths of the adapted layers, in module order.
        decision: Where its targets come from; ``None`` for a loaded adapter.
    """

    inner_name = "base_model"
    base_model: AdaptedModel
    decision: Decision | None = None
    forward: Callable[..., Any]

    def __init__(self, survey: Survey, placements: tuple[Placement, ...], config: LoraConfig, adapter: str) -> None:
        super().__init__()
        self.base_model = AdaptedModel(survey.model)
        self.forward = _Forward(survey.model)
        self.training = survey.model.training
        self.peft_config = {adapter: config}
        self.active_adapter = adapter
        self.targeted_module_names = [p.path for p in placements if isinstance(p.replacement, LoraLayer)]
        self._placements = placements
        self._biased = biased_modules(survey, placements, config)
        self._trainable_before = freeze(survey)
        self._attach(trainable=not config.inference_mode)
        self._holds_inputs = foreign.is_checkpointing(survey.modules()) and foreign.require_input_gradients(
            survey.model
        )

    def _attach(self, *, trainable: bool) -> None:
        for _, (module, parent, name), replacement in self._placements:
            if isinstance(replacement, LoraLayer) and not module.training:
                replacement.train(mode=False)
            if isinstance(replacement, SavedModule) or not trainable:  # new factors are trainable already
                set_trainable(adapter_parameters(replacement), trainable=trainable)
            setattr(parent, name, replacement)
        set_trainable(self._biases().values(), trainable=trainable)

    @property
    def active_adapters(self) -> list[str]:
        """The adapter's name, in a list, as PEFT has it."""
        return [self.active_adapter]

    @property
    def active_peft_config(self) -> LoraConfig:
        """Configuration of the adapter."""
        return self.peft_config[self.active_adapter]

    def get_base_model(self) -> nn.Module:
        """Return the user's model, adapter included."""
        return self.base_model.model

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Return how many parameters train and how many there are; frozen originals of saved modules count too."""
        trainable = total = 0
        for parameter in self.parameters():
            total += parameter.numel()
            trainable += parameter.numel() if parameter.requires_grad else 0
        return trainable, total

    def print_trainable_parameters(self) -> None:
        """Print both counts and their ratio in PEFT's words."""
        trainable, total = self.get_nb_trainable_parameters()
        share = 100 * trainable / total
        print(f"trainable params: {trainable:,d} || all params: {total:,d} || trainable%: {share:.4f}")  # noqa: T201 - its job

    def merge_adapter(self) -> None:
        """Add every update to its base weight, so that the forward costs nothing extra. Twice is once.

        Raises:
            InvalidConfig: Naming a grouped convolution, whose update has no grouped weight; nothing is merged then.
        """
        for path, _, layer in self._placements:
            if isinstance(layer, LoraConv) and layer.groups > 1:
                message = f"{path!r} has groups={layer.groups}: LoRA on a grouped convolution cannot be merged."
                raise InvalidConfig(f"{message} Keep the adapter apart.", path=path, groups=layer.groups)
        for layer in self._lora_layers():
            layer.merge()

    def unmerge_adapter(self) -> None:
        """Take every merged update out of its base weight again."""
        for layer in self._lora_layers():
            layer.unmerge()

    def merge_and_unload(self) -> nn.Module:
        """Merge, put the trained modules in place of the saved ones, and return the user's model without wrappers.

        Raises:
            InvalidConfig: As ``merge_adapter``; nothing is changed then.
        """
        self.merge_adapter()
        for _, (module, parent, name), replacement in self._placements:
            setattr(parent, name, replacement.trained() if isinstance(replacement, SavedModule) else module)
        self._release()
        for _, (module, *_), replacement in self._placements:
            if isinstance(replacement, SavedModule):
                flags = [parameter.requires_grad for parameter in module.parameters()]
                for parameter, flag in zip(replacement.trained().parameters(), flags, strict=True):
                    parameter.requires_grad = flag
        if foreign.note_untied(self.get_base_model()):
            warnings.warn("Embeddings are no longer tied: config.tie_word_embeddings is False now.", stacklevel=2)
        return self.get_base_model()

    def unload(self) -> nn.Module:
        """Return the user's model as it was: its modules, its weights, and which of them require gradients."""
        self.unmerge_adapter()
        for _, (module, parent, name), _ in self._placements:
            setattr(parent, name, module)
        self._release()
        return self.get_base_model()

    def _release(self) -> None:
        """Give the base model its gradient flags and hooks back."""
        for parameter in self.get_base_model().parameters():
            parameter.requires_grad = False
        for module, name in self._trainable_before:
            getattr(module, name).requires_grad = True
        if self._holds_inputs:
            foreign.release_input_gradients(self.get_base_model())

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Let the base model answer alone, within a ``with`` block; a merged adapter is unmerged for its time."""
        if self.active_peft_config.bias != "none":
            message = "Biases trained with bias={!r} stay in place while the adapter is disabled."
            warnings.warn(message.format(self.active_peft_config.bias), stacklevel=3)
        before = [(p.replacement, p.replacement.disable_adapters) for p in self._placements]
        merged = [layer for layer in self._lora_layers() if layer.merged]
        self.unmerge_adapter()
        for replacement, _ in before:
            replacement.disable_adapters = True
        try:
            yield
        finally:
            for replacement, was_disabled in before:
                replacement.disable_adapters = was_disabled
            for layer in merged:
                layer.merge()

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT does, and a model card beside.

        An adapter that is not called ``default`` goes into a subfolder of its name. A ``README.md`` that somebody wrote
        or edited is kept.

        Raises:
            InvalidConfig: If the adapter is on meta and has no values.
            AdapterUnreadable: If the folder cannot be written.
        """
        name = self.active_adapter
        config = {**self.active_peft_config.to_peft_dict(), "inference_mode": True}
        if self.active_peft_config.task_type is None:
            config["auto_mapping"] = foreign.origin_of(self.get_base_model())
        checkpoint.write(Path(folder) / ("" if name == "default" else name), config, self.adapter_state())
        write_card(self, Path(folder))

    push_to_hub = push

    @classmethod
    def from_pretrained(
        cls,
        model: nn.Module,
        folder: str | PathLike[str],
        adapter_name: str = "default",
        *,
        is_trainable: bool = False,
    ) -> "PeftModel":
        """Put a saved adapter, ours or PEFT's, into ``model``, in place. Frozen and in eval mode unless trainable.

        ``folder`` may be on the hub: ``"hub:org/repo"``, ``"hub:org/repo/subfolder@revision"``.

        Raises:
            HubFailed: If it cannot be had from the hub; the model is unchanged.
            AdapterUnreadable: If a file is missing, damaged or does not fit; the model is unchanged.
            InvalidConfig: If the adapter uses what loradar does not have; the model is unchanged.
        """
        from .load import load  # noqa: PLC0415 - loading injects, and what it injects is this class

        return load(model, folder, adapter_name, is_trainable=is_trainable)

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """Return the adapter's tensors under PEFT's file keys, without the adapter's name."""
        return {**file_state(self._placements), **self._biases()}

    def _biases(self) -> dict[str, nn.Parameter]:
        return {key: module.get_parameter("bias") for key, module in self._biased.items()}

    def _lora_layers(self) -> Iterator[LoraLayer]:
        return (p.replacement for p in self._placements if isinstance(p.replacement, LoraLayer))


class _Forward:
    """The user's model as a callable with the user's signature: trainers read from it which columns to feed."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.model.forward)
