"""The plan of an injection, as frozen data; every check on the model happens here, before anything is replaced."""

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from torch import nn

from ...discovery import CONV_KINDS, kind_of
from ...domain.targets import TargetMatcher, TargetSpec
from ...domain.vocabulary import Kind
from ...errors import InvalidConfig, TargetsNotFound
from ..config import AdapterConfig, LoraConfig, task_heads
from ..field_checks import ALL_LINEAR
from ..layers.wrappers import PlannedAdapter, is_plain_conv
from .host_model import Survey
from .match import Match, match
from .model_checks import (
    check_adaptable,
    check_blocks,
    check_layer,
    check_parameter,
    check_saved,
    inner_layer,
    rejected,
)

Value = TypeVar("Value", int, float)
Expand = Callable[[nn.Module, str], TargetSpec]
"""A function from a model and a shorthand such as ``all-linear`` to the targets of the shorthand in that model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The adapters to create and the modules to train in full, in module order.

    Attributes:
        config: The configuration, with shorthands expanded and the heads of the task added.
        adapters: The plan of each adapter.
        saved: Paths of the modules trained in full.
    """

    config: AdapterConfig
    adapters: tuple[PlannedAdapter, ...]
    saved: tuple[str, ...]


def make_plan(survey: Survey, config: AdapterConfig, expand: Expand | None = None) -> Plan:
    """Plan the injection of ``config`` into a model, and check that all of it can be done.

    Warns of targets, saved names and rank or alpha patterns that match nothing, of weights that another layer shares,
    and of dropout that has no effect.

    Args:
        survey: The walk over the model.
        config: The configuration, with targets.
        expand: The function for shorthands in ``target_modules``; without it they are rejected.

    Raises:
        TargetsNotFound: If the targets match nothing, naming the closest names and their counts.
        NoAdaptableLayers: If the model has nothing that any target could match.
        InvalidConfig: Naming the module, its class and the way out, for a layer of a kind that cannot be adapted,
            a rank that its groups do not divide, or a module that cannot be saved.
    """
    config = _complete(config, survey, expand)
    check_blocks(survey, config)
    parameters = survey.parameter_paths() if config.spec.target_parameters else ()
    try:
        matched = match(survey.paths, config, parameters)
    except TargetsNotFound:
        check_adaptable(survey)
        raise
    for remark in matched.remarks:
        warnings.warn(remark, stacklevel=4)
    saved = check_saved(survey, matched.saved)
    adapters = _plan_adapters(survey, matched, config)
    for path in (*(each.path for each in adapters if each.shares_weight), *saved):
        if others := survey.sharing(path):
            message = f"{path!r} shares its weight with {', '.join(map(repr, others))}, which keeps it as it is"
            warnings.warn(f"{message}: merging will untie them.", stacklevel=4)
    return Plan(config, adapters, saved)


def _complete(config: AdapterConfig, survey: Survey, expand: Expand | None) -> AdapterConfig:
    """Expand the shorthand of a configuration, and save the heads of its task, if any, as PEFT's task classes do."""
    targets = config.spec.target_modules
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        if expand is None:
            way_out = "Use loradar.get_peft_model, which resolves it, or name the layers."
            raise InvalidConfig(f"target_modules={targets!r} is a shorthand that cannot be resolved here. {way_out}")
        config = config.with_spec(expand(survey.model, ALL_LINEAR))
    heads = task_heads().get(config.task_type or "", ())
    if not heads:
        return config
    names = {path.rpartition(".")[2] for path in survey.sites}
    own = [name for name in config.modules_to_save or () if name not in heads]
    return replace(config, modules_to_save=[*own, *(head for head in heads if head in names)])


