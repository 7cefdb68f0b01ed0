"""The lexicon: beliefs about names from ``data/lexicon.toml``, parsed once."""

import re
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from itertools import islice
from typing import Any, TypeVar

from ...data import read_facts
from ...domain.vocabulary import Role

PLAIN = "plain"
"""The context of a layer with no known word around it."""

_Entry = TypeVar("_Entry", "Context", "Belief")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True, slots=True)
class Context:
    """Words that identify the kind of module around a layer."""

    name: str
    reason: str
    words: frozenset[str]
    unless: frozenset[str] = frozenset()
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class Belief:
    """A role for layers of certain names in certain contexts."""

    role: Role
    reason: str
    names: frozenset[str]
    within: frozenset[str]
    sibling: frozenset[str] = frozenset()
    parent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lexicon:
    """All beliefs about names."""

    contexts: tuple[Context, ...]
    beliefs: tuple[Belief, ...]
    wrappers: frozenset[str]
    routers: frozenset[str]

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


@lru_cache(maxsize=4096)  # repeated blocks share the names around their layers
def context_of(names: tuple[str, ...]) -> Context | None:
    """Return the context identified by the names around a layer, nearest first, or ``None``."""
    found: list[Context] = []
    for words in map(words_of, names):
        matches = (c for c in load_lexicon().contexts if words & c.words and not words & c.unless)
        found += [*islice(matches, 1)]
    return next((context for context in found if context.anywhere), found[0] if found else None)


@cache
def load_lexicon() -> Lexicon:
    """Read the lexicon from the package's data."""
    data = read_facts("lexicon.toml")
    contexts = tuple(_read_entry(Context, entry) for entry in data["context"])
    beliefs = tuple(_read_entry(Belief, entry) for entry in data["belief"])
    return Lexicon(contexts, beliefs, frozenset(data["wrappers"]), frozenset(data["routers"]))


def _read_entry(kind: type[_Entry], entry: dict[str, Any]) -> _Entry:
    """Return the fields of an entry as a record, lists as sets; an entry has an example besides."""
    known = {field.name for field in fields(kind)}
    values: dict[str, Any] = {n: frozenset(v) if isinstance(v, list) else v for n, v in entry.items() if n in known}
    return kind(**values)
