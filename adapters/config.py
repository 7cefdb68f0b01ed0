"""``LoraConfig``: PEFT's fields and defaults, checked the moment it is made."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from ..errors import InvalidConfig
from ..targets import TargetSpec
from . import validation as valid
from .fields import peft_fields


# A standard-library dataclass: pydantic is no dependency of the adapters, and its error would be a page, not a line.
@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Where LoRA goes and how strong it is, in the names and defaults of ``peft.LoraConfig`` (0.21.2).

    Frozen: a configuration that passed its checks stays valid. ``dataclasses.replace`` makes a changed copy.

    Attributes:
        r: Rank of the update ``B @ A``.
        lora_alpha: Numerator of the scaling, ``lora_alpha / r``.
        lora_dropout: Dropout on the input of ``A``, in ``[0, 1)``.
        target_modules: Path suffixes, one regex for the whole path, or ``"all-linear"``.
        exclude_modules: What ``target_modules`` matches but must be left alone.
        modules_to_save: Modules trained in full and saved with the adapter.
        bias: Which biases of the base model train: ``none``, ``all`` or ``lora_only``.
        fan_in_fan_out: Kept for PEFT's file format; the layout is read from each layer's class.
        use_rslora: Scale by ``lora_alpha / sqrt(r)`` (arXiv:2312.03732).
        init_lora_weights: ``True`` as in the paper (``B`` zero), ``"gaussian"``, or ``False`` for a non-zero ``B``.
        layers_to_transform: Indices of the blocks to adapt; all when ``None``.
        layers_pattern: Name of the list those indices count in.
        rank_pattern: Ranks that differ from ``r``, by path regex.
        alpha_pattern: Alphas that differ from ``lora_alpha``, by path regex.
        task_type: PEFT task type; classification and question answering save their head.
        inference_mode: Whether the adapter is frozen.
        base_model_name_or_path: Base model the adapter belongs to.
        revision: Revision of that base model.
        target_parameters: Bare parameters to adapt; refused when injecting, in this version.

    Raises:
        InvalidConfig: One line naming the field, the value and the way out.
    """

    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    target_modules: Collection[str] | None = None
    exclude_modules: Collection[str] | None = None
    modules_to_save: Collection[str] | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    init_lora_weights: bool | str = True
    layers_to_transform: Collection[int] | int | None = None
    layers_pattern: Collection[str] | None = None
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    task_type: str | None = None
    inference_mode: bool = False
    base_model_name_or_path: str | None = None
    revision: str | None = None
    target_parameters: Collection[str] | None = None

    def __new__(cls, *args: object, **values: object) -> Self:
        """Refuse unknown fields before the generated constructor raises a ``TypeError`` over them."""
        if args:
            raise InvalidConfig(f"LoraConfig takes its fields by name, not {args[0]!r}: write r=8, for example.")
        valid.check_known(values, [known.name for known in fields(cls)])
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, value in _checked(self).items():
            object.__setattr__(self, name, value)
        _check_together(self)

    @property
    def spec(self) -> TargetSpec:
        """The part of the configuration that says where the adapters go."""
        names = ("target_modules", "exclude_modules", "modules_to_save", "target_parameters")
        return TargetSpec(**{name: getattr(self, name) for name in names})

    def with_spec(self, spec: TargetSpec) -> Self:
        """Return a copy that goes where ``spec`` says; what this one excludes and saves itself stays."""
        return replace(
            self,
            target_modules=spec.target_modules,
            exclude_modules=self.exclude_modules or spec.exclude_modules,
            modules_to_save=self.modules_to_save or spec.modules_to_save,
            target_parameters=self.target_parameters or spec.target_parameters,
        )

    def to_peft_dict(self) -> dict[str, Any]:
        """Return what peft 0.21.2 keeps in ``adapter_config.json``, its unsupported fields at their defaults."""
        own = {known.name: _as_json(getattr(self, known.name)) for known in fields(self)}
        return {**peft_fields().inert, **peft_fields().idle, **own, "auto_mapping": None, "peft_type": "LORA"}

    @classmethod
    def from_peft_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a configuration from the content of an ``adapter_config.json``.

        Raises:
            InvalidConfig: If it is no LoRA, has an impossible value, or uses a PEFT feature loradar lacks.
        """
        if data.get("peft_type", "LORA") != "LORA":
            raise InvalidConfig(f"peft_type={data['peft_type']!r} is not supported: only 'LORA' adapters load.")
        known = {each.name for each in fields(cls)}
        for name in data.keys() - known:
            _check_inert(name, data[name])
        return cls(**{name: value for name, value in data.items() if name in known})


def _checked(config: LoraConfig) -> dict[str, Any]:
    """Return every field in its checked, immutable form."""
    checks: dict[str, tuple[Any, ...]] = {
        "r": (valid.rank,),
        "lora_alpha": (valid.positive,),
        "lora_dropout": (valid.probability,),
        "target_modules": (valid.targets,),
        "exclude_modules": (valid.targets,),
        "modules_to_save": (valid.names,),
        "bias": (valid.choice, valid.BIASES),
        "fan_in_fan_out": (valid.flag,),
        "use_rslora": (valid.flag,),
        "init_lora_weights": (valid.initialisation,),
        "layers_to_transform": (valid.indices,),
        "layers_pattern": (valid.targets,),
        "rank_pattern": (valid.patterns, valid.rank),
        "alpha_pattern": (valid.patterns, valid.positive),
        "task_type": (valid.task, peft_fields().task_heads),
        "inference_mode": (valid.flag,),
        "base_model_name_or_path": (valid.text,),
        "revision": (valid.text,),
        "target_parameters": (valid.names,),
    }
    return {name: check(name, getattr(config, name), *more) for name, (check, *more) in checks.items()}


def _check_together(config: LoraConfig) -> None:
    """Refuse fields that contradict each other, as PEFT does."""
    is_regex = isinstance(config.target_modules, str)
    if is_regex and config.layers_to_transform is not None:
        why = "cannot narrow a regex in target_modules: put the indices in the regex, or give a list of suffixes."
        raise valid.refusal("layers_to_transform", config.layers_to_transform, why)
    if config.layers_pattern and config.layers_to_transform is None:
        why = "needs layers_to_transform: say which blocks."
        raise valid.refusal("layers_pattern", config.layers_pattern, why)


def _check_inert(name: str, value: object) -> None:
    """Accept a field of PEFT's that loradar lacks only where it changes nothing."""
    facts = peft_fields()
    if name in facts.idle or name in facts.bookkeeping or value == facts.inert.get(name):
        return
    if name in facts.inert:
        way_out = f"load this adapter with peft, or save it with {name}={facts.inert[name]!r}."
        raise valid.refusal(name, value, f"is a PEFT feature loradar does not have: {way_out}")
    if value:
        raise valid.refusal(name, value, "is unknown to peft 0.21.2 and may change the adapter: load it with peft.")


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
