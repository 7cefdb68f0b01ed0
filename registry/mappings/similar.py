"""Find similar architectures by the roles of their slots, and describe in words how they differ.

Layer names decide between equally similar ones.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, cast

from sqlalchemy import Connection, func, select

from ...domain.architectures import Architecture
from ...domain.layers import Slot
from ...domain.mappings import Neighbour
from ...domain.vocabulary import Library, Role, count_of
from ..db import tables
from ..db.audit_log import state_of
from .listing import ARCHITECTURE_COLUMNS
from .not_found import unscanned
from .stored_names import list_slots

if TYPE_CHECKING:
    from ..db.watch import State

Token = tuple[str | None, ...]
Part = tuple[str, str, str, str | None, str]
"""Tower, role, kind, layout and path pattern of a slot."""


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
        return cls.of_parts({(s.tower, s.role, s.kind, s.layout, s.pattern) for s in slots if s.role != "head"})

    @classmethod
    def of_parts(cls, distinct: Collection[Part]) -> "Profile":
        """Return the profile of distinct parts, heads left out."""
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
        self._read: tuple[State, tuple[Group, ...]] | None = None

    def list_similar(self, connection: Connection, library: str, name: str, limit: int) -> tuple[Neighbour, ...]:
        """Return the most similar architectures, those with one fingerprint as one neighbour."""
        slots = list_slots(connection, library, name)
        if not slots:
            raise unscanned(connection, library, name)
        own, profile = Architecture(cast("Library", library), name), Profile.of(slots)
        state = state_of(connection)
        if self._read is None or self._read[0] != state:
            self._read = state, tuple(_read_groups(connection))
        others = ((group.profile, _others(own, group)) for group in self._read[1])
        ranked = sorted(
            ((other, near) for other, near in others if near),
            key=lambda pair: (-profile.share(pair[0]), -profile.share_names(pair[0]), pair[1][0].reference),
        )
        found: list[Neighbour] = []
        for _, near in ranked[:limit]:
            first = near[0]
            theirs = list_slots(connection, first.library, first.name)
            name = own.name if first.library == own.library else own.reference
            also = tuple(other.reference for other in near[1:])
            share = round(profile.share(Profile.of(theirs)), 4)
            found.append(Neighbour(first, share, also, list_differences(slots, theirs, name)))
        return tuple(found)


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
    found: dict[int, set[Part]] = defaultdict(set)
    columns = (slots.architecture_id, slots.tower, slots.role, slots.kind, slots.layout, slots.pattern)
    query = select(*columns).where(slots.architecture_id.in_(firsts), slots.role != "head")
    # Rows of five columns as they come, since there are 40,000: records of slots take four times as long.
    for number, *part in connection.execute(query):
        found[number].add(cast("Part", tuple(part)))
    for number, own in found.items():
        yield Group(tuple(members[groups[number]]), Profile.of_parts(own))


def _others(own: Architecture, group: Group) -> list[Architecture]:
    """Return a group without one architecture: first those of its library, by the common start of their names."""
    others = (other for other in group.architectures if other.reference != own.reference)

    def order(other: Architecture) -> tuple[bool, int]:
        common = takewhile(lambda pair: pair[0] == pair[1], zip(own.name, other.name, strict=False))
        return other.library != own.library, -sum(1 for _ in common)

    return sorted(others, key=order)


FUSIONS: tuple[tuple[Role, tuple[Role, ...]], ...] = (
    ("attention.qkv", ("attention.query", "attention.key", "attention.value")),
    ("attention.kv", ("attention.key", "attention.value")),
    ("mlp.gate_up", ("mlp.gate", "mlp.up")),
    ("expert.gate_up", ("expert.gate", "expert.up")),
)
"""Roles of fused projections, with the roles of their parts."""

FAMILIES = {"attention": "attention", "mixer": "mixers", "mlp": "feed-forward networks", "expert": "experts"}
FAMILIES |= {"moe": "experts", "conv": "convolutions"}
"""Names of the groups of roles, by the first word of the role."""

UNCOUNTED: tuple[Role, ...] = ("norm", "other", "projector")
"""Roles whose number means little: they are described last, and norms inside an attention before other norms."""

MOST = 4
"""Differences of one sort that are listed; the others are counted."""


def list_differences(slots: Sequence[Slot], other: Sequence[Slot], name: str) -> tuple[str, ...]:
    """Return the differences of another architecture as sentences about it; empty if there are none.

    Args:
        slots: Slots of the architecture it is compared with.
        other: Slots of the other architecture.
        name: Name of the former in the sentences.
    """
    ours, theirs = Counter(slot.tower for slot in slots), Counter(slot.tower for slot in other)
    shared = {*theirs} & {*ours}
    if not shared:
        towers = f"has {_listed(sorted(theirs))} where {name} has {_listed(sorted(ours))}"
        return (towers, *Comparison(slots, other, name).sentences())
    added = (f"adds a tower, {tower}: {count_of(theirs[tower], 'slot')}" for tower in sorted({*theirs} - shared))
    missing = (
        f"has no {tower} tower where {name} has {count_of(ours[tower], 'slot')}" for tower in sorted({*ours} - shared)
    )
    common, others = ([slot for slot in side if slot.tower in shared] for side in (slots, other))
    return (*added, *missing, *Comparison(common, others, name).sentences())


class Comparison:
    """Compare two lists of slots; each role is described by one sentence at most."""

    def __init__(self, slots: Sequence[Slot], other: Sequence[Slot], name: str) -> None:
        self._name = name
        self._ours, self._theirs = _by_role(slots), _by_role(other)
        self._explained: set[str] = {"head", *UNCOUNTED}

    def sentences(self) -> Iterator[str]:
        """Yield the differences, the largest first."""
        yield from self._fusions()
        yield from self._families()
        roles = [
            sentence
            for role in dict.fromkeys([*self._theirs, *self._ours])
            if role not in self._explained
            for sentence in self._numbers(role)
        ]
        yield from _shortened(roles, "other roles")
        yield from [*self._attention_norms()] or self._numbers("norm")
        yield from self._numbers("other")
        yield from self._numbers("projector")
        yield from _shortened([*self._forms()], "other roles")
        yield from _shortened([*self._names(convolutions=not roles)], "other names")

    def _fusions(self) -> Iterator[str]:
        for fused, parts in FUSIONS:
            words = _listed([part.rpartition(".")[2] for part in parts])
            number = {2: "two", 3: "three"}[len(parts)]
            if self._swaps(self._theirs, self._ours, fused, parts):
                yield f"fuses {words} into one projection where {self._name} has {number}"
            elif self._swaps(self._ours, self._theirs, fused, parts):
                yield f"has {number} projections for {words} where {self._name} fuses them into one"

    def _swaps(
        self, one: dict[str, list[Slot]], other: dict[str, list[Slot]], fused: Role, parts: Sequence[Role]
    ) -> bool:
        """Return whether only ``one`` has the fused role and only ``other`` its parts, which are then explained."""
        conditions = [fused in one, fused not in other, *(part in other for part in parts)]
        conditions += [part not in one for part in parts]
        if all(conditions):
            self._explained |= {fused, *parts}
        return all(conditions)

    def _families(self) -> Iterator[str]:
        ours, theirs = _by_family(self._ours), _by_family(self._theirs)
        for family in dict.fromkeys(FAMILIES.values()):
            if bool(ours[family]) != bool(theirs[family]):
                self._explained |= {slot.role for slot in ours[family] + theirs[family]}
                if theirs[family]:
                    yield f"adds {family}: {count_of(len(theirs[family]), 'slot')}"
                else:
                    yield f"has no {family} where {self._name} has {count_of(len(ours[family]), 'slot')}"

    def _numbers(self, role: str) -> Iterator[str]:
        """Yield the numbers of slots of a role, if they differ."""
        ours, theirs = len(self._ours.get(role, ())), len(self._theirs.get(role, ()))
        if ours == theirs:
            return
        self._explained.add(role)
        if not ours:
            yield f"adds {role}: {count_of(theirs, 'slot')}"
        elif not theirs:
            yield f"has no {role} where {self._name} has {count_of(ours, 'slot')}"
        else:
            yield f"has {count_of(theirs, 'slot')} of {role} where {self._name} has {ours}"

    def _attention_norms(self) -> Iterator[str]:
        """Yield the norms beside projections of an attention, if only one side has any."""
        ours, theirs = _norms_in_attention(self._ours), _norms_in_attention(self._theirs)
        if theirs and not ours:
            yield f"has norms in its attention: {_listed(theirs)}"
        elif ours and not theirs:
            yield f"has no norms in its attention where {self._name} has {_listed(ours)}"

    def _forms(self) -> Iterator[str]:
        """Yield the roles whose layers are of another kind or split their output in another way."""
        for role in self._common():
            for part in ("kind", "layout"):
                ours, theirs = (
                    list(dict.fromkeys(value for slot in slots[role] if (value := getattr(slot, part))))
                    for slots in (self._ours, self._theirs)
                )
                if ours and theirs and {*ours} != {*theirs}:
                    yield f"has {role} as {_listed(theirs)} where {self._name} has {_listed(ours)}"

    def _names(self, *, convolutions: bool) -> Iterator[str]:
        """Yield the layers with another name.

        Convolutions are many of one role: where their numbers differ, they do not pair by their order.
        """
        sentences: dict[str, None] = {}
        for role in self._common():
            if role.startswith("conv.") and not convolutions:
                continue
            for ours, theirs in zip(self._ours[role], self._theirs[role], strict=True):
                if (one := tail_of(ours.pattern)) != (other := tail_of(theirs.pattern)):
                    sentences[f"names {other} where {self._name} says {one}"] = None
        yield from sentences

    def _common(self) -> list[str]:
        """Return the unexplained roles with equally many slots on both sides."""
        return [
            role
            for role in self._ours
            if role not in self._explained and len(self._ours[role]) == len(self._theirs.get(role, ()))
        ]


def _by_role(slots: Iterable[Slot]) -> dict[str, list[Slot]]:
    """Return the slots of each role, one per pattern: parts of a pattern are not structure."""
    roles: dict[str, dict[str, Slot]] = defaultdict(dict)
    for slot in slots:
        roles[slot.role].setdefault(slot.pattern, slot)
    return {role: [*by_pattern.values()] for role, by_pattern in roles.items()}


def _by_family(roles: dict[str, list[Slot]]) -> dict[str, list[Slot]]:
    families: dict[str, list[Slot]] = defaultdict(list)
    for role, slots in roles.items():
        families[FAMILIES.get(role.partition(".")[0], "")] += slots
    return families


def _norms_in_attention(roles: dict[str, list[Slot]]) -> list[str]:
    inside = {
        slot.pattern.rpartition(".")[0]
        for role, slots in roles.items()
        for slot in slots
        if role.startswith("attention.") and role != "attention.output"
    }
    blocks = {path for path in inside if path.endswith("*") or not path}  # whose norms are not their attention's
    norms = (slot.pattern.rpartition(".") for slot in roles.get("norm", ()))
    return list(dict.fromkeys(name for parent, _, name in norms if parent in inside - blocks))


def tail_of(pattern: str) -> str:
    """Return the last two names of a pattern, without indices."""
    return ".".join([segment for segment in pattern.split(".") if segment != "*"][-2:])


def _shortened(sentences: list[str], rest: str) -> list[str]:
    left = len(sentences) - MOST
    return sentences if left <= 1 else [*sentences[:MOST], f"and {left} {rest} differ"]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
