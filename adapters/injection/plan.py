"""The plan of an injection, as frozen data; every check on the model happens here, before anything is replaced."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from torch import nn

from ...discovery import (
    CONV_KINDS,
    FITTING_KINDS,
    check_unwrapped,
    find_adapted,
    find_misfit,
    find_owner_misfit,
    is_plain_conv,
    is_stack,
    kind_of,
    read_attribute,
)
from ...domain.targets import TargetMatcher, TargetSpec
from ...domain.vocabulary import Kind
from ...errors import InvalidConfig, NoAdaptableLayers, TargetsNotFound
from ...warn import warn
from ..checks import ALL_LINEAR, task_heads
from ..config import AdapterConfig, LoraConfig
from ..layers.base_layer import offload_device
from ..layers.planned import PlannedAdapter
from .beginnings import check_beginning
from .host_model import Site, Survey, unwrapped
from .match import Match, match
from .target_checks import check_computed, warn_of_endings
from .tokens import plan_tokens, plan_tying
from .variant_checks import check_variant, plan_variant

Expand = Callable[[nn.Module, str], TargetSpec]
"""A function from a model and a shorthand such as ``all-linear`` to the targets of the shorthand in that model."""

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
LEAVE_OUT = "Take it out of target_modules, or name it in exclude_modules."


@dataclass(frozen=True, slots=True)
class Plan:
    """The adapters to create and the modules to train in full, in module order.

    Attributes:
        config: The configuration, with shorthands expanded and the heads of the task added.
        adapters: The plan of each adapter.
        saved: Paths of the modules trained in full.
        tied: Those of them that train one weight, the input embedding first.
    """

    config: AdapterConfig
    adapters: tuple[PlannedAdapter, ...]
    saved: tuple[str, ...]
    tied: tuple[str, ...] = ()


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
    config = _complete(config.checked(), survey, expand)
    check_blocks(survey, config)
    parameters = survey.parameter_paths() if config.spec.target_parameters else ()
    check_computed(survey, config.spec.target_parameters or ())
    try:
        matched = match(survey.paths, config, parameters)
    except TargetsNotFound:
        check_adaptable(survey)
        raise
    for remark in matched.remarks:
        warn(remark)
    saved = check_saved(survey, matched.saved)
    warn_of_endings(survey, config.spec.modules_to_save or (), saved)
    adapters = _plan_adapters(survey, matched, config)
    if getattr(config, "lora_dropout", 0):
        _warn_of_dropout(survey, adapters)
    if config.begins_with_peft:
        check_beginning(survey, config, adapters)
    adapted = [each.path for each in adapters]
    tied = plan_tying(survey, config, adapted, saved)
    saved = tuple(dict.fromkeys((*saved, *tied)))
    is_repeated = getattr(config, "layer_replication", None) is not None
    _warn_of_shared(survey, [each.path for each in adapters if each.shares_weight], is_repeated=is_repeated)
    _warn_of_shared(survey, [path for path in saved if path not in tied], is_repeated=is_repeated)
    return Plan(config, (*adapters, *plan_tokens(survey, config, adapted, saved)), saved, tied)


def _warn_of_shared(survey: Survey, paths: Iterable[str], *, is_repeated: bool) -> None:
    """Warn of layers whose weight others share, unless they are repetitions of one block."""
    for path in paths:
        others = [other for other in survey.sharing(path) if not (is_repeated and _is_replica(other, path))]
        if others:
            message = f"{path!r} shares its weight with {', '.join(map(repr, others))}, which keeps it as it is"
            warn(f"{message}: merging will untie them.")


def _is_replica(path: str, other: str) -> bool:
    """Return whether two paths differ by numbers alone, as those of one layer in repeated blocks."""
    return re.sub(r"\d+", "*", path) == re.sub(r"\d+", "*", other)


def _complete(config: AdapterConfig, survey: Survey, expand: Expand | None) -> AdapterConfig:
    """Expand the shorthand of a configuration, and save the heads of its task, if any, as PEFT's task classes do."""
    targets = config.spec.target_modules
    if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        if expand is None:
            way_out = "Use loradar.get_peft_model, which resolves it, or name the layers."
            raise InvalidConfig(f"target_modules={targets!r} is a shorthand that cannot be resolved here. {way_out}")
        with unwrapped(survey.model) as model:
            config = config.with_spec(expand(model, ALL_LINEAR))
    heads = task_heads().get(config.task_type or "", ())
    if not heads:
        return config
    names = dict.fromkeys(path.rpartition(".")[2] for path in survey.sites)
    found = [name for name in names if name.endswith(heads)]  # DistilBERT has a pre_classifier too
    own = [name for name in config.modules_to_save or () if name not in (*heads, *found)]
    return replace(config, modules_to_save=[*own, *found])


