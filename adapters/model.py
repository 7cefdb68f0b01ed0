"""``PeftModel``: the wrapper around a model that carries adapters."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InvalidConfig
from .adapted import Adapted
from .config import AdapterConfig
from .files import checkpoint
from .hub.card import write_card
from .hub.transfer import push
from .injection import foreign
from .injection.apply import Prepared, attach, detach, layers_in
from .injection.trainable import set_trainable
from .layers.per_sample import Forward, by_sample


class PeftModel(Adapted):
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

    @property  # type: ignore[misc]
    def __class__(self) -> type:
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
        replica: PeftModel = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]

        def forward(*args: Any, **kwargs: Any) -> Any:  # the replica gets its model after this returns
            return Forward(replica.base_model.model, self._steering)(*args, **kwargs)

        replica.forward = forward
        return replica

    # Several adapters

    def add_adapter(self, adapter_name: str, peft_config: AdapterConfig) -> None:
        """Put a further adapter into the model; it waits until ``set_adapter`` makes it active.

        Raises:
            InvalidConfig: If the name is taken, the method another one, or the configuration does not fit the model.
            TargetsNotFound: As ``inject``.
        """
        from .injection.inject import prepare  # noqa: PLC0415 - injecting makes this class

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
        from .layers.weighted import combine  # noqa: PLC0415 - builds what this class holds

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
        from .files.load import load  # noqa: PLC0415 - loading injects, and what it injects is this class

        return load(model, folder, adapter_name, is_trainable=is_trainable)

    def load_adapter(self, folder: str | PathLike[str], adapter_name: str, *, is_trainable: bool = False) -> None:
        """Put a saved adapter, ours or PEFT's, beside those that are there; it waits until it is made active.

        Under the name of one that is there, its weights are read into that one, as trainers do when they resume.

        Raises:
            AdapterUnreadable: As ``from_pretrained``; or if it does not fit the adapter that is there.
            InvalidConfig: As ``from_pretrained``.
        """
        from .files.load import read_for, reread  # noqa: PLC0415 - see from_pretrained

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
        from .files.load import hotswap  # noqa: PLC0415 - see from_pretrained

        self._check_known((adapter_name,))
        hotswap(self._survey(), folder, adapter_name, self.peft_config[adapter_name])


def _blank(made: type[PeftModel]) -> PeftModel:
    """Return a model to be unpickled into."""
    return made.__new__(made)
