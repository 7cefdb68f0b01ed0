"""``LoraConfig`` and ``IA3Config``: PEFT's fields and defaults, checked whenever they are set.

An error names the field, the value and the way out in one line.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

from ..domain.targets import NO_TARGETS, TargetSpec
from ..errors import InvalidConfig
from ..warn import warn
from .checks import (
    BIASES,
    CHANGING_THE_BASE,
    REPEATED_ON_LOAD,
    Names,
    RuntimeConfig,
    as_python,
    check_bits,
    check_choice,
    check_flag,
    check_idle,
    check_indices,
    check_initialisation,
    check_lacking,
    check_list_names,
    check_mapping,
    check_method,
    check_names,
    check_options,
    check_patterns,
    check_positive,
    check_probability,
    check_ranges,
    check_rank,
    check_runtime,
    check_targets,
    check_task,
    check_text,
    check_tokens,
    invalid,
)
from .peft_forms import PeftForms, check_fields

FREE_IN_MODEL = (
    *("task_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping", "peft_version"),
    *("fan_in_fan_out", "init_lora_weights", "init_ia3_weights", "runtime_config"),
)
"""Fields that can be set in the configuration of a model: they do not describe its layers."""
SHARED_OUT_BY_EVA = ("target_modules", "rank_pattern", "alpha_pattern")
"""Fields that PEFT's ``initialize_lora_eva_weights`` sets after it gave the layers other ranks."""

NEEDED_OPTIONS = (
    ("loftq", "loftq_config", "{'loftq_bits': 4, 'loftq_iter': 1}"),
    ("lora_ga", "lora_ga_config", "peft.LoraGAConfig()"),
)
"""The initialisations that PEFT rejects without options, the field for them and an example."""


def _field(checked: Callable[..., Any], *more: Any, default: Any, **notes: Any) -> Any:
    """Return a dataclass field whose value is that of ``checked(name, value, *more)``."""
    metadata = {"check": lambda name, value: checked(name, value, *more), **notes}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _lacking(default: Any) -> Any:
    """Return a field of a feature of PEFT's that loradar lacks: it has its default alone."""
    return _field(check_lacking, default, default=default, lacks=default, is_lora_variant=True)


def _idle(default: Any) -> Any:
    """Return a field that has no effect without such a feature."""
    return _field(check_idle, default() if callable(default) else default, default=default, is_idle=True)


