"""A model with adapters in it: their state, training, merging, switching off and files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InvalidConfig, nearest, quoted
from ..warn import warn
from .base_weights import fill_copy
from .config import AdapterConfig
from .files import checkpoint
from .files.embeddings import AUTO, list_embeddings
from .forward import Forward
from .injection.apply import PREFIX, Prepared, adapters_in, attach, biases, detach, file_state, layers_in
from .injection.beginnings import Beginnings
from .injection.host_model import HostState, Survey, note_untied, set_trainable, survey_model
from .injection.replication import check_same_replication
from .injection.statistics import NormStatistics, put
from .layers.dora import fill_magnitude
from .layers.tokens import TokenLayer
from .layers.wrappers import AdapterLayer, SavedModule, Steering, Wrapper
from .targets import Decision


class AdaptedModel(Wrapper):
    """The level between the outer wrapper and the user's model, for PEFT's keys: ``base_model.model.<path>``."""

    inner_name = "model"

    def __init__(self, model: nn.Module, peft_config: dict[str, AdapterConfig]) -> None:
        super().__init__()
        self.model = model
        self.peft_config = peft_config
        self.prefix = next(iter(peft_config.values())).prefix
        self.training = model.training

    def peft_class(self) -> str:
        """Return PEFT's tuner of the method."""
        return {"lora_": "tuners.lora.model.LoraModel", "ia3_": "tuners.ia3.model.IA3Model"}[self.prefix]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the user's model."""
        return self.model(*args, **kwargs)


