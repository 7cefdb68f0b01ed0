"""Suggest names for targets that match nothing."""

import re
from collections.abc import Iterable
from itertools import islice

from ...domain.scans import Scan
from ...domain.targets import TargetSpec
from ...errors import nearest

MOST_NAMES = 5_000
"""Names compared with a target: each comparison takes time."""

MOST_MISSED = 32
"""Unmatched names of a spec that get suggestions."""

NEAR = 3
"""Suggestions for a name."""


def find_near(scan: Scan, spec: TargetSpec, matched: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return, for each name of a spec that matches nothing, similar names that would.

    Args:
        scan: A scan of the architecture.
        spec: The stated spec.
        matched: Its targets that match a layer.
    """
    names, matching = _Names(scan), set(matched)
    missed = [target for target in spec.list_targets() if target not in matching]
    missed += [name for name in spec.modules_to_save or () if not names.is_module(name)]
    near: dict[str, tuple[str, ...]] = dict.fromkeys(missed, ())
    for name in missed[:MOST_MISSED]:
        near[name] = names.near_regex(name) if name is spec.target_modules else names.near(name)
    return near


class _Names:
    """The names of a scan's modules."""

    def __init__(self, scan: Scan) -> None:
        self._paths = [*dict.fromkeys((*scan.module_paths, *(layer.path for layer in scan.layers)))]
        self._layers = scan.layers
        self._tails: dict[int, list[str]] = {}

    def is_module(self, name: str) -> bool:
        """Return whether PEFT finds a module by this name, the end of its path."""
        return any(path.endswith(name) for path in self._paths)

    def near(self, target: str) -> tuple[str, ...]:
        """Return path ends similar to a target, of as many segments, or else similar to its last segment."""
        segments = target.split(".")
        found = nearest(target, self._ends(len(segments)), NEAR) or nearest(segments[-1], self._ends(1), NEAR)
        if found:
            return tuple(found)
        # A name may describe a role: ``query`` may be called ``q_proj`` here.
        words = set(segments[-1].lower().split("_"))
        layers = (layer for layer in self._layers if words & set(layer.role.split(".")[-1].split("_")))
        return tuple(islice(dict.fromkeys(layer.name for layer in layers if not layer.name.isdecimal()), NEAR))

    def near_regex(self, regex: str) -> tuple[str, ...]:
        """Return names similar to the words of a regex that are not names."""
        known = {segment for path in self._paths for segment in path.split(".")}
        words = dict.fromkeys(re.findall(r"\w{3,}", re.sub(r"\\[dw]", " ", regex)))  # shorter ones resemble too many
        unknown = [word for word in words if word not in known and not word.isdecimal()]
        return tuple(dict.fromkeys(name for word in unknown[:NEAR] for name in nearest(word, self._ends(1), NEAR)))

    def _ends(self, length: int) -> list[str]:
        if length not in self._tails:
            ends = (".".join(path.split(".")[-length:]) for path in self._paths)
            named = dict.fromkeys(end for end in ends if not end.rpartition(".")[2].isdecimal())
            self._tails[length] = [*islice(named, MOST_NAMES)]
        return self._tails[length]