def _plan_adapters(survey: Survey, matched: Match, config: AdapterConfig) -> tuple[PlannedAdapter, ...]:
    shared = survey.shared_parameters()
    lora = config if isinstance(config, LoraConfig) else LoraConfig()
    variant = config.variant
    is_feedforward = TargetMatcher(config.spec.feedforward_modules or ()).find
    targets = [*_targets(survey, matched, config)]
    keys = [target.key for target in targets]
    planned = []
    known = strengths(config, keys)
    for (path, location, kind, parameter, key), (r, alpha, scaling) in zip(targets, known, strict=True):
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
            dropout=0.0 if parameter else lora.lora_dropout,
            fan_in_fan_out=is_transposed,
            shares_weight=id(weight) in shared,
            parameter=parameter,
            is_feedforward=is_feedforward(path) is not None,
            use_dora=lora.use_dora,
            lora_bias=lora.lora_bias,
            lora_alpha=alpha,
            use_rslora=lora.use_rslora,
            variant=plan_variant(config, variant) if variant else None,
        )
        planned.append(adapter)
    _warn_of_unmatched(config, keys)
    if lora.use_dora or lora.lora_bias or variant:
        check_variant(survey, planned)
    return tuple(planned)


def _warn_of_dropout(survey: Survey, planned: Iterable[PlannedAdapter]) -> None:
    """Warn of layers whose update is in the weight, so that there is no input to drop from."""
    in_weight = [
        each.path
        for each in planned
        if each.parameter or (each.kind in CONV_KINDS and not is_plain_conv(survey.sites[each.path].module))
    ]
    if in_weight:
        message = f"lora_dropout is not applied in {in_weight[0]!r} ({len(in_weight)} in all)"
        warn(f"{message}: the update is in the weight there, and no input of its own.")


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
    bare, done, passed_in = {*left}, set[str](), set[str]()
    for path, name in matched.parameters:
        left[path] -= 1
        yield _Target(path, path + ".base_layer" * left[path], "expert_parameter", name, f"{path}.{name}")
    for named in matched.paths:
        path = inner_layer(named, survey) if _kind(survey.sites[named].module) == "other" else named
        kind = _kind(survey.sites[path].module)
        if path in bare:
            way_out = "Name it in target_modules or its parameters in target_parameters."
            module = survey.sites[path].module
            raise rejected(path, module, "is targeted twice, as a module and by a parameter", way_out)
        if path in done:
            continue
        done.add(path)
        if path in passed_in:
            raise rejected(path, survey.sites[path].module, "is adapted with the attention around it")
        if kind == "multihead_attention" and isinstance(config, LoraConfig):
            passed_in.add(f"{path}.out_proj")
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


def strengths(config: AdapterConfig, keys: Sequence[str]) -> list[tuple[int, float, float]]:
    """Return rank, alpha and scaling of the adapter at each of these paths; IA3 has none of them."""
    if not isinstance(config, LoraConfig):
        return [(0, 0, 1.0)] * len(keys)
    own_ranks, own_alphas = config.rank_pattern, config.alpha_pattern
    ranks = [config.r if each is None else own_ranks[each] for each in _match_patterns(own_ranks, keys)]
    alphas = [config.lora_alpha if each is None else own_alphas[each] for each in _match_patterns(own_alphas, keys)]
    roots = [math.sqrt(r) if config.use_rslora else r for r in ranks]
    return [(r, alpha, alpha / root) for r, alpha, root in zip(ranks, alphas, roots, strict=True)]


def _match_patterns(patterns: Iterable[str], keys: Sequence[str]) -> list[str | None]:
    """Return the first pattern that matches a whole suffix of each path, if any.

    PEFT's rule (``get_pattern_key``, 0.21.2).
    """
    rules = {each: re.compile(rf"(.*\.)?({each})$") for each in patterns}
    if not rules:
        return [None] * len(keys)
    return [next((each for each, rule in rules.items() if rule.match(key)), None) for key in keys]


def _warn_of_unmatched(config: AdapterConfig, keys: Sequence[str]) -> None:
    """Warn of patterns of ranks and alphas that match no adapted layer, as PEFT does."""
    if not isinstance(config, LoraConfig):
        return
    for field, patterns in (("rank_pattern", config.rank_pattern), ("alpha_pattern", config.alpha_pattern)):
        if unmatched := sorted(map(repr, patterns.keys() - {*_match_patterns(patterns, keys)})):
            message = f"{field}: {', '.join(unmatched)} matches no adapted layer and is ignored."
            warn(message)


# Checks; each error names the module, its class and the way out


def rejected(path: str, module: nn.Module, why: str, way_out: str = LEAVE_OUT) -> InvalidConfig:
    """Return the error for a module that cannot be adapted or saved."""
    name = type(module).__name__
    return InvalidConfig(f"{path!r} ({name}) {why}. {way_out}", path=path, class_name=name)


