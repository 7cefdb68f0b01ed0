"""Compare the stored weights with the layers of a model: those that fit, that have another name, and that lack.

Checkpoints have names of their own: with or without the prefix of the base model, of an earlier version of the library,
experts one by one where the model has them in one parameter. A model's loader renames; what loads is what must fit.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from math import prod
from typing import Literal

from .index import place_of

Verdict = Literal["fits", "fits with renames", "differs"]

PARTS = {"qkv": ("query", "key", "value"), "gate_up": ("gate", "up")}
"""Roles of the projections that a fused one holds, by the end of its own role."""


FEW = 16
"""Weights of a place up to which they are compared one by one, where they are no copies of one another."""

MADE_ANEW = ("head", "embedding.position")
"""Roles of layers that a loader makes itself where they are not stored: heads, and positions that are computed."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of a model or of a file: its path, shape and role."""

    path: str
    shape: tuple[int, ...]
    role: str = "other"


@dataclass(frozen=True, slots=True)
class Place:
    """All weights whose names differ in numbers alone.

    Attributes:
        pattern: Their name, with ``*`` in place of each number.
        count: Their number.
        shapes: Their shapes, each with its sides in order, so that a transposed matrix counts as the same.
        role: The role of the first.
        weights: The weights.
    """

    pattern: str
    count: int
    shapes: frozenset[tuple[int, ...]]
    role: str
    weights: tuple[Weight, ...]

    @classmethod
    def of(cls, pattern: str, weights: Sequence[Weight]) -> "Place":
        """Return the place of weights."""
        shapes = frozenset(tuple(sorted(weight.shape)) for weight in weights)
        return cls(pattern, len(weights), shapes, weights[0].role, tuple(weights))

    @property
    def block(self) -> str:
        """The pattern up to its last number."""
        return self.pattern.rpartition("*")[0]

    def divide(self) -> "list[Place]":
        """Return a place for each weight, if they are the unlike steps of a sequence, not a layer of many blocks."""
        if len(self.shapes) == 1 or self.pattern.count("*") > 1 or self.count > FEW:
            return [self]
        return [Place.of(weight.path, [weight]) for weight in self.weights]

    def holds_same(self, other: "Place") -> bool:
        """Return whether another place has as many weights of the same shapes."""
        return self.count == other.count and self.shapes == other.shapes

    def is_within(self, other: "Place") -> bool:
        """Return whether another place has these weights, and maybe weights of kinds that are no layers here."""
        return self.count <= other.count and self.shapes <= other.shapes

    def likeness(self, other: "Place") -> float:
        """Return how much another place looks like this one: by its role first, then by its name."""
        end = self.role.rpartition(".")[2]
        is_part = other.role.rpartition(".")[2] in PARTS.get(end, (end,))
        names = self.pattern.split("."), other.pattern.split(".")
        by_name = SequenceMatcher(None, *names).ratio() + SequenceMatcher(None, self.pattern, other.pattern).ratio()
        return by_name + 4 * (is_part and end != "other")


@dataclass(frozen=True, slots=True)
class Fit:
    """How stored weights fit the layers of a model.

    Attributes:
        verdict: ``fits``, ``fits with renames`` or ``differs``; heads and positions that are not stored, or for other
            classes, are made anew, and fit.
        renames: Patterns of the file by those of the model, where they differ.
        missing: Patterns of layers that are not stored.
        beyond: Patterns that are stored and are no layers of the model, such as heads of other tasks.
        shapes: Patterns that are there with other shapes or in another number.
    """

    verdict: Verdict
    renames: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]
    beyond: tuple[str, ...]
    shapes: tuple[str, ...]


def compare(model: Sequence[Weight], stored: Sequence[Weight]) -> Fit:
    """Return how stored weights fit a model, without those that share the weight of another layer."""
    prefix = _find_prefix([weight.path for weight in model], [weight.path for weight in stored])
    ours = _group(model)
    moved = [replace(weight, path=prefix.apply(weight.path)) for weight in stored]
    # What the model lacks under the prefix keeps its name in the file.
    theirs = _group(new if place_of(new.path) in ours else old for new, old in zip(moved, stored, strict=True))
    shared = ours.keys() & theirs.keys()
    shapes = tuple(sorted(name for name in shared if not ours[name].is_within(theirs[name])))
    lacking = {name: place for name, place in ours.items() if name not in theirs}
    spare = {name: place for name, place in theirs.items() if name not in ours}
    pairs, missing, beyond = _pair_with_steps(lacking, spare)
    renames = prefix.describe(serves=bool(shared)) | pairs
    is_whole = all(place.role in MADE_ANEW for place in (*missing, *map(ours.__getitem__, shapes)))
    return Fit(
        verdict=("fits with renames" if renames else "fits") if is_whole else "differs",
        renames=renames,
        missing=tuple(place.pattern for place in missing),
        beyond=tuple(place.pattern for place in beyond),
        shapes=shapes,
    )


def _group(weights: Iterable[Weight]) -> dict[str, Place]:
    places: dict[str, list[Weight]] = defaultdict(list)
    for weight in weights:
        places[place_of(weight.path)].append(weight)
    return {name: Place.of(name, group) for name, group in places.items()}


