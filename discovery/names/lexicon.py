"""The lexicon: beliefs about names from ``data/lexicon.toml``, parsed once."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from ...data import read_facts
from ...domain.vocabulary import Role

PLAIN = "plain"
"""The context of a layer with no known word around it."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True, slots=True)
class Context:
    """Words that identify the kind of module around a layer."""

    name: str
    reason: str
    words: frozenset[str]
    unless: frozenset[str]
    anywhere: bool


@dataclass(frozen=True, slots=True)
class Belief:
    """A role for layers of certain names in certain contexts."""

    role: Role
    reason: str
    names: frozenset[str]
    within: frozenset[str]
    sibling: frozenset[str]
    parent: frozenset[str]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """All beliefs about names."""

    contexts: tuple[Context, ...]
    beliefs: tuple[Belief, ...]
    wrappers: frozenset[str]
    routers: frozenset[str]

    def context_of(self, names: Iterable[str]) -> Context | None:
        """Return the context identified by the names around a layer, nearest first, or ``None``."""
        found: list[Context] = []
        for words in map(words_of, names):
            matches = (c for c in self.contexts if words & c.words and not words & c.unless)
            found.extend([context] if (context := next(matches, None)) else [])
        return next((context for context in found if context.anywhere), found[0] if found else None)

    def find(self, name: str, context: str, parent: str, siblings: frozenset[str]) -> Belief | None:
        """Return the first belief that matches a layer's name, context, parent and siblings."""
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
    data = read_facts("lexicon.toml")
    contexts = tuple(
        Context(
            name=entry["name"],
            reason=entry["reason"],
            words=frozenset(entry["words"]),
            unless=frozenset(entry.get("unless", ())),
            anywhere=entry.get("anywhere", False),
        )
        for entry in data["context"]
    )
    beliefs = tuple(
        Belief(
            role=entry["role"],
            reason=entry["reason"],
            names=frozenset(entry["names"]),
            within=frozenset(entry["within"]),
            sibling=frozenset(entry.get("sibling", ())),
            parent=frozenset(entry.get("parent", ())),
        )
        for entry in data["belief"]
    )
    return Lexicon(contexts, beliefs, frozenset(data["wrappers"]), frozenset(data["routers"]))
