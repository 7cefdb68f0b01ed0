"""Find the renames of layers between two versions, and translate older mappings into the newest names.

A slot is found again by its properties: the same role and kind in the same tower. Of several such slots, the pair
with the most of its path in common, the same count and the same position in the model is chosen.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from ...domain.layers import Slot
from ...domain.mappings import Mapping
from ...domain.targets import TargetMatcher, TargetSpec
from ...domain.versions import Rename, VersionedRename, newest, parse_version

_PARTS = {"gate_up": ("gate", "up"), "qkv": ("query", "key", "value"), "kv": ("key", "value")}
"""The parts of a fused projection, by the last word of its role."""

_MODULES = ("target_modules", "exclude_modules", "feedforward_modules")


class Pair(NamedTuple):
    """An old and a new slot taken for the same layers, and the reason."""

    old: Slot
    new: Slot
    says: str


def find_renames(old: Iterable[Slot], new: Iterable[Slot]) -> tuple[Rename, ...]:
    """Return the renames from an older version to a newer one, shortest first; empty if nothing was renamed."""
    before, after = ({slot.pattern: slot for slot in slots} for slots in (old, new))
    removed = [slot for pattern, slot in before.items() if pattern not in after]
    added = [slot for pattern, slot in after.items() if pattern not in before]
    pairs = [*_find_successors(removed, added)]
    paired = {id(slot) for pair in pairs for slot in pair[:2]}
    removed, added = ([slot for slot in slots if id(slot) not in paired] for slots in (removed, added))
    pairs += _find_regrouped(removed, added)
    kept = [Pair(before[pattern], after[pattern], "") for pattern in before.keys() & after.keys()]
    return _shorten(pairs, kept)


def _find_successors(removed: list[Slot], added: list[Slot]) -> Iterator[Pair]:
    """Yield each removed slot with its successor, those that have the most in common first."""
    keys: tuple[Callable[[Slot], Hashable], ...] = (
        lambda slot: (slot.tower, slot.role, slot.kind, slot.count, slot.layout),
        lambda slot: (slot.tower, slot.role, slot.kind),
        lambda slot: (slot.role, slot.kind, slot.pattern.rpartition(".")[2]),
        lambda slot: (slot.tower, slot.role, slot.count),
    )
    for key in keys:
        pairs = _pair_by(key, removed, added)
        yield from pairs
        removed = [slot for slot in removed if all(slot is not pair.old for pair in pairs)]
        added = [slot for slot in added if all(slot is not pair.new for pair in pairs)]


def _pair_by(key: Callable[[Slot], Hashable], removed: list[Slot], added: list[Slot]) -> list[Pair]:
    groups: dict[Hashable, tuple[list[Slot], list[Slot]]] = defaultdict(lambda: ([], []))
    for side, slots in enumerate((removed, added)):
        for slot in slots:
            groups[key(slot)][side].append(slot)
    return [pair for olds, news in groups.values() for pair in _pair(olds, news)]


def _pair(olds: list[Slot], news: list[Slot]) -> Iterator[Pair]:
    """Pair two lists of similar slots greedily, by likeness and then by their order; each slot is paired once."""
    candidates = sorted(
        product(enumerate(olds), enumerate(news)),
        key=lambda pair: (-_likeness(pair[0][1], pair[1][1]), abs(pair[0][0] - pair[1][0])),
    )
    taken: tuple[set[int], set[int]] = (set(), set())
    for (first, old), (second, new) in candidates:
        is_same_depth = ("*" in old.pattern) == ("*" in new.pattern)
        if first not in taken[0] and second not in taken[1] and is_same_depth:
            taken[0].add(first)
            taken[1].add(second)
            yield Pair(old, new, f"{_describe(old)} in both")


def _likeness(old: Slot, new: Slot) -> int:
    """Return the number of common segments at the start and at the end of two paths; those at the end count double."""
    one, other = old.pattern.split("."), new.pattern.split(".")
    return 2 * _common(one[::-1], other[::-1]) + _common(one, other)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the common start."""
    unequal = (position for position, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unequal, min(len(one), len(other)))


