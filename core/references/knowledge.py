"""The names known offline: architectures, classes, checkpoints and families, by the keys of their spellings."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import NamedTuple

from ..data import read_facts
from .grammar import LIBRARIES
from .understood import How
from .words import MARKS, key_of, stem_of, words_of


class Fact(NamedTuple):
    """One meaning of a key."""

    how: How
    reference: str
    written: str
    """The name that has the key."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The names known offline.

    Attributes:
        names: Names of architectures, ``library:name``.
        keys: The meanings of a whole name, by its key.
        repos: The architecture of each repository, in lower case.
        beginnings: The families and architectures that a name may begin with, by their keys.
        sized: The families of which a size is part of the name (``gemma 3 1b`` has no vision, as others have).
        tags: timm's tags by architecture.
        versions: The version of each library that the names are of.
    """

    names: frozenset[str]
    keys: dict[str, list[Fact]]
    repos: dict[str, Fact]
    beginnings: dict[str, list[Fact]]
    sized: dict[str, Fact]
    tags: dict[str, frozenset[str]]
    versions: dict[str, str]


@dataclass(slots=True)
class _Builder:
    names: set[str] = field(default_factory=set)
    keys: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    repos: dict[str, Fact] = field(default_factory=dict)
    beginnings: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))

    def add_name(self, reference: str, name: str) -> None:
        self.names.add(reference)
        fact, key = Fact("spelling", reference, name), key_of(name)
        self.keys[key].append(fact)
        self.beginnings[key].append(fact)

    def add_column(self, reference: str, column: dict[str, list[str]]) -> None:
        """Add the other names of an architecture; a class of timm is that of many."""
        how: How = "class of many" if reference.startswith("timm:") else "class"
        for written in (*column.get("classes", ()), *column.get("pipelines", ())):
            self.keys[key_of(written)].append(Fact(how, reference, written))
        for written in column.get("former", ()):
            self.keys[key_of(written)].append(Fact("spelling", reference, written))
        for repo in column.get("checkpoints", ()):
            self.add_repo(reference, repo)

    def add_repo(self, reference: str, repo: str) -> None:
        """Add a repository; not as one of timm if timm takes only the weights of a tower from another model's."""
        name = repo.rpartition("/")[2]
        if reference.startswith("timm:") and any(
            one.how == "spelling" and not one.reference.startswith("timm:")
            for one in self.beginnings.get(stem_of(name), ())
        ):
            return
        fact = Fact("checkpoint", reference, repo)
        if self.repos.setdefault(repo.casefold(), fact) is fact:
            self.keys[key_of(name)].append(fact)


@cache
def load() -> Knowledge:
    """Return the names known offline, from ``data/names`` and ``data/families.toml``, read once."""
    built, sized, tags, versions = _Builder(), {}, {}, {}
    columns: list[tuple[str, str, dict[str, list[str]]]] = []
    for library in LIBRARIES:
        file = resources.files("loradar.data") / "names" / f"{library}.json"
        content = json.loads(file.read_text("utf-8"))
        versions[library] = content["version"]
        columns += ((f"{library}:{name}", name, column) for name, column in content["names"].items())
    for reference, name, _ in columns:
        built.add_name(reference, name)
    families = read_facts("families.toml")["family"]
    for reference, name in ((family["reference"], name) for family in families for name in family["names"]):
        fact, key = Fact("nickname", reference, name), key_of(name)
        built.keys[key].append(fact)
        built.beginnings[key].append(fact)
        if "/" in name:
            built.add_repo(reference, name)
        if words_of(name, sizes=True) != words_of(name):
            sized[key] = fact
    for reference, name, column in columns:
        built.add_column(reference, column)
        if "tags" in column:
            tags[name] = frozenset(column["tags"])
    return Knowledge(
        frozenset(built.names), dict(built.keys), built.repos, dict(built.beginnings), sized, tags, versions
    )


@cache
def load_beginnings() -> dict[str, list[Fact]]:
    """Return the meanings of the first words of a name: families, architectures, and checkpoints without sizes."""
    beginnings = defaultdict(list, {key: [*facts] for key, facts in load().beginnings.items()})
    for fact in load().repos.values():
        stem = stem_of(fact.written.rpartition("/")[2])
        if stem not in MARKS:  # funnel-transformer/small: any name may have that word
            beginnings[stem].append(fact)
    return dict(beginnings)


def registered_facts(references: Iterable[str]) -> Iterator[tuple[str, Fact]]:
    """Yield the keys of architectures that only a registry knows, such as a user's own."""
    known = load().names
    for reference in references:
        if reference not in known:
            name = reference.partition(":")[2]
            yield key_of(name), Fact("spelling", reference, name)
