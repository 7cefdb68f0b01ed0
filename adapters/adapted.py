"""The adapters of a model: their state, merging and files."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.progress import track
from torch import nn

from ..errors import InvalidConfig, quoted
from ..similar_names import nearest
from ..warn import warn
from .checks import check_flag
from .config import AdapterConfig
from .files import checkpoint
from .files.embeddings import AUTO, list_embeddings
from .files.saved_names import names_for_peft
from .injection.apply import PREFIX, adapters_in, biases, detach, file_state, layers_in
from .injection.beginnings import Beginnings
from .injection.host_model import HostState, Survey, note_untied, set_trainable, survey_model
from .injection.replication import Replication, check_same_replication
from .injection.statistics import NormStatistics, put
from .layers.as_peft import PeftMethods
from .layers.saved import SavedModule
from .layers.tokens import TokenLayer
from .layers.wrappers import AdapterLayer, Steering, Wrapper
from .targets import Decision


class Adapted(PeftMethods, Wrapper):
    """The adapters of a model, with their numbers, merging and files: of ``PeftModel``, and of its ``base_model``.

    The state belongs to ``base_model``; ``PeftModel`` finds it there, as attributes that it lacks.
    """

    peft_config: dict[str, AdapterConfig]
    targeted_module_names: list[str]
    targeted_parameter_names: list[str]
    decision: Decision | None = None
    _steering: Steering
    _host: HostState
    _norms: NormStatistics
    _beginnings: Beginnings
    _replication: Replication | None

    def get_base_model(self) -> nn.Module:
        """Return the user's model, adapters included."""
        raise NotImplementedError

    @property
    def active_adapter(self) -> str:
        """The active adapter; of several, the first.

        Raises:
            InvalidConfig: If none is active, as after ``delete_adapter`` of the last one.
        """
        return self._first_active()

    def _first_active(self) -> str:
        if not self._steering.active:
            raise InvalidConfig("No adapter is active: add one with add_adapter, and activate it with set_adapter.")
        return self._steering.active[0]

    @property
    def active_adapters(self) -> list[str]:
        """The active adapters."""
        return [*self._steering.active]

    @property
    def active_peft_config(self) -> AdapterConfig:
        """Configuration of the active adapter."""
        return self.peft_config[self._first_active()]

    @property
    def peft_type(self) -> str:
        """The method of the adapters: PEFT's enum where peft is imported."""
        method: str = getattr(next(iter(self.peft_config.values())), "peft_type")  # noqa: B009 - a field of each method
        return method

    @property
    def has_active_enabled_adapter(self) -> bool:
        """Whether an adapter is active, and adapters are not switched off."""
        return bool(self._steering.active) and not self._steering.disabled

    @property
    def modules_to_save(self) -> set[str] | None:
        """The names of the modules that any adapter trains in full; ``None`` without any."""
        return {name for config in self.peft_config.values() for name in config.modules_to_save or ()} or None

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

    def merge_adapter(self, adapter_names: str | Sequence[str] | None = None, safe_merge: bool = False) -> None:
        """Add updates to the base weights, so that the forward costs nothing extra; repeating it changes nothing.

        The original weights are kept in main memory, and ``unmerge_adapter`` restores them bit for bit. Layers whose
        adapters are switched off are passed over, with a warning.

        Args:
            adapter_names: Names of the adapters, or one name; the active ones when ``None``.
            safe_merge: Whether to reject weights that are not finite after it.

        Raises:
            InvalidConfig: If an adapter is unknown, or naming a layer whose weight cannot take an update (quantised,
                grouped convolution) or would not be finite; nothing is merged then.
        """
        self._merge(adapter_names, safe=safe_merge, keep=True)

    def _merge(
        self, adapter_names: str | Sequence[str] | None, *, safe: bool, keep: bool, progressbar: bool = False
    ) -> tuple[str, ...] | None:
        """Merge, and return the given names; ``None`` if each layer merged those that are active on it."""
        check_flag("progressbar", progressbar)  # in the place of names before
        given = None if adapter_names is None else as_names(adapter_names)
        self._check_known(given or ())
        layers = self._find_affected(given)
        if keep and any(layer.steering.disabled for _, layer, _ in layers):
            warn("Adapters that are switched off are not merged: call enable_adapter_layers() first.")
            layers = [each for each in layers if not each[1].steering.disabled]
        chosen = given or [*dict.fromkeys(name for _, _, names in layers for name in names)]
        self._check_compatible(chosen)
        for path, layer, names in layers:
            layer.check_mergeable(path, names)
            if safe:
                layer.check_finite(path, names)
        merged = dict.fromkeys(name for _, layer, _ in layers for name in layer.merged_adapters)
        _warn_of_merged(merged, chosen, is_last=not keep)
        for _, layer, names in track(layers, "Merging", disable=not progressbar):
            layer.merge(adapter_names=names, keep=keep)
        return given

    def _find_affected(self, given: tuple[str, ...] | None) -> list[tuple[str, AdapterLayer, tuple[str, ...]]]:
        """Return the layers that have any of these adapters, or an active one, with their paths and the names."""
        known = ((path, layer, layer.steering.active) for path, layer in layers_in(self._survey()))
        wanted = ((path, layer, active if given is None else given) for path, layer, active in known)
        return [(path, layer, names) for path, layer, names in wanted if {*names} & {*layer.adapters()}]

    def unmerge_adapter(self) -> None:
        """Restore every base weight that updates were merged into, bit for bit."""
        for layer in self._layers():
            layer.unmerge()

    def merge_and_unload(
        self,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: str | Sequence[str] | None = None,
    ) -> nn.Module:
        """Merge, put the trained modules in place of the saved ones, and return the user's model without wrappers.

        Args:
            progressbar: Whether to show the progress.
            safe_merge: As in ``merge_adapter``.
            adapter_names: As in ``merge_adapter``.

        Raises:
            InvalidConfig: As ``merge_adapter``; nothing is changed then.
        """
        names = self._merge(adapter_names, safe=safe_merge, keep=False, progressbar=progressbar)
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
                    parameter.data = parameter.data.to(before.dtype)  # a copy may be in float32
                for buffer, origin in zip(module.buffers(), site.module.buffers(), strict=True):
                    buffer.data = buffer.data.to(origin.dtype)
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
    def _unmerged(self) -> Iterator[None]:
        """Restore the base weights, and tie them where they were tied, within a ``with`` block."""
        merged = [(layer, [*layer.merged_adapters]) for layer in self._layers() if layer.merged]
        self.unmerge_adapter()
        try:
            yield
        finally:
            for layer, names in merged:
                layer.merge(adapter_names=names)

    # Files

    def adapter_state(self, adapter_name: str | None = None) -> dict[str, torch.Tensor]:
        """Return an adapter's tensors under PEFT's file keys, without its name; the active one's if ``None``."""
        name = adapter_name or self._first_active()
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
        as_pickle: bool = False,
    ) -> None:
        """Write an adapter's two files, into a subfolder of its name unless that is ``default``.

        Args:
            folder: The folder.
            adapter_name: Name of the adapter.
            values: A state dict of this model to take the tensors' values from.
            save_embedding_layers: Whether to write the embeddings too, as in ``save_pretrained``.
            is_converted: Whether to write an adapter that changed base weights as one on the former weights.
            as_pickle: Whether to write ``adapter_model.bin``, not safetensors.

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
        if saved := config.get("modules_to_save"):
            config["modules_to_save"] = names_for_peft(self._survey(), adapter_name, saved)
        state, config = self._beginnings.write(adapter_name, state, config, PREFIX, is_converted=is_converted)
        if self.peft_config[adapter_name].task_type is None:
            origin = type(self.get_base_model())
            config["auto_mapping"] = {"base_model_class": origin.__name__, "parent_library": origin.__module__}
        inside = folder / ("" if adapter_name == "default" else adapter_name)
        checkpoint.write(inside, config, state, as_pickle=as_pickle)

    # Helpers

    def _put_statistics(self, values: Mapping[str, torch.Tensor], adapter_name: str) -> None:
        """Copy the running statistics of an adapter's file into the model, and warn if other adapters share them."""
        if put(values, self._survey()) and len(self.peft_config) > 1:
            message = f"The file of {adapter_name!r} holds running statistics of norms, which replace the model's"
            warn(f"{message}: all adapters share them.")

    def _undo_replication(self) -> None:
        if self._replication is not None:
            self._replication.undo()

    def _biases(self, adapter: str) -> dict[str, nn.Parameter]:
        which = self.peft_config[adapter].trained_biases
        return {} if which == "none" else biases(self._survey(), adapter, which)

    def _set_trainable(self, names: Collection[str], *, trainable: bool) -> None:
        """Let adapters train, with the biases of the base model that they train, or freeze them."""
        for _, wrapper in adapters_in(self._survey()):
            wrapper.follow_model()
            for name in wrapper.adapters():
                if name in names:
                    set_trainable(wrapper.adapter_state(name).values(), trainable=trainable)
                    wrapper._freeze_non_trainable_peft_weights(name)  # noqa: SLF001 - PEFT's name
        for name in names:
            set_trainable(self._biases(name).values(), trainable=trainable)

    def _survey(self) -> Survey:
        return self.__dict__.get("_known_survey") or survey_model(self.get_base_model())

    @contextmanager
    def _surveyed(self) -> Iterator[None]:
        """Walk over the model once for a ``with`` block that only reads it."""
        self.__dict__["_known_survey"] = self._survey()
        try:
            yield
        finally:
            del self.__dict__["_known_survey"]

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
            if not self.peft_config:
                raise InvalidConfig(f"Adapter {name} does not exist, nor any other.", adapter_name=name)
            if name not in self.peft_config:
                near = quoted(nearest(name, self.peft_config) or self.peft_config)
                raise InvalidConfig(f"Adapter {name} does not exist. There is: {near}.", adapter_name=name)

    def _check_new(self, name: str, config: AdapterConfig) -> None:
        if name in self.peft_config:
            message = f"There is an adapter {name!r} already. Give another name, or call delete_adapter first."
            raise InvalidConfig(message, adapter_name=name)
        if (first := next(iter(self.peft_config), None)) is not None:
            self._beginnings.check_beside(name, config, self.peft_config)
            check_same_replication(name, config, self.peft_config[first])
        for other, known in self.peft_config.items():
            if known.method != config.method:
                message = f"Adapter {name!r} is {config.method}, and {other!r} is {known.method}"
                raise InvalidConfig(f"{message}: one model takes one method. Use a second copy.", adapter_name=name)
            if "none" not in (known.trained_biases, config.trained_biases):
                message = f"{name!r} and {other!r} both train biases, of which the model has one each."
                raise InvalidConfig(f"{message} Set bias='none' for one of them.", adapter_name=name)


def as_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return names of adapters, each once; one may be given without a list."""
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


def _warn_of_merged(merged: Collection[str], names: Collection[str], *, is_last: bool) -> None:
    """Warn in PEFT's words if adapters are merged already; without a word if the last merge has nothing to do."""
    more = [name for name in names if name not in merged]
    if merged and more:
        message = f"Already following adapters were merged {', '.join(merged)}"
        warn(f"{message}. You are now additionally merging {', '.join(more)}.")
    elif merged and not is_last:
        warn("All adapters are already merged, nothing to do.")
