"""Judge an adapter by the rules of an engine: it is applied, partly ignored, or rejected."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import ClassVar, Protocol

from ...schema import Config, schema_config
from ..patterns import pattern_of
from ..vocabulary import list_some
from .engines import Engine, Outcome, Rule

OWN = frozenset({"language", "main"})
"""Towers of the language model, which is what the engines serve."""


class Placed(Protocol):
    """What rules ask of a layer: a layer, or the slot of layers."""

    @property
    def kind(self) -> str:
        """Its kind."""

    @property
    def role(self) -> str:
        """Its role."""

    @property
    def tower(self) -> str:
        """Its tower."""


@dataclass(frozen=True, slots=True)
class Served:
    """The verdict of a version of an engine on an adapter."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    engine: str
    """``vllm``, ``sglang`` or ``llama_cpp``."""
    version: str
    """Version of the engine that the facts are of."""
    outcome: Outcome
    """``applies`` if all layers get their adapter, ``ignores`` if some do not, ``rejects`` if the adapter is not
    loaded, ``unknown`` if the engine may serve the model in a way that the facts do not cover."""
    text: str
    """The outcome in words, with the reasons and the options that are needed."""
    ignored: tuple[str, ...] = ()
    """Path patterns of layers whose adapter is ignored."""
    rejected: tuple[str, ...] = ()
    """Path patterns of layers for which the adapter is rejected."""


@dataclass(frozen=True, slots=True)
class Features:
    """The features of an adapter beside its layers.

    Attributes:
        rank: Its largest rank; ``None`` if it is not known.
        names: Its features, as ``data/serving`` names them: ``dora``, ``rslora``, ``rank_pattern``.
        saved: The modules saved in full.
    """

    rank: int | None = None
    names: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()


def find_outcomes(
    engine: Engine, class_name: str | None, layers: Iterable[tuple[str, Placed]]
) -> dict[str, tuple[Outcome, str]]:
    """Return the outcome of an engine for an adapter on layers, and why, by their path patterns.

    Args:
        engine: The engine.
        class_name: The class of the model; ``None`` if it is of no class of transformers.
        layers: The layers that the adapter is on: path or path pattern, and kind, role and tower.
    """
    kinds = {pattern_of(path): layer for path, layer in layers}
    found: dict[str, tuple[Outcome, str]] = {}
    for pattern, layer in kinds.items():
        rule = next((rule for rule in engine.rules if _fits(engine, rule, class_name, pattern, layer)), None)
        found[pattern] = (rule.outcome, rule.why) if rule else ("applies", "")
        missing = _list_missing(engine, pattern, kinds)
        if missing and found[pattern][0] == "applies":
            found[pattern] = ("rejects", f"it takes an adapter there with one on {' and '.join(missing)}")
    return found


def _list_missing(engine: Engine, pattern: str, there: Container[str]) -> list[str]:
    """Return the layers in the same module that an engine needs adapters on beside that of a layer."""
    parent, _, name = pattern.rpartition(".")
    needed = (one for need in engine.needs if name in need.of for one in need.names)
    return [one for one in needed if f"{parent}.{one}" not in there]


def _fits(engine: Engine, rule: Rule, class_name: str | None, path: str, layer: Placed) -> bool:
    last = next((name for name in reversed(path.split(".")) if name != "*"), "")
    lists = {name for name, after in pairwise(path.split(".")) if after == "*"}
    return (
        (not rule.kinds or layer.kind in rule.kinds)
        and (not rule.roles or layer.role in rule.roles)
        and (not rule.away or layer.tower not in OWN)
        and (not rule.inside or not lists.isdisjoint(rule.inside))
        and lists.isdisjoint(rule.outside)
        and (not rule.names or last not in rule.names)
        and (not rule.classes or class_name in engine.classes[rule.classes])
    )


def assess(
    engine: Engine, class_name: str | None, layers: Iterable[tuple[str, Placed]], features: Features | None = None
) -> Served:
    """Return the verdict of an engine on an adapter.

    Args:
        engine: The engine.
        class_name: The class of the model; ``None`` if it is of no class of transformers.
        layers: The layers that the adapter is on: path or path pattern, and kind, role and tower.
        features: What the adapter has beside.
    """
    refused = _assess_class(engine, class_name)
    if refused:
        return Served(engine.key, engine.version, *refused)
    found = [(pattern, *outcome) for pattern, outcome in find_outcomes(engine, class_name, layers).items()]
    faults, notes = _assess_features(engine, features or Features())
    outcome, texts = _sum_up(found, faults, notes)
    ignored, rejected = (tuple(one[0] for one in found if one[1] == how) for how in ("ignores", "rejects"))
    return Served(engine.key, engine.version, outcome, "; ".join(texts), ignored, rejected)


Found = tuple[str, Outcome, str]
"""A path pattern, what happens to adapters there, and why."""


def _sum_up(found: Sequence[Found], faults: list[str], notes: list[str]) -> tuple[Outcome, list[str]]:
    """Return the outcome for an adapter as a whole, in words."""
    rejected, ignored = ([one for one in found if one[1] == how] for how in ("rejects", "ignores"))
    if rejected or faults:
        first, *others = [*_reasons(rejected), *faults]
        return "rejects", [f"rejects: {first}", *others]
    if ignored:
        return "ignores", [f"ignores {len(ignored)} of {len(found)}: {'; '.join(_reasons(ignored))}", *notes]
    if any(note.startswith("ignores") for note in notes):
        return "ignores", notes
    return "applies", ["applies all", *dict.fromkeys(one[2] for one in found if one[2]), *notes]


def _assess_class(engine: Engine, class_name: str | None) -> tuple[Outcome, str] | None:
    if class_name in engine.supports:
        return None
    if class_name is None:
        return "rejects", "rejects: it serves models of transformers alone"
    if class_name in engine.without:
        return "rejects", f"rejects: it serves {class_name} without adapters"
    outcome: Outcome = engine.others["outcome"]
    return outcome, f"{outcome}: {class_name} {engine.others['why']}"


def _reasons(found: Sequence[Found]) -> list[str]:
    """Return each reason with the layers that it is of."""
    ordered = sorted(found, key=lambda one: one[2])
    groups = ((why, [one[0] for one in group]) for why, group in groupby(ordered, key=lambda one: one[2]))
    return [f"{list_some(patterns)} ({why})" for why, patterns in groups]


def _assess_features(engine: Engine, features: Features) -> tuple[list[str], list[str]]:
    """Return why the features of an adapter are rejected, and notes on those that are not."""
    faults: list[str] = []
    notes: list[str] = []
    for name in features.names:
        rule = engine.features.get(name)
        if rule:
            (faults if rule["outcome"] == "rejects" else notes).append(_describe(rule["outcome"], rule["why"]))
    saved = engine.features.get("modules_to_save")
    unsaved = [name for name in features.saved if saved and name not in saved.get("but", ())]
    if saved and unsaved:
        words = _describe(saved["outcome"], f"modules_to_save {list_some(unsaved)}: {saved['why']}")
        (faults if saved["outcome"] == "rejects" else notes).append(words)
    rank = features.rank
    if rank is not None and engine.ranks and rank > engine.ranks[-1]:
        faults.append(f"rank {rank} is over {engine.ranks[-1]}")
    elif rank is not None and engine.rank is not None and rank > engine.rank:
        needed = next((one for one in engine.ranks if one >= rank), rank)
        notes.append(f"needs {engine.rank_option} {needed}")
    return faults, notes


def _describe(outcome: str, why: str) -> str:
    return why if outcome == "rejects" else f"{outcome} {why}"
