"""``PeftModel``, the wrapper around a model with adapters, and ``get_peft_model`` and ``inject``, which make one."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from functools import partial
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..domain.methods import choose_preset
from ..errors import InvalidConfig
from .adapted import Adapted, Forward, by_sample
from .config import AdapterConfig, LoraConfig, check_known
from .files.embeddings import AUTO
from .files.load import hotswap, load, reread
from .hub.card import write_card
from .hub.transfer import local_folder, push
from .injection.apply import Prepared, attach, build, detach, layers_in
from .injection.host_model import Survey, set_trainable, survey_model
from .injection.match import warn_of_exclusions
from .injection.plan import Expand, check_host, make_plan
from .targets import Decision, decide, expand_shorthand, with_ranks
from .weighted import combine

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

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """``peft.PeftModel`` where peft is imported: trainers and launchers check ``isinstance`` before they save.

        The methods they then call have the same names here. ``type()`` distinguishes the two classes.
        """
        peft = sys.modules.get("peft")
        return PeftModel if peft is None else peft.PeftModel

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an instance of ``type(self)``, not of ``__class__``."""
        return object.__new__, (type(self),), self.__dict__

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
        self._check_new(adapter_name, peft_config)
        with self._unmerged():
            prepared = _prepare(survey := self._survey(), peft_config, adapter_name)
        warn_of_exclusions(survey.paths, peft_config)
        self._add(prepared)

    def _add(self, prepared: Prepared) -> None:
        self.unmerge_adapter()
        attach(self._survey(), prepared, self._steering)
        self.peft_config[prepared.name] = prepared.config
        self._put_statistics(prepared.statistics, prepared.name)
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
        self._check_saved_once(names)
        if any(layer.merged for layer in self._layers()):
            warnings.warn("The adapters were merged, and are unmerged to switch between them.", stacklevel=2)
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
            warnings.warn(f"{adapter_name!r} was active and is deleted: {left[0]!r} is active now.", stacklevel=2)
        self.set_adapter(left)

    def add_weighted_adapter(
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        combination_type: str = "svd",
        svd_rank: int | None = None,
    ) -> None:
        """Add the weighted sum of other LoRA adapters as a new one.

        Args:
            adapters: Names of the others.
            weights: One weight each; negative ones subtract.
            adapter_name: Name of the new one, which is inactive until it is activated.
            combination_type: ``svd``, the default as in PEFT, truncates the sum to ``svd_rank``: the closest of that
                rank. ``cat`` concatenates the factors: exact, with the sum of the ranks. ``linear`` adds ``A`` to ``A``
                and ``B`` to ``B``: a rough approximation, and the ranks have to agree.
            svd_rank: Rank of the sum for ``svd``; the largest rank of the adapters on each layer if ``None``.

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
        configs, shares = [self.peft_config[name] for name in adapters], [*zip(adapters, weights, strict=True)]
        self._add(combine(layers_in(self._survey()), configs, shares, adapter_name, (combination_type, svd_rank)))

    def generate(self, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Call ``generate`` of the user's model; ``adapter_names`` as in ``forward``."""
        model: Any = self.get_base_model()
        with by_sample(self._steering, model, adapter_names):
            return model.generate(*args, **kwargs)

    # Files

    def save_pretrained(  # noqa: PLR0913 - the arguments of PEFT and of trainers
        self,
        folder: str | PathLike[str],
        selected_adapters: Sequence[str] | None = None,
        *,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        is_main_process: bool = True,
        save_embedding_layers: bool | str = AUTO,
        safe_serialization: bool = True,
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
                self.write_files(Path(folder), name, state_dict, save_embedding_layers=save_embedding_layers)
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
            self.peft_config[adapter_name] = replace(known, inference_mode=not is_trainable)
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


def get_peft_model(  # noqa: PLR0913 - what decides the layers and ranks
    model: nn.Module,
    config: AdapterConfig | None = None,
    *,
    preset: str | None = None,
    adapter_name: str = "default",
    example_inputs: Any = None,
    towers: Any = None,
    roles: Any = None,
    blocks: Any = None,
    expert_rank: Any = None,
    budget: Any = None,
    **fields: Any,
) -> PeftModel:
    """Put LoRA, or IA3, into ``model``, in place, and return the wrapper that controls it.

    Without targets in ``config`` they are decided in this order: the registry's entry for the model, checked against
    its layers; the entry of an architecture of the same structure; a live scan. With towers, roles, blocks or a budget
    the scan decides. ``decision`` of the result names the step that decided, and what is recommended beside it; so does
    the log (logger ``loradar``), in one line.

    Args:
        model: Any module, live or on the meta device.
        config: Method, strength and, if it names any, the targets; ``LoraConfig()`` when ``None``.
        preset: ``default``, ``recommended``, ``attention``, ``mlp``, ``all-linear``, ``experts`` or ``everything``, of
            which IA3 has the first alone; by default that of ``LORADAR_PRESET``, else the first. Not used if
            ``config`` has targets.
        adapter_name: Key of the adapter in the state dict.
        example_inputs: Inputs of its forward, as in ``scan``: a scan with them decides. Without, a scan makes its own.
        towers: Towers to adapt instead of those of the preset: ``language``, ``vision``, ``audio``, ``projector``,
            ``main``, several of them, or ``all``.
        roles: Roles to adapt, or patterns: ``attention.*``, ``mlp.down``. They narrow a preset; with preset ``default``
            they stand alone.
        blocks: Blocks to adapt: ``last 8``, ``first 4``, ``every 2``, ``10-20``, or a list of numbers from 0.
        expert_rank: Rank of routed experts: ``auto`` (``r`` over the experts that run for a token), ``shared`` (``r``)
            or a number.
        budget: Parameters to train at most, as a number or a share such as ``0.5%``: decides ``r``, and the preset if
            that is ``default``.
        **fields: Fields of the configuration, such as ``r=16``; they replace those of ``config``.

    Raises:
        InvalidConfig: If the configuration is none of ours or does not fit, or the model has adapters or is wrapped.
        TargetsNotFound: If its targets match nothing.
        NoAdaptableLayers: If the model has no layer for an adapter.
        UnknownPreset: If ``preset`` is unknown, or has nothing to adapt in this model.
        UnknownName: If a tower or a role is unknown, or the model lacks the tower.
        InvalidRequest: If a selection cannot be read or matches nothing, or the budget is too small.
    """
    given = {"towers": towers, "roles": roles, "blocks": blocks, "expert_rank": expert_rank, "budget": budget}
    choice = {name: value for name, value in given.items() if value is not None}
    config = given_config = _configure(config, fields, choice)
    if config.spec.target_modules is not None or config.spec.target_parameters:
        if choice:
            names = ", ".join(choice)
            raise InvalidConfig(f"{names} selects layers, and the configuration names them too: leave one of both out.")
        decision = Decision("config", config.spec, "targets given in the configuration")
    else:
        check_host(model)  # its adapters would look like a misfit of the registry
        rank = {"rank": config.r} if isinstance(config, LoraConfig) else {}
        preset = choose_preset(preset, config.peft_type)
        decision = decide(model, preset, config.peft_type, example_inputs, **rank, **choice)
        for left_out in () if config.modules_to_save else decision.frozen:
            warnings.warn(left_out, stacklevel=2)
        if decision.spec.saves_alone:
            warnings.warn(decision.spec.describe_saved(), stacklevel=2)
        config = with_ranks(config.with_spec(decision.spec), decision)
    config = config.for_base(model.__dict__.get("name_or_path"))
    expand = partial(expand_shorthand, example_inputs=example_inputs)
    adapted = inject(model, config, adapter_name, expand=expand)
    warn_of_exclusions(adapted._survey().paths, given_config)  # noqa: SLF001 - its own class
    adapted.decision = decision.about([*adapted.targeted_module_names, *adapted.targeted_parameter_names])
    return adapted


def _configure(config: AdapterConfig | None, fields: Mapping[str, Any], choice: Mapping[str, Any]) -> AdapterConfig:
    """Return the configuration with fields given beside it, checked."""
    if config is not None and not isinstance(config, AdapterConfig):
        given = f"{type(config).__module__}.{type(config).__qualname__}"
        message = f"config is a {given}, not one of loradar's. Make one with the same fields: LoraConfig(r=8)."
        raise InvalidConfig(message, given=given)
    config = LoraConfig() if config is None else config
    options = [*signature(get_peft_model).parameters][2:-1]
    check_known(fields, [*(each.name for each in dataclass_fields(config)), *options], "get_peft_model")
    if "r" in fields and choice.get("budget") is not None:
        raise InvalidConfig(f"r={fields['r']!r} and budget={choice['budget']!r} both decide the rank: leave one out.")
    return replace(config, **fields)


def inject(
    model: nn.Module, config: AdapterConfig, adapter_name: str = "default", *, expand: Expand | None = None
) -> PeftModel:
    """Put an adapter into ``model`` as ``config`` states, in place, and return the wrapper that controls it.

    The model may be live or on the meta device. Nothing is changed unless everything can be done.

    Args:
        model: Any module.
        config: The configuration, with targets.
        adapter_name: Key of the adapter in the state dict.
        expand: The function that resolves shorthands in ``target_modules``; without it they are rejected.

    Raises:
        TargetsNotFound: If the targets match nothing, naming the closest names and their counts.
        NoAdaptableLayers: If the model has nothing that any target could match.
        InvalidConfig: If the configuration does not fit the model, or the model has adapters or is wrapped or sharded.
    """
    check_host(model)
    survey = survey_model(model)
    return PeftModel(survey, _prepare(survey, config, adapter_name, expand))


def _prepare(survey: Survey, config: AdapterConfig, adapter_name: str, expand: Expand | None = None) -> Prepared:
    prepared = build(survey, make_plan(survey, config, expand), adapter_name)
    prepared.initialise()
    return prepared