def _find_regrouped(removed: list[Slot], added: list[Slot]) -> Iterator[Pair]:
    """Yield the slots that became part of a fused one, were part of a fused one, or are experts stacked in a tensor."""
    for old in removed:
        whole = _most_alike(old, added, _is_part)
        if whole:
            yield Pair(old, whole, f"{_describe(old)}, part of {whole.role} now")
        stack = _most_alike(old, added, _is_stacked)
        if stack:
            yield Pair(old, stack, f"{_describe(old)}, one tensor for all experts now")
    for new in added:
        whole = _most_alike(new, removed, _is_part)
        if whole:
            yield Pair(whole, new, f"{_describe(new)}, part of {whole.role} before")


def _most_alike(slot: Slot, others: Iterable[Slot], fits: Callable[[Slot, Slot], bool]) -> Slot | None:
    return max((other for other in others if fits(slot, other)), key=lambda other: _likeness(slot, other), default=None)


def _is_part(part: Slot, whole: Slot) -> bool:
    own, parts = part.role.rpartition(".")[2], _PARTS.get(whole.role.rpartition(".")[2], ())
    return own in parts and _is_akin(part, whole)


def _is_stacked(old: Slot, new: Slot) -> bool:
    same = old.role.rpartition(".")[2] == new.role.rpartition(".")[2]
    return same and old.kind != new.kind == "expert_parameter" and _is_akin(old, new)


def _is_akin(part: Slot, whole: Slot) -> bool:
    """Return whether two slots are of one family; stacked experts are akin to MLP layers with one more index."""
    families = {slot.role.partition(".")[0] for slot in (part, whole)}
    if part.tower != whole.tower or whole.kind != "expert_parameter":
        return part.tower == whole.tower and len(families) == 1
    return families <= {"expert", "mlp"} and part.pattern.count("*") == whole.pattern.count("*") + 1


def _describe(slot: Slot) -> str:
    return f"{slot.tower} {slot.role}" if slot.role != "other" else f"{slot.tower} {slot.kind}"


def _shorten(pairs: Sequence[Pair], kept: Sequence[Pair]) -> tuple[Rename, ...]:
    """Return the pairs as renames of prefixes: a common end is cut, unless another slot would be renamed wrongly."""
    known: dict[tuple[str, str], Rename] = {}
    for pair in pairs:
        one, other = pair.old.pattern.split("."), pair.new.pattern.split(".")
        end = min(_common(one[::-1], other[::-1]), len(one) - 1, len(other) - 1)
        old, new = ".".join(one[: len(one) - end]), ".".join(other[: len(other) - end])
        known[old, new] = Rename(old, new, "the same layers below" if end else pair.says)
    wanted: dict[str, set[str]] = defaultdict(set)
    for pair in (*pairs, *kept):
        wanted[pair.old.pattern].add(pair.new.pattern)
    for pair in (*pairs, *kept):
        if set(rename_pattern(pair.old.pattern, known.values())) != wanted[pair.old.pattern]:
            old, new = pair.old.pattern, pair.new.pattern
            known[old, new] = Rename(old, new, pair.says or f"{_describe(pair.old)} in both")
    return tuple(sorted(known.values(), key=lambda rename: (rename.old.count("."), rename.old, rename.new)))


def rename_pattern(pattern: str, renames: Iterable[Rename]) -> tuple[str, ...]:
    """Return the names in the newer version of a path pattern of the older one; the pattern itself if not renamed."""
    fitting = [one for one in renames if pattern == one.old or pattern.startswith(f"{one.old}.")]
    longest = max((len(one.old) for one in fitting), default=0)
    found = (one.new + pattern[longest:] for one in fitting if len(one.old) == longest)
    return tuple(sorted(found)) or (pattern,)


