"""Find similar architectures by the roles of their slots; layer names decide between equals."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, cast

from sqlalchemy import Connection, func, select

from ...domain.architectures import Architecture
from ...domain.layers import Slot
from ...domain.mappings import Neighbour
from ..db import tables
from ..db.audit_log import serial_of
from .differences import list_differences, tail_of
from .listing import ARCHITECTURE_COLUMNS
from .not_found import unscanned
from .stored_names import SLOT_COLUMNS, list_slots

if TYPE_CHECKING:
    from ...domain.vocabulary import Library

Token = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """The compared properties of an architecture.

    Attributes:
        tokens: Its slots but heads, each as (role, kind, layout) and as (tower, role).
        names: The tails of their patterns.
    """

    tokens: Counter[Token]
    names: frozenset[str]

    @classmethod
    def of(cls, slots: Iterable[Slot]) -> "Profile":
        """Return the profile of slots, one per pattern: parts of a pattern are not structure."""
        distinct = {(s.tower, s.role, s.kind, s.layout, s.pattern) for s in slots if s.role != "head"}
        tokens: Counter[Token] = Counter()
        for tower, role, kind, layout, _ in distinct:
            tokens[role, kind, layout] += 1
            tokens[tower, role] += 1
        return cls(tokens, frozenset(tail_of(slot[-1]) for slot in distinct))

    def share(self, other: "Profile") -> float:
        """Return the share of common tokens: 1 if all are, 0 if none is."""
        shared = sum(min(count, other.tokens[token]) for token, count in self.tokens.items() if token in other.tokens)
        return shared / ((self.tokens.total() + other.tokens.total() - shared) or 1)

    def share_names(self, other: "Profile") -> float:
        """Return the share of common names."""
        return len(self.names & other.names) / (len(self.names | other.names) or 1)


@dataclass(frozen=True, slots=True)
class Group:
    """The architectures with one fingerprint and equally many slots, sorted, and their profile."""

    architectures: tuple[Architecture, ...]
    profile: Profile


class Similarity:
    """Compare an architecture with all others, whose profiles are read once per state of the registry."""

    def __init__(self) -> None:
        self._read: tuple[int, tuple[Group, ...]] | None = None

    def list_similar(self, connection: Connection, library: str, name: str, limit: int) -> tuple[Neighbour, ...]:
        """Return the most similar architectures, those with one fingerprint as one neighbour.

        Raises:
            UnknownArchitecture: If the registry does not know the architecture.
            NotRegistered: If the architecture was never scanned.
        """
        slots = list_slots(connection, library, name)
        if not slots:
            raise unscanned(connection, library, name)
        own, profile = Architecture(cast("Library", library), name), Profile.of(slots)
        serial = serial_of(connection)
        if self._read is None or self._read[0] != serial:
            self._read = serial, tuple(_read_groups(connection))
        others = ((group.profile, _others(own, group)) for group in self._read[1])
        ranked = sorted(
            ((other, near) for other, near in others if near),
            key=lambda pair: (-profile.share(pair[0]), -profile.share_names(pair[0]), pair[1][0].reference),
        )
        return tuple(_to_neighbour(connection, own, slots, near) for _, near in ranked[:limit])


def _read_groups(connection: Connection) -> Iterator[Group]:
    """Yield the groups, each with the profile of its first architecture."""
    architectures, slots = tables.architectures.c, tables.slots.c
    # The number of slots is compared too, for those outside the blocks are not part of the fingerprint.
    size = func.count().label("size")
    sized = (
        select(architectures.id, *ARCHITECTURE_COLUMNS, size)
        .join_from(tables.architectures, tables.slots)
        .where(architectures.fingerprint.is_not(None), slots.role != "head")
        .group_by(architectures.id, *ARCHITECTURE_COLUMNS)
    )
    members: dict[tuple[str, int], list[Architecture]] = defaultdict(list)
    groups: dict[int, tuple[str, int]] = {}
    for row in connection.execute(sized.order_by(architectures.library, architectures.name)).mappings():
        values = dict(row)
        group = row["fingerprint"], values.pop("size")
        groups[values.pop("id")] = group
        members[group].append(Architecture(**values))
    each = sized.subquery()
    firsts = select(func.min(each.c.id)).group_by(each.c.fingerprint, each.c.size)
    found: dict[int, list[Slot]] = defaultdict(list)
    query = select(slots.architecture_id, *SLOT_COLUMNS).where(slots.architecture_id.in_(firsts))
    for row in connection.execute(query).mappings():
        values = dict(row)
        found[values.pop("architecture_id")].append(Slot(**values))
    for number, own in found.items():
        yield Group(tuple(members[groups[number]]), Profile.of(own))


def _others(own: Architecture, group: Group) -> list[Architecture]:
    """Return a group without one architecture: first those of its library, by the common start of their names."""
    others = (other for other in group.architectures if other.reference != own.reference)

    def order(other: Architecture) -> tuple[bool, int]:
        common = takewhile(lambda pair: pair[0] == pair[1], zip(own.name, other.name, strict=False))
        return other.library != own.library, -sum(1 for _ in common)

    return sorted(others, key=order)


def _to_neighbour(
    connection: Connection, own: Architecture, slots: tuple[Slot, ...], near: list[Architecture]
) -> Neighbour:
    first = near[0]
    others = list_slots(connection, first.library, first.name)
    name = own.name if first.library == own.library else own.reference
    share = round(Profile.of(slots).share(Profile.of(others)), 4)
    also = tuple(other.reference for other in near[1:])
    return Neighbour(first, share, also, list_differences(slots, others, name))
