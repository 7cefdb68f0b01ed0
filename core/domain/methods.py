"""PEFT's methods: what each needs to be told of a model, and which methods need the same (``data/methods.toml``)."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ..errors import MethodDoesNotFit, UnknownPeftType, quoted
from .architectures import PromptFacts
from .vocabulary import Kind, Preset

TARGETED = "LORA"
"""The family whose proposals tell that an architecture was scanned at all."""

UNTARGETED = frozenset({"PROMPT_LEARNING", "WHOLE_MODEL"})
"""Families whose methods name no layer."""


@dataclass(frozen=True, slots=True)
class Family:
    """Methods that need to be told the same of a model.

    Attributes:
        says: What that is, and why.
        presets: Presets that are proposed for them.
    """

    name: str
    says: str
    presets: tuple[Preset, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """One PEFT method.

    Attributes:
        name: PEFT's name of it (``PeftType``).
        family: Name of its family.
        kinds: Kinds of layers it can adapt; empty if it names none.
        grouped: Whether convolutions with groups are among them.
        parameters: Whether it adapts fused experts (``target_parameters``).
        exclusion: Whether its configuration has ``exclude_modules``.
        sized_alike: Whether it trains as many parameters as the method its family is named for.
        needs: Facts of a model its configuration asks for.
        only: The only model types it knows; empty if it takes all.
        note: What else it demands; empty if nothing.
    """

    name: str
    family: str
    kinds: frozenset[Kind] = frozenset()
    grouped: bool = False
    parameters: bool = False
    exclusion: bool = False
    sized_alike: bool = False
    needs: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    note: str = ""

    def fits(self, kind: str, groups: int = 1) -> bool:
        """Tell whether the method can adapt a layer of this kind."""
        if kind == "expert_parameter":
            return self.parameters
        return kind in self.kinds and (groups == 1 or self.grouped)

    @property
    def shares(self) -> str:
        """The reason that comes with an answer of its family; empty for the method the family is named for."""
        return "" if self.name == self.family else f"{self.name} shares {self.family}'s targets"


def get_method(peft_type: str) -> Method:
    """Return the method of a PEFT type, whatever its case.

    Raises:
        UnknownPeftType: If PEFT has no such method.
    """
    known = _methods()
    if peft_type.upper() not in known:
        raise UnknownPeftType(peft_type, known, "PEFT's methods are in data/methods.toml.")
    return known[peft_type.upper()]


def list_methods() -> list[Method]:
    """Return every method, sorted by name."""
    return sorted(_methods().values(), key=lambda method: method.name)


def get_family(name: str) -> Family:
    """Return a family by its name, as a method has it."""
    facts = _facts()["families"][name]
    return Family(name, facts["says"], tuple(facts["presets"]))


def list_fact_names() -> dict[str, list[str]]:
    """Return, for each fact of prompt learning, the names under which configurations keep it, in PEFT's order."""
    names: dict[str, list[str]] = _facts()["facts"]
    return names


def list_fact_fields() -> dict[str, list[str]]:
    """Return, for each fact of prompt learning, the fields in which PEFT's configurations of a method want it."""
    fields: dict[str, list[str]] = _facts()["fields"]
    return fields


def nothing_for(method: Method, reference: str, why: str) -> MethodDoesNotFit:
    """Return the error for a method that can adapt nothing of an architecture."""
    message = f"{method.name} cannot adapt {reference}: {why}. {method.family}: {get_family(method.family).says}."
    return MethodDoesNotFit(message, peft_type=method.name, reference=reference, why=why)


def explain_facts(method: Method, name: str, facts: PromptFacts) -> tuple[str, ...]:
    """Return the facts of an architecture that a method without targets needs, as reasons.

    Raises:
        MethodDoesNotFit: If the method takes only other model types, or a fact it needs is unknown.
    """
    if method.only and name not in method.only:
        raise nothing_for(method, name, f"PEFT has it for {quoted(method.only)} alone")
    known = {need: getattr(facts, need) for need in method.needs}
    missing = [need for need, value in known.items() if value is None]
    if missing:
        raise nothing_for(method, name, f"nothing tells its {quoted(missing)}")
    values = ", ".join(f"{need} = {value}" for need, value in known.items())
    notes = (method.note,) if method.note else ()
    return (f"{method.name} names no layers: {get_family(method.family).says}", f"its facts: {values}", *notes)


@cache
def _methods() -> dict[str, Method]:
    return {name: _to_method(name, facts) for name, facts in _facts()["methods"].items()}


def _to_method(name: str, facts: dict[str, Any]) -> Method:
    lists: dict[str, Any] = {field: tuple(facts[field]) for field in ("needs", "only") if field in facts}
    lists["kinds"] = frozenset(facts.get("kinds", ()))
    return Method(name, **{**facts, **lists})


@cache
def _facts() -> dict[str, Any]:
    return tomllib.loads((resources.files("loradar.data") / "methods.toml").read_text("utf-8"))
