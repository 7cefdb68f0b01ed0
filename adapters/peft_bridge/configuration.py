"""Configurations of the installed peft: ``auto_config``, and filling in targets where a configuration has none."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any

from torch import nn

from ...discovery import check_unwrapped, open_wrappers
from ...domain.choosing.ranks import scale_alphas
from ...domain.layers import Layer
from ...domain.methods import TARGETED, UNTARGETED, Method, choose_preset, get_method, list_fact_fields, list_methods
from ...domain.targets import Targets, TargetSpec, find_hits, without_exclusion
from ...errors import InvalidConfig, UnknownPeftType
from ...extras import require
from ...schema import to_json
from ...warn import warn
from ..checks import check_budget, check_known
from ..injection.plan import check_host
from ..targets import Decision, decide, scan_known


def auto_config(  # noqa: PLR0913 - what decides the layers and ranks
    model: nn.Module,
    peft_type: str = "LORA",
    preset: str | None = None,
    *,
    towers: Any = None,
    roles: Any = None,
    blocks: Any = None,
    expert_rank: Any = None,
    budget: Any = None,
    servable: str | None = None,
    **fields: Any,
) -> Any:
    """Return a ``peft`` configuration of any method of the installed peft, with the targets for this model.

    The targets are decided as in ``loradar.get_peft_model``, and named as in the model inside of ``torch.compile``,
    ``DataParallel`` or DDP. A method of prompt learning gets the depth and widths of the model instead. ``fields`` are
    kept; with targets among them, nothing is decided. ``peft_type`` is PEFT's name of the method, such as ``"IA3"``, in
    any case; the arguments after it are documented at ``loradar.adapters.Selection``.

    Raises:
        MissingExtra: If peft is not installed.
        UnknownPeftType: If the installed peft has no such method, listing those it has.
        InvalidConfig: If a field is unknown or missing, or the model has adapters.
        MethodDoesNotFit: If the method can adapt nothing of this model, or a fact it needs of the model is unknown.
        LoradarError: As ``loradar.get_peft_model``, of the choice of layers.
    """
    require("peft", "peft")
    check_host(model)
    check_unwrapped(model := open_wrappers(model)[-1])
    method, config_class = _find_method(peft_type)
    check_known(fields, config_class.__dataclass_fields__, config_class.__name__)
    if method.family in UNTARGETED:
        return _with_facts(method, config_class, model, fields)
    config = config_class(**fields)
    check_budget(config, budget)
    given = {"towers": towers, "roles": roles, "blocks": blocks, "expert_rank": expert_rank}
    given |= {"budget": budget, "servable": servable}
    choice = {name: value for name, value in given.items() if value is not None}
    if lacks_targets(config):
        rank = {"rank": config.r} if method.name == TARGETED and budget is None else {}
        fill(config, decide(model, choose_preset(preset, method.name), method.name, **rank, **choice), model)
    elif choice:
        raise InvalidConfig(f"{', '.join(choice)} selects layers, and the fields name them too: leave one of both out.")
    return config


def _find_method(peft_type: str) -> tuple[Method, Any]:
    """Return a method that is both known here and installed, and the class of its configuration."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    classes = {str(known.value): config_class for known, config_class in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    names = [method.name for method in list_methods() if method.name in classes]
    name = str(getattr(peft_type, "value", peft_type)).upper()
    if name not in names:
        raise UnknownPeftType(name, names, f"The installed peft has: {', '.join(names)}.")
    return get_method(name), classes[name]


def _with_facts(method: Method, config_class: Any, model: nn.Module, fields: dict[str, Any]) -> Any:
    """Return a configuration with the facts of the model, such as its depth, that a method without targets needs.

    Raises:
        MethodDoesNotFit: If the method is not for this model, or a fact it needs is unknown.
        InvalidConfig: If a field is missing that only the caller can give.
    """
    scan = scan_known(model)
    scan.propose(method.name)
    known = to_json(scan.prompt_facts)
    names = ((need, name) for need in method.needs for name in list_fact_fields().get(need, ()))
    facts = {name: known[need] for need, name in names if name in config_class.__dataclass_fields__}
    config = config_class(**{**facts, **fields})
    for name, value in facts.items():
        if getattr(config, name) is None:  # CPT's configuration drops the arguments of its base class
            setattr(config, name, value)
    examples = {"num_virtual_tokens": "num_virtual_tokens=20", "task_type": "task_type='CAUSAL_LM'"}
    missing = [name for name in examples if getattr(config, name, None) is None]
    if config.is_prompt_learning and missing:
        way_out = ", ".join(examples[name] for name in missing)
        raise InvalidConfig(f"{method.name} cannot do without {' and '.join(missing)}: give {way_out}, for example.")
    return config


def method_of(config: Any) -> Method:
    """Return the method of one of peft's configurations.

    Raises:
        UnknownPeftType: If it is not one of PEFT's own.
    """
    return get_method(str(getattr(config.peft_type, "value", config.peft_type)))


def lacks_targets(config: Any) -> bool:
    """Return whether a configuration of a method with targets has neither target modules nor target parameters."""
    try:
        method = method_of(config)
    except UnknownPeftType:  # a method that the user registered with peft
        return False
    given = (getattr(config, name, None) for name in ("target_modules", "target_parameters"))
    return method.family not in UNTARGETED and all(value is None for value in given)


