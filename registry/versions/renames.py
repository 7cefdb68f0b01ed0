"""Renames: what the layers of one architecture were called in an older version, told from the slots of both.

A slot is found again by what it is: the same role and kind in the same tower, and of several such the one with the
most of its path kept, the same count and the same place in the order of the model.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from ...domain.mappings import Mapping
from ...domain.scans import Slot
from ...domain.targets import TargetMatcher, TargetSpec
from ...domain.versions import Rename, VersionedRename, newest, parse_version

_PARTS = {"gate_up": ("gate", "up"), "qkv": ("query", "key", "value"), "kv": ("key", "value")}
"""What a fused projection is made of, by the last word of its role."""


class Pair(NamedTuple):
    """Slots taken for the same layers, and why."""

    old: Slot
    new: Slot
    says: str


def find_renames(old: Iterable[Slot], new: Iterable[Slot]) -> tuple[Rename, ...]:
    """Return how paths of an older version became those of a newer one, shortest first; empty if none did."""
    before, after = _by_pattern(old), _by_pattern(new)
    gone = [slot for pattern, slot in before.items() if pattern not in after]
    come = [slot for pattern, slot in after.items() if pattern not in before]
    pairs = [*_same(gone, come)]
    paired = {id(slot) for pair in pairs for slot in pair[:2]}
    gone, come = ([slot for slot in slots if id(slot) not in paired] for slots in (gone, come))
    pairs += _regrouped(gone, come)
    kept = [Pair(before[pattern], after[pattern], "") for pattern in before.keys() & after.keys()]
    return _shortened(pairs, kept)


def _by_pattern(slots: Iterable[Slot]) -> dict[str, Slot]:
    return {slot.pattern: slot for slot in slots}


def _same(gone: list[Slot], come: list[Slot]) -> Iterable[Pair]:
    """Yield each slot with its successor, those that have the most in common first."""
    keys: tuple[Callable[[Slot], Hashable], ...] = (
        lambda slot: (slot.tower, slot.role, slot.kind, slot.count, slot.layout),
        lambda slot: (slot.tower, slot.role, slot.kind),
        lambda slot: (slot.role, slot.kind, slot.pattern.rpartition(".")[2]),
        lambda slot: (slot.tower, slot.role, slot.count),
    )
    for key in keys:
        found = _matched(gone, come, key)
        yield from found
        gone = [slot for slot in gone if all(slot is not pair.old for pair in found)]
        come = [slot for slot in come if all(slot is not pair.new for pair in found)]


def _matched(gone: Sequence[Slot], come: Sequence[Slot], key: Callable[[Slot], Hashable]) -> list[Pair]:
    """Pair slots with an equal key, the most alike first; each is paired once."""
    groups: dict[Hashable, tuple[list[Slot], list[Slot]]] = defaultdict(lambda: ([], []))
    for side, slots in enumerate((gone, come)):
        for slot in slots:
            groups[key(slot)][side].append(slot)
    return [pair for olds, news in groups.values() for pair in _paired(olds, news)]


def _paired(olds: list[Slot], news: list[Slot]) -> Iterable[Pair]:
    """Pair two lists of slots of one sort greedily, by likeness and then by their order."""
    ways = sorted(
        product(enumerate(olds), enumerate(news)),
        key=lambda way: (-_likeness(way[0][1], way[1][1]), abs(way[0][0] - way[1][0])),
    )
    taken: tuple[set[int], set[int]] = (set(), set())
    for (first, old), (second, new) in ways:
        if first not in taken[0] and second not in taken[1] and _is_as_deep(old, new):
            taken[0].add(first)
            taken[1].add(second)
            yield Pair(old, new, f"{_named(old)} in both")


def _is_as_deep(old: Slot, new: Slot) -> bool:
    """Tell whether both stand in a block or neither does."""
    return ("*" in old.pattern) == ("*" in new.pattern)


def _likeness(old: Slot, new: Slot) -> int:
    """Return how many segments two paths have in common at their start and at their end; a name counts double."""
    one, other = old.pattern.split("."), new.pattern.split(".")
    end = _common(one[::-1], other[::-1])
    return 2 * end + _common(one, other)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the common start."""
    unequal = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unequal, min(len(one), len(other)))


