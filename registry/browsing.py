"""Find architectures without their exact names: by a text in any spelling, by a layer's name, by properties."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import cast, get_args

from sqlalchemy import Connection, select

from ..domain.architectures import FoundArchitecture, SearchAnswer
from ..domain.mappings import ArchitectureSummary
from ..domain.serving.engines import ENGINES
from ..domain.vocabulary import Library, Status, Tower, count_layers, list_some
from ..errors import InvalidReference, UnknownName, quoted
from ..references.pasted import read_pasted
from ..references.resolver import Candidate, resolve
from .db import tables
from .db.audit_log import serial_of
from .db.database import Database
from .mappings.listing import list_architectures, list_references

LAYER = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w*-]+)*")
"""Text that may be the name of a layer, or the end of its path."""

_architectures, _slots = tables.architectures.c, tables.slots.c


FACETS: dict[str, Callable[[ArchitectureSummary], tuple[str, ...]]] = {
    "library": lambda one: (one.architecture.library,),
    "task": lambda one: (one.task,),
    "status": lambda one: (one.status or "none",),
    "peft": lambda one: (one.peft or "none",),
    "method": lambda one: one.peft_types,
    "tower": lambda one: one.towers,
    "engine": lambda one: one.engines,
}
"""The properties by which a list is narrowed, each with the values that an architecture has."""

_STATUSES = frozenset((*get_args(Status), "none"))
VOCABULARY: dict[str, frozenset[str]] = {
    "library": frozenset(get_args(Library)),
    "status": _STATUSES,
    "peft": _STATUSES,
    "tower": frozenset(get_args(Tower)),
    "engine": frozenset(ENGINES),
}
"""The values of those properties that have a fixed set of them, whether or not an architecture has each."""


@dataclass(frozen=True, slots=True)
class Browsed:
    """A page of the architectures that have some properties.

    Attributes:
        page: The page, sorted by library and name.
        following: Reference of its last one, beyond which the next page begins; ``None`` if it is the last page.
        total: The number of all that have them.
        counts: For each property and value, the number of those that have the others and this value.
    """

    page: tuple[ArchitectureSummary, ...]
    following: str | None
    total: int
    counts: dict[str, dict[str, int]]


class Browsing:
    """Ways to the architectures of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read: tuple[int, tuple[ArchitectureSummary, ...]] | None = None

    def list_all(self) -> tuple[ArchitectureSummary, ...]:
        """Return every architecture, sorted; read once per serial of the registry."""
        with self._database.read() as connection:
            return self._list_all(connection)

    def browse(
        self,
        wanted: Mapping[str, str],
        q: str = "",
        layer: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Browsed:
        """Return a page of the architectures that have some properties, and how many have others.

        Args:
            wanted: Values by the name of the property (``FACETS``); one without a value is ``none``.
            q: Only those with this text in their name, in upper or lower case.
            layer: Only those with a layer of this name.
            after: Only those beyond this reference.
            limit: Largest number.

        Raises:
            UnknownName: If there is no such property or value.
        """
        with self._database.read() as connection:
            every = self._list_all(connection)
            owners = None if layer is None else {(x.library, x.name) for x in _find_by_layer(connection, layer)}
        _check(wanted, every)
        named = [x for x in every if q.lower() in x.architecture.name.lower()]
        if owners is not None:
            named = [x for x in named if _place(x) in owners]
        found, counts = _narrow(named, wanted)
        library, _, name = (after or "").partition(":")
        rest = [x for x in found if after is None or _place(x) > (library, name)]
        following = rest[limit - 1].architecture.reference if len(rest) > limit else None
        return Browsed(tuple(rest[:limit]), following, len(found), counts)

    def _list_all(self, connection: Connection) -> tuple[ArchitectureSummary, ...]:
        serial = serial_of(connection)
        read = self._read
        if read is None or read[0] != serial:
            read = self._read = serial, list_architectures(connection, None, "", None, None)
        return read[1]

    def search(self, text: str, limit: int = 20) -> SearchAnswer:
        """Return the architectures that a text may mean, best first.

        The text may be a reference in any spelling, the name of a layer (``Wqkv``) or a message of an error.
        """
        pasted = read_pasted(text)
        with self._database.read() as connection:
            registered = {*list_references(connection)}
            candidates = pasted.candidates
            if not pasted.is_message:
                with suppress(InvalidReference):
                    candidates = resolve(text, None, frozenset(registered))
            known = [_to_found(one) for one in candidates if one.reference in registered]
            layers: list[FoundArchitecture] = []
            if not pasted.is_message and LAYER.fullmatch(text.strip()):
                layers = [*_find_by_layer(connection, text.strip())]
        sure = [one for one in known if not one.is_guess]
        guesses = [one for one in known if one.is_guess]
        found: dict[tuple[str, str], FoundArchitecture] = {}
        for one in (*sure, *layers, *guesses):
            found.setdefault((one.library, one.name), one)
        return SearchAnswer(text, pasted.says, tuple(found.values())[:limit], len(found))


def _place(one: ArchitectureSummary) -> tuple[str, str]:
    return one.architecture.library, one.architecture.name


def _narrow(
    every: Iterable[ArchitectureSummary], wanted: Mapping[str, str]
) -> tuple[list[ArchitectureSummary], dict[str, dict[str, int]]]:
    """Return those with all values, and the counts of each property among those that have all the other values."""
    found, counts = [], {name: Counter[str]() for name in FACETS}
    for one in every:
        failing = [name for name, value in wanted.items() if value not in FACETS[name](one)]
        if not failing:
            found.append(one)
        for name in FACETS if not failing else failing if len(failing) == 1 else ():
            counts[name].update(FACETS[name](one))
    return found, {name: dict(each.most_common()) for name, each in counts.items()}


def _check(wanted: Mapping[str, str], every: Iterable[ArchitectureSummary]) -> None:
    """Raise ``UnknownName`` unless each property is known, and its value is of the vocabulary or an architecture's."""
    for name, value in wanted.items():
        if name not in FACETS:
            raise UnknownName(name, FACETS, f"Properties: {quoted(FACETS)}.")
        known = {each for one in every for each in FACETS[name](one)} | VOCABULARY.get(name, frozenset())
        if value not in known:
            raise UnknownName(value, known, f"{name} is one of {quoted(sorted(known))}.", field=f"query.{name}")


def _to_found(candidate: Candidate) -> FoundArchitecture:
    because = candidate.explain() if candidate.how != "exact" else "its name"
    model = candidate.because if candidate.how == "checkpoint" and "/" in candidate.because else None
    library = cast("Library", candidate.library)
    return FoundArchitecture(library, candidate.name, candidate.how, because, candidate.is_guess, model)


def _find_by_layer(connection: Connection, name: str) -> Iterator[FoundArchitecture]:
    """Yield the architectures with a layer of a name, those with most of them first."""
    query = select(_architectures.library, _architectures.name, _slots.pattern, _slots.role, _slots.count).join_from(
        tables.slots, tables.architectures
    )
    query = query.where(_slots.pattern.endswith(name, autoescape=True))
    rows: dict[tuple[Library, str], list[tuple[str, str, int]]] = {}
    for library, own, pattern, role, count in connection.execute(query):
        if f".{pattern}".endswith(f".{name}"):  # in this case, and whole names alone
            rows.setdefault((library, own), []).append((pattern, role, count))
    for (library, own), slots in sorted(rows.items(), key=lambda row: (-_count(row[1]), row[0])):
        roles = list_some(dict.fromkeys(role for _, role, _ in slots))
        because = f"{count_layers(_count(slots))} named {name!r}: {roles}"
        yield FoundArchitecture(library, own, "layer", because, is_guess=False)


def _count(slots: Iterable[tuple[str, str, int]]) -> int:
    return sum(count for *_, count in slots)