class Adapted(Wrapper):
    """The state of ``PeftModel``, which lists its attributes, with training, merging and switching off."""

    inner_name = "base_model"
    base_model: AdaptedModel
    decision: Decision | None = None
    forward: Callable[..., Any]

    def __init__(self, survey: Survey, prepared: Prepared) -> None:
        super().__init__()
        steering = Steering((prepared.name,))
        self.peft_config = {prepared.name: prepared.config}
        self.base_model = AdaptedModel(survey.model, self.peft_config)
        self._replication = prepared.replication
        try:
            attach(survey, prepared, steering)
        except BaseException:
            self._undo_replication()
            raise
        self.forward = Forward(survey.model, steering, survey.around)
        self.training = survey.model.training
        planned = [part.planned for part in prepared.parts if not part.planned.tokens]
        self.targeted_parameter_names = [f"{p.path}.{p.parameter}" for p in planned if p.kind == "expert_parameter"]
        self.targeted_module_names = [*dict.fromkeys(p.named for p in planned if p.kind != "expert_parameter")]
        self._steering = steering
        self._host = HostState(survey)
        self._norms = NormStatistics.of(survey)
        self._beginnings = Beginnings()
        put(prepared.statistics, survey)
        try:
            self._begin(prepared)
            self._set_trainable_if_needed(prepared)
        except BaseException:
            self.unload()
            raise

    def _undo_replication(self) -> None:
        if self._replication is not None:
            self._replication.undo()

    def _begin(self, prepared: Prepared) -> None:
        """Initialise an attached adapter by PEFT's functions, if its configuration states one of them."""
        parts = [(part.planned, part.children) for part in prepared.parts]
        self._beginnings.begin(self._survey(), prepared.config, parts, fill=prepared.is_fresh)

    def _set_trainable_if_needed(self, prepared: Prepared) -> None:
        """Set the gradient flags after an adapter was attached, unless its new factors, which train, are right."""
        is_active = prepared.name in self._steering.active and not prepared.config.inference_mode
        if prepared.copies or not is_active or prepared.config.trained_biases != "none":
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
        """Return the numbers of trainable and of all parameters; frozen originals of saved modules count too."""
        trainable = total = 0
        for parameter in self.parameters():
            total += parameter.numel()
            trainable += parameter.numel() if parameter.requires_grad else 0
        return trainable, total

    def print_trainable_parameters(self) -> None:
        """Print both numbers and their ratio in PEFT's words."""
        trainable, total = self.get_nb_trainable_parameters()
        share = 100 * trainable / total
        print(f"trainable params: {trainable:,d} || all params: {total:,d} || trainable%: {share:.4f}")  # noqa: T201 - its job

    # Merging

    def merge_adapter(self, adapter_names: Sequence[str] | None = None) -> None:
        """Add updates to the base weights, so that the forward costs nothing extra; repeating it changes nothing.

        The original weights are kept in main memory, and ``unmerge_adapter`` restores them bit for bit.

        Args:
            adapter_names: Names of the adapters; the active ones when ``None``.

        Raises:
            InvalidConfig: If an adapter is unknown, or naming a layer whose weight cannot take an update (quantised,
                grouped convolution); nothing is merged then.
        """
        self._merge(adapter_names, keep=True)

    def _merge(self, adapter_names: Sequence[str] | None, *, keep: bool) -> tuple[str, ...]:
        names = self._steering.active if adapter_names is None else tuple(adapter_names)
        self._check_known(names)
        self._check_compatible(names)
        layers = [(path, layer) for path, layer in layers_in(self._survey()) if {*names} & {*layer.adapters()}]
        for path, layer in layers:
            layer.check_mergeable(path, names)
        for _, layer in layers:
            layer.merge(names, keep=keep)
        return names

    def unmerge_adapter(self) -> None:
        """Restore every base weight that updates were merged into, bit for bit."""
        for layer in self._layers():
            layer.unmerge()

    def merge_and_unload(self, adapter_names: Sequence[str] | None = None) -> nn.Module:
        """Merge, put the trained modules in place of the saved ones, and return the user's model without wrappers.

        Raises:
            InvalidConfig: As ``merge_adapter``; nothing is changed then.
        """
        names = self._merge(adapter_names, keep=False)
        survey = self._survey()
        holders = adapters_in(survey)
        trained = {path: holder.active_module(names) for path, holder in holders if isinstance(holder, SavedModule)}
        detach(survey.model)
        self._host.restore(survey.model)
        for path, module in trained.items():
            site = survey.sites[path]
            if module is not site.module and not isinstance(module, Wrapper):
                for parameter, before in zip(module.parameters(), site.module.parameters(), strict=True):
                    parameter.requires_grad = before.requires_grad
                survey.replace(site, module)
        if note_untied(survey.model):
            warn("Embeddings are no longer tied: config.tie_word_embeddings is False now.")
        return survey.model

    def unload(self) -> nn.Module:
        """Return the user's model as it was: its modules, its weights, and which of them require gradients.

        The running statistics of norms that a training changed are those from before, too.
        """
        self.unmerge_adapter()
        model = self.get_base_model()
        detach(model)
        self._beginnings.restore(survey_model(model))
        self._norms.restore(survey_model(model))
        self._host.restore(model)
        self._undo_replication()
        return model

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Switch all adapters off within a ``with`` block; merged ones are unmerged for its duration."""
        for which in (self.peft_config[name].trained_biases for name in self._steering.active):
            if which != "none":
                message = f"Biases trained with bias={which!r} stay in place while the adapter is disabled."
                warn(message)
        if self.norm_statistics():
            message = "Running statistics of norms changed by training stay in place while the adapter is disabled."
            warn(message)
        if how := self._beginnings.how:
            warn(f"Base weights changed by init_lora_weights={how!r} stay in place while the adapter is disabled.")
        if [each for _, each in adapters_in(self._survey()) if each.follow_model()]:
            message = "The model contains some adapter layers that are enabled and others that are disabled, or others"
            warn(f"{message} active: from here on, all follow the model again.")
        with self._unmerged():
            before, self._steering.disabled = self._steering.disabled, True
            try:
                yield
            finally:
                self._steering.disabled = before

    @contextmanager
    def _unmerged(self) -> Iterator[None]:
        """Restore the base weights, and tie them where they were tied, within a ``with`` block."""
        merged = [(layer, [*layer.merged_adapters]) for layer in self._layers() if layer.merged]
        self.unmerge_adapter()
        try:
            yield
        finally:
            for layer, names in merged:
                layer.merge(names)

    def reset_adapter(self, adapter_name: str | None = None) -> None:
        """Initialise an adapter again, for example in a model that was built on meta and then given storage.

        Copies of saved modules get the values of their originals.

        Raises:
            InvalidConfig: If there is no such adapter.
        """
        name = adapter_name or self.active_adapter
        self._check_known((name,))
        with self._unmerged():
            wrappers = [wrapper for _, wrapper in adapters_in(self._survey()) if name in wrapper.adapters()]
            for saved in (wrapper for wrapper in wrappers if isinstance(wrapper, SavedModule)):
                fill_copy(saved, name)
            layers = [wrapper for wrapper in wrappers if isinstance(wrapper, AdapterLayer)]
            for layer in layers:
                layer.reset(name, how=self.peft_config[name].initialisation)
                fill_magnitude(layer.parts(name), layer.base(), layer.planned[name])
            parts, survey = [(layer.planned[name], layer.parts(name)) for layer in layers], self._survey()
            self._beginnings.restore(survey)
            self._beginnings.begin(survey, self.peft_config[name], parts, fill=True)

    # Files

    def adapter_state(self, adapter_name: str | None = None) -> dict[str, torch.Tensor]:
        """Return an adapter's tensors under PEFT's file keys, without its name; the active one's if ``None``."""
        name = adapter_name or self.active_adapter
        self._check_known((name,))
        return {**file_state(self._survey(), name), **self._biases(name)}

    def norm_statistics(self) -> dict[str, torch.Tensor]:
        """Return the running statistics of the norms that were in train mode since the first adapter, under file keys.

        They are the base model's, and every adapter's file holds them.
        """
        return self._norms.changed(self._survey())

    def write_files(
        self,
        folder: Path,
        adapter_name: str,
        values: Mapping[str, torch.Tensor] | None = None,
        *,
        save_embedding_layers: bool | str = AUTO,
        is_converted: bool = False,
    ) -> None:
        """Write an adapter's two files, into a subfolder of its name unless that is ``default``.

        Args:
            folder: The folder.
            adapter_name: Name of the adapter.
            values: A state dict of this model to take the tensors' values from.
            save_embedding_layers: Whether to write the embeddings too, as in ``save_pretrained``.
            is_converted: Whether to write an adapter that changed base weights as one on the former weights.

        Raises:
            InvalidConfig: If the adapter is unknown, or on meta and has no values.
            AdapterUnreadable: If the folder cannot be written.
        """
        base = self.peft_config[adapter_name].base_model_name_or_path
        embeddings = list_embeddings(self._survey(), adapter_name, base, save_embedding_layers)
        state = {**self.norm_statistics(), **embeddings, **self.adapter_state(adapter_name)}
        if values is not None:
            values = {checkpoint.without_wrappers(name): tensor for name, tensor in values.items()}
            own = self.state_dict(keep_vars=True).items()
            names = {id(tensor): checkpoint.without_wrappers(name) for name, tensor in own}
            state = {key: values.get(names.get(id(tensor), key), tensor) for key, tensor in state.items()}
        config = {**self.peft_config[adapter_name].to_peft_dict(), "inference_mode": True}
        state, config = self._beginnings.write(state, config, PREFIX, is_converted=is_converted)
        if self.peft_config[adapter_name].task_type is None:
            origin = type(self.get_base_model())
            config["auto_mapping"] = {"base_model_class": origin.__name__, "parent_library": origin.__module__}
        checkpoint.write(folder / ("" if adapter_name == "default" else adapter_name), config, state)

    # Helpers

    def _put_statistics(self, values: Mapping[str, torch.Tensor], adapter_name: str) -> None:
        """Copy the running statistics of an adapter's file into the model, and warn if other adapters share them."""
        if put(values, self._survey()) and len(self.peft_config) > 1:
            message = f"The file of {adapter_name!r} holds running statistics of norms, which replace the model's"
            warn(f"{message}: all adapters share them.")

    def _biases(self, adapter: str) -> dict[str, nn.Parameter]:
        which = self.peft_config[adapter].trained_biases
        return {} if which == "none" else biases(self._survey(), adapter, which)

    def _set_trainable(self, *, frozen: bool = False) -> None:
        """Let the active adapters train and no other, except those that are frozen for inference."""
        active = {name for name in self._steering.active if not (frozen or self.peft_config[name].inference_mode)}
        for _, wrapper in adapters_in(self._survey()):
            wrapper.follow_model()
            for name in wrapper.adapters():
                set_trainable(wrapper.adapter_state(name).values(), trainable=name in active)
        for name in self.peft_config:
            set_trainable(self._biases(name).values(), trainable=name in active)

    def _survey(self) -> Survey:
        return survey_model(self.get_base_model())

    def _layers(self) -> Iterator[AdapterLayer]:
        return (layer for _, layer in layers_in(self._survey()))

    def _check_compatible(self, names: Sequence[str]) -> None:
        """Reject adapters that each have a module, or a row of an embedding, for the same place: only one could run."""
        for path, wrapper in adapters_in(self._survey()) if len(names) > 1 else ():
            own = [name for name in names if name in wrapper.adapters()]
            if isinstance(wrapper, TokenLayer):
                wrapper.check_rows_once(path, own)
            elif isinstance(wrapper, SavedModule) and len(own) > 1:
                message = f"{quoted(own)} each save {path!r} in full, and only one can take its place: activate one."
                raise InvalidConfig(message, path=path, adapters=own)

    def _check_known(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.peft_config:
                near = quoted(nearest(name, self.peft_config) or self.peft_config)
                raise InvalidConfig(f"There is no adapter {name!r}. There is: {near}.", adapter_name=name)

    def _check_new(self, name: str, config: AdapterConfig) -> None:
        if name in self.peft_config:
            message = f"There is an adapter {name!r} already. Give another name, or call delete_adapter first."
            raise InvalidConfig(message, adapter_name=name)
        self._beginnings.check_alone(name, config, next(iter(self.peft_config)))
        check_same_replication(name, config, next(iter(self.peft_config.values())))
        for other, known in self.peft_config.items():
            if known.method != config.method:
                message = f"Adapter {name!r} is {config.method}, and {other!r} is {known.method}"
                raise InvalidConfig(f"{message}: one model takes one method. Use a second copy.", adapter_name=name)
            if "none" not in (known.trained_biases, config.trained_biases):
                message = f"{name!r} and {other!r} both train biases, of which the model has one each."
                raise InvalidConfig(f"{message} Set bias='none' for one of them.", adapter_name=name)
