"""Find the names of a model's modules that may be meant by a name that matches nothing."""

import re
from itertools import islice

from ...domain.scans import Scan, Variant
from ...similar_names import nearest

MOST_NAMES = 5_000
"""Names compared with a target: each comparison takes time."""

NEAR = 3
"""Suggestions for a name."""


class Names:
    """The names of a model's modules.

    Args:
        scan: A scan, or what is on record of one.
    """

    def __init__(self, scan: Scan | Variant) -> None:
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
