"""What an injection will do, as frozen data. Every check on the model happens here, before anything is replaced."""

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..discovery import kind_of
from ..vocabulary import Kind
from . import refusals
from .checks import check_layer, check_not_adapted, savable
from .config import LoraConfig
from .match import Match
from .sites import Survey
from .ties import others_with, shared_parameters

Value = TypeVar("Value", int, float)


@dataclass(frozen=True, slots=True)
class PlannedAdapter:
    """One adapter to be.

    Attributes:
        path: Where it goes.
        kind: What it has to imitate.
        r: Its rank.
        alpha: Its alpha.
        scaling: ``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA.
        dropout: Dropout on its input.
        fan_in_fan_out: Whether the base stores its weight as (in, out); read from its class.
        shares_weight: Whether another module holds the very same weight, as with tied embeddings.
    """

    path: str
    kind: Kind
    r: int
    alpha: float
    scaling: float
    dropout: float = 0.0
    fan_in_fan_out: bool = False
    shares_weight: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What an injection will do: the adapters and the modules saved in full, in module order."""

    adapters: tuple[PlannedAdapter, ...]
    saved: tuple[str, ...]


def make_plan(survey: Survey, found: Match, config: LoraConfig) -> Plan:
    """Return what to do for ``config`` on this model, having checked that all of it can be done.

    Warns of rank and alpha patterns that match nothing, and of weights that another layer shares.

    Raises:
        InvalidConfig: Naming the module, its class and the way out, for a layer of a kind that cannot be adapted,
            a rank that its groups do not divide, a module that cannot be saved, or a model that has adapters already.
    """
    if config.target_parameters:
        raise refusals.target_parameters(config.target_parameters)
    check_not_adapted(survey)
    saved = savable(survey, found.saved)
    adapters = _plan_adapters(survey, found, config)
    for path in (*(each.path for each in adapters if each.shares_weight), *saved):
        if others := others_with(survey, path):
            message = f"{path!r} shares its weight with {', '.join(map(repr, others))}, which keeps it as it is"
            warnings.warn(f"{message}: merging will untie them.", stacklevel=4)
    return Plan(adapters, saved)


def _plan_adapters(survey: Survey, found: Match, config: LoraConfig) -> tuple[PlannedAdapter, ...]:
    rank_of = _Pattern("rank_pattern", config.rank_pattern, config.r)
    alpha_of = _Pattern("alpha_pattern", config.alpha_pattern, config.lora_alpha)
    shared = shared_parameters(survey)
    planned = []
    for path in found.paths:
        site = survey.sites[path]
        kind, r, alpha = kind_of(site.module), rank_of(path), alpha_of(path)
        check_layer(path, site, kind, r)
        adapter = PlannedAdapter(
            path,
            kind,
            r,
            alpha,
            scaling=alpha / (math.sqrt(r) if config.use_rslora else r),
            dropout=config.lora_dropout,
            fan_in_fan_out=kind == "transposed_linear",
            shares_weight=id(site.module.weight) in shared,
        )
        planned.append(adapter)
    rank_of.warn_of_misses()
    alpha_of.warn_of_misses()
    return tuple(planned)


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
            warnings.warn(f"{self.field}: {keys} matches no adapted layer and is ignored.", stacklevel=6)
