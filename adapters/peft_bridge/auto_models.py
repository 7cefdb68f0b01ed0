"""``AutoPeftModel`` and its classes by task: a saved adapter together with the base model that it names, as in PEFT."""

from collections.abc import Sequence
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from safetensors import safe_open

from ...errors import InvalidConfig, quoted
from ...extras import require
from ..config import AdapterConfig
from ..files.embeddings import find_embeddings
from ..hub.transfer import CONFIG, DOWNLOAD, WEIGHTS, locate
from ..injection.apply import PREFIX
from ..injection.host_model import survey_model
from ..model import TASKS, PeftModel
from ..peft_forms import read_config

CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoModel",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
"""The class of transformers that builds the base model for a task."""


class AutoPeftModel:
    """Load an adapter of any task, and the base model that it names; the classes by task take those of a task."""

    _task: ClassVar[str | None] = None

    def __init__(self) -> None:
        name = type(self).__name__
        raise InvalidConfig(f"{name} is loaded, not made: {name}.from_pretrained(folder or 'org/repo').")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: AdapterConfig | None = None,
        revision: str | None = None,
        import_allowlist: Sequence[str] = ("transformers",),
        **options: Any,
    ) -> PeftModel:
        """Build the base model that a saved adapter names, and put the adapter into it.

        A vocabulary is resized to that of the embeddings in the adapter's file.

        Args:
            pretrained_model_name_or_path: A folder, or a repo on the hub, as in ``PeftModel.from_pretrained``.
            adapter_name: Its name in the model.
            is_trainable: Whether it trains.
            config: The configuration to use instead of that in the folder.
            revision: Revision of the adapter's repo.
            import_allowlist: Libraries that the class of the base model may be imported from, if the file names one.
            options: ``subfolder`` of the adapter; options of a download, of both; all others are of the base model's
                ``from_pretrained``, such as ``dtype`` and ``device_map``.

        Raises:
            LoradarError: As ``PeftModel.from_pretrained``.
            InvalidConfig: If the adapter is of another task, or its file names no base model or no class of it.
        """
        require("scan", "transformers")
        download = {name: options[name] for name in DOWNLOAD if name in options}
        place = {"revision": revision, "subfolder": options.pop("subfolder", None)}
        folder = locate(pretrained_model_name_or_path, f"{cls.__name__}.from_pretrained", {**download, **place})
        stated = config or read_config(folder / CONFIG)
        if (name := stated.base_model_name_or_path) is None:
            way_out = "build the base model, and call PeftModel.from_pretrained(model, folder)"
            raise InvalidConfig(f"The configuration in {folder} names no base model: {way_out}.")
        base = cls._find_class(stated, import_allowlist).from_pretrained(name, revision=stated.revision, **options)
        if (folder / WEIGHTS).exists():
            _resize(base, folder)
        own = TASKS.get(cls._task, PeftModel)
        return own.from_pretrained(base, folder, adapter_name, is_trainable, config=config)

    @classmethod
    def _find_class(cls, stated: AdapterConfig, allowed: Sequence[str]) -> Any:
        """Return the class of the base model: of the task, or the one that the file of an adapter of no task names."""
        own, mapping = getattr(stated.task_type, "value", None), stated.auto_mapping or {}
        task = own or cls._task
        if cls._task not in (None, task):
            message = f"The adapter is of task_type={task!r}, and {cls.__name__} is for {cls._task!r}"
            raise InvalidConfig(f"{message}: load it with AutoPeftModel.", task_type=task)
        library, name = mapping.get("parent_library"), mapping.get("base_model_class")
        if own is None and library and name:
            if str(library).partition(".")[0] not in allowed:
                message = f"The adapter names a class of {library!r} to import, and allowed is {quoted([*allowed])}"
                raise InvalidConfig(f"{message}: if you trust it, give import_allowlist=[{library!r}].")
            try:
                return getattr(import_module(library), name)
            except (ImportError, AttributeError) as error:
                message = f"The adapter names {name!r} of {library!r}, which cannot be imported: {error}"
                raise InvalidConfig(f"{message}. Build the base model, and call PeftModel.from_pretrained.") from error
        if task is None:
            message = "The configuration states neither a task nor a class of the base model"
            raise InvalidConfig(f"{message}: use a class of a task, such as AutoPeftModelForCausalLM.")
        return getattr(import_module("transformers"), CLASSES[task])


def _resize(base: Any, folder: Path) -> None:
    """Resize the vocabulary of a base model to the embeddings in an adapter's file, if it has any of another size."""
    inside = ("", "base_layer.", "token_adapter.base_layer.")
    own = {f"{PREFIX}{path}.{each}weight": path for path in find_embeddings(survey_model(base)) for each in inside}
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        rows = {own[key]: file.get_slice(key).get_shape()[0] for key in file.keys() if key in own}  # noqa: SIM118 - no dictionary
    for path, size in rows.items():
        if len(base.get_submodule(path).weight) != size:
            base.resize_token_embeddings(size, mean_resizing=False)


class AutoPeftModelForCausalLM(AutoPeftModel):
    """Load an adapter of task type ``CAUSAL_LM`` with its base model."""

    _task = "CAUSAL_LM"


class AutoPeftModelForFeatureExtraction(AutoPeftModel):
    """Load an adapter of task type ``FEATURE_EXTRACTION`` with its base model."""

    _task = "FEATURE_EXTRACTION"


class AutoPeftModelForQuestionAnswering(AutoPeftModel):
    """Load an adapter of task type ``QUESTION_ANS`` with its base model."""

    _task = "QUESTION_ANS"


class AutoPeftModelForSeq2SeqLM(AutoPeftModel):
    """Load an adapter of task type ``SEQ_2_SEQ_LM`` with its base model."""

    _task = "SEQ_2_SEQ_LM"


class AutoPeftModelForSequenceClassification(AutoPeftModel):
    """Load an adapter of task type ``SEQ_CLS`` with its base model."""

    _task = "SEQ_CLS"


class AutoPeftModelForTokenClassification(AutoPeftModel):
    """Load an adapter of task type ``TOKEN_CLS`` with its base model."""

    _task = "TOKEN_CLS"