# A standard-library dataclass: pydantic is no dependency of the adapters, and its error would be a page, not a line.
@dataclass(kw_only=True)
class AdapterConfig(PeftForms):
    """The fields common to all methods, with the names and defaults of peft 0.21.2.

    Attributes can be set. Every value is checked at once; fields that contradict each other are rejected when the
    configuration is made or used, so that several can be set one after the other. A model takes a copy.

    Attributes:
        target_modules: Path suffixes, one regex for the whole path, or ``"all-linear"``.
        exclude_modules: Suffixes or a regex of matched modules to leave out.
        modules_to_save: Modules trained in full and saved with the adapter.
        fan_in_fan_out: Kept for PEFT's file format; the layout is read from each layer's class.
        task_type: PEFT task type; classification and question answering save their head.
        inference_mode: Whether the adapter is frozen.
        base_model_name_or_path: Base model the adapter belongs to.
        revision: Revision of that base model.
        peft_type: PEFT's name of the method; of PEFT's enum where peft is imported, as ``task_type`` is.
        auto_mapping: Class of the base model in a file of a model without ``task_type``.
        peft_version: Version of PEFT that wrote the file.

    Raises:
        InvalidConfig: One line naming the field, the value and the way out.
    """

    prefix: ClassVar[str]
    """Prefix of the names of the adapter's own parts."""

    target_modules: Collection[str] | None = _field(check_targets, default=None)
    exclude_modules: Collection[str] | None = _field(check_targets, default=None)
    modules_to_save: Collection[str] | None = _field(check_names, default=None)
    fan_in_fan_out: bool = _field(check_flag, default=False)
    task_type: str | None = _field(check_task, default=None)
    inference_mode: bool = _field(check_flag, default=False)
    base_model_name_or_path: str | None = _field(check_text, default=None)
    revision: str | None = _field(check_text, default=None)
    auto_mapping: Mapping[str, Any] | None = _field(check_mapping, default=None)
    peft_version: str | None = _field(check_text, default=None)

    def __new__(cls, *args: object, **values: object) -> Self:
        """Reject unknown fields before the generated constructor raises a ``TypeError`` over them."""
        if args:
            raise InvalidConfig(f"{cls.__name__} takes its fields by name, not {args[0]!r}: write r=8, for example.")
        check_fields(values, cls)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field to a value that passes its check, unless a model has layers made by the old one."""
        if name.startswith("_"):  # peft's own remarks
            object.__setattr__(self, name, value)
            return
        check_fields([name], type(self))
        value = self.__dataclass_fields__[name].metadata["check"](name, as_python(value))
        free = FREE_IN_MODEL if self.initialisation != "eva" else (*FREE_IN_MODEL, *SHARED_OUT_BY_EVA)
        if "is_in_model" in self.__dict__ and name not in free and value != (old := getattr(self, name)):
            way_out = f"add_adapter takes another one, dataclasses.replace(config, {name}={value!r})."
            raise invalid(name, value, f"comes too late for an adapter whose layers were made with {old!r}: {way_out}")
        object.__setattr__(self, name, value)

    def become(self, other: Self) -> Self:
        """Take the values of another configuration, and return this one: it is that of a model from now on."""
        for each in fields(self):
            if (value := getattr(other, each.name)) != getattr(self, each.name):
                setattr(self, each.name, value)
        self.fix_layer_fields()
        return self

    def fix_layer_fields(self) -> None:
        """Reject from now on what would no longer describe the layers: the configuration is that of a model."""
        self.__dict__["is_in_model"] = True

    def __post_init__(self) -> None:
        is_empty = self.target_modules is not None and not self.target_modules
        if is_empty and not getattr(self, "target_parameters", None) and not self.modules_to_save:
            why = "names no layer: leave it out (None), so that the layers are decided, or name some."
            raise invalid("target_modules", [], why)
        self._check_together()

    def _check_together(self) -> None:
        """Reject fields that contradict each other."""

    def checked(self) -> Self:
        """Return a copy whose fields were all checked again, alone and together: they may have been changed in place.

        Raises:
            InvalidConfig: Naming the field, the value and the way out.
        """
        return replace(self)

    @property
    def spec(self) -> TargetSpec:
        """The part of the configuration that selects layers."""
        named: dict[str, Any] = {each.name: getattr(self, each.name, None) for each in fields(TargetSpec)}
        for name, value in named.items():
            named[name] = value if isinstance(value, str) else tuple(value or ()) or None
        if self.target_modules is not None and not self.target_modules and not named["target_parameters"]:
            named["target_modules"] = NO_TARGETS  # nothing but modules_to_save
        return TargetSpec(**named)

    def with_spec(self, spec: TargetSpec) -> Self:
        """Return a copy with the targets of ``spec``; exclusions and saved modules of this one stay."""
        own = {known.name for known in fields(self)}
        given = {name: value for name, value in spec.values.items() if name in own}
        kept = {name: value for name in given if name != "target_modules" and (value := getattr(self, name))}
        return replace(self, **{**given, **kept})

    def for_base(self, origin: object) -> Self:
        """Return the configuration with the name of the model at hand, if a reused one names another."""
        stated = self.base_model_name_or_path
        if not isinstance(origin, str) or not origin or stated in (None, origin):
            return self
        message = f"The configuration names the base model {stated!r}, and this model is {origin!r}, which is recorded"
        warn(f"{message} (base_model_name_or_path).")
        return replace(self, base_model_name_or_path=origin)

    @property
    def trained_biases(self) -> str:
        """The biases of the base model that train: ``none``, or ``bias`` of LoRA."""
        which: str = getattr(self, "bias", "none")
        return which

    @property
    def initialisation(self) -> bool | str:
        """The initialisation of the adapter's parts: ``init_lora_weights`` or ``init_ia3_weights``."""
        how: bool | str = getattr(self, f"init_{self.prefix}weights")
        return how

    @property
    def variant(self) -> str | None:
        """The field, or the initialisation, that asks for a variant of LoRA; ``None`` for plain LoRA, DoRA and IA3."""
        asked = (name for name, each in self.__dataclass_fields__.items() if "is_variant" in each.metadata)
        frozen = "mica" if self.initialisation == "mica" else None
        return next((name for name in asked if getattr(self, name) is not None), frozen)

    @property
    def begins_with_peft(self) -> bool:
        """Whether the factors get their first values from the base weights, or others, by PEFT's functions."""
        how = self.initialisation
        return self.variant == "kasa_config" or (isinstance(how, str) and how not in ("gaussian", "eva"))

    @property
    def base_changed_by(self) -> str | None:
        """The initialisation or the variant, if it takes a part out of the base weights."""
        how = self.initialisation
        changed = how if isinstance(how, str) and how.startswith(CHANGING_THE_BASE) else None
        return self.variant if self.variant == "kasa_config" else changed


