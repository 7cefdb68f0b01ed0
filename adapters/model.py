"""``PeftModel``: the wrapper around a model that carries adapters."""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import CodeType
from typing import Any, cast

import torch
from torch import nn

from ..errors import InvalidConfig, nearest, quoted
from . import checkpoint, foreign
from .card import write_card
from .config import AdapterConfig, LoraConfig
from .decision import Decision
from .hub import push
from .layer import AdapterLayer, Steering
from .prepared import Prepared, adapters_in, attach, detach, file_state, layers_in
from .saved import SavedModule
from .sites import Survey, survey_model
from .trainable import biases, freeze, set_trainable
from .wrapper import Wrapper

BASE = "__base__"
"""In ``adapter_names``: no adapter for this sample."""


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
    """A model with adapters in it, with the methods and the state-dict keys of ``peft.PeftModel`` (0.21.2).

    Made by ``inject`` and ``PeftModel.from_pretrained``. Whatever it lacks (``config``, ``device``) is looked up on the
    user's model, which is ``peft_model.base_model.model``.

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
        self.forward = _Forward(survey.model, steering)
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

    @property
    def __class__(self) -> type:  # type: ignore[misc]
        """``peft.PeftModel`` where peft is imported: trainers and launchers ask ``isinstance`` before they save.

        What they then call is here under the same names. ``type()`` tells which of the two it is.
        """
        peft = sys.modules.get("peft")
        return PeftModel if peft is None else peft.PeftModel

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as what ``type()`` says."""
        return _blank, (type(self),), self.__dict__

    def _replicate_for_data_parallel(self) -> "PeftModel":
        """Return a replica that runs its own model: ``forward`` knows the one it was made for."""
        replica: PeftModel = super()._replicate_for_data_parallel()
        replica.forward = lambda *args, **kwargs: _Forward(replica.base_model.model, self._steering)(*args, **kwargs)
        return replica

    def _settle(self, prepared: Prepared) -> None:
        """Let a new adapter train if it is active, and nothing else that is new."""
        is_active = prepared.name in self._steering.active and not prepared.config.inference_mode
        if prepared.copies or not is_active or _trains_biases(prepared.config):  # new factors train already
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

    # Several adapters

    def add_adapter(self, adapter_name: str, peft_config: AdapterConfig) -> None:
        """Put a further adapter into the model; it waits until ``set_adapter`` makes it active.

        Raises:
            InvalidConfig: If the name is taken, the method another one, or the configuration does not fit the model.
            TargetsNotFound: As ``inject``.
        """
        from .inject import prepare  # noqa: PLC0415 - injecting makes this class

        self._check_new(adapter_name, peft_config)
        with self._unmerged():
            prepared = prepare(self._survey(), peft_config, adapter_name)
        self.add_prepared(prepared)

    def add_prepared(self, prepared: Prepared) -> None:
        """Put an adapter that is built already into the model."""
        self.unmerge_adapter()
        attach(self._survey(), prepared, self._steering)
        self.peft_config[prepared.name] = prepared.config
        self._settle(prepared)

    def set_adapter(self, adapter_name: str | Sequence[str], *, inference_mode: bool = False) -> None:
        """Make one adapter active, or several at once; these train, the others are frozen.

        Raises:
            InvalidConfig: If there is no such adapter, or none is named.
        """
        names = (adapter_name,) if isinstance(adapter_name, str) else tuple(dict.fromkeys(adapter_name))
        if not names:
            raise InvalidConfig("set_adapter([]) names no adapter: for the base model alone, use disable_adapter().")
        self._check_known(names)
        if any(layer.merged for layer in self._layers()):
            warnings.warn("The adapters were merged, and are unmerged to switch between them.", stacklevel=2)
            self.unmerge_adapter()
        self._steering.active = names
        self._set_trainable(frozen=inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """Take an adapter out. If it was active, the first of the others becomes so.

        Raises:
            InvalidConfig: If there is no such adapter, or no other one: then ``unload`` is meant.
        """
        self._check_known((adapter_name,))
        if len(self.peft_config) == 1:
            message = f"{adapter_name!r} is the only adapter: call unload(), which returns the model without it."
            raise InvalidConfig(message, adapter_name=adapter_name)
        self.unmerge_adapter()
        set_trainable(self._biases(adapter_name).values(), trainable=False)
        detach(self.get_base_model(), adapter_name)
        del self.peft_config[adapter_name]
        left = [name for name in self._steering.active if name != adapter_name]
        if not left:
            left = [next(iter(self.peft_config))]
            warnings.warn(f"{adapter_name!r} was active and is deleted: {left[0]!r} is active now.", stacklevel=2)
        self.set_adapter(left)

    def add_weighted_adapter(
        self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str, combination_type: str = "linear"
    ) -> None:
        """Add the weighted sum of other LoRA adapters as a new one.

        Args:
            adapters: Names of the others.
            weights: One weight each; negative ones subtract.
            adapter_name: Name of the new one, which waits until it is made active.
            combination_type: ``cat`` sets the factors side by side: exact, with the sum of the ranks. ``linear`` adds
                ``A`` to ``A`` and ``B`` to ``B``: a rough approximation, and the ranks have to agree.

        Raises:
            InvalidConfig: If an adapter is unknown or no LoRA, the ranks do not agree, or the name is taken.
        """
        from .weighted import combine  # noqa: PLC0415 - builds what this class holds

        if not adapters:
            raise InvalidConfig("add_weighted_adapter: adapters=[] names no adapter to sum: give one at least.")
        self._check_known(adapters)
        self._check_new(adapter_name, self.peft_config[adapters[0]])
        if len(weights) != len(adapters):
            message = f"{len(weights)} weights for {len(adapters)} adapters: give one for each."
            raise InvalidConfig(message, weights=len(weights), adapters=len(adapters))
        configs, shares = [self.peft_config[name] for name in adapters], [*zip(adapters, weights, strict=True)]
        self.add_prepared(combine(layers_in(self._survey()), configs, shares, adapter_name, combination_type))

    def reset_adapter(self, adapter_name: str | None = None) -> None:
        """Fill an adapter anew; also for a model that was built on meta and then given storage.

        Raises:
            InvalidConfig: If there is no such adapter.
        """
        name = adapter_name or self.active_adapter
        self._check_known((name,))
        for layer in self._layers():
            if name in layer.adapters():
                layer.initialise(layer.held(name), how=self.peft_config[name].initialisation)

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

    # Running

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

    def generate(self, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Return what the user's model generates; ``adapter_names`` as in ``forward``."""
        model: Any = self.get_base_model()
        with by_sample(self._steering, model, adapter_names):
            return model.generate(*args, **kwargs)

    # Files

    def save_pretrained(
        self,
        folder: str | PathLike[str],
        selected_adapters: Sequence[str] | None = None,
        *,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        is_main_process: bool = True,
        **others: Any,
    ) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT does for each adapter, and a card.

        An adapter that is not called ``default`` goes into a subfolder of its name. A ``README.md`` that somebody wrote
        or edited is kept.

        Args:
            folder: Where to.
            selected_adapters: Which adapters; all when ``None``.
            state_dict: Where to take the values from: trainers that shard a model gather them there.
            is_main_process: Whether this process writes.
            others: What trainers say to PEFT, and what is so anyway (``safe_serialization``).

        Raises:
            InvalidConfig: If an adapter is unknown, or on meta and has no values.
            AdapterUnreadable: If the folder cannot be written.
        """
        names = [*self.peft_config] if selected_adapters is None else selected_adapters
        self._check_known(names)
        if others.get("safe_serialization") is False:
            raise InvalidConfig("safe_serialization=False would write a pickle: loradar writes safetensors only.")
        for name in names if is_main_process else ():
            config = {**self.peft_config[name].to_peft_dict(), "inference_mode": True}
            if self.peft_config[name].task_type is None:
                config["auto_mapping"] = foreign.origin_of(self.get_base_model())
            checkpoint.write(
                Path(folder) / ("" if name == "default" else name), config, self._gathered(name, state_dict)
            )
        if is_main_process:
            write_card(self, Path(folder))

    def _gathered(self, adapter: str, values: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        """Return an adapter's tensors by file key, with the values that a state dict of this model has for them."""
        state = self.adapter_state(adapter)
        if values is None:
            return state
        names = {id(tensor): name for name, tensor in self.state_dict(keep_vars=True).items()}
        return {key: values.get(names.get(id(tensor), key), tensor) for key, tensor in state.items()}

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

    def load_adapter(self, folder: str | PathLike[str], adapter_name: str, *, is_trainable: bool = False) -> None:
        """Put a saved adapter, ours or PEFT's, beside those that are there; it waits until it is made active.

        Under the name of one that is there, its weights are read into that one, as trainers do when they resume.

        Raises:
            AdapterUnreadable: As ``from_pretrained``; or if it does not fit the adapter that is there.
            InvalidConfig: As ``from_pretrained``.
        """
        from .load import read_for, reread  # noqa: PLC0415 - see from_pretrained

        if (known := self.peft_config.get(adapter_name)) is not None:
            reread(folder, adapter_name, self.adapter_state(adapter_name), known)
            self.peft_config[adapter_name] = replace(known, inference_mode=not is_trainable)
            self._set_trainable()
            return
        with self._unmerged():
            prepared = read_for(self._survey(), folder, adapter_name, is_trainable=is_trainable)
        self._check_new(adapter_name, prepared.config)
        self.add_prepared(prepared)

    def hotswap_adapter(self, folder: str | PathLike[str], adapter_name: str = "default") -> None:
        """Copy the weights of a saved adapter into one that is there, in place: a compiled model stays compiled.

        The saved one may have lower ranks, whose factors are filled up with zeros, and other alphas, which go into
        ``B``: the scaling is what a compiler has taken for a constant.

        Raises:
            AdapterUnreadable: If a file is missing or damaged, or its layers or shapes are others; nothing is changed.
            InvalidConfig: If there is no such adapter, or it is merged.
        """
        from .load import hotswap  # noqa: PLC0415 - see from_pretrained

        self._check_known((adapter_name,))
        hotswap(self._survey(), folder, adapter_name, self.peft_config[adapter_name])

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
            if _trains_biases(known) and _trains_biases(config):
                message = f"{name!r} and {other!r} both train biases, of which the model has one each."
                raise InvalidConfig(f"{message} Set bias='none' for one of them.", adapter_name=name)


@contextmanager
def by_sample(steering: Steering, model: nn.Module, adapter_names: Sequence[str] | None) -> Iterator[None]:
    """Give each sample of the batches in a ``with`` block the adapter named for it; ``__base__`` is none.

    Raises:
        InvalidConfig: If a name is unknown, or a layer cannot tell the samples of a batch apart.
    """
    if adapter_names is None or steering.disabled:
        yield
        return
    if model.training:
        raise InvalidConfig("adapter_names is for inference, and the model is training: call eval() first.")
    layers = [*layers_in(survey_model(model))]
    known = {name for _, layer in layers for name in layer.adapters()}
    for name in adapter_names:
        if name not in known and name != BASE:
            raise InvalidConfig(f"adapter_names holds {name!r}. There is: {quoted([*sorted(known), BASE])}.")
    for path, layer in layers:
        if not layer.takes_samples or layer.merged:
            why = "is merged: call unmerge_adapter first" if layer.merged else "has its update in the weight"
            raise InvalidConfig(f"{path!r} cannot give each sample its own adapter: it {why}.", path=path)
    before, steering.samples = steering.samples, tuple(adapter_names)
    try:
        yield
    finally:
        steering.samples = before


def _blank(made: type[PeftModel]) -> PeftModel:
    """Return a model to be unpickled into."""
    return made.__new__(made)


def _trains_biases(config: AdapterConfig) -> bool:
    return isinstance(config, LoraConfig) and config.bias != "none"


class _Forward:
    """The user's model as a callable with the user's signature: trainers read from it which columns to feed."""

    def __init__(self, model: nn.Module, steering: Steering) -> None:
        self.model = model
        self.steering = steering

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        names = cast("Sequence[str] | None", kwargs.pop("adapter_names", None))
        if names is None:
            return self.model(*args, **kwargs)
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.ndim)
        if (first := next(tensors, None)) is not None and len(first) != len(names):
            message = f"adapter_names has {len(names)} names for a batch of {len(first)}: give one for each sample."
            raise InvalidConfig(message, names=len(names), batch=len(first))
        with by_sample(self.steering, self.model, names):
            return self.model(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.model.forward)

    @property
    def __code__(self) -> CodeType:  # torch.export says where the source is
        return type(self).__call__.__code__
