"""Entries stated in the names of an older version, said in those of the newest one; whole and exact, or not at all."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from ...domain.mappings import Mapping
from ...domain.scans import Slot
from ...domain.targets import TargetMatcher, TargetSpec
from ...domain.versions import Rename, VersionedRename, newest, parse_version
from .renames import renamed

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
