"""``PeftModel``, the wrapper around a model with adapters, with its files and the hub."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from ..notebook import render_table
from .base_weights import base_key_map, get_base_model_state_dict, load_base_state_dict
from .checks import check_flag, check_known
from .choice import Choice, choose
from .config import AdapterConfig
from .files.embeddings import AUTO
from .files.load import Source, hotswap, load, reread
from .hub.card import write_card
from .hub.transfer import locate, push
from .injection.apply import Prepared, adapters_in, prepare
from .injection.forward import Forward, by_sample
from .injection.host_model import Survey, survey_model
from .injection.match import warn_of_exclusions
from .injection.plan import check_host
from .peft_forms import as_config
from .switching import AdaptedModel, Switching

PASSED_BY_TRAINERS = ("save_function", "max_shard_size")
"""Arguments of ``save_pretrained`` for models of many files."""


class PeftModel(Switching):
    """A model with adapters in it, with the methods and the state-dict keys of ``peft.PeftModel`` (0.21.2).

    Made by ``inject`` and ``PeftModel.from_pretrained``. Attributes it lacks (``config``, ``device``) are those of the
    user's model, which is ``peft_model.base_model.model``.

    Attributes:
        base_model: The level that holds the user's model.
        peft_config: The configurations, by adapter name.
        targeted_module_names: Paths of the layers of all adapters, those of the first in module order.
        targeted_parameter_names: Paths of their bare parameters.
        decision: The decision on its targets; ``None`` for a loaded adapter.
    """

    inner_name = "base_model"
    base_model: AdaptedModel
    forward: Callable[..., Any]
    special_peft_forward_args = frozenset({"adapter_names"})
    """The arguments of ``forward`` that are not the model's own."""
    _task: ClassVar[str | None] = None
    """The task type of the class: that of its adapters which state none."""

    def __init__(
        self,
        model: nn.Module,
        peft_config: AdapterConfig,
        adapter_name: str = "default",
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
    ) -> None:
        """Put an adapter into ``model``, in place.

        Args:
            model: Any module, live or on the meta device.
            peft_config: Method, strength and, if it names any, the targets. A configuration of peft's for LoRA or IA3
                is taken as it is.
            adapter_name: Key of the adapter in the state dict.
            autocast_adapter_dtype: Whether the adapter's tensors are float32 where the layers have half precision.
            low_cpu_mem_usage: Whether the adapter's tensors are on the meta device, until an adapter is loaded into
                them.

        Raises:
            LoradarError: As ``get_peft_model``.
        """
        check_host(model)
        chosen = choose(model, self._for_task(peft_config))
        self.adapt(model, chosen, adapter_name, autocast=autocast_adapter_dtype, on_meta=low_cpu_mem_usage)

    @classmethod
    def blank(cls, task_type: str | None) -> "PeftModel":
        """Return a model without anything in it, of the class of a task, as in PEFT."""
        own = TASKS.get(task_type or "", cls)
        return own.__new__(own)

    def _for_task(self, config: AdapterConfig) -> AdapterConfig:
        """Return a configuration with the task of this class if it states none, so that the head trains too."""
        config = as_config(config)
        return config if self._task is None or config.task_type else replace(config, task_type=self._task)

    def adapt(self, model: nn.Module, chosen: Choice, adapter_name: str, **storage: bool) -> None:
        """Put the adapter chosen for a model into it, and take hold of it; nothing is changed unless everything can be.

        Raises:
            LoradarError: As ``get_peft_model``.
        """
        survey = survey_model(model)
        self.hold(survey, prepare(survey, chosen.config, adapter_name, chosen.expand, **storage))
        warn_of_exclusions(survey.paths, chosen.given)
        self.decision = chosen.decision.about([*self.targeted_module_names, *self.targeted_parameter_names])

    def hold(self, survey: Survey, prepared: Prepared) -> None:
        """Attach an adapter to the model that it was built for, and take hold of that."""
        super().__init__()
        self.base_model = AdaptedModel(survey, prepared)
        self.forward = Forward(survey.model, self._steering, survey.around)
        self.training = survey.model.training

    def get_base_model(self) -> nn.Module:
        """Return the user's model, adapters included."""
        return self.base_model.model

    def peft_class(self) -> str:
        """Return PEFT's class of the same task."""
        return f"peft_model.{type(self).__name__}"

    def _repr_html_(self) -> str:
        """Return the table of adapters that a notebook shows, with what they have in the model."""
        with self._surveyed():
            wrappers = [wrapper for _, wrapper in adapters_in(self._survey())]
            rows = [
                (
                    name,
                    config.method,
                    getattr(config, "r", ""),
                    sum(name in wrapper.adapters() for wrapper in wrappers),
                    f"{sum(tensor.numel() for tensor in self.adapter_state(name).values()):,}",
                    "yes" if name in self.active_adapters else "no",
                )
                for name, config in self.peft_config.items()
            ]
        title = type(self.get_base_model()).__name__
        title += f" · {self.decision.describe()}" if self.decision else ""
        return render_table(title, ("adapter", "method", "rank", "layers", "parameters", "active"), rows)

    def _replicate_for_data_parallel(self) -> "PeftModel":
        """Return a replica that runs its own model: ``forward`` is bound to the original's."""
        replica: PeftModel = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]

        def forward(*args: Any, **kwargs: Any) -> Any:  # the replica gets its model after this returns
            return Forward(replica.base_model.model, self._steering).run(*args, **kwargs)

        replica.forward = forward
        return replica

    # Several adapters

    def add_adapter(
        self,
        adapter_name: str,
        peft_config: AdapterConfig,
        low_cpu_mem_usage: bool = False,
        autocast_adapter_dtype: bool = True,
    ) -> None:
        """Add a further adapter to the model, inactive until ``set_adapter`` activates it.

        Args:
            adapter_name: Its name.
            peft_config: Its configuration; without targets they are decided as by ``get_peft_model``, and without a
                task type it has that of the model's class, whose head it trains.
            low_cpu_mem_usage: Whether its tensors are on the meta device until values are loaded.
            autocast_adapter_dtype: Whether its tensors are float32 where the layers have half precision.

        Raises:
            InvalidConfig: If the name is taken, the method another one, or the configuration does not fit the model.
            TargetsNotFound: As ``get_peft_model``.
            NoAdaptableLayers: As ``get_peft_model``.
        """
        peft_config = self._for_task(peft_config)
        self._check_new(adapter_name, peft_config)
        storage = {"autocast": autocast_adapter_dtype, "on_meta": low_cpu_mem_usage}
        with self._unmerged():
            chosen = choose(self.get_base_model(), peft_config)
            survey = self._survey()
            prepared = prepare(survey, chosen.config, adapter_name, chosen.expand, **storage)
        warn_of_exclusions(survey.paths, peft_config)
        self._add(prepared)

    def generate(self, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Call ``generate`` of the user's model; ``adapter_names`` as in ``forward``."""
        model: Any = self.get_base_model()
        with by_sample(self._steering, model, adapter_names):
            return model.generate(*args, **kwargs)

    # Files

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        safe_serialization: bool = True,
        selected_adapters: Sequence[str] | None = None,
        save_embedding_layers: bool | str = AUTO,
        is_main_process: bool = True,
        path_initial_model_for_weight_conversion: str | PathLike[str] | None = None,
        *,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        **others: Any,
    ) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT does for each adapter, and a card.

        An adapter not called ``default`` goes into a subfolder of its name; a ``README.md`` edited by the user is kept.

        Args:
            save_directory: The folder.
            safe_serialization: Whether to write safetensors; otherwise ``adapter_model.bin``, a pickle of tensors.
            selected_adapters: Names of the adapters; all when ``None``.
            save_embedding_layers: Whether to write the model's embeddings too. ``"auto"`` writes adapted ones, and both
                if the vocabulary is not that of the configuration's checkpoint; with a warning.
            is_main_process: Whether this process writes.
            path_initial_model_for_weight_conversion: If given, an adapter whose initialisation changed base weights
                (PiSSA, OLoRA, CorDA) is written as an ordinary LoRA of twice the rank, on the weights from before.
            state_dict: The values, as trainers that shard a model gather them.
            others: ``save_function`` and ``max_shard_size``, which trainers pass, change nothing.

        Raises:
            InvalidConfig: If an adapter is unknown or has no values, or an argument cannot be honoured.
            AdapterUnreadable: If the folder cannot be written.
        """
        check_flag("safe_serialization", safe_serialization)
        names = [*self.peft_config] if selected_adapters is None else selected_adapters
        self._check_known(names)
        known = [*signature(PeftModel.save_pretrained).parameters][2:-1]
        check_known(others, [*known, *PASSED_BY_TRAINERS], "save_pretrained")
        if not is_main_process:
            return
        folder, is_converted = Path(save_directory), path_initial_model_for_weight_conversion is not None
        how = {"is_converted": is_converted, "as_pickle": not safe_serialization}
        with self._surveyed():
            for name in names:
                self.write_files(folder, name, state_dict, save_embedding_layers=save_embedding_layers, **how)
            write_card(self, folder)

    push_to_hub = push

    # The base model's own weights

    base_key_map = base_key_map
    get_base_model_state_dict = get_base_model_state_dict
    load_base_state_dict = load_base_state_dict

    @classmethod
    def from_pretrained(
        cls,
        model: nn.Module,
        model_id: str | PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: AdapterConfig | None = None,
        autocast_adapter_dtype: bool = True,
        ephemeral_gpu_offload: bool = False,
        low_cpu_mem_usage: bool = False,  # noqa: ARG003 - PEFT's signature
        key_mapping: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "PeftModel":
        """Put a saved adapter, ours or PEFT's, into ``model``, in place; frozen and in eval mode unless trainable.

        Args:
            model: The model.
            model_id: A folder, or a repo on the hub: ``org/repo``, or ``hub:org/repo/subfolder@revision``.
            adapter_name: Its name in the model.
            is_trainable: Whether it trains.
            config: The configuration to use instead of that in the folder; it becomes the model's.
            autocast_adapter_dtype: Whether its tensors are float32 where the layers have half precision.
            ephemeral_gpu_offload: Always ``False``: a layer computes where its weight is.
            low_cpu_mem_usage: Changes nothing: the tensors are never filled before the values of the file are.
            key_mapping: Regexes and their replacements, of which the first that matches changes a key of the file,
                without its prefix ``base_model.model``; those of a transformers model by default.
            options: ``subfolder``; for the hub ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and
                ``force_download``; ``ignore_mismatched_sizes`` leaves tensors of other sizes out, with a warning;
                ``torch_device`` changes nothing, and ``device_map`` has to name the devices where the layers are.

        Raises:
            HubFailed: If it cannot be downloaded from the hub; the model is unchanged, as by the other errors.
            AdapterUnreadable: If a file is missing, damaged or does not fit.
            InvalidConfig: If the model has adapters, or the adapter or an argument needs what loradar lacks.
        """
        check_host(model)
        options |= {"ephemeral_gpu_offload": ephemeral_gpu_offload}
        source = Source.find(model, model_id, "from_pretrained", options, key_mapping)
        survey = survey_model(model)
        config = None if config is None else as_config(config)
        source = source._replace(autocast=autocast_adapter_dtype, config=config)
        prepared = load(survey, source, adapter_name, is_trainable=is_trainable)
        adapted = cls.blank(prepared.config.task_type)
        adapted.hold(survey, prepared)
        return adapted if is_trainable else adapted.eval()

    def load_adapter(
        self,
        model_id: str | PathLike[str],
        adapter_name: str,
        is_trainable: bool = False,
        torch_device: str | None = None,
        autocast_adapter_dtype: bool = True,
        ephemeral_gpu_offload: bool = False,
        low_cpu_mem_usage: bool = False,  # noqa: ARG002 - PEFT's signature
        key_mapping: Mapping[str, str] | None = None,
        **options: Any,
    ) -> _IncompatibleKeys:
        """Add a saved adapter, ours or PEFT's, inactive until it is activated; without ``is_trainable``, set eval mode.

        Under the name of an adapter in the model, its weights are copied into that one, as trainers do to resume.
        The arguments are those of ``from_pretrained``; ``is_trainable`` and ``autocast_adapter_dtype`` are for a new
        one.

        Returns:
            PEFT's result, with no missing and no unexpected keys: a file with such keys is rejected.

        Raises:
            AdapterUnreadable: As ``from_pretrained``; or if it does not fit the adapter in the model.
            InvalidConfig: As ``from_pretrained``.
        """
        options |= {"torch_device": torch_device, "ephemeral_gpu_offload": ephemeral_gpu_offload}
        source = Source.find(self.get_base_model(), model_id, "load_adapter", options, key_mapping)
        source = source._replace(autocast=autocast_adapter_dtype)
        if (known := self.peft_config.get(adapter_name)) is not None:
            self._give_storage(adapter_name)
            survey, wanted = self._survey(), self.adapter_state(adapter_name)
            self._put_statistics(reread(survey, source, adapter_name, wanted, known), adapter_name)
        else:
            with self._unmerged():
                prepared = load(self._survey(), source, adapter_name, is_trainable=is_trainable)
            self._check_new(adapter_name, prepared.config)
            self._add(prepared, trainable=is_trainable)
        if not is_trainable:
            self.eval()
        return _IncompatibleKeys([], [])

    def create_or_update_model_card(self, output_dir: str | PathLike[str]) -> None:
        """Write the model card into a folder, unless it has one written or edited by the user."""
        write_card(self, Path(output_dir))

    def hotswap_adapter(self, folder: str | PathLike[str], adapter_name: str = "default") -> None:
        """Copy the weights of a saved adapter into one in the model, in place: a compiled model stays compiled.

        The saved one may have lower ranks, whose factors are padded with zeros, and other alphas, which are multiplied
        into ``B``: a compiler treats the scaling as a constant.

        Raises:
            AdapterUnreadable: If a file is missing or damaged, or its layers or shapes differ; nothing is changed.
            InvalidConfig: If there is no such adapter, or it is merged.
        """
        self._check_known((adapter_name,))
        found = hotswap(
            self._survey(), locate(folder, "hotswap_adapter", {}), adapter_name, self.peft_config[adapter_name]
        )
        self._put_statistics(found, adapter_name)


class PeftModelForSequenceClassification(PeftModel):
    """A model of task type ``SEQ_CLS``."""

    _task = "SEQ_CLS"


class PeftModelForSeq2SeqLM(PeftModel):
    """A model of task type ``SEQ_2_SEQ_LM``."""

    _task = "SEQ_2_SEQ_LM"


class PeftModelForCausalLM(PeftModel):
    """A model of task type ``CAUSAL_LM``."""

    _task = "CAUSAL_LM"


class PeftModelForTokenClassification(PeftModel):
    """A model of task type ``TOKEN_CLS``."""

    _task = "TOKEN_CLS"


class PeftModelForQuestionAnswering(PeftModel):
    """A model of task type ``QUESTION_ANS``."""

    _task = "QUESTION_ANS"


class PeftModelForFeatureExtraction(PeftModel):
    """A model of task type ``FEATURE_EXTRACTION``."""

    _task = "FEATURE_EXTRACTION"


TASKS = {each._task: each for each in PeftModel.__subclasses__()}  # noqa: SLF001 - of its own classes
"""The class of a model by the task type of its first adapter, as in PEFT."""