def _regrouped(gone: list[Slot], come: list[Slot]) -> Iterable[Pair]:
    """Yield the parts of what is fused now, what was fused and is in parts now, and experts that are stacked now."""
    for old in gone:
        whole = _most_alike(old, (new for new in come if _is_part(old, new)))
        if whole:
            yield Pair(old, whole, f"{_named(old)}, part of {whole.role} now")
        stack = _most_alike(old, (new for new in come if _is_stacked(old, new)))
        if stack:
            yield Pair(old, stack, f"{_named(old)}, one tensor for all experts now")
    for new in come:
        whole = _most_alike(new, (old for old in gone if _is_part(new, old)))
        if whole:
            yield Pair(whole, new, f"{_named(new)}, part of {whole.role} before")


def _most_alike(slot: Slot, others: Iterable[Slot]) -> Slot | None:
    return max(others, key=lambda other: _likeness(slot, other), default=None)


def _is_part(part: Slot, whole: Slot) -> bool:
    own, parts = part.role.rpartition(".")[2], _PARTS.get(whole.role.rpartition(".")[2], ())
    return own in parts and _is_akin(part, whole)


def _is_stacked(old: Slot, new: Slot) -> bool:
    same = old.role.rpartition(".")[2] == new.role.rpartition(".")[2]
    return same and old.kind != new.kind == "expert_parameter" and _is_akin(old, new)


def _is_akin(part: Slot, whole: Slot) -> bool:
    """Tell whether both are of one family; stacked experts are akin to feed-forward layers with one index more."""
    families = {slot.role.partition(".")[0] for slot in (part, whole)}
    if part.tower != whole.tower or whole.kind != "expert_parameter":
        return part.tower == whole.tower and len(families) == 1
    return families <= {"expert", "mlp"} and part.pattern.count("*") == whole.pattern.count("*") + 1


def _named(slot: Slot) -> str:
    return f"{slot.tower} {slot.role}" if slot.role != "other" else f"{slot.tower} {slot.kind}"


def _shortened(pairs: Sequence[Pair], kept: Sequence[Pair]) -> tuple[Rename, ...]:
    """Return the pairs as starts of paths: what both end with is left off, unless another slot then goes astray."""
    short = {(pair.old.pattern, pair.new.pattern): _without_common_end(pair) for pair in pairs}
    known = {(rename.old, rename.new): rename for rename in short.values()}
    wanted: dict[str, set[str]] = defaultdict(set)
    for pair in (*pairs, *kept):
        wanted[pair.old.pattern].add(pair.new.pattern)
    for pair in (*pairs, *kept):
        if set(renamed(pair.old.pattern, known.values())) != wanted[pair.old.pattern]:
            old, new = pair.old.pattern, pair.new.pattern
            known[old, new] = Rename(old, new, pair.says or f"{_named(pair.old)} in both")
    return tuple(sorted(known.values(), key=lambda rename: (rename.old.count("."), rename.old, rename.new)))


def _without_common_end(pair: Pair) -> Rename:
    """Return the rename of the start of a path, of at least one segment on either side."""
    old, new = pair.old.pattern.split("."), pair.new.pattern.split(".")
    end = min(_common(old[::-1], new[::-1]), len(old) - 1, len(new) - 1)
    says = pair.says if not end else "the same layers below"
    return Rename(".".join(old[: len(old) - end]), ".".join(new[: len(new) - end]), says)


def renamed(pattern: str, renames: Iterable[Rename]) -> tuple[str, ...]:
    """Return what a path pattern of the older version is called in the newer one; itself if nothing renames it."""
    fitting = [one for one in renames if pattern == one.old or pattern.startswith(f"{one.old}.")]
    longest = max((len(one.old) for one in fitting), default=0)
    found = (one.new + pattern[longest:] for one in fitting if len(one.old) == longest)
    return tuple(sorted(found)) or (pattern,)


_STALE = ("dead", "partial")
_MODULES = ("target_modules", "exclude_modules", "feedforward_modules")