@dataclass(kw_only=True)
class LoraConfig(AdapterConfig):
    """The configuration of LoRA, with the names and defaults of ``peft.LoraConfig`` (0.21.2).

    Attributes:
        r: Rank of the update ``B @ A``.
        lora_alpha: Numerator of the scaling, ``lora_alpha / r``.
        lora_dropout: Dropout on the input of ``A``, in ``[0, 1)``.
        bias: Which biases of the base model train: ``none``, ``all`` or ``lora_only``.
        use_rslora: Scale by ``lora_alpha / sqrt(r)`` (arXiv:2312.03732).
        init_lora_weights: ``True`` as in the paper (``B`` zero), ``"gaussian"``, or ``False`` for a non-zero ``B``;
            by peft's functions ``"orthogonal"``; ``"mica"``, whose ``B`` is frozen; ``"eva"``, whose ``A``
            ``peft.initialize_lora_eva_weights`` fills; and from the base weights, which change, ``"pissa"``,
            ``"pissa_niter_4"``, ``"olora"``, ``"loftq"``, ``"corda"`` and ``"lora_ga"``.
        layers_to_transform: Indices of the blocks to adapt; all when ``None``.
        layers_pattern: Name of the list those indices count in.
        rank_pattern: Ranks that differ from ``r``, by path regex.
        alpha_pattern: Alphas that differ from ``lora_alpha``, by path regex.
        target_parameters: Bare parameters to adapt, such as fused experts, by suffixes of their paths.
        use_dora: Rescale each output feature to a learned magnitude (DoRA, arXiv:2402.09353).
        lora_bias: Give ``B`` a bias, for adapters extracted from full fine-tunings.
        layer_replication: Ranges of blocks, such as ``[(0, 4), (2, 5)]``, that make up a model with shared weights.
        trainable_token_indices: Tokens whose rows of the input embedding train too, and are saved with the adapter; or
            such tokens by names of embeddings. A tied output layer uses the same rows.
        ensure_weight_tying: Reject other rows for an output layer than for the embedding that it is tied to, and train
            both as one weight if one of them is in ``modules_to_save``.
        velora_config: VeLoRA, by peft's class; with peft's options or a dictionary of them, as the next ones.
        monteclora_config: MonteCLoRA, by peft's class.
        kasa_config: KaSA, by peft's class; it takes the smallest singular values out of the base weights.
        use_bdlora: BD-LoRA, by peft's class.
        corda_config: Options of ``init_lora_weights="corda"``.
        eva_config: Options of ``init_lora_weights="eva"``.
        lora_ga_config: Options of ``init_lora_weights="lora_ga"``.
        loftq_config: Options of ``init_lora_weights="loftq"``: ``loftq_bits`` and ``loftq_iter``.

    Raises:
        InvalidConfig: One line naming the field, the value and the way out.
    """

    method = "LORA"
    prefix = "lora_"

    peft_type: str = _field(check_method, "LORA", default="LORA")
    r: int = _field(check_rank, default=8)
    lora_alpha: float = _field(check_positive, default=8)
    lora_dropout: float = _field(check_probability, default=0.0)
    bias: Literal["none", "all", "lora_only"] = _field(check_choice, BIASES, default="none")
    use_rslora: bool = _field(check_flag, default=False)
    init_lora_weights: bool | str = _field(check_initialisation, default=True, lora_variants=["mica"])
    layers_to_transform: Collection[int] | int | None = _field(check_indices, default=None)
    layers_pattern: Collection[str] | None = _field(check_list_names, default=None)
    rank_pattern: Mapping[str, int] = _field(check_patterns, check_rank, default=dict)
    alpha_pattern: Mapping[str, float] = _field(check_patterns, check_positive, default=dict)
    target_parameters: Collection[str] | None = _field(check_names, default=None)
    use_dora: bool = _field(check_flag, default=False, is_lora_variant=True)
    lora_bias: bool = _field(check_flag, default=False)
    layer_replication: Collection[tuple[int, int]] | None = _field(check_ranges, default=None)
    trainable_token_indices: Collection[int] | Mapping[str, Collection[int]] | None = _field(check_tokens, default=None)
    ensure_weight_tying: bool = _field(check_flag, default=False)
    runtime_config: RuntimeConfig = _field(check_runtime, default=RuntimeConfig)  # noqa: RUF009 - a factory

    # Variants that PEFT's classes compute, and the options of its initialisations.
    velora_config: object | None = _field(
        check_options, "VeloraConfig", default=None, is_lora_variant=True, is_variant=True
    )
    monteclora_config: object | None = _field(
        check_options, "MontecloraConfig", default=None, is_lora_variant=True, is_variant=True
    )
    kasa_config: object | None = _field(
        check_options, "KasaConfig", default=None, is_lora_variant=True, is_variant=True
    )
    use_bdlora: object | None = _field(
        check_options, "BdLoraConfig", default=None, is_lora_variant=True, is_variant=True
    )
    corda_config: object | None = _field(check_options, "CordaConfig", default=None, qualifies="corda")
    eva_config: object | None = _field(check_options, "EvaConfig", default=None, qualifies="eva")
    lora_ga_config: object | None = _field(check_options, "LoraGAConfig", default=None, qualifies="lora_ga")
    loftq_config: Mapping[str, Any] = _field(check_bits, default=dict, qualifies="loftq")

    # Features of PEFT's that loradar lacks, and fields that only qualify them.
    use_qalora: bool = _lacking(default=False)
    alora_invocation_tokens: None = _lacking(None)
    megatron_config: None = _lacking(None)
    arrow_config: None = _lacking(None)
    megatron_core: str = _idle("megatron.core")
    qalora_group_size: int = _idle(16)

    def _check_together(self) -> None:
        """Reject fields that contradict each other, as PEFT does."""
        self._check_variant()
        is_regex = isinstance(self.target_modules, str)
        if is_regex and self.layers_to_transform is not None:
            why = "is for a list: `layers_to_transform` cannot be used when `target_modules` is a str."
            raise invalid("layers_to_transform", self.layers_to_transform, why)
        if self.layers_pattern and self.layers_to_transform is None:
            why = "lacks indices. When `layers_pattern` is specified, `layers_to_transform` must also be specified."
            raise invalid("layers_pattern", self.layers_pattern, why)
        if self.use_dora and self.base_changed_by and self.base_changed_by not in REPEATED_ON_LOAD:
            why = f"cannot be saved with init_lora_weights={self.init_lora_weights!r}: give 'pissa' or 'olora' there."
            raise invalid("use_dora", self.use_dora, why)
        if self.lora_bias and self.use_dora:
            raise InvalidConfig("The argument lora_bias=True is not supported with use_dora=True: leave one out.")
        if self.lora_bias and self.init_lora_weights not in (True, False):
            message = f"The argument lora_bias=True is not supported with init_lora_weights={self.init_lora_weights!r}"
            raise InvalidConfig(f"{message}: give True or False there.")

    def _check_variant(self) -> None:
        """Reject several variants at once."""
        asked = [name for name, each in self.__dataclass_fields__.items() if "is_variant" in each.metadata]
        given = [name for name in (*asked, "use_dora", "lora_bias") if getattr(self, name)]
        given += ["init_lora_weights='mica'"] if self.init_lora_weights == "mica" else []
        if self.variant and len(given) > 1:
            raise InvalidConfig(f"{' and '.join(given)} cannot be combined in one adapter: leave out all but one.")
        if self.kasa_config is not None and str(self.init_lora_weights).startswith(CHANGING_THE_BASE):
            why = "changes base weights, and so does kasa_config: leave one of both out."
            raise invalid("init_lora_weights", self.init_lora_weights, why)
        self._check_options()

    def _check_options(self) -> None:
        """Reject an initialisation without the options it needs, and warn of options of one that is not in use."""
        for how, name, example in NEEDED_OPTIONS:
            if self.init_lora_weights == how and not getattr(self, name):
                raise invalid("init_lora_weights", how, f"needs `{name}`, which must be specified: {example}.")
        for name, each in self.__dataclass_fields__.items():
            needed = each.metadata.get("qualifies")
            if needed == self.init_lora_weights and needed in ("corda", "eva") and getattr(self, name) is None:
                setattr(self, name, {})  # PEFT's defaults
            elif needed is not None and needed != self.init_lora_weights and getattr(self, name):
                warn(f"{name} has no effect without init_lora_weights={needed!r}, and is ignored.")


