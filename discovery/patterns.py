"""The shortest names that hit exactly a set of layers: a list of suffixes, else one generated regex."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..targets import Targets

MAX_SUFFIXES = 12
"""A list longer than this is harder to read than a regex."""

Shape = tuple[str, ...]
"""The segments of a path, ``*`` for an index."""


def name_targets(wanted: Collection[str], module_paths: Sequence[str]) -> Targets:
    r"""Return the shortest targets that match exactly ``wanted`` among ``module_paths``, by PEFT's rule.

    Suffixes without an index are best: they still fit when the model is deeper or stands inside another one. Next is
    a regex that leaves indices open, and last suffixes that name them (``seq.0``). A suffix never is a bare index:
    ``0`` hits whatever else is numbered. Every generated regex is linear: literals, ``\d+`` between dots, plain
    alternatives and one leading ``.*``.
    """
    hits = _Hits(wanted, module_paths)
    names = [_name(path, hits) for path in wanted]
    suffixes = tuple(dict.fromkeys(name.suffix for name in names if name.suffix))
    complete = all(name.suffix and not (name.has_index and name.tail) for name in names)
    if complete and len(suffixes) <= MAX_SUFFIXES:
        return suffixes
    return _join(name.regex() for name in names)


@dataclass(frozen=True, slots=True)
class _Name:
    """What a layer can be called.

    Attributes:
        suffix: Shortest suffix no other module shares, without index if there is one.
        tail: Shortest tail with open indices no other module shares.
    """

    path: str
    suffix: str | None
    tail: Shape | None

    @property
    def has_index(self) -> bool:
        return self.suffix is None or any(segment.isdecimal() for segment in self.suffix.split("."))

    def regex(self) -> tuple[str, str]:
        """Return (regex of the parent with its dot, regex of the leaf)."""
        if self.suffix and not self.has_index:
            return _render(self.suffix.split("."), anywhere=True)
        if self.tail:
            return _render(self.tail, anywhere=True)
        return _render((self.suffix or self.path).split("."), anywhere=self.suffix is not None)


class _Hits:
    """How many modules, and how many wanted ones, share each suffix and each tail."""

    def __init__(self, wanted: Collection[str], module_paths: Sequence[str]) -> None:
        self._wanted = _count_names(tuple(wanted))
        self._every = _count_names(tuple(module_paths))

    def only_wanted(self, name: str | Shape) -> bool:
        return self._wanted[name] == self._every[name]


def _name(path: str, hits: _Hits) -> _Name:
    own = [suffix for suffix in _suffixes(path) if hits.only_wanted(suffix) and _is_speaking(suffix)]
    free = next((suffix for suffix in own if not any(s.isdecimal() for s in suffix.split("."))), None)
    tail = next((tail for tail in _tails(path) if hits.only_wanted(tail) and set(tail) != {"*"}), None)
    return _Name(path, free or next(iter(own), None), tail)


def _is_speaking(suffix: str) -> bool:
    return not suffix.partition(".")[0].isdecimal()


def _suffixes(path: str) -> list[str]:
    segments = path.split(".")
    return [".".join(segments[start:]) for start in range(len(segments) - 1, -1, -1)]


def _tails(path: str) -> list[Shape]:
    shape = tuple("*" if segment.isdecimal() else segment for segment in path.split("."))
    return [shape[start:] for start in range(len(shape) - 1, -1, -1)]


@lru_cache(maxsize=8)  # the presets of one model are named among the same modules
def _count_names(paths: tuple[str, ...]) -> Counter[str | Shape]:
    return Counter(name for path in paths for name in _names_of(path))


def _names_of(path: str) -> Iterator[str | Shape]:
    yield from _suffixes(path)
    yield from _tails(path)


def _render(segments: Sequence[str], *, anywhere: bool) -> tuple[str, str]:
    escaped = [r"\d+" if segment == "*" else re.escape(segment) for segment in segments]
    parent = "".join(rf"{segment}\." for segment in escaped[:-1])
    return (r"(?:.*\.)?" if anywhere else "") + parent, escaped[-1]


def _join(alternatives: Iterable[tuple[str, str]]) -> str:
    leaves: dict[str, dict[str, None]] = defaultdict(dict)
    for parent, leaf in alternatives:
        leaves[parent][leaf] = None
    return "|".join(parent + _either(tuple(names)) for parent, names in leaves.items())


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"(?:{'|'.join(names)})"
