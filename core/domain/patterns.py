"""Find the shortest targets that match exactly a set of layers: suffixes, else one generated regex."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from itertools import combinations

from .targets import Targets

MAX_SUFFIXES = 12
"""A list longer than this is harder to read than a regex."""

OPEN = "*"
"""Placeholder for any index in a tail."""

REGEXES = {OPEN: r"\d+", "*even": r"\d*[02468]", "*odd": r"\d*[13579]", "*later": r"[1-9]\d*"}
"""Regexes of the placeholders: for any index, for every second one, and for all but the first."""

Tail = tuple[str, ...]
"""The last segments of a path; an open index is ``*``."""

Named = tuple[tuple[int, str], ...]
"""The indices of a path that are not open, counted from its end, and how each is named: by itself (``given``), by
``parity``, or as the first or a ``later`` one."""


@lru_cache(maxsize=1 << 15)  # every step of a scan uses the same paths
def pattern_of(path: str) -> str:
    """Return a path with every index replaced by ``*``."""
    return ".".join(OPEN if segment.isdecimal() else segment for segment in path.split("."))


def name_leaves(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the last names of paths, each once; an index has the name before it."""
    found: dict[str, None] = {}
    for path in paths:
        names = path.split(".")
        start = next((at for at in range(len(names) - 1, -1, -1) if not names[at].isdecimal()), 0)
        found[".".join(names[start:])] = None
    return tuple(found)


def find_indices(path: str) -> tuple[int, ...]:
    """Return the indices in a path, the outermost first."""
    return tuple(int(segment) for segment in path.split(".") if segment.isdecimal())


def name_targets(wanted: Collection[str], module_paths: Sequence[str]) -> Targets:
    r"""Return the shortest targets that match exactly ``wanted`` among ``module_paths``, by PEFT's rule.

    A layer is named by the shortest tail of its path that no other module shares: preferably without an index, so that
    it still fits a deeper model or one inside another; else with open indices; else with those named that leave the
    tail to most layers: a stage rather than each of its blocks, every second block, or all but the first. Tails
    without placeholders are suffixes; otherwise they form one regex that runs in linear time: literals, classes of
    indices between dots, plain alternatives and one leading ``.*``. A suffix is never a bare index, because ``0``
    matches every numbered module.
    """
    names = _Names(wanted, module_paths)
    tails = {path: names.find(path) for path in wanted}
    plain = dict.fromkeys(".".join(tail) for tail in tails.values() if tail and _is_suffix(tail))
    if all(tail and _is_suffix(tail) for tail in tails.values()) and len(plain) <= MAX_SUFFIXES:
        return tuple(plain)
    leaves: dict[str, dict[str, None]] = defaultdict(dict)
    for path, tail in tails.items():
        *parents, leaf = (REGEXES.get(segment) or re.escape(segment) for segment in tail or path.split("."))
        parent = ("" if tail is None else r"(?:.*\.)?") + "".join(rf"{segment}\." for segment in parents)
        leaves[parent][leaf] = None
    return "|".join(parent + _either(tuple(names)) for parent, names in leaves.items())


def name_by_index(wanted: Collection[str], module_paths: Sequence[str]) -> Targets:
    r"""Return a regex that lists the indices of the wanted layers by place: ``layers\.(?:30|31)\.mlp\.down_proj``.

    It is shorter than that of ``name_targets`` where only some blocks are wanted. ``name_targets`` decides where the
    wanted layers of a pattern are not all those with some indices in each place.
    """
    every, chosen = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for paths, grouped in ((module_paths, every), (wanted, chosen)):
        for path in paths:
            grouped[pattern_of(path)].append(path)
    leaves: dict[str, dict[str, None]] = defaultdict(dict)
    for pattern, paths in chosen.items():
        *parents, leaf = _index_regexes(paths, every[pattern])
        leaves["".join(rf"{segment}\." for segment in parents)][leaf] = None
    regex = "|".join(parent + _either(tuple(names)) for parent, names in leaves.items())
    named = [path for path in module_paths if re.fullmatch(regex, path)]
    return regex if {*named} == {*wanted} else name_targets(wanted, module_paths)


def _index_regexes(paths: Iterable[str], every: Iterable[str]) -> list[str]:
    """Return the segments of paths of one pattern: the indices of each place, or any if those are all there are."""
    columns = zip(*(path.split(".") for path in paths), strict=True)
    whole = zip(*(path.split(".") for path in every), strict=True)
    return [
        re.escape(column[0])
        if not column[0].isdecimal()
        else r"\d+"
        if {*column} == {*known}
        else _either(sorted({*column}, key=int))
        for column, known in zip(columns, whole, strict=True)
    ]


def name_with_exclusion(wanted: Collection[str], module_paths: Sequence[str]) -> tuple[Targets, Targets | None]:
    """Return targets and exclusions that together match exactly ``wanted``; no exclusions unless that is shorter.

    With exclusions, the targets are the last segments of the wanted paths, and the exclusions are the other modules
    with these segments, or the parts of the model without a wanted layer.
    """
    exact = name_targets(wanted, module_paths)
    leaves = tuple(dict.fromkeys(path.rpartition(".")[2] for path in wanted))
    chosen = set(wanted)
    others = [p for p in module_paths if p not in chosen and p.rpartition(".")[2] in leaves]
    if not others or not all(map(_is_name, leaves)) or len(leaves) > MAX_SUFFIXES:
        return exact, None
    exclusions = (name_targets(others, module_paths), _name_parts(others, wanted))
    excluded = min((targets for targets in exclusions if targets), key=_length)
    return (leaves, excluded) if _length(leaves) + _length(excluded) < _length(exact) else (exact, None)