def _plan_adapters(survey: Survey, matched: Match, config: AdapterConfig) -> tuple[PlannedAdapter, ...]:
    shared = survey.shared_parameters()
    dropout = config.lora_dropout if isinstance(config, LoraConfig) else 0.0
    is_feedforward = TargetMatcher(config.spec.feedforward_modules or ()).find
    targets = [*_targets(survey, matched, config)]
    strengths = _strengths(config, [target.key for target in targets])
    planned = []
    for (path, location, kind, parameter, key), (r, scaling) in zip(targets, strengths, strict=True):
        site = survey.sites[path]
        weight: nn.Parameter | None
        if parameter:
            weight = check_parameter(path, site, parameter)
            is_transposed = bool(getattr(site.module, "is_transposed", False))  # of transformers' fused experts
        else:
            weight = check_layer(path, site, kind, r, is_passed_in=key != path)
            is_transposed = kind == "transposed_linear"
        adapter = PlannedAdapter(
            path,
            key.removesuffix(f".{parameter}") if parameter else key,
            location,
            kind,
            r,
            scaling,
            dropout=0.0 if parameter else dropout,
            fan_in_fan_out=is_transposed,
            shares_weight=id(weight) in shared,
            parameter=parameter,
            is_feedforward=is_feedforward(path) is not None,
        )
        planned.append(adapter)
    # Where the update is in the weight, there is no input to drop from.
    in_weight = [
        each.path
        for each in planned
        if each.parameter or (each.kind in CONV_KINDS and not is_plain_conv(survey.sites[each.path].module))
    ]
    if dropout and in_weight:
        message = f"lora_dropout is not applied in {in_weight[0]!r} ({len(in_weight)} in all)"
        warnings.warn(f"{message}: the update is in the weight there, and no input of its own.", stacklevel=5)
    return tuple(planned)


class _Target(NamedTuple):
    """One target: path, location in a file, kind, name of the bare parameter, and the path that patterns match."""

    path: str
    location: str
    kind: Kind
    parameter: str
    key: str


def _targets(survey: Survey, matched: Match, config: AdapterConfig) -> Iterator[_Target]:
    """Yield the targets; of several on one module, the innermost first."""
    left = Counter(path for path, _ in matched.parameters)
    bare, done = {*left}, set()
    for path, name in matched.parameters:
        left[path] -= 1
        yield _Target(path, path + ".base_layer" * left[path], "expert_parameter", name, f"{path}.{name}")
    for named in matched.paths:
        path, kind = named, _kind(survey.sites[named].module)
        if kind == "other" and (inner := inner_layer(named, survey)) != named:
            path, kind = inner, _kind(survey.sites[inner].module)
        if path in bare:
            way_out = "Name it in target_modules or its parameters in target_parameters."
            module = survey.sites[path].module
            raise rejected(path, module, "is targeted twice, as a module and by a parameter", way_out)
        if path in done:
            continue
        done.add(path)
        if kind == "multihead_attention" and isinstance(config, LoraConfig):
            yield from _projections(path, survey)
        else:
            yield _Target(path, path, kind, "", path)


def _kind(module: nn.Module) -> Kind:
    """Return the kind of a layer; a linear whose weight is computed (weight norm) is a linear."""
    kind = kind_of(module)
    return "linear" if kind == "other" and isinstance(module, nn.Linear) else kind


def _projections(path: str, survey: Survey) -> Iterator[_Target]:
    """Yield the projections of an ``nn.MultiheadAttention``."""
    names = ["in_proj_weight"]
    if survey.sites[path].module._parameters.get("in_proj_weight") is None:  # noqa: SLF001 - PyTorch's own names
        names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"]  # its inputs differ in width
    for depth, name in enumerate(names, start=1):
        kind: Kind = "multihead_attention" if depth == 1 else "expert_parameter"
        yield _Target(path, path + ".base_layer" * (len(names) - depth), kind, name, path)
    inside = path + ".base_layer" * len(names)
    yield _Target(f"{path}.out_proj", f"{inside}.out_proj", "linear", "", path)


def _strengths(config: AdapterConfig, keys: Sequence[str]) -> list[tuple[int, float]]:
    """Return rank and scaling of the adapter at each of these paths; IA3 has neither."""
    if not isinstance(config, LoraConfig):
        return [(0, 1.0)] * len(keys)
    ranks = _by_pattern("rank_pattern", config.rank_pattern, config.r, keys)
    alphas = _by_pattern("alpha_pattern", config.alpha_pattern, config.lora_alpha, keys)
    return [(r, alpha / (math.sqrt(r) if config.use_rslora else r)) for r, alpha in zip(ranks, alphas, strict=True)]


def _by_pattern(field: str, pattern: Mapping[str, Value], default: Value, keys: Sequence[str]) -> list[Value]:
    """Return the value at each of these paths, and warn of patterns that match none of them, as PEFT does.

    PEFT's rule (``get_pattern_key``, 0.21.2): the first pattern that matches a whole suffix.
    """
    rules = {each: re.compile(rf"(.*\.)?({each})$") for each in pattern}
    found: list[str | None] = [next((each for each, rule in rules.items() if rule.match(key)), None) for key in keys]
    if unmatched := sorted(map(repr, rules.keys() - {*found})):
        message = f"{field}: {', '.join(unmatched)} matches no adapted layer and is ignored."
        warnings.warn(message, stacklevel=7)
    return [default if each is None else pattern[each] for each in found]
