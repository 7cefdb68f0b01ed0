"""What one architecture has and another has not, in words: told of the other, beside the one asked for."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ...domain.layers import Slot
from ...domain.vocabulary import Role

FUSIONS: tuple[tuple[Role, tuple[Role, ...]], ...] = (
    ("attention.qkv", ("attention.query", "attention.key", "attention.value")),
    ("attention.kv", ("attention.key", "attention.value")),
    ("mlp.gate_up", ("mlp.gate", "mlp.up")),
    ("expert.gate_up", ("expert.gate", "expert.up")),
)
"""Projections that may be one weight, and what they are as several."""

FAMILIES = {"attention": "attention", "mixer": "mixers", "mlp": "feed-forward networks", "expert": "experts"}
FAMILIES |= {"moe": "experts", "conv": "convolutions"}
"""What roles of a kind are called together."""

UNTOLD: tuple[Role, ...] = ("norm", "other", "projector")
"""Roles of which another number means little. Norms are told of first where they stand inside an attention."""

MOST = 4
"""Differences of one sort that are told one by one."""


def list_differences(asked: Sequence[Slot], other: Sequence[Slot], name: str) -> tuple[str, ...]:
    """Return how ``other`` differs from the architecture asked for, whose slots are ``asked``; empty if it does not.

    Args:
        asked: Slots of the architecture asked for.
        other: Slots of the one it is told of.
        name: What to call the one asked for.
    """
    theirs, ours = {slot.tower for slot in other}, {slot.tower for slot in asked}
    shared = theirs & ours
    said = [*_towers(asked, other, name)]
    comparison = Comparison(
        [slot for slot in asked if slot.tower in shared or not shared],
        [slot for slot in other if slot.tower in shared or not shared],
        name,
    )
    return (*said, *comparison.sentences())


def _towers(asked: Iterable[Slot], other: Iterable[Slot], name: str) -> Iterator[str]:
    ours, theirs = Counter(slot.tower for slot in asked), Counter(slot.tower for slot in other)
    if not {*ours} & {*theirs}:
        yield f"has {_listed(sorted(theirs))} where {name} has {_listed(sorted(ours))}"
        return
    yield from (f"adds a tower, {tower}: {_slots(theirs[tower])}" for tower in sorted({*theirs} - {*ours}))
    yield from (f"has no {tower} tower where {name} has {_slots(ours[tower])}" for tower in sorted({*ours} - {*theirs}))


class Comparison:
    """Two lists of slots beside each other; each sentence takes the roles it explains out of what is left to say."""

    def __init__(self, asked: Sequence[Slot], other: Sequence[Slot], name: str) -> None:
        self._name = name
        self._ours, self._theirs = _by_role(asked), _by_role(other)
        self._explained: set[str] = {"head", *UNTOLD}

    def sentences(self) -> Iterator[str]:
        """Yield what differs, the largest differences first."""
        yield from self._fusions()
        yield from self._families()
        roles = [*self._roles()]
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
        """Tell whether only ``one`` has the fused role and only ``other`` its parts; these are explained then."""
        held = [fused in one, fused not in other, *(part in other for part in parts)]
        held += [part not in one for part in parts]
        if all(held):
            self._explained |= {fused, *parts}
        return all(held)

    def _families(self) -> Iterator[str]:
        ours, theirs = (_by_family(slots) for slots in (self._ours, self._theirs))
        for family in dict.fromkeys(FAMILIES.values()):
            if bool(ours[family]) != bool(theirs[family]):
                self._explained |= {slot.role for slot in ours[family] + theirs[family]}
                if theirs[family]:
                    yield f"adds {family}: {_slots(len(theirs[family]))}"
                else:
                    yield f"has no {family} where {self._name} has {_slots(len(ours[family]))}"

    def _roles(self) -> Iterator[str]:
        for role in dict.fromkeys([*self._theirs, *self._ours]):
            if role not in self._explained:
                yield from self._numbers(role)

    def _numbers(self, role: str) -> Iterator[str]:
        """Yield how many slots of a role there are, if it is not as many."""
        ours, theirs = len(self._ours.get(role, ())), len(self._theirs.get(role, ()))
        if ours == theirs:
            return
        self._explained.add(role)
        if not ours:
            yield f"adds {role}: {_slots(theirs)}"
        elif not theirs:
            yield f"has no {role} where {self._name} has {_slots(ours)}"
        else:
            yield f"has {_slots(theirs)} of {role} where {self._name} has {ours}"

    def _attention_norms(self) -> Iterator[str]:
        """A norm beside a projection of the attention normalises queries, keys or what leaves it."""
        ours, theirs = _norms_in_attention(self._ours), _norms_in_attention(self._theirs)
        if theirs and not ours:
            yield f"has norms in its attention: {_listed(theirs)}"
        elif ours and not theirs:
            yield f"has no norms in its attention where {self._name} has {_listed(ours)}"

    def _forms(self) -> Iterator[str]:
        """Yield roles held by another kind of layer, or by one whose output is split in another way."""
        for role in self._common():
            for part in ("kind", "layout"):
                ours, theirs = (
                    list(dict.fromkeys(value for slot in slots[role] if (value := getattr(slot, part))))
                    for slots in (self._ours, self._theirs)
                )
                if ours and theirs and {*ours} != {*theirs}:
                    yield f"has {role} as {_listed(theirs)} where {self._name} has {_listed(ours)}"

    def _names(self, *, convolutions: bool) -> Iterator[str]:
        """Convolutions are many of one role: where there are not as many of each, they do not pair by their order."""
        said: dict[str, None] = {}
        for role in self._common():
            if role.startswith("conv.") and not convolutions:
                continue
            for ours, theirs in zip(self._ours[role], self._theirs[role], strict=True):
                if (one := tail_of(ours.pattern)) != (other := tail_of(theirs.pattern)):
                    said[f"names {other} where {self._name} says {one}"] = None
        yield from said

    def _common(self) -> list[str]:
        """Return the roles both have as many slots of."""
        return [
            role
            for role in self._ours
            if role not in self._explained and len(self._ours[role]) == len(self._theirs.get(role, ()))
        ]


def _by_role(slots: Iterable[Slot]) -> dict[str, list[Slot]]:
    """Return the slots of each role, one per pattern: what splits a pattern further is not structure."""
    found: dict[str, dict[str, Slot]] = defaultdict(dict)
    for slot in slots:
        found[slot.role].setdefault(slot.pattern, slot)
    return {role: [*held.values()] for role, held in found.items()}


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
    norms = (slot.pattern.rpartition(".") for slot in roles.get("norm", ()))
    return list(dict.fromkeys(name for parent, _, name in norms if parent in inside and not _is_block(parent)))


def _is_block(path: str) -> bool:
    """Tell whether a path ends at a block, whose norms are its own rather than its attention's."""
    return path.endswith("*") or not path


def tail_of(pattern: str) -> str:
    """Return the last two names of a pattern, its indices left out."""
    return ".".join([segment for segment in pattern.split(".") if segment != "*"][-2:])


def _shortened(said: list[str], rest: str) -> list[str]:
    return said if len(said) <= MOST + 1 else [*said[:MOST], f"and {len(said) - MOST} {rest} differ"]


def _slots(count: int) -> str:
    return f"{count} slot{'' if count == 1 else 's'}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