@dataclass(kw_only=True)
class IA3Config(AdapterConfig):
    """The configuration of IA3, with the names and defaults of ``peft.IA3Config`` (0.21.2).

    Attributes:
        feedforward_modules: The targets whose input is scaled, not their output, as suffixes or a regex.
        init_ia3_weights: ``True``: factors of one, which change nothing; ``False``: normally distributed.

    Raises:
        InvalidConfig: One line naming the field, the value and the way out.
    """

    method = "IA3"
    prefix = "ia3_"

    peft_type: str = _field(check_method, "IA3", default="IA3")
    feedforward_modules: Collection[str] | None = _field(check_targets, default=None)
    init_ia3_weights: bool = _field(check_flag, default=True)

    def to_peft_dict(self) -> dict[str, Any]:
        """Return the content for peft 0.21.2, which without feed-forward modules accepts an empty list only."""
        data = super().to_peft_dict()
        return {**data, "feedforward_modules": data["feedforward_modules"] or []}

    def _check_together(self) -> None:
        """Reject feed-forward modules that are no targets, as PEFT does."""
        inner, outer = self.feedforward_modules, self.target_modules
        if isinstance(inner, Names) and isinstance(outer, Names) and not inner <= outer:
            raise invalid("feedforward_modules", inner, f"must be a part of target_modules={outer!r}.")