def _pair_with_steps(
    lacking: Mapping[str, Place], spare: Mapping[str, Place]
) -> tuple[dict[str, tuple[str, ...]], list[Place], list[Place]]:
    """Return the pairs of places, first whole, then step by step, and the rest of the model and of the file."""
    pairs = _pair_all(lacking.values(), spare.values())
    used = {name for names in pairs.values() for name in names}
    alone = [place for name, place in lacking.items() if name not in pairs]
    over = [place for name, place in spare.items() if name not in used]
    steps = _pair_all([x for place in alone for x in place.divide()], [x for place in over for x in place.divide()])
    used = {name for names in steps.values() for name in names}
    return pairs | steps, _list_left(alone, steps), _list_left(over, used)


def _list_left(places: Iterable[Place], paired: Container[str]) -> list[Place]:
    """Return the places that were not paired, or their steps, where some of them were."""
    left: list[Place] = []
    for place in places:
        steps = place.divide()
        open_steps = [step for step in steps if step.pattern not in paired]
        left += [place] if len(open_steps) == len(steps) else open_steps
    return left


# --- the prefix of the base model -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prefix:
    """The way from the names in a file to those in a model: a part that is removed, and one that is added."""

    removed: str = ""
    added: str = ""

    def apply(self, path: str) -> str:
        """Return the name in the model of a name in the file."""
        if self.removed and not path.startswith(self.removed):
            return path
        return self.added + path.removeprefix(self.removed)

    def describe(self, *, serves: bool) -> dict[str, tuple[str, ...]]:
        """Return the rename that the prefix is, if it is one and serves any weight."""
        return {f"{self.added}*": (f"{self.removed}*",)} if serves and self != Prefix() else {}


def _find_prefix(model: Sequence[str], stored: Sequence[str]) -> Prefix:
    """Return the change of prefix under which most stored weights have a name of the model."""
    by_tail: dict[str, list[str]] = defaultdict(list)
    for path in model[:: max(1, len(model) // 64)]:  # a sample is enough for the prefix
        for start, tail in _split(path):
            by_tail[tail].append(start)
    starts = ((start, added) for path in stored for start, tail in _split(path) for added in by_tail.get(tail, ()))
    changes = Counter(Prefix(start, added) for start, added in starts if start != added)
    candidates = [Prefix(), *(prefix for prefix, _ in changes.most_common(8))]
    names = set(model)
    return max(candidates, key=lambda prefix: sum(prefix.apply(path) in names for path in stored))


def _split(path: str) -> Iterator[tuple[str, str]]:
    """Yield (start, rest) of a path, with up to three parts in the start, none of them a number."""
    segments = path.split(".")
    for depth in range(min(3, len(segments) - 1) + 1):
        if any(segment.isdecimal() for segment in segments[:depth]):
            return
        yield "".join(f"{segment}." for segment in segments[:depth]), ".".join(segments[depth:])


# --- renames ----------------------------------------------------------------------------------------------------------


def _pair_all(lacking: Collection[Place], spare: Collection[Place]) -> dict[str, tuple[str, ...]]:
    """Return places of the file by the place of the model that holds the same numbers under another name."""
    lacking = [place for place in lacking if place.role not in MADE_ANEW]
    pairs = dict(_pair(lacking, spare))
    used = {name for names in pairs.values() for name in names}
    left = [place for place in spare if place.pattern not in used]
    for fused, parts in _pair_fused(left, [place for place in lacking if place.pattern not in pairs]):
        pairs |= dict.fromkeys(parts, (fused,))
    return pairs


def _pair(lacking: Iterable[Place], spare: Iterable[Place]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (place of the model, places of the file) that hold the same numbers under other names."""
    left = {place.pattern: place for place in spare}
    for place in lacking:
        equal = [other for other in left.values() if place.holds_same(other)]
        parts = [max(equal, key=place.likeness)] if equal else _find_parts(place, left.values())
        for part in parts:
            del left[part.pattern]
        if parts:
            yield place.pattern, tuple(part.pattern for part in parts)


def _pair_fused(fused: Iterable[Place], parts: Sequence[Place]) -> Iterator[tuple[str, list[str]]]:
    """Yield (place of the file, places of the model) where one weight of the file is several of the model."""
    for whole in fused:
        found = _find_parts(whole, parts)
        if len(found) > 1:
            parts = [part for part in parts if part not in found]
            yield whole.pattern, [part.pattern for part in found]


def _find_parts(whole: Place, spare: Iterable[Place]) -> list[Place]:
    """Return the places whose weights, all together, are those of one: experts one by one, or a projection's parts."""
    wanted = whole.count * prod(next(iter(whole.shapes)))
    near: dict[str, list[Place]] = defaultdict(list)
    for place in spare:
        if len(place.shapes) == len(whole.shapes) == 1:
            near[place.block].append(place)
    for places in near.values():
        found: list[Place] = []
        held = 0
        for place in sorted(places, key=whole.likeness, reverse=True):
            size = place.count * prod(next(iter(place.shapes)))
            if held + size <= wanted:
                found.append(place)
                held += size
            if held == wanted:
                return found
    return []
