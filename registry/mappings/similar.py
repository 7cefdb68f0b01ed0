"""The nearest architectures by what their slots are, however their layers are called; names decide between equals."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, cast

from ...domain.architectures import Architecture
from ...domain.layers import Slot
from ...domain.summaries import Neighbour
from ..db.schema import Reader, serial_of
from ..versions.stored_names import list_slots
from . import listing as browse
from .differences import list_differences, tail_of
from .not_found import unscanned

if TYPE_CHECKING:
    from ...domain.vocabulary import Library

_MEMBERS = """
SELECT a.id, COUNT(*) AS size, a.library, a.name, a.class_name, a.library_version, a.fingerprint, a.structure
FROM architectures a JOIN slots s ON s.architecture_id = a.id
WHERE a.fingerprint IS NOT NULL AND s.role <> 'head'
GROUP BY a.id, a.library, a.name, a.class_name, a.library_version, a.fingerprint, a.structure
ORDER BY a.library, a.name
"""

_THEIR_SLOTS = """
SELECT s.architecture_id, s.tower, s.role, s.kind, s.pattern, s.count, s.layout
FROM slots s
WHERE s.architecture_id IN (
    SELECT MIN(z.id) FROM (
        SELECT a.id, a.fingerprint, COUNT(*) AS size
        FROM architectures a JOIN slots t ON t.architecture_id = a.id
        WHERE a.fingerprint IS NOT NULL AND t.role <> 'head'
        GROUP BY a.id, a.fingerprint
    ) z
    GROUP BY z.fingerprint, z.size
)
"""
"""The slots of one architecture of each group: it stands for the others."""

Key = tuple[str, int]
"""A fingerprint, and the number of slots, for what stands outside the blocks."""

Token = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """What of an architecture is compared.

    Attributes:
        tokens: Its slots but heads, each as (role, kind, layout) and as (tower, role).
        names: The tails of their patterns.
    """

    tokens: Counter[Token]
    names: frozenset[str]

    @classmethod
    def of(cls, slots: Iterable[Slot]) -> "Profile":
        """Return what is compared of these slots; what splits a pattern further is not structure."""
        held = {(slot.tower, slot.role, slot.kind, slot.layout, slot.pattern) for slot in slots if slot.role != "head"}
        tokens: Counter[Token] = Counter()
        for tower, role, kind, layout, _ in held:
            tokens[role, kind, layout] += 1
            tokens[tower, role] += 1
        return cls(tokens, frozenset(tail_of(slot[-1]) for slot in held))

    def share(self, other: "Profile") -> float:
        """Return how much of both is in both: 1 if they are equal, 0 if nothing is."""
        shared = sum(min(count, other.tokens[token]) for token, count in self.tokens.items() if token in other.tokens)
        return shared / ((self.tokens.total() + other.tokens.total() - shared) or 1)

    def share_names(self, other: "Profile") -> float:
        """Return how many of the names of both are in both."""
        return len(self.names & other.names) / (len(self.names | other.names) or 1)


@dataclass(frozen=True, slots=True)
class Group:
    """The architectures with one fingerprint and as many slots, sorted, and what is compared of them."""

    architectures: tuple[Architecture, ...]
    profile: Profile


class Similarity:
    """Compares one architecture with all others; what it compares is read once per state of the registry."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._read: tuple[int, tuple[Group, ...]] | None = None

    def list_similar(self, library: str, name: str, limit: int) -> tuple[Neighbour, ...]:
        """Return the nearest architectures, nearest first, those with one fingerprint together.

        Raises:
            UnknownArchitecture: If the registry has never heard of the one asked for.
            NotRegistered: If it has, but nobody scanned it.
        """
        slots = list_slots(self._reader, library, name)
        if not slots:
            raise unscanned(self._reader, library, name)
        asked, profile = Architecture(cast("Library", library), name), Profile.of(slots)
        others = ((group, _others(asked, group)) for group in self._groups())
        ranked = sorted(((g.profile, near) for g, near in others if near), key=lambda one: _nearness(profile, *one))
        return tuple(self._tell(asked, slots, near) for _, near in ranked[:limit])

    def _tell(self, asked: Architecture, slots: tuple[Slot, ...], near: list[Architecture]) -> Neighbour:
        first = near[0]
        theirs = list_slots(self._reader, first.library, first.name)
        called = asked.name if first.library == asked.library else asked.reference
        share = round(Profile.of(slots).share(Profile.of(theirs)), 4)
        also = tuple(other.reference for other in near[1:])
        return Neighbour(first, share, also, list_differences(slots, theirs, called))

    def _groups(self) -> tuple[Group, ...]:
        """Return what is compared, as of now."""
        serial = serial_of(self._reader)
        if self._read is None or self._read[0] != serial:
            self._read = serial, tuple(_read_groups(self._reader))
        return self._read[1]


def _read_groups(reader: Reader) -> Iterator[Group]:
    members: dict[Key, list[Architecture]] = defaultdict(list)
    keys: dict[int, Key] = {}
    for row in reader.rows(_MEMBERS):
        keys[row["id"]] = row["fingerprint"], row["size"]
        members[keys[row["id"]]].append(browse.to_architecture(row))
    slots: dict[int, list[Slot]] = defaultdict(list)
    for row in reader.rows(_THEIR_SLOTS):
        slots[row.pop("architecture_id")].append(Slot(**row))
    for number, held in slots.items():
        yield Group(tuple(members[keys[number]]), Profile.of(held))


def _others(asked: Architecture, group: Group) -> list[Architecture]:
    """Return a group without the one asked for: first its own library, and there what is called most like it."""
    others = (other for other in group.architectures if other.reference != asked.reference)
    return sorted(others, key=lambda other: (other.library != asked.library, -_common(asked.name, other.name)))


def _common(one: str, other: str) -> int:
    """Return how many characters two names begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _nearness(asked: Profile, other: Profile, near: list[Architecture]) -> tuple[float, float, str]:
    return -asked.share(other), -asked.share_names(other), near[0].reference