def fill(config: Any, decision: Decision, model: nn.Module) -> None:
    """Set the targets and ranks of a decision in one of peft's configurations that lacks targets, in place.

    Fields that the user set stay and apply, and so do patterns of ranks.
    """
    spec = _adjusted(config, decision.spec, model, decision.layers)
    for name, value in to_json(spec).items():
        if value is not None and hasattr(config, name) and getattr(config, name) is None:
            is_set = name in ("target_modules", "exclude_modules", "feedforward_modules") and isinstance(value, list)
            setattr(config, name, set(value) if is_set else value)
    if decision.rank is not None:
        config.r = decision.rank
    if decision.rank_pattern:
        alphas = scale_alphas(decision.rank_pattern, config.r, config.lora_alpha, 0.5 if config.use_rslora else 1)
        config.rank_pattern = {**decision.rank_pattern, **config.rank_pattern}
        config.alpha_pattern = {**alphas, **config.alpha_pattern}


def _adjusted(config: Any, spec: TargetSpec, model: nn.Module, layers: Sequence[Layer]) -> TargetSpec:
    """Return a spec that matches the same layers with the other fields of a configuration and peft's conversions."""
    if spec.exclude_modules and getattr(config, "exclude_modules", ()) is not None:
        spec = without_exclusion(spec)  # the user has an exclusion, or the configuration has no such field
    is_converted = _converted(config, None, model) is not None  # peft converts no targets to an empty set (0.21.2)
    is_narrowed = getattr(config, "layers_to_transform", None) is not None
    # peft narrows suffixes alone to blocks, and its conversion for transformers 5 treats a regex as a list of names.
    if isinstance(spec.target_modules, str) and (is_narrowed or is_converted):
        matched = [layer.path for layer in find_hits(spec, layers) if layer.kind != "expert_parameter"]
        paths = tuple(path for path in matched if _is_selected(path, config))
        spec = replace(spec, target_modules=paths, exclude_modules=None)
    return _without_converted(config, spec, model) if is_converted and spec.target_modules else spec


def peft_targets(tuner: Any, config: Any, model: nn.Module) -> TargetSpec | None:
    """Return the targets of peft's own tables for a model, or ``None`` without an entry.

    Args:
        tuner: A tuner of peft's, constructed or not: its class reads the tables.
        config: The configuration to be filled; it stays as it is.
        model: The model without adapters.
    """
    try:
        filled = tuner._prepare_adapter_config(deepcopy(config), tuner.get_model_config(model))  # noqa: SLF001 - all tuners have it
    except (ValueError, KeyError, TypeError):  # no entry; no model type; a model configuration that is no dictionary
        return None
    feedforward = _as_targets(getattr(filled, "feedforward_modules", None))
    return TargetSpec(_as_targets(filled.target_modules), feedforward_modules=feedforward)


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Take peft's wrappers out of a model within a ``with`` block, so that the model is scanned as it was."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    wrapped = [
        (parent, name, child)
        for parent in [*model.modules()]
        for name, child in parent.named_children()
        if isinstance(child, BaseTunerLayer | AuxiliaryTrainingWrapper)
    ]
    try:
        for parent, name, child in wrapped:
            is_layer = isinstance(child, BaseTunerLayer)
            parent._modules[name] = child.get_base_layer() if is_layer else child.original_module  # noqa: SLF001 - no hooks
        yield
    finally:
        for parent, name, child in wrapped:
            parent._modules[name] = child  # noqa: SLF001


def _is_selected(path: str, config: Any) -> bool:
    """Return whether blocks, exclusions and saved modules of a configuration leave a layer in, by peft's own rule."""
    from peft.tuners.tuners_utils import check_target_module_exists

    probe = copy(config)
    probe.target_modules = {path.rpartition(".")[2]}
    return path in probe.target_modules or bool(check_target_module_exists(probe, path))


def _without_converted(config: Any, spec: TargetSpec, model: nn.Module) -> TargetSpec:
    """Leave out dense layers with the names of transformers 4's experts, which peft would convert; warn of them."""
    names = {target: target.rpartition(".")[2] for target in spec.target_modules or ()}
    lost = {name for name in set(names.values()) if _converted(config, {name}, model) != {name}}
    if not lost:
        return spec
    message = f"{', '.join(sorted(lost))} of {type(model).__name__} get no adapter"
    warn(f"{message}: peft takes these names for experts, and changes them (transformers 5).")
    return replace(spec, target_modules=tuple(target for target, name in names.items() if name not in lost))


def _converted(config: Any, targets: set[str] | None, model: nn.Module) -> set[str] | None:
    """Return targets after peft's conversion for transformers 5, which it runs before it matches them."""
    from peft.import_utils import is_transformers_ge_v5

    if not is_transformers_ge_v5:
        return targets
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    probe = deepcopy(config)
    probe.target_modules = targets
    try:
        convert_peft_config_for_transformers(probe, model=model, conversions=None)
    except ValueError:  # some of the names that peft fuses are missing
        return set()
    left: set[str] | None = probe.target_modules
    return left


def _as_targets(value: Any) -> Targets | None:
    return value if value is None or isinstance(value, str) else tuple(value)
