"""What an injection will do, as frozen data. Every check on the model happens here, before anything is replaced."""

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from torch import nn

from ...discovery import CONV_KINDS, kind_of
from ...domain.targets import TargetMatcher
from ...domain.vocabulary import Kind
from ..config import AdapterConfig, LoraConfig
from ..layers.factors import is_plain_conv
from . import foreign
from . import rejections as refusals
from .match import Match
from .model_checks import check_layer, check_parameter, inner_layer, savable
from .sites import Survey
from .ties import others_with, shared_parameters

Value = TypeVar("Value", int, float)


class PlannedAdapter(NamedTuple):
    """One adapter to be.

    Attributes:
        path: The layer it goes to.
        named: The layer that the configuration names for it: the attention, for the projections of one.
        location: Where its tensors are in an adapter file: its path, with ``base_layer`` for each adapter around it.
        kind: What it has to imitate; ``expert_parameter`` for any bare parameter.
        r: Its rank; 0 for IA3.
        alpha: Its alpha.
        scaling: ``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA.
        dropout: Dropout on its input.
        fan_in_fan_out: Whether the base stores its weight as (in, out); read from its class.
        shares_weight: Whether another module holds the very same weight, as with tied embeddings.
        parameter: Name of the bare parameter it goes to, if it does.
        is_feedforward: Whether IA3 scales what the layer reads.
    """

    path: str
    named: str
    location: str
    kind: Kind
    r: int = 0
    alpha: float = 0
    scaling: float = 1.0
    dropout: float = 0.0
    fan_in_fan_out: bool = False
    shares_weight: bool = False
    parameter: str = ""
    is_feedforward: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What an injection will do: the adapters and the modules saved in full, in module order."""

    adapters: tuple[PlannedAdapter, ...]
    saved: tuple[str, ...]


def make_plan(survey: Survey, found: Match, config: AdapterConfig) -> Plan:
    """Return what to do for ``config`` on this model, having checked that all of it can be done.

    Warns of rank and alpha patterns that match nothing, of weights that another layer shares, and of dropout that has
    no place.

    Raises:
        InvalidConfig: Naming the module, its class and the way out, for a layer of a kind that cannot be adapted,
            a rank that its groups do not divide, or a module that cannot be saved.
    """
    saved = savable(survey, found.saved)
    adapters = _plan_adapters(survey, found, config)
    for path in (*(each.path for each in adapters if each.shares_weight), *saved):
        if others := others_with(survey, path):
            message = f"{path!r} shares its weight with {', '.join(map(repr, others))}, which keeps it as it is"
            warnings.warn(f"{message}: merging will untie them.", stacklevel=4)
    return Plan(adapters, saved)


def _plan_adapters(survey: Survey, found: Match, config: AdapterConfig) -> tuple[PlannedAdapter, ...]:
    shared = shared_parameters(survey)
    strength = _Strength(config)
    is_feedforward = TargetMatcher(config.spec.feedforward_modules or ()).find
    planned = []
    for path, location, kind, parameter, key in _targets(survey, found, config):
        site, strong = survey.sites[path], strength(key)
        weight: nn.Parameter | None
        if parameter:
            weight = check_parameter(path, site, parameter)
        else:
            weight = check_layer(path, site, kind, strong.r, is_reached=key != path)
        adapter = PlannedAdapter(
            path,
            key.removesuffix(f".{parameter}") if parameter else key,
            location,
            kind,
            *strong,
            dropout=0.0 if parameter else strength.dropout,
            fan_in_fan_out=foreign.is_transposed(site.module) if parameter else kind == "transposed_linear",
            shares_weight=id(weight) in shared,
            parameter=parameter,
            is_feedforward=is_feedforward(path) is not None,
        )
        planned.append(adapter)
    strength.warn_of_misses()
    if strength.dropout:
        _warn_of_dropout(planned, survey)
    return tuple(planned)


class _Target(NamedTuple):
    """Where one adapter goes: its layer, the place in a file, what it is, its bare parameter, and what patterns see."""

    path: str
    location: str
    kind: Kind
    parameter: str
    key: str


def _targets(survey: Survey, found: Match, config: AdapterConfig) -> Iterator[_Target]:
    """Yield where adapters go; of several on one module, the innermost first."""
    left = Counter(path for path, _ in found.parameters)
    bare, done = {*left}, set()
    for path, name in found.parameters:
        left[path] -= 1
        yield _Target(path, path + ".base_layer" * left[path], "expert_parameter", name, f"{path}.{name}")
    for named in found.paths:
        path, kind = named, _kind(survey.sites[named].module)
        if kind == "other" and (inner := inner_layer(named, survey)) != named:
            path, kind = inner, _kind(survey.sites[inner].module)
        if path in bare:
            raise refusals.both_ways(path, survey.sites[path].module)
        if path in done:
            continue
        done.add(path)
        if kind == "multihead_attention" and isinstance(config, LoraConfig):
            yield from _parts_of_attention(path, survey)
        else:
            yield _Target(path, path, kind, "", path)


def _kind(module: nn.Module) -> Kind:
    """Return what an adapter has to imitate; a linear whose weight is computed (weight norm) is a linear here."""
    kind = kind_of(module)
    return "linear" if kind == "other" and isinstance(module, nn.Linear) else kind


def _parts_of_attention(path: str, survey: Survey) -> Iterator[_Target]:
    names = ["in_proj_weight"]
    if survey.sites[path].module._parameters.get("in_proj_weight") is None:  # noqa: SLF001 - PyTorch's own names
        names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"]  # what it reads has three widths
    for depth, name in enumerate(names, start=1):
        kind: Kind = "multihead_attention" if depth == 1 else "expert_parameter"
        yield _Target(path, path + ".base_layer" * (len(names) - depth), kind, name, path)
    inside = path + ".base_layer" * len(names)
    yield _Target(f"{path}.out_proj", f"{inside}.out_proj", "linear", "", path)


class _Strong(NamedTuple):
    """How strong one adapter is."""

    r: int
    alpha: float
    scaling: float


class _Strength:
    """Ranks and alphas by path, and the dropout, of a configuration; nothing of the kind in IA3."""

    def __init__(self, config: AdapterConfig) -> None:
        self.dropout = 0.0
        self.rank_of: _Pattern[int] | None = None
        if isinstance(config, LoraConfig):
            self.dropout, self.use_rslora = config.lora_dropout, config.use_rslora
            self.rank_of = _Pattern("rank_pattern", config.rank_pattern, config.r)
            self.alpha_of = _Pattern("alpha_pattern", config.alpha_pattern, config.lora_alpha)

    def __call__(self, key: str) -> _Strong:
        """Return what holds for ``key``."""
        if self.rank_of is None:
            return _Strong(0, 0, 1.0)
        r, alpha = self.rank_of(key), self.alpha_of(key)
        return _Strong(r, alpha, alpha / (math.sqrt(r) if self.use_rslora else r))

    def warn_of_misses(self) -> None:
        """Name the patterns that nothing came under."""
        for pattern in (self.rank_of, self.alpha_of) if self.rank_of is not None else ():
            pattern.warn_of_misses()


class _Pattern(Generic[Value]):
    """PEFT's rule for ``rank_pattern`` and ``alpha_pattern`` (``get_pattern_key``, 0.21.2): first full suffix match."""

    def __init__(self, field: str, pattern: Mapping[str, Value], default: Value) -> None:
        self.field = field
        self.rules: list[tuple[str, re.Pattern[str], Value]] = [
            (key, re.compile(rf"(.*\.)?({key})$"), value) for key, value in pattern.items()
        ]
        self.default: Value = default
        self.unused = set(pattern)

    def __call__(self, path: str) -> Value:
        """Return the value for ``path``."""
        for key, rule, value in self.rules:
            if rule.match(path):
                self.unused.discard(key)
                return value
        return self.default

    def warn_of_misses(self) -> None:
        """Name the patterns that no path came under; PEFT (0.21.2) warns of those too."""
        if self.unused:
            keys = ", ".join(sorted(map(repr, self.unused)))
            warnings.warn(f"{self.field}: {keys} matches no adapted layer and is ignored.", stacklevel=7)


def _warn_of_dropout(planned: list[PlannedAdapter], survey: Survey) -> None:
    """Say where dropout has no place: where the update is in the weight, there is no input to drop from."""
    spared = [
        each.path for each in planned if each.parameter or _is_own_conv(survey.sites[each.path].module, each.kind)
    ]
    if spared:
        message = f"lora_dropout is not applied in {spared[0]!r} ({len(spared)} in all)"
        warnings.warn(f"{message}: the update is in the weight there, and no input of its own.", stacklevel=6)


def _is_own_conv(module: nn.Module, kind: Kind) -> bool:
    return kind in CONV_KINDS and not is_plain_conv(module)