def _name_parts(unwanted: Collection[str], wanted: Iterable[str]) -> str:
    """Return a regex of the largest parts that contain unwanted modules and no wanted one; empty if there is none."""
    needed = {part for path in wanted for part in list_prefixes(pattern_of(path))}
    patterns = dict.fromkeys(map(pattern_of, unwanted))
    found = dict.fromkeys(next((p for p in list_prefixes(pattern) if p not in needed), OPEN) for pattern in patterns)
    if any(part.endswith(OPEN) for part in found):  # only a place in a list tells it from what is wanted
        return ""
    named = _either(tuple(re.escape(part).replace(r"\*", r"\d+") for part in found))
    return named + (r"(?:\..*)?" if found.keys() & patterns.keys() else r"\..*")


def list_prefixes(path: str) -> list[str]:
    """Return the paths of the modules around a module, the outermost first, and its own."""
    segments = path.split(".")
    return [".".join(segments[:end]) for end in range(1, len(segments) + 1)]


def _length(targets: Targets) -> int:
    return len(targets) if isinstance(targets, str) else sum(len(name) + 2 for name in targets)


class _Names:
    """The tails of paths that belong to wanted modules alone."""

    def __init__(self, wanted: Collection[str], every: Sequence[str]) -> None:
        self._wanted = wanted
        self._every = every
        self._counts: dict[Named, tuple[Counter[Tail], Counter[Tail]]] = {}
        self._open_tails: dict[str, Tail | None] = {}

    def find(self, path: str) -> Tail | None:
        """Return the best tail for a path; ``None`` if only its indices distinguish it."""
        pattern = pattern_of(path)
        if pattern not in self._open_tails:
            exact = (tail for tail in _tails(pattern, ()) if self._is_exact(tail, ()))
            # The shortest without an index, else the shortest with open ones; all paths of the pattern share it.
            self._open_tails[pattern] = min(exact, key=lambda tail: OPEN in tail, default=None)
        open_tail = self._open_tails[pattern]
        return self._find_indexed(path) if open_tail is None else open_tail

    def _find_indexed(self, path: str) -> Tail | None:
        """Return the tail with the fewest indices given among those that name the most layers."""
        *around, leaf = path.split(".")
        is_layer = leaf.isdecimal()  # the layers of a sequence are named one by one
        places = range(sum(map(str.isdecimal, around)) + is_layer)
        given = (
            tuple((place, "given") for place in some) for size in places for some in combinations(places, size + 1)
        )
        best, most = None, 0
        for named in (*given, *(((place, how),) for place in places[is_layer:] for how in ("parity", "later"))):
            tail = next((tail for tail in _tails(path, named) if self._is_exact(tail, named)), None)
            count = self._counts[named][0][tail] if tail else 0
            if count > most:
                best, most = tail, count
        return best

    def _is_exact(self, tail: Tail, named: Named) -> bool:
        if named not in self._counts:
            self._counts[named] = _count_tails(self._wanted, named), _count_every(tuple(self._every), named)
        wanted, every = self._counts[named]
        return wanted[tail] == every[tail]


def _count_tails(paths: Iterable[str], named: Named) -> Counter[Tail]:
    """Count the tails of paths; with every index open, the paths of one pattern are counted at once."""
    counts: Counter[Tail] = Counter()
    for path, count in Counter(paths if named else map(pattern_of, paths)).items():
        for tail in _tails(path, named):
            counts[tail] += count
    return counts


_count_every = lru_cache(maxsize=16)(_count_tails)  # shared by the presets of one model


def _tails(path: str, named: Named) -> list[Tail]:
    """Return the tails of a path that contain a name, shortest first, with all but the named indices open."""
    segments = path.split(".")
    indices = [position for position in range(len(segments) - 1, -1, -1) if segments[position].isdecimal()]
    hows = dict(named)
    for number, position in enumerate(indices):
        segments[position] = _name_index(segments[position], hows.get(number))
    tails = (tuple(segments[start:]) for start in range(len(segments) - 1, -1, -1))
    return [tail for tail in tails if not tail[0].isdecimal() and any(map(_is_name, tail))]


def _name_index(index: str, how: str | None) -> str:
    """Return the segment of a tail for an index: the index, or a placeholder."""
    if how == "given" or (how == "later" and index == "0"):
        return index
    if how == "parity":
        return "*odd" if int(index) % 2 else "*even"
    return f"{OPEN}{how or ''}"


def _is_name(segment: str) -> bool:
    return not segment.startswith(OPEN) and not segment.isdecimal()


def _is_suffix(tail: Tail) -> bool:
    """Return whether a tail has no placeholder."""
    return not any(segment.startswith(OPEN) for segment in tail)


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"(?:{'|'.join(names)})"