def is_stale(mapping: Mapping) -> bool:
    """Return whether a mapping without a range of versions has targets that match nothing where it was verified."""
    check = mapping.verification
    if check is None or mapping.versions is not None:
        return False
    return check.status in ("dead", "partial") and not all(check.counts.values())


def translate_mapping(mapping: Mapping, slots: Sequence[Slot], renames: Iterable[VersionedRename]) -> Mapping:
    """Return a stale mapping in the newest names if all its targets have one; any other mapping unchanged.

    A translation was never verified: it comes without the verification of the stated mapping.

    Args:
        mapping: The stated mapping.
        slots: The slots of the newest version.
        renames: The renames that led there.
    """
    renames = [*renames]
    version = mapping.verification.library_version if mapping.verification else None
    if not renames or not is_stale(mapping) or version != newest(rename.to_version for rename in renames):
        return mapping
    for older, names in _older_names(slots, renames):
        spec = _translate(mapping.spec, names)
        if spec:
            old, new = (", ".join(one.target_modules or ()) for one in (mapping.spec, spec))
            reason = f"stated in the names of {mapping.library} {older}: {old} -> {new}"
            return replace(mapping, **spec.values, verification=None, reasons=(reason, *mapping.reasons))
    return mapping


Names = dict[str, tuple[str, ...]]
"""Module patterns of the newest version, each with its names in an older version."""


def _older_names(slots: Sequence[Slot], renames: Iterable[VersionedRename]) -> Iterator[tuple[str, Names]]:
    """Yield older versions, the newest first, with their names by the newest names."""
    steps: dict[tuple[str, str], list[Rename]] = defaultdict(list)
    for one in renames:
        steps[one.from_version, one.to_version].append(one.rename)
    modules = [slot.pattern for slot in slots if slot.kind != "expert_parameter"]
    names: dict[str, Names] = {newest(to for _, to in steps): {pattern: (pattern,) for pattern in modules}}
    for older, newer in sorted(steps, key=lambda step: parse_version(step[0]), reverse=True):
        if newer in names:
            names[older] = _step_back(names[newer], steps[older, newer])
            yield older, names[older]


def _step_back(names: Names, renames: Iterable[Rename]) -> Names:
    back = [Rename(one.new, one.old, one.says) for one in renames]
    return {pattern: tuple(o for name in known for o in rename_pattern(name, back)) for pattern, known in names.items()}


def _translate(spec: TargetSpec, names: Names) -> TargetSpec | None:
    """Return the spec in the newest names, or ``None`` if a field is a regex or cannot be translated."""
    stated = {field: targets for field in _MODULES if (targets := getattr(spec, field))}
    changed = {f: None if isinstance(each, str) else _translate_targets(each, names) for f, each in stated.items()}
    return None if None in changed.values() else replace(spec, **changed)


def _translate_targets(targets: tuple[str, ...], names: Names) -> tuple[str, ...] | None:
    """Return the shortest suffixes that match exactly the layers whose older names ``targets`` match."""
    matcher = TargetMatcher(targets)
    matches = {pattern: {matcher.find(old) for old in older} for pattern, older in names.items()}
    wanted = [pattern for pattern, found in matches.items() if found != {None}]
    matched = {target for pattern in wanted for target in matches[pattern]}
    if matched != set(targets):
        return None  # a fused layer is matched in part, or a target matches nothing in either version
    suffixes = dict.fromkeys(_find_suffix(pattern, wanted, names) for pattern in wanted)
    return None if None in suffixes else tuple(name for name in suffixes if name)


def _find_suffix(pattern: str, wanted: Collection[str], every: Iterable[str]) -> str | None:
    """Return the shortest end of a pattern, without an index, that no unwanted pattern has."""
    segments = pattern.rpartition("*.")[2].split(".")
    for start in range(len(segments) - 1, -1, -1):
        end = ".".join(segments[start:])
        if all(other in wanted for other in every if other == end or other.endswith(f".{end}")):
            return end
    return None
