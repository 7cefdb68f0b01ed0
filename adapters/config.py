"""``LoraConfig`` and ``IA3Config``: PEFT's fields and defaults, checked the moment they are made."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

from ..domain.schema import to_json
from ..domain.targets import TargetSpec
from ..errors import InvalidConfig
from . import validation as valid
from .fields import peft_fields, task_heads


def _field(check: Callable[..., Any], *more: Any, default: Any) -> Any:
    """Return a dataclass field whose value goes through ``check(name, value, *more)``."""
    metadata = {"check": lambda name, value: check(name, value, *more)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


# A standard-library dataclass: pydantic is no dependency of the adapters, and its error would be a page, not a line.
@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What the configurations of all methods share, in the names and defaults of peft 0.21.2.

    Frozen: a configuration that passed its checks stays valid. ``dataclasses.replace`` makes a changed copy.

    Attributes:
        target_modules: Path suffixes, one regex for the whole path, or ``"all-linear"``.
        exclude_modules: What ``target_modules`` matches but must be left alone.
        modules_to_save: Modules trained in full and saved with the adapter.
        fan_in_fan_out: Kept for PEFT's file format; the layout is read from each layer's class.
        task_type: PEFT task type; classification and question answering save their head.
        inference_mode: Whether the adapter is frozen.
        base_model_name_or_path: Base model the adapter belongs to.
        revision: Revision of that base model.

    Raises:
        InvalidConfig: One line naming the field, the value and the way out.
    """

    peft_type: ClassVar[str]
    prefix: ClassVar[str]
    """What the names of the adapter's own parts begin with."""

    target_modules: Collection[str] | None = _field(valid.targets, default=None)
    exclude_modules: Collection[str] | None = _field(valid.targets, default=None)
    modules_to_save: Collection[str] | None = _field(valid.names, default=None)
    fan_in_fan_out: bool = _field(valid.flag, default=False)
    task_type: str | None = _field(valid.task, task_heads, default=None)
    inference_mode: bool = _field(valid.flag, default=False)
    base_model_name_or_path: str | None = _field(valid.text, default=None)
    revision: str | None = _field(valid.text, default=None)

    def __new__(cls, *args: object, **values: object) -> Self:
        """Refuse unknown fields before the generated constructor raises a ``TypeError`` over them."""
        if args:
            raise InvalidConfig(f"{cls.__name__} takes its fields by name, not {args[0]!r}: write r=8, for example.")
        valid.check_known(values, [known.name for known in fields(cls)], cls.__name__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for known in fields(self):
            object.__setattr__(self, known.name, known.metadata["check"](known.name, getattr(self, known.name)))
        self._check_together()

    def _check_together(self) -> None:
        """Refuse fields that contradict each other."""

    @property
    def spec(self) -> TargetSpec:
        """The part of the configuration that says where the adapters go."""
        return TargetSpec(**{each.name: getattr(self, each.name, None) for each in fields(TargetSpec)})

    def with_spec(self, spec: TargetSpec) -> Self:
        """Return a copy that goes where ``spec`` says; what this one excludes and saves itself stays."""
        own = {known.name for known in fields(self)}
        said = {name: value for name, value in to_json(spec).items() if name in own}
        kept = {name: value for name in said if name != "target_modules" and (value := getattr(self, name))}
        return replace(self, **{**said, **kept})

    @property
    def initialisation(self) -> bool | str:
        """How the adapter starts."""
        raise NotImplementedError

    def to_peft_dict(self) -> dict[str, Any]:
        """Return what peft 0.21.2 keeps in ``adapter_config.json``, its unsupported fields at their defaults."""
        facts = peft_fields(self.peft_type)
        own = {known.name: _as_json(getattr(self, known.name)) for known in fields(self)}
        return {**facts.inert, **facts.idle, **own, "auto_mapping": None, "peft_type": self.peft_type}


@dataclass(frozen=True, kw_only=True)
class LoraConfig(AdapterConfig):
    """Where LoRA goes and how strong it is, in the names and defaults of ``peft.LoraConfig`` (0.21.2).

    Attributes:
        r: Rank of the update ``B @ A``.
        lora_alpha: Numerator of the scaling, ``lora_alpha / r``.
        lora_dropout: Dropout on the input of ``A``, in ``[0, 1)``.
        bias: Which biases of the base model train: ``none``, ``all`` or ``lora_only``.
        use_rslora: Scale by ``lora_alpha / sqrt(r)`` (arXiv:2312.03732).
        init_lora_weights: ``True`` as in the paper (``B`` zero), ``"gaussian"``, or ``False`` for a non-zero ``B``.
        layers_to_transform: Indices of the blocks to adapt; all when ``None``.
        layers_pattern: Name of the list those indices count in.
        rank_pattern: Ranks that differ from ``r``, by path regex.
        alpha_pattern: Alphas that differ from ``lora_alpha``, by path regex.
        target_parameters: Bare parameters to adapt, such as fused experts, by suffixes of their paths.

    Raises:
        InvalidConfig: One line naming the field, the value and the way out.
    """

    peft_type = "LORA"
    prefix = "lora_"

    r: int = _field(valid.rank, default=8)
    lora_alpha: float = _field(valid.positive, default=8)
    lora_dropout: float = _field(valid.probability, default=0.0)
    bias: Literal["none", "all", "lora_only"] = _field(valid.choice, valid.BIASES, default="none")
    use_rslora: bool = _field(valid.flag, default=False)
    init_lora_weights: bool | str = _field(valid.initialisation, default=True)
    layers_to_transform: Collection[int] | int | None = _field(valid.indices, default=None)
    layers_pattern: Collection[str] | None = _field(valid.targets, default=None)
    rank_pattern: Mapping[str, int] = _field(valid.patterns, valid.rank, default=dict)
    alpha_pattern: Mapping[str, float] = _field(valid.patterns, valid.positive, default=dict)
    target_parameters: Collection[str] | None = _field(valid.names, default=None)

    @property
    def initialisation(self) -> bool | str:
        """``init_lora_weights``."""
        return self.init_lora_weights

    def _check_together(self) -> None:
        """Refuse fields that contradict each other, as PEFT does."""
        is_regex = isinstance(self.target_modules, str)
        if is_regex and self.layers_to_transform is not None:
            why = "cannot narrow a regex in target_modules: put the indices in the regex, or give a list of suffixes."
            raise valid.refusal("layers_to_transform", self.layers_to_transform, why)
        if self.layers_pattern and self.layers_to_transform is None:
            raise valid.refusal("layers_pattern", self.layers_pattern, "needs layers_to_transform: say which blocks.")


@dataclass(frozen=True, kw_only=True)
class IA3Config(AdapterConfig):
    """Where IA3 goes, in the names and defaults of ``peft.IA3Config`` (0.21.2).

    Attributes:
        feedforward_modules: Those of ``target_modules`` that are scaled at their input, as suffixes or a regex.
        init_ia3_weights: ``True``: factors of one, which change nothing; ``False``: normally distributed.

    Raises:
        InvalidConfig: One line naming the field, the value and the way out.
    """

    peft_type = "IA3"
    prefix = "ia3_"

    feedforward_modules: Collection[str] | None = _field(valid.targets, default=None)
    init_ia3_weights: bool = _field(valid.flag, default=True)

    @property
    def initialisation(self) -> bool | str:
        """``init_ia3_weights``."""
        return self.init_ia3_weights

    def to_peft_dict(self) -> dict[str, Any]:
        """Return what peft 0.21.2 keeps; without feed-forward modules it takes an empty list only."""
        return {**super().to_peft_dict(), "feedforward_modules": _as_json(self.feedforward_modules or ())}

    def _check_together(self) -> None:
        """Refuse feed-forward modules that are no targets, as PEFT does."""
        inner, outer = self.feedforward_modules, self.target_modules
        if isinstance(inner, tuple) and isinstance(outer, tuple) and not {*inner} <= {*outer}:
            raise valid.refusal("feedforward_modules", inner, f"must be a part of target_modules={outer!r}.")


METHODS: dict[str, type[AdapterConfig]] = {each.peft_type: each for each in (LoraConfig, IA3Config)}
"""The methods that loradar injects itself, by PEFT's names."""


def config_from_peft(data: Mapping[str, Any]) -> AdapterConfig:
    """Build a configuration from the content of an ``adapter_config.json``.

    Raises:
        InvalidConfig: If it is of another method, has an impossible value, or uses a PEFT feature loradar lacks.
    """
    peft_type = data.get("peft_type", "LORA")
    config_class = METHODS.get(peft_type) if isinstance(peft_type, str) else None
    if config_class is None:
        raise InvalidConfig(f"peft_type={peft_type!r} is not supported: only {' and '.join(METHODS)} adapters load.")
    known = {each.name for each in fields(config_class)}
    for name in data.keys() - known:
        _check_inert(config_class.peft_type, name, data[name])
    return config_class(**{name: value for name, value in data.items() if name in known})


def _check_inert(peft_type: str, name: str, value: object) -> None:
    """Accept a field of PEFT's that loradar lacks only where it changes nothing."""
    facts = peft_fields(peft_type)
    if name in facts.idle or name in facts.bookkeeping or (name in facts.inert and value == facts.inert[name]):
        return
    if name in facts.inert:
        way_out = f"load this adapter with peft, or save it with {name}={facts.inert[name]!r}."
        raise valid.refusal(name, value, f"is a PEFT feature loradar does not have: {way_out}")
    if value:
        raise valid.refusal(name, value, "is unknown to peft 0.21.2 and may change the adapter: load it with peft.")


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
