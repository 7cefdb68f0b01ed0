"""Describe PEFT's methods and the families of methods that share targets (``data/methods.toml``)."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from ..data import read_facts
from ..errors import InvalidRequest, MethodDoesNotFit, UnknownPeftType, quoted
from ..settings import PRESET_VARIABLE, Settings
from .architectures import PromptFacts
from .vocabulary import PRESETS, Kind, Preset

_FACTS = "methods.toml"

TARGETED = "LORA"
"""The family that every scanned architecture has proposals for."""

UNTARGETED = frozenset({"PROMPT_LEARNING", "WHOLE_MODEL"})
"""Families whose methods name no layers."""


@dataclass(frozen=True, slots=True)
class Family:
    """Methods that share targets."""

    name: str
    says: str
    """The layers or facts they need, and why."""
    presets: tuple[Preset, ...]
    """Presets proposed for them."""


@dataclass(frozen=True, slots=True)
class Method:
    """One PEFT method."""

    name: str
    """PEFT's name (``PeftType``)."""
    family: str
    """Name of its family."""
    kinds: frozenset[Kind] = frozenset()
    """Kinds of layers it can adapt; empty if it names no layers."""
    grouped: bool = False
    """Whether it can adapt convolutions with groups."""
    parameters: bool = False
    """Whether it can adapt fused experts (``target_parameters``)."""
    exclusion: bool = False
    """Whether its configuration has ``exclude_modules``."""
    sized_alike: bool = False
    """Whether it trains as many parameters as the method its family is named for."""
    needs: tuple[str, ...] = ()
    """Facts of a model that its configuration requires."""
    only: tuple[str, ...] = ()
    """The only model types it supports; empty for all."""
    note: str = ""
    """Further requirements; empty for none."""

    def fits(self, kind: str, groups: int = 1) -> bool:
        """Return whether the method can adapt a layer of this kind."""
        if kind == "expert_parameter":
            return self.parameters
        return kind in self.kinds and (groups == 1 or self.grouped)

    @property
    def shares(self) -> str:
        """The reason added to a proposal of its family; empty for the method the family is named for."""
        return "" if self.name == self.family else f"{self.name} shares {self.family}'s targets"


def get_method(peft_type: str) -> Method:
    """Return the method of a PEFT type, in any case.

    Raises:
        UnknownPeftType: If PEFT has no such method.
    """
    known = _methods()
    if peft_type.upper() not in known:
        raise UnknownPeftType(peft_type, known, f"PEFT's methods: {', '.join(sorted(known))}.")
    return known[peft_type.upper()]


def list_methods() -> list[Method]:
    """Return every method, sorted by name."""
    return sorted(_methods().values(), key=lambda method: method.name)


def get_family(name: str) -> Family:
    """Return the family of this name."""
    facts = read_facts(_FACTS)["families"][name]
    return Family(name, facts["says"], tuple(facts["presets"]))


def choose_preset(preset: str | None, peft_type: str) -> str:
    """Return a preset, or the user's own one where none is named; ``default`` for a method that does not have it.

    Raises:
        InvalidRequest: If the user's own one is no preset.
        UnknownPeftType: If PEFT has no such method.
    """
    if preset is not None:
        return preset
    own = Settings.from_environment().preset or "default"
    if own not in PRESETS:
        message = f"Invalid {PRESET_VARIABLE} {own!r}: give one of {quoted(PRESETS)}."
        raise InvalidRequest(message, variable=PRESET_VARIABLE, value=own)
    return own if own in get_family(get_method(peft_type).family).presets else "default"


def list_fact_names() -> dict[str, list[str]]:
    """Return the names of each prompt-learning fact in model configurations, in PEFT's order."""
    names: dict[str, list[str]] = read_facts(_FACTS)["facts"]
    return names


def list_fact_fields() -> dict[str, list[str]]:
    """Return the fields of each prompt-learning fact in PEFT's configurations."""
    fields: dict[str, list[str]] = read_facts(_FACTS)["fields"]
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
    methods: dict[str, Method] = {}
    for name, facts in read_facts(_FACTS)["methods"].items():
        lists: dict[str, Any] = {field: tuple(facts[field]) for field in ("needs", "only") if field in facts}
        methods[name] = Method(name, **{**facts, **lists, "kinds": frozenset(facts.get("kinds", ()))})
    return methods