def check_layer(path: str, site: Site, kind: Kind, r: int, *, is_passed_in: bool = False) -> nn.Parameter | None:
    """Reject a layer that no adapter of rank ``r`` fits; return its weight if it has one.

    Args:
        path: Its path, for the message.
        site: The layer.
        kind: Its kind.
        r: The rank; 0 for IA3, which has no adapter for embeddings.
        is_passed_in: Whether its attention is adapted as well, and passes the updated weight in.
    """
    misfit = find_misfit(site.module, kind, r, site.parent, is_passed_in=is_passed_in)
    if misfit is not None:
        raise rejected(path, site.module, misfit.why, misfit.way_out or LEAVE_OUT)
    return site.module._parameters.get("weight")  # noqa: SLF001 - packed weights have other names


def check_parameter(path: str, site: Site, name: str) -> nn.Parameter:
    """Reject a bare parameter that is not a matrix or a stack of matrices in floating point; return the parameter."""
    parameter = site.module._parameters[name]  # noqa: SLF001 - as matched
    if not is_stack(parameter):
        key, shape = f"{path}.{name}", None if parameter is None else tuple(parameter.shape)
        message = f"target_parameters: {key!r} has shape {shape}, and is no matrix or stack of matrices"
        raise InvalidConfig(f"{message} in floating point. Leave it out.", path=key, shape=shape)
    misfit = find_owner_misfit(site.module)
    if misfit is not None:
        raise rejected(path, site.module, misfit.why, misfit.way_out or LEAVE_OUT)
    return cast("nn.Parameter", parameter)


def inner_layer(path: str, survey: Survey) -> str:
    """Return the path of the linear layer inside of a module that only wraps it, such as a clipping linear."""
    module = survey.sites[path].module
    is_list = isinstance(module, nn.ModuleList | nn.ModuleDict)
    if not is_list and kind_of(module) == "other" and len(module._modules) == 1 and not module._parameters:  # noqa: SLF001
        inner = f"{path}.{next(iter(module._modules))}"  # noqa: SLF001
        if inner in survey.sites and kind_of(survey.sites[inner].module) in ("linear", "transposed_linear"):
            return inner
    return path


def check_saved(survey: Survey, paths: Collection[str]) -> tuple[str, ...]:
    """Reject modules that cannot be trained in full through a copy; return the paths of the others.

    One without parameters is passed over if others are left: ``head`` may match a classifier and the emptied head of a
    backbone too.
    """
    modules = {path: survey.sites[path].module for path in paths}
    for path, module in modules.items():
        if any(offload_device(inner) is not None for inner in module.modules()):
            way_out = "Adapt the model before it is dispatched."
            raise rejected(path, module, "has weights that accelerate offloads, and no copy of them can train", way_out)
        if isinstance(module, CONTAINERS):
            way_out = "Name the modules inside of it in modules_to_save."
            raise rejected(path, module, "cannot be saved as a whole", way_out)
    trainable = [path for path, module in modules.items() if any(p.is_floating_point() for p in module.parameters())]
    if modules and not trainable:
        path, module = next(iter(modules.items()))
        raise rejected(path, module, "has no parameters to train", "Take it out of modules_to_save.")
    return tuple(trainable)


def check_host(model: nn.Module) -> None:
    """Reject a model that no adapter can be put in: wrapped so that they are missed, sharded, or adapted already."""
    check_unwrapped(model, is_opened=True)
    path = find_adapted(model)
    if path is not None:
        message = f"{type(model).__name__} carries adapters already (at {path!r})."
        raise InvalidConfig(f"{message} Call unload() or merge_and_unload() on it first.", path=path)


def check_blocks(survey: Survey, config: AdapterConfig) -> None:
    """Reject ``layers_to_transform`` where one block is run as several layers, as in ALBERT."""
    depth = read_attribute(read_attribute(survey.model, "config"), "num_hidden_layers")  # of a transformers model
    if not isinstance(depth, int) or not isinstance(config, LoraConfig) or config.layers_to_transform is None:
        return
    numbers = [int(name) for path in survey.paths for name in path.split(".") if name.isdecimal()]
    # Blocks in stages have small numbers too, but more layers of one name than that.
    names = Counter(path.rpartition(".")[2] for path in survey.paths)
    if numbers and max(numbers) + 1 < depth and max(names.values()) < depth:
        path, blocks = next(path for path in survey.paths if path.rpartition(".")[2].isdecimal()), max(numbers) + 1
        shared = f"the block {path!r} is shared, {depth} layers run on {blocks}"
        way_out = "Leave it out, which adapts all of them; or correct num_hidden_layers, if blocks were cut off."
        message = f"layers_to_transform cannot tell layers apart: {shared}. {way_out}"
        raise InvalidConfig(message, path=path, blocks=blocks, depth=depth)


def check_adaptable(survey: Survey) -> None:
    """Reject a model without a module that any configuration could adapt.

    Raises:
        NoAdaptableLayers: Naming its classes.
    """
    if not any(kind_of(site.module) in (*FITTING_KINDS, "multihead_attention") for site in survey.sites.values()):
        classes = Counter(type(module).__name__ for module in survey.modules())
        names = ", ".join(name for name, _ in classes.most_common(5))
        message = f"{type(survey.model).__name__} has no layer that LoRA can adapt, only: {names}."
        raise NoAdaptableLayers(message, classes=dict(classes))
