"""The engines that serve models with adapters, as ``data/serving`` describes one version of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal

from ...data import read_facts
from ...errors import UnknownName

Outcome = Literal["applies", "ignores", "rejects", "unknown"]
ENGINES = ("vllm", "sglang", "llama_cpp")
"""Names of the engines, which are those of their files."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The outcome for an adapter on some layers; the first rule that fits decides.

    Attributes:
        outcome: What happens.
        why: The reason.
        kinds: Kinds of layers it is for; any if empty.
        roles: Roles it is for; any if empty.
        away: Whether it is for layers of other towers than the language model alone.
        inside: Names of lists of blocks, in one of which the layer has to be; anywhere if empty.
        outside: Names of lists of blocks, in none of which the layer may be.
        names: Last names of paths that it is not for; those of any other name are.
        classes: The list of model classes that it is for; any if empty.
    """

    outcome: Outcome
    why: str
    kinds: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    away: bool = False
    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    classes: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """Layers whose adapters an engine stacks with those of others in the same module, and rejects alone.

    Attributes:
        names: Names of the layers that have to have an adapter.
        of: Names of the layers that need them.
    """

    names: tuple[str, ...]
    of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Engine:
    """A version of an engine.

    Attributes:
        key: Its name in options: ``vllm``.
        name: Its own name.
        version: The version that was read.
        source: What was read of it.
        supports: Model classes with adapters.
        without: Model classes that it serves without adapters.
        others: What happens to adapters of other classes, and why.
        classes: Further lists of model classes, for rules.
        rules: The rules.
        needs: Layers that it takes together alone.
        features: What happens to an adapter with a feature, and why; with what is excepted.
        ranks: The ranks that may be set as the largest; any if empty.
        rank: The largest rank without an option; ``None`` if there is no limit.
        rank_option: The option that sets the largest rank.
    """

    key: str
    name: str
    version: str
    source: str
    supports: frozenset[str]
    without: frozenset[str]
    others: Mapping[str, Any]
    classes: Mapping[str, frozenset[str]]
    rules: tuple[Rule, ...]
    needs: tuple[Need, ...]
    features: Mapping[str, Mapping[str, Any]]
    ranks: tuple[int, ...] = ()
    rank: int | None = None
    rank_option: str = ""

    @property
    def label(self) -> str:
        """Its name with the version."""
        return f"{self.name} {self.version}"


def get_engine(name: str) -> Engine:
    """Return an engine by its name, in any spelling.

    Raises:
        UnknownName: If there is no such engine.
    """
    key = name.strip().lower().replace(".", "_").replace("-", "_")
    if key not in ENGINES:
        raise UnknownName(name, ENGINES, f"Engines: {', '.join(ENGINES)}.", field="servable")
    return _read(key)


def list_engines() -> tuple[Engine, ...]:
    """Return every engine."""
    return tuple(map(_read, ENGINES))


@cache
def _read(key: str) -> Engine:
    facts = read_facts(f"serving/{key}.toml")
    known = {field.name for field in fields(Rule)}
    rules: Iterator[dict[str, Any]] = (
        {name: tuple(value) if isinstance(value, list) else value for name, value in rule.items() if name in known}
        for rule in facts["rule"]
    )
    return Engine(
        key=key,
        name=facts["name"],
        version=facts["version"],
        source=facts["source"],
        supports=frozenset(facts["supports"]),
        without=frozenset(facts.get("without", ())),
        others=facts["others"],
        classes={name: frozenset(classes) for name, classes in facts.get("classes", {}).items()},
        rules=tuple(Rule(**rule) for rule in rules),
        needs=tuple(Need(tuple(need["names"]), tuple(need["of"])) for need in facts.get("need", ())),
        features=facts.get("feature", {}),
        ranks=tuple(facts.get("ranks", ())),
        rank=facts.get("rank"),
        rank_option=facts.get("rank_option", ""),
    )
