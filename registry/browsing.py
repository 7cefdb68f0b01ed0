"""Find architectures without their exact names: by a text in any spelling, by a layer's name, by properties."""

import re
from collections.abc import Iterable, Iterator
from typing import cast

from sqlalchemy import Connection, select

from ..domain.architectures import FoundArchitecture, SearchAnswer
from ..domain.vocabulary import Library, count_layers, list_some
from ..errors import InvalidReference
from ..references.pasted import read_pasted
from ..references.resolver import Candidate, resolve
from .db import tables
from .db.database import Database
from .mappings.listing import list_references

LAYER = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w*-]+)*")
"""Text that may be the name of a layer, or the end of its path."""

_architectures, _slots = tables.architectures.c, tables.slots.c


class Browsing:
    """Ways to the architectures of a registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def search(self, text: str, limit: int = 20) -> SearchAnswer:
        """Return the architectures that a text may mean, best first.

        The text may be a reference in any spelling, the name of a layer (``Wqkv``) or a message of an error.
        """
        pasted = read_pasted(text)
        with self._database.read() as connection:
            registered = {*list_references(connection)}
            candidates = pasted.candidates if pasted.is_message else _resolve(text, frozenset(registered))
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


def _resolve(text: str, registered: frozenset[str]) -> tuple[Candidate, ...]:
    try:
        return resolve(text, None, registered)
    except InvalidReference:
        return ()


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
