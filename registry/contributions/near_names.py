"""Names near to what hits nothing: what somebody may have meant."""

from collections.abc import Iterable
from itertools import islice

from ...domain.scans import Scan
from ...domain.targets import TargetSpec
from ...errors import nearest
from .safe_regex import words_of

MOST_NAMES = 5_000
"""Names that are compared: each comparison takes a while."""

MOST_MISSED = 32
"""Names of a spec for which others are looked up."""

NEAR = 3
"""Names told."""


def find_near(scan: Scan, spec: TargetSpec, hit: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return, for each name of a spec that hits nothing, the names that would and look like it.

    Args:
        scan: Of the architecture.
        spec: What is stated.
        hit: The targets of it that do hit something.
    """
    names, found = _Names(scan), set(hit)
    missed = [target for target in spec.list_targets() if target not in found]
    missed += [name for name in spec.modules_to_save or () if not names.is_module(name)]
    near: dict[str, tuple[str, ...]] = dict.fromkeys(missed, ())
    for name in missed[:MOST_MISSED]:
        near[name] = names.near_regex(name) if name is spec.target_modules else names.near(name)
    return near


class _Names:
    """What the modules of a scan are called."""

    def __init__(self, scan: Scan) -> None:
        self._paths = [*dict.fromkeys((*scan.module_paths, *(layer.path for layer in scan.layers)))]
        self._layers = scan.layers
        self._tails: dict[int, list[str]] = {}

    def is_module(self, name: str) -> bool:
        """Tell whether PEFT finds a module by this name: by the end of its path."""
        return any(path.endswith(name) for path in self._paths)

    def near(self, target: str) -> tuple[str, ...]:
        """Return the ends of paths, of as many segments, that look like a target; else its last segment's."""
        segments = target.split(".")
        found = nearest(target, self._ends(len(segments)), NEAR) or nearest(segments[-1], self._ends(1), NEAR)
        return tuple(found or self._doing(segments[-1]))

    def _doing(self, name: str) -> list[str]:
        """Return names of the layers that do what a name says: ``query`` may be called ``q_proj`` here."""
        said = set(name.lower().split("_"))
        doing = (layer for layer in self._layers if said & set(layer.role.split(".")[-1].split("_")))
        names = dict.fromkeys(layer.name for layer in doing if not layer.name.isdecimal())
        return [*islice(names, NEAR)]

    def near_regex(self, regex: str) -> tuple[str, ...]:
        """Return names that look like the words of a regex which are no names."""
        known = {segment for path in self._paths for segment in path.split(".")}
        unknown = [word for word in words_of(regex) if word not in known]
        return tuple(dict.fromkeys(name for word in unknown[:NEAR] for name in nearest(word, self._ends(1), NEAR)))

    def _ends(self, length: int) -> list[str]:
        if length not in self._tails:
            ends = (".".join(path.split(".")[-length:]) for path in self._paths)
            named = dict.fromkeys(end for end in ends if not end.rpartition(".")[2].isdecimal())
            self._tails[length] = [*islice(named, MOST_NAMES)]
        return self._tails[length]
