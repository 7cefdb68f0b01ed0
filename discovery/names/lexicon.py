"""The lexicon: what ``data/lexicon.toml`` believes of names, parsed once, asked by the static roles."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from ...domain.vocabulary import Role
from ..facts.data_files import read_facts

PLAIN = "plain"
"""The context of a layer no known word stands around."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True, slots=True)
class Context:
    """Words that tell what kind of module a layer stands in."""

    name: str
    says: str
    words: frozenset[str]
    unless: frozenset[str]
    anywhere: bool


@dataclass(frozen=True, slots=True)
class Belief:
    """A role for layers of certain names in certain contexts."""

    role: Role
    says: str
    names: frozenset[str]
    within: frozenset[str]
    sibling: frozenset[str]
    parent: frozenset[str]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Everything believed of names."""

    contexts: tuple[Context, ...]
    beliefs: tuple[Belief, ...]
    wrappers: frozenset[str]
    routers: frozenset[str]

    def context_of(self, names: Iterable[str]) -> Context | None:
        """Return the context that names around a layer (nearest first) tell of, if one does."""
        found = [context for name in names if (context := self._context_in(name)) is not None]
        return next((context for context in found if context.anywhere), found[0] if found else None)

    def _context_in(self, name: str) -> Context | None:
        words = words_of(name)
        return next((c for c in self.contexts if words & c.words and not words & c.unless), None)

    def find(self, name: str, context: str, parent: str, siblings: frozenset[str]) -> Belief | None:
        """Return the first belief about a layer's name, given where it stands and what stands beside it."""
        folded = name.lower()
        for belief in self.beliefs:
            if folded not in belief.names or context not in belief.within:
                continue
            if belief.sibling and not belief.sibling & siblings:
                continue
            if belief.parent and parent.lower() not in belief.parent:
                continue
            return belief
        return None


@lru_cache(maxsize=4096)
def words_of(name: str) -> frozenset[str]:
    """Return the lower-case words of a CamelCase or snake_case name, and the whole name."""
    return frozenset(word.lower() for word in _WORD.findall(name)) | {name.lower()}


@cache
def load_lexicon() -> Lexicon:
    """Read the lexicon from the package's data."""
    entries = read_facts("lexicon.toml")
    return Lexicon(
        contexts=tuple(_context(entry) for entry in entries["context"]),
        beliefs=tuple(_belief(entry) for entry in entries["belief"]),
        wrappers=frozenset(entries["wrappers"]),
        routers=frozenset(entries["routers"]),
    )


def _context(entry: dict[str, Any]) -> Context:
    return Context(
        name=entry["name"],
        says=entry["says"],
        words=frozenset(entry["words"]),
        unless=frozenset(entry.get("unless", ())),
        anywhere=entry.get("anywhere", False),
    )


def _belief(entry: dict[str, Any]) -> Belief:
    return Belief(
        role=entry["role"],
        says=entry["says"],
        names=frozenset(entry["names"]),
        within=frozenset(entry["within"]),
        sibling=frozenset(entry.get("sibling", ())),
        parent=frozenset(entry.get("parent", ())),
    )
