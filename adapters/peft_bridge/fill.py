"""Targets for a configuration of the real peft that has none; peft itself is imported only when one is at hand."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any

from torch import nn

from ...domain.layers import Layer
from ...domain.methods import UNTARGETED, Method, get_method
from ...domain.schema import to_json
from ...domain.targets import Targets, TargetSpec, find_hits, without_exclusion
from ...errors import UnknownPeftType


def method_of(config: Any) -> Method:
    """Return the method that one of peft's configurations is for.

    Raises:
        UnknownPeftType: If it is none of PEFT's own.
    """
    return get_method(str(getattr(config.peft_type, "value", config.peft_type)))


def lacks_targets(config: Any) -> bool:
    """Tell whether a configuration of a method that takes targets names none: neither modules nor parameters."""
    try:
        method = method_of(config)
    except UnknownPeftType:  # a method somebody registered with peft
        return False
    given = (getattr(config, name, None) for name in ("target_modules", "target_parameters"))
    return method.family not in UNTARGETED and all(value is None for value in given)


def fill(config: Any, spec: TargetSpec, model: nn.Module, layers: Sequence[Layer]) -> None:
    """Write a spec into a configuration that lacks targets; what the user has set in it stays, and counts.

    Args:
        config: Any of peft's configurations; its targets are set in place, as peft does it with its own.
        spec: Where the adapters go.
        model: The model they are for.
        layers: Its layers, those at least that the spec hits.
    """
    spec = _in_reach(config, spec, model, layers)
    for name, value in to_json(spec).items():
        if value is not None and hasattr(config, name) and getattr(config, name) is None:
            setattr(config, name, set(value) if _is_set(name, value) else value)


def peft_answer(tuner: Any, config: Any, model: nn.Module) -> TargetSpec | None:
    """Return what peft's own tables say for a model, or ``None`` if they have no entry that can be one.

    Args:
        tuner: A tuner of peft's, made or about to be: its class knows the tables.
        config: The configuration it is for; left as it is.
        model: The model without adapters.
    """
    try:
        filled = tuner._prepare_adapter_config(deepcopy(config), tuner.get_model_config(model))  # noqa: SLF001 - all tuners have it
    except (ValueError, KeyError, TypeError):  # no entry; no model type; a configuration that is no dictionary
        return None
    feedforward = _as_targets(getattr(filled, "feedforward_modules", None))
    return TargetSpec(_as_targets(filled.target_modules), feedforward_modules=feedforward)


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Take peft's wrappers out of a model for a moment, so that it can be scanned as it was."""
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


def _in_reach(config: Any, spec: TargetSpec, model: nn.Module, layers: Sequence[Layer]) -> TargetSpec:
    """Say a spec so that this configuration and this peft take it for what it means."""
    if spec.exclude_modules and getattr(config, "exclude_modules", ()) is not None:
        spec = without_exclusion(spec)  # the user's own exclusion stands there, or none can
    is_converted = _convert(config, None, model) is not None  # of no targets at all, peft makes an empty set (0.21.2)
    is_narrowed = getattr(config, "layers_to_transform", None) is not None
    # peft counts blocks for suffixes alone, and its conversion for transformers 5 takes a regex for its last names.
    if isinstance(spec.target_modules, str) and (is_narrowed or is_converted):
        hit = [layer.path for layer in find_hits(spec, layers) if layer.kind != "expert_parameter"]
        paths = tuple(path for path in hit if _is_meant(path, config))
        spec = replace(spec, target_modules=paths, exclude_modules=None)
    return _without_lookalikes(config, spec, model) if is_converted and spec.target_modules else spec


def _is_meant(path: str, config: Any) -> bool:
    """Ask peft whether a layer is left by what else a configuration says: blocks, exclusions, saved modules."""
    from peft.tuners.tuners_utils import check_target_module_exists

    probe = copy(config)
    probe.target_modules = {path.rpartition(".")[2]}
    return path in probe.target_modules or bool(check_target_module_exists(probe, path))


def _without_lookalikes(config: Any, spec: TargetSpec, model: nn.Module) -> TargetSpec:
    """Leave out, aloud, the dense layers that peft would take for transformers 4's experts, whose names they have."""
    names = {target: target.rpartition(".")[2] for target in spec.target_modules or ()}
    lost = {name for name in set(names.values()) if _convert(config, {name}, model) != {name}}
    if not lost:
        return spec
    message = f"{', '.join(sorted(lost))} of {type(model).__name__} get no adapter"
    warnings.warn(f"{message}: peft takes these names for experts, and changes them (transformers 5).", stacklevel=5)
    return replace(spec, target_modules=tuple(target for target, name in names.items() if name not in lost))


def _convert(config: Any, targets: set[str] | None, model: nn.Module) -> set[str] | None:
    """Return what peft makes of targets before it looks for them, on transformers 5."""
    from peft.import_utils import is_transformers_ge_v5

    if not is_transformers_ge_v5:
        return targets
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    probe = deepcopy(config)
    probe.target_modules = targets
    try:
        convert_peft_config_for_transformers(probe, model=model, conversions=None)
    except ValueError:  # half of what peft would fuse
        return set()
    left: set[str] | None = probe.target_modules
    return left


def _as_targets(value: Any) -> Targets | None:
    return value if value is None or isinstance(value, str) else tuple(value)


def _is_set(name: str, value: object) -> bool:
    """Tell which fields peft keeps as sets."""
    return name in ("target_modules", "exclude_modules", "feedforward_modules") and not isinstance(value, str)