def is_stale(mapping: Mapping) -> bool:
    """Tell whether a mapping stated for any version misses what it should hit in the one it was checked against."""
    check = mapping.verification
    if check is None or mapping.versions is not None:
        return False
    return check.status in _STALE and not all(check.counts.values())


def _checked_at(mapping: Mapping) -> str | None:
    return mapping.verification.library_version if mapping.verification else None


def translated(mapping: Mapping, slots: Sequence[Slot], renames: Iterable[VersionedRename]) -> Mapping:
    """Return a stale mapping in today's names if all its targets have one; any other as it is.

    Nobody has checked the translation: it comes without the verification of what was stated.

    Args:
        mapping: As stated.
        slots: Those of the newest version.
        renames: Those that led there.
    """
    ways = [*renames]
    if not ways or not is_stale(mapping) or _checked_at(mapping) != newest(way.to_version for way in ways):
        return mapping
    for version, names in _older_names(slots, ways):
        spec = _translate(mapping.spec, names)
        if spec:
            says = f"stated in the names of {mapping.library} {version}: {_difference(mapping.spec, spec)}"
            return replace(mapping, spec=spec, verification=None, reasons=(says, *mapping.reasons))
    return mapping


Names = dict[str, tuple[str, ...]]
"""Today's patterns of modules, each with those it had in an older version."""


def _older_names(slots: Sequence[Slot], renames: Iterable[VersionedRename]) -> Iterator[tuple[str, Names]]:
    """Yield older versions, the newest first, with the names of then by those of now."""
    steps: dict[tuple[str, str], list[Rename]] = defaultdict(list)
    for one in renames:
        steps[one.from_version, one.to_version].append(one.rename)
    names: dict[str, Names] = {}
    if steps:
        modules = [slot.pattern for slot in slots if slot.kind != "expert_parameter"]
        names[newest(to for _, to in steps)] = {pattern: (pattern,) for pattern in modules}
    for older, newer in sorted(steps, key=lambda step: parse_version(step[0]), reverse=True):
        if newer in names:
            back = [Rename(one.new, one.old, one.says) for one in steps[older, newer]]
            names[older] = {
                now: tuple(old for then in names[newer][now] for old in renamed(then, back)) for now in names[newer]
            }
            yield older, names[older]


def _translate(spec: TargetSpec, names: Names) -> TargetSpec | None:
    """Return the spec in today's names, or ``None`` if one of its targets is a regex or has none."""
    changed: dict[str, tuple[str, ...]] = {}
    for field in _MODULES:
        targets = getattr(spec, field)
        if targets:
            found = None if isinstance(targets, str) else _rename_targets(targets, names)
            if found is None:
                return None
            changed[field] = found
    return TargetSpec.from_dict({**spec.to_dict(), **changed})


def _rename_targets(targets: tuple[str, ...], names: Names) -> tuple[str, ...] | None:
    """Return the shortest suffixes that hit exactly what ``targets`` hit by its older names."""
    matcher = TargetMatcher(targets)
    hits = {now: {matcher.find(then) for then in older} for now, older in names.items()}
    wanted = [now for now, found in hits.items() if found != {None}]
    if any(None in hits[now] for now in wanted) or {target for now in wanted for target in hits[now]} != set(targets):
        return None  # a fused layer hit in part, or a target that hits nothing either way
    suffixes = dict.fromkeys(_suffix(pattern, wanted, names) for pattern in wanted)
    return None if None in suffixes else tuple(name for name in suffixes if name)


def _suffix(pattern: str, wanted: Collection[str], every: Iterable[str]) -> str | None:
    """Return the shortest end of a pattern without an index that no unwanted pattern has."""
    segments = pattern.rpartition("*.")[2].split(".")
    for start in range(len(segments) - 1, -1, -1):
        end = ".".join(segments[start:])
        if all(other in wanted for other in every if other == end or other.endswith(f".{end}")):
            return end
    return None


def _difference(stated: TargetSpec, spec: TargetSpec) -> str:
    old, new = (", ".join(one.target_modules or ()) for one in (stated, spec))
    return f"{old} -> {new}"
