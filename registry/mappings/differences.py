"""Describe in words how the slots of one architecture differ from those of another."""

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
    added = (f"adds a tower, {tower}: {_count(theirs[tower])}" for tower in sorted({*theirs} - shared))
    missing = (f"has no {tower} tower where {name} has {_count(ours[tower])}" for tower in sorted({*ours} - shared))
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
                    yield f"adds {family}: {_count(len(theirs[family]))}"
                else:
                    yield f"has no {family} where {self._name} has {_count(len(ours[family]))}"

    def _numbers(self, role: str) -> Iterator[str]:
        """Yield the numbers of slots of a role, if they differ."""
        ours, theirs = len(self._ours.get(role, ())), len(self._theirs.get(role, ()))
        if ours == theirs:
            return
        self._explained.add(role)
        if not ours:
            yield f"adds {role}: {_count(theirs)}"
        elif not theirs:
            yield f"has no {role} where {self._name} has {_count(ours)}"
        else:
            yield f"has {_count(theirs)} of {role} where {self._name} has {ours}"

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


def _count(count: int) -> str:
    return f"{count} slot{'' if count == 1 else 's'}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
