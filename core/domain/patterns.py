"""The shortest names that hit exactly a set of layers: a list of suffixes, else one generated regex."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from .targets import Targets

MAX_SUFFIXES = 12
"""A list longer than this is harder to read than a regex."""

OPEN = "*"
"""Stands for any index in a tail."""

Tail = tuple[str, ...]
"""The last segments of a path, some indices left open."""


@lru_cache(maxsize=1 << 15)  # every step asks for the same paths
def pattern_of(path: str) -> str:
    """Return a path with every index replaced by ``*``."""
    return ".".join(OPEN if segment.isdecimal() else segment for segment in path.split("."))


def name_targets(wanted: Collection[str], module_paths: Sequence[str]) -> Targets:
    r"""Return the shortest targets that match exactly ``wanted`` among ``module_paths``, by PEFT's rule.

    A layer goes by the shortest tail of its path that no unwanted module shares: without any index if there is one,
    so that it still fits when the model is deeper or stands inside another one; else with open indices; else with the
    last index named, then the last two, and so on. If no index had to be left open, the tails are suffixes; else
    they make one regex, which is linear: literals, ``\d+`` between dots, plain alternatives and one leading ``.*``.
    A suffix never is a bare index: ``0`` hits whatever else is numbered.
    """
    names = _Names(wanted, module_paths)
    tails = {path: names.find(path) for path in wanted}
    plain = dict.fromkeys(".".join(tail) for tail in tails.values() if tail and OPEN not in tail)
    if all(tail and OPEN not in tail for tail in tails.values()) and len(plain) <= MAX_SUFFIXES:
        return tuple(plain)
    return _join(_render(tail or path.split("."), anywhere=tail is not None) for path, tail in tails.items())


def name_with_exclusion(wanted: Collection[str], module_paths: Sequence[str]) -> tuple[Targets, Targets | None]:
    """Return targets and exclusions that match exactly ``wanted``: none excluded unless that is shorter.

    The shorter way names the last segments of the layers wanted, and excludes what else has them: by its names, or
    by the parts of the model in which nothing is wanted.
    """
    exact = name_targets(wanted, module_paths)
    leaves = tuple(dict.fromkeys(path.rpartition(".")[2] for path in wanted))
    is_known = set(wanted)
    others = [p for p in module_paths if p not in is_known and p.rpartition(".")[2] in leaves]
    if not others or not all(map(_is_name, leaves)) or len(leaves) > MAX_SUFFIXES:
        return exact, None
    ways = (name_targets(others, module_paths), _name_parts(others, wanted))
    excluded = min((way for way in ways if way), key=_length)
    return (leaves, excluded) if _length(leaves) + _length(excluded) < _length(exact) else (exact, None)


def _name_parts(unwanted: Collection[str], wanted: Iterable[str]) -> str:
    """Return a regex of the largest parts that hold something unwanted and nothing wanted; empty if there is none."""
    held = {part for path in wanted for part in _parts(path)}
    parts = dict.fromkeys(next((part for part in _parts(path) if part not in held), path) for path in unwanted)
    if any(part.rpartition(".")[2].isdecimal() for part in parts):
        return ""
    named = _either(tuple(map(re.escape, parts)))
    return named + (r"(?:\..*)?" if parts.keys() & set(unwanted) else r"\..*")


def _parts(path: str) -> list[str]:
    segments = path.split(".")
    return [".".join(segments[:end]) for end in range(1, len(segments) + 1)]


def _length(targets: Targets) -> int:
    return len(targets) if isinstance(targets, str) else sum(len(name) + 2 for name in targets)


class _Names:
    """Which tails of paths belong to wanted modules alone."""

    def __init__(self, wanted: Collection[str], every: Sequence[str]) -> None:
        self._wanted = wanted
        self._every = every
        self._counts: dict[int, tuple[Counter[Tail], Counter[Tail]]] = {}
        self._found: dict[str, Tail | None] = {}

    def find(self, path: str) -> Tail | None:
        """Return the best name for a path; ``None`` if nothing but its indices tells it apart."""
        pattern = pattern_of(path)
        if pattern not in self._found:
            self._found[pattern] = self._find_open(pattern)
        found = self._found[pattern]
        if found is not None:
            return found
        indices = sum(map(str.isdecimal, path.split(".")))
        indexed = (t for named in range(1, indices + 1) for t in _tails(path, named) if self._is_exact(t, named))
        return next(indexed, None)

    def _find_open(self, pattern: str) -> Tail | None:
        """Return the best name that leaves every index open; it is that of every path of the pattern."""
        exact = [tail for tail in _tails(pattern, 0) if self._is_exact(tail, 0)]
        plain = (tail for tail in exact if OPEN not in tail)
        return next(plain, None) or next(iter(exact), None)

    def _is_exact(self, tail: Tail, named: int) -> bool:
        if named not in self._counts:
            self._counts[named] = _count_tails(self._wanted, named), _count_every(tuple(self._every), named)
        wanted, every = self._counts[named]
        return wanted[tail] == every[tail]


@lru_cache(maxsize=8)  # the presets of one model are named among the same modules
def _count_every(paths: tuple[str, ...], named: int) -> Counter[Tail]:
    return _count_tails(paths, named)


def _count_tails(paths: Iterable[str], named: int) -> Counter[Tail]:
    """Count the tails of paths; where every index is open, those of one pattern are counted at once."""
    counts: Counter[Tail] = Counter()
    for path, count in Counter(map(pattern_of, paths) if named == 0 else paths).items():
        for tail in _tails(path, named):
            counts[tail] += count
    return counts


def _tails(path: str, named: int) -> list[Tail]:
    """Return the tails of a path that hold a name, shortest first, all but the last ``named`` indices open."""
    segments = path.split(".")
    for position in range(len(segments) - 1, -1, -1):
        if segments[position].isdecimal():
            named -= 1
            if named < 0:
                segments[position] = OPEN
    tails = (tuple(segments[start:]) for start in range(len(segments) - 1, -1, -1))
    return [tail for tail in tails if not tail[0].isdecimal() and any(map(_is_name, tail))]


def _is_name(segment: str) -> bool:
    return segment != OPEN and not segment.isdecimal()


def _render(segments: Sequence[str], *, anywhere: bool) -> tuple[str, str]:
    """Return (regex of the parent with its dot, regex of the leaf)."""
    escaped = [r"\d+" if segment == OPEN else re.escape(segment) for segment in segments]
    parent = "".join(rf"{segment}\." for segment in escaped[:-1])
    return (r"(?:.*\.)?" if anywhere else "") + parent, escaped[-1]


def _join(alternatives: Iterable[tuple[str, str]]) -> str:
    leaves: dict[str, dict[str, None]] = defaultdict(dict)
    for parent, leaf in alternatives:
        leaves[parent][leaf] = None
    return "|".join(parent + _either(tuple(names)) for parent, names in leaves.items())


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"(?:{'|'.join(names)})"
