"""The roles that the lexicon knows names of layers for, whichever model they are in."""

from collections import defaultdict
from collections.abc import Collection
from functools import cache
from typing import Any

from ...data import read_facts
from ..vocabulary import Role

_PARTS: dict[Any, tuple[Role, ...]] = {
    "attention.qkv": ("attention.qkv", "attention.query", "attention.key", "attention.value"),
    "attention.kv": ("attention.kv", "attention.key", "attention.value", "attention.qkv"),
    "attention.query": ("attention.query", "attention.qkv"),
    "attention.key": ("attention.key", "attention.kv", "attention.qkv"),
    "attention.value": ("attention.value", "attention.kv", "attention.qkv"),
    "mlp.gate_up": ("mlp.gate_up", "mlp.gate", "mlp.up"),
    "mlp.gate": ("mlp.gate", "mlp.gate_up"),
    "mlp.up": ("mlp.up", "mlp.gate_up"),
    "expert.gate_up": ("expert.gate_up", "expert.gate", "expert.up"),
    "expert.gate": ("expert.gate", "expert.gate_up"),
    "expert.up": ("expert.up", "expert.gate_up"),
}
"""Projections that hold the same, joined or apart."""


def name_roles(name: str, own: Collection[Role]) -> frozenset[Role]:
    """Return the roles, among those of a model, that a name of a layer has in other models."""
    known = _roles_by_name().get(name.rpartition(".")[2], ())
    return frozenset(role for one in known for role in _split(one) if role in own)


def is_layer_name(name: str) -> bool:
    """Return whether a name is that of a layer in other models, and so no slip."""
    return name.rpartition(".")[2] in _roles_by_name()


def _split(role: str) -> tuple[Role, ...]:
    known: Any = role  # the lexicon has roles alone
    return _PARTS.get(role) or (known,)


@cache
def _roles_by_name() -> dict[str, frozenset[str]]:
    """Return the roles of each name in the lexicon."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for belief in read_facts("lexicon.toml")["belief"]:
        for name in belief.get("names", ()):
            found[name].add(belief["role"])
    return {name: frozenset(roles) for name, roles in found.items()}
