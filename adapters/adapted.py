"""What a model with adapters knows of them: which there are, which answer and train, what is merged."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import InvalidConfig, nearest, quoted
from .config import AdapterConfig, LoraConfig
from .injection import foreign
from .injection.apply import Prepared, adapters_in, attach, detach, file_state, layers_in
from .injection.sites import Survey, survey_model
from .injection.trainable import biases, freeze, set_trainable
from .layers.base_layer import AdapterLayer, Steering
from .layers.per_sample import Forward
from .layers.saved_modules import SavedModule
from .layers.wrapper import Wrapper
from .targets import Decision


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


class Adapted(Wrapper):
    """The state of ``PeftModel``, merging and switching off; see there.

    Attributes:
        base_model: The level that holds the user's model.
        peft_config: The configurations, by adapter name.
        targeted_module_names: Paths of the layers that the first adapter is on, in module order.
        targeted_parameter_names: Paths of the bare parameters it is on.
        decision: Where its targets come from; ``None`` for a loaded adapter.
    """

    inner_name = "base_model"
    base_model: AdaptedModel
    decision: Decision | None = None
    forward: Callable[..., Any]

    def __init__(self, survey: Survey, prepared: Prepared) -> None:
        super().__init__()
        steering = Steering((prepared.name,))
        self.base_model = AdaptedModel(survey.model)
        attach(survey, prepared, steering)
        self.forward = Forward(survey.model, steering)
        self.training = survey.model.training
        self.peft_config = {prepared.name: prepared.config}
        planned = [part.planned for part in prepared.parts]
        self.targeted_parameter_names = [f"{p.path}.{p.parameter}" for p in planned if p.kind == "expert_parameter"]
        self.targeted_module_names = [*dict.fromkeys(p.named for p in planned if p.kind != "expert_parameter")]
        self._steering = steering
        self._trainable_before = freeze(survey)
        self._padding = foreign.leave_fast_path(survey.modules())
        self._holds_inputs = False
        try:
            if foreign.is_checkpointing(survey.modules()):
                self._holds_inputs = foreign.require_input_gradients(survey.model)
            self._settle(prepared)
        except BaseException:
            self.unload()
            raise

    def _settle(self, prepared: Prepared) -> None:
        """Let a new adapter train if it is active, and nothing else that is new."""
        is_active = prepared.name in self._steering.active and not prepared.config.inference_mode
        if prepared.copies or not is_active or trains_biases(prepared.config):  # new factors train already
            self._set_trainable()

    @property
    def active_adapter(self) -> str:
        """The active adapter; of several, the first."""
        return self._steering.active[0]

    @property
    def active_adapters(self) -> list[str]:
        """The active adapters."""
        return [*self._steering.active]

    @property
    def active_peft_config(self) -> AdapterConfig:
        """Configuration of the active adapter."""
        return self.peft_config[self.active_adapter]

    def get_base_model(self) -> nn.Module:
        """Return the user's model, adapters included."""
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

    # Merging

    def merge_adapter(self, adapter_names: Sequence[str] | None = None) -> None:
        """Add updates to the base weights, so that the forward costs nothing extra. Twice is once.

        The weights as they were are kept in main memory, and ``unmerge_adapter`` restores them bit for bit.

        Args:
            adapter_names: Whose; the active ones' when ``None``.

        Raises:
            InvalidConfig: If an adapter is unknown, or naming a layer whose weight cannot take an update (quantised,
                grouped convolution); nothing is merged then.
        """
        self._merge(adapter_names, keep=True)

    def _merge(self, adapter_names: Sequence[str] | None, *, keep: bool) -> None:
        names = self._steering.active if adapter_names is None else tuple(adapter_names)
        self._check_known(names)
        layers = [(path, layer) for path, layer in layers_in(self._survey()) if {*names} & {*layer.adapters()}]
        for path, layer in layers:
            layer.check_mergeable(path)
        for _, layer in layers:
            layer.merge(names, keep=keep)

    def unmerge_adapter(self) -> None:
        """Restore every base weight that updates were merged into, bit for bit."""
        for layer in self._layers():
            layer.unmerge()

    def merge_and_unload(self, adapter_names: Sequence[str] | None = None) -> nn.Module:
        """Merge, put the trained modules in place of the saved ones, and return the user's model without wrappers.

        Raises:
            InvalidConfig: As ``merge_adapter``; nothing is changed then.
        """
        self._merge(adapter_names, keep=False)
        names = self._steering.active if adapter_names is None else tuple(adapter_names)
        survey = self._survey()
        trained = {
            path: wrapper.answering(names)
            for path, site in survey.sites.items()
            for wrapper in site.wrappers
            if isinstance(wrapper, SavedModule)
        }
        detach(survey.model)
        self._release()
        for path, module in trained.items():
            site = survey.sites[path]
            if module is not site.module and not isinstance(module, Wrapper):
                for parameter, before in zip(module.parameters(), site.module.parameters(), strict=True):
                    parameter.requires_grad = before.requires_grad
                survey.hang(site, module)
        if foreign.note_untied(survey.model):
            warnings.warn("Embeddings are no longer tied: config.tie_word_embeddings is False now.", stacklevel=2)
        return survey.model

    def unload(self) -> nn.Module:
        """Return the user's model as it was: its modules, its weights, and which of them require gradients."""
        self.unmerge_adapter()
        detach(self.get_base_model())
        self._release()
        return self.get_base_model()

    def _release(self) -> None:
        """Give the base model its gradient flags and hooks back."""
        for parameter in self.get_base_model().parameters():
            parameter.requires_grad = False
        for module, name in self._trainable_before:
            getattr(module, name).requires_grad = True
        foreign.rejoin_fast_path(self._padding)
        if self._holds_inputs:
            foreign.release_input_gradients(self.get_base_model())

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Let the base model answer alone, within a ``with`` block; merged adapters are unmerged for its time."""
        for config in map(self.peft_config.get, self._steering.active):
            if isinstance(config, LoraConfig) and config.bias != "none":
                message = f"Biases trained with bias={config.bias!r} stay in place while the adapter is disabled."
                warnings.warn(message, stacklevel=3)
        with self._unmerged():
            before, self._steering.disabled = self._steering.disabled, True
            try:
                yield
            finally:
                self._steering.disabled = before

    @contextmanager
    def _unmerged(self) -> Iterator[None]:
        """Let the base weights be themselves, and tied where they are, within a ``with`` block."""
        merged = [(layer, [*layer.merged_adapters]) for layer in self._layers() if layer.merged]
        self.unmerge_adapter()
        try:
            yield
        finally:
            for layer, names in merged:
                layer.merge(names)

    def adapter_state(self, adapter_name: str | None = None) -> dict[str, torch.Tensor]:
        """Return an adapter's tensors under PEFT's file keys, without its name; the active one's if ``None``."""
        name = adapter_name or self.active_adapter
        self._check_known((name,))
        return {**file_state(self._survey(), name), **self._biases(name)}

    # Helpers

    def _biases(self, adapter: str) -> dict[str, nn.Parameter]:
        config = self.peft_config[adapter]
        if not isinstance(config, LoraConfig) or config.bias == "none":
            return {}
        return biases(self._survey(), adapter, config.bias)

    def _set_trainable(self, *, frozen: bool = False) -> None:
        """Let the active adapters train, and no other, but for those that were frozen for inference."""
        active = {name for name in self._steering.active if not (frozen or self.peft_config[name].inference_mode)}
        for wrapper in adapters_in(self._survey()):
            for name in wrapper.adapters():
                set_trainable(wrapper.adapter_state(name).values(), trainable=name in active)
        for name in self.peft_config:
            set_trainable(self._biases(name).values(), trainable=name in active)

    def _survey(self) -> Survey:
        return survey_model(self.get_base_model())

    def _layers(self) -> Iterator[AdapterLayer]:
        return (layer for _, layer in layers_in(self._survey()))

    def _check_known(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.peft_config:
                near = quoted(nearest(name, self.peft_config) or self.peft_config)
                raise InvalidConfig(f"There is no adapter {name!r}. There is: {near}.", adapter_name=name)

    def _check_new(self, name: str, config: AdapterConfig) -> None:
        if name in self.peft_config:
            message = f"There is an adapter {name!r} already. Give another name, or call delete_adapter first."
            raise InvalidConfig(message, adapter_name=name)
        for other, known in self.peft_config.items():
            if known.peft_type != config.peft_type:
                message = f"Adapter {name!r} is {config.peft_type}, and {other!r} is {known.peft_type}"
                raise InvalidConfig(f"{message}: one model takes one method. Use a second copy.", adapter_name=name)
            if trains_biases(known) and trains_biases(config):
                message = f"{name!r} and {other!r} both train biases, of which the model has one each."
                raise InvalidConfig(f"{message} Set bias='none' for one of them.", adapter_name=name)


def trains_biases(config: AdapterConfig) -> bool:
    """Tell whether an adapter trains biases of the base model."""
    return isinstance(config, LoraConfig) and config.bias != "none"
