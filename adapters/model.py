"""``PeftModel``, the wrapper around a model with adapters, with its files and the hub."""

from collections.abc import Mapping, Sequence
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InvalidConfig
from ..warn import warn
from .adapted import Adapted
from .base_weights import base_key_map, get_base_model_state_dict, load_base_state_dict
from .checks import check_known
from .config import AdapterConfig
from .files.embeddings import AUTO
from .files.load import hotswap, load, reread
from .forward import Forward, by_sample
from .hub.card import write_card
from .hub.transfer import local_folder, push
from .injection.apply import Prepared, adapters_in, attach, detach, prepare
from .injection.combinations import Combination
from .injection.host_model import set_trainable, survey_model
from .injection.match import warn_of_exclusions
from .injection.plan import check_host
from .injection.weighted import combine
from .peft_forms import as_config

PASSED_BY_TRAINERS = ("save_function", "max_shard_size")
"""Arguments of ``save_pretrained`` for models of many files."""


class PeftModel(Adapted):
    """A model with adapters in it, with the methods and the state-dict keys of ``peft.PeftModel`` (0.21.2).

    Made by ``inject`` and ``PeftModel.from_pretrained``. Attributes it lacks (``config``, ``device``) are those of the
    user's model, which is ``peft_model.base_model.model``.

    Attributes:
        base_model: The level that holds the user's model.
        peft_config: The configurations, by adapter name.
        targeted_module_names: Paths of the layers of the first adapter, in module order.
        targeted_parameter_names: Paths of its bare parameters.
        decision: The decision on its targets; ``None`` for a loaded adapter.
    """

    peft_name = "peft_model.PeftModel"

    def _replicate_for_data_parallel(self) -> "PeftModel":
        """Return a replica that runs its own model: ``forward`` is bound to the original's."""
        replica: PeftModel = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]

        def forward(*args: Any, **kwargs: Any) -> Any:  # the replica gets its model after this returns
            return Forward(replica.base_model.model, self._steering)(*args, **kwargs)

        replica.forward = forward
        return replica

    # Several adapters

    def add_adapter(self, adapter_name: str, peft_config: AdapterConfig) -> None:
        """Add a further adapter to the model, inactive until ``set_adapter`` activates it.

        Raises:
            InvalidConfig: If the name is taken, the method another one, or the configuration does not fit the model.
            TargetsNotFound: As ``inject``.
        """
        peft_config = as_config(peft_config)
        self._check_new(adapter_name, peft_config)
        with self._unmerged():
            prepared = prepare(survey := self._survey(), peft_config, adapter_name)
        warn_of_exclusions(survey.paths, peft_config)
        self._add(prepared)

    def _add(self, prepared: Prepared) -> None:
        self.unmerge_adapter()
        attach(self._survey(), prepared, self._steering)
        self.peft_config[prepared.name] = prepared.config
        self._put_statistics(prepared.statistics, prepared.name)
        self._begin(prepared)
        self._set_trainable_if_needed(prepared)

    def set_adapter(self, adapter_name: str | Sequence[str], *, inference_mode: bool = False) -> None:
        """Activate one adapter, or several at once; these train, the others are frozen.

        Raises:
            InvalidConfig: If there is no such adapter, none is named, or two of them save the same module in full.
        """
        names = (adapter_name,) if isinstance(adapter_name, str) else tuple(dict.fromkeys(adapter_name))
        if not names:
            raise InvalidConfig("set_adapter([]) names no adapter: for the base model alone, use disable_adapter().")
        self._check_known(names)
        self._check_compatible(names)
        if any(layer.merged for layer in self._layers()):
            warn("The adapters were merged, and are unmerged to switch between them.")
            self.unmerge_adapter()
        self._steering.active = names
        self._set_trainable(frozen=inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; if it was the active one, the first of the others becomes active.

        Raises:
            InvalidConfig: If there is no such adapter, or no other one, so that ``unload`` is the way.
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
            warn(f"{adapter_name!r} was active and is deleted: {left[0]!r} is active now.")
        self.set_adapter(left)

    def add_weighted_adapter(  # noqa: PLR0917 - the arguments of PEFT, in its order
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        combination_type: str = "svd",
        svd_rank: int | None = None,
        svd_clamp: float | None = None,
        svd_full_matrices: bool = True,
        svd_driver: str | None = None,
        density: float | None = None,
        majority_sign_method: str = "total",
    ) -> None:
        """Add the weighted sum of other LoRA adapters as a new one.

        A module that one of them trains in full is copied; two of them must not train the same.

        Args:
            adapters: Names of the others.
            weights: One weight each; negative ones subtract.
            adapter_name: Name of the new one, which is inactive until it is activated.
            combination_type: ``svd``, the default as in PEFT, truncates the sum to ``svd_rank``: the closest of that
                rank. ``cat`` concatenates the factors: exact, with the sum of the ranks. ``linear`` adds ``A`` to ``A``
                and ``B`` to ``B``: a rough approximation, and the ranks have to agree. ``magnitude_prune``, ``ties``,
                ``dare_linear`` and ``dare_ties`` do so with a part of the values; with ``_svd`` behind them they prune
                the updates instead of the factors, and truncate. Of one adapter, all but ``svd`` are ``linear``.
            svd_rank: Rank of the sum for ``svd``; the largest rank of the adapters on each layer if ``None``.
            svd_clamp: Quantile at which the values of the factors are clamped, for ``svd``.
            svd_full_matrices: Whether to decompose in full, which takes memory and changes nothing.
            svd_driver: cuSOLVER's method, for ``svd`` on CUDA.
            density: Share of the values to keep, for the pruning ones.
            majority_sign_method: The sign that wins, for ``ties``: of the sum (``total``) or of most (``frequency``).

        Raises:
            InvalidConfig: If an adapter is unknown or no LoRA, the ranks do not agree, or the name is taken.
        """
        if not adapters:
            raise InvalidConfig("add_weighted_adapter: adapters=[] names no adapter to sum: give one at least.")
        self._check_known(adapters)
        self._check_new(adapter_name, self.peft_config[adapters[0]])
        if len(weights) != len(adapters):
            message = f"{len(weights)} weights for {len(adapters)} adapters: give one for each."
            raise InvalidConfig(message, weights=len(weights), adapters=len(adapters))
        how = Combination(
            combination_type, svd_rank, svd_clamp, svd_full_matrices, svd_driver, density, majority_sign_method
        )
        configs, shares = [self.peft_config[name] for name in adapters], [*zip(adapters, weights, strict=True)]
        self._add(combine(adapters_in(self._survey()), configs, shares, adapter_name, how))

    def generate(self, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Call ``generate`` of the user's model; ``adapter_names`` as in ``forward``."""
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
        save_embedding_layers: bool | str = AUTO,
        safe_serialization: bool = True,
        path_initial_model_for_weight_conversion: str | PathLike[str] | None = None,
        **others: Any,
    ) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT does for each adapter, and a card.

        An adapter that is not called ``default`` goes into a subfolder of its name. A ``README.md`` written or edited
        by the user is kept.

        Args:
            folder: The folder.
            selected_adapters: Names of the adapters; all when ``None``.
            state_dict: A state dict to take the values from: trainers that shard a model gather them there.
            is_main_process: Whether this process writes.
            save_embedding_layers: Whether to write the input and output embeddings of the model too. ``"auto"`` writes
                them, with a warning, if the adapter adapts one, or if the vocabulary is not that of the checkpoint that
                the configuration names, as after ``resize_token_embeddings``.
            safe_serialization: Always ``True``: pickles are not written.
            path_initial_model_for_weight_conversion: If given, an adapter whose initialisation changed base weights
                (PiSSA, OLoRA, CorDA) is written as an ordinary LoRA of twice the rank, on the weights from before. PEFT
                reads the first factors from this folder; loradar has kept them, and reads nothing.
            others: ``save_function`` and ``max_shard_size``, which trainers pass, change nothing: an adapter is one
                file, and safetensors writes it.

        Raises:
            InvalidConfig: If an adapter is unknown, or on meta and has no values, or an argument cannot be honoured.
            AdapterUnreadable: If the folder cannot be written.
        """
        names = [*self.peft_config] if selected_adapters is None else selected_adapters
        self._check_known(names)
        options = [*signature(PeftModel.save_pretrained).parameters][2:-1]
        check_known(others, [*options, *PASSED_BY_TRAINERS], "save_pretrained")
        if not safe_serialization:
            raise InvalidConfig("safe_serialization=False would write a pickle: loradar writes safetensors only.")
        if is_main_process:
            for name in names:
                self.write_files(
                    Path(folder),
                    name,
                    state_dict,
                    save_embedding_layers=save_embedding_layers,
                    is_converted=path_initial_model_for_weight_conversion is not None,
                )
            write_card(self, Path(folder))

    push_to_hub = push

    # The base model's own weights

    base_key_map = base_key_map
    get_base_model_state_dict = get_base_model_state_dict
    load_base_state_dict = load_base_state_dict

    @classmethod
    def from_pretrained(
        cls,
        model: nn.Module,
        folder: str | PathLike[str],
        adapter_name: str = "default",
        *,
        is_trainable: bool = False,
    ) -> "PeftModel":
        """Put a saved adapter, ours or PEFT's, into ``model``, in place; frozen and in eval mode unless trainable.

        ``folder`` may be on the hub: ``"hub:org/repo"``, ``"hub:org/repo/subfolder@revision"``.

        Raises:
            HubFailed: If it cannot be downloaded from the hub; the model is unchanged.
            AdapterUnreadable: If a file is missing, damaged or does not fit; the model is unchanged.
            InvalidConfig: If the adapter needs a feature that loradar lacks, or the model has adapters; the model is
                unchanged.
        """
        check_host(model)
        survey = survey_model(model)
        adapted = PeftModel(survey, load(survey, local_folder(folder), adapter_name, is_trainable=is_trainable))
        return adapted if is_trainable else adapted.eval()

    def load_adapter(self, folder: str | PathLike[str], adapter_name: str, *, is_trainable: bool = False) -> None:
        """Add a saved adapter, ours or PEFT's, inactive until it is activated.

        Under the name of an adapter in the model, its weights are copied into that one, as trainers do to resume.

        Raises:
            AdapterUnreadable: As ``from_pretrained``; or if it does not fit the adapter in the model.
            InvalidConfig: As ``from_pretrained``.
        """
        local = local_folder(folder)
        if (known := self.peft_config.get(adapter_name)) is not None:
            survey, wanted = self._survey(), self.adapter_state(adapter_name)
            self._put_statistics(reread(survey, local, adapter_name, wanted, known), adapter_name)
            known.inference_mode = not is_trainable
            self._set_trainable()
            return
        with self._unmerged():
            prepared = load(self._survey(), local, adapter_name, is_trainable=is_trainable)
        self._check_new(adapter_name, prepared.config)
        self._add(prepared)

    def hotswap_adapter(self, folder: str | PathLike[str], adapter_name: str = "default") -> None:
        """Copy the weights of a saved adapter into one in the model, in place: a compiled model stays compiled.

        The saved one may have lower ranks, whose factors are padded with zeros, and other alphas, which are multiplied
        into ``B``: a compiler treats the scaling as a constant.

        Raises:
            AdapterUnreadable: If a file is missing or damaged, or its layers or shapes differ; nothing is changed.
            InvalidConfig: If there is no such adapter, or it is merged.
        """
        self._check_known((adapter_name,))
        found = hotswap(self._survey(), local_folder(folder), adapter_name, self.peft_config[adapter_name])
        self._put_statistics(found, adapter_name)
