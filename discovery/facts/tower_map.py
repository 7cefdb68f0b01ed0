"""The map of a model's towers: path prefixes, and what lies below them."""

from dataclasses import dataclass

from ...domain.vocabulary import Tower


@dataclass(frozen=True, slots=True)
class TowerMap:
    """Path prefixes of the towers and of what joins them, longest first, and the tower of everything outside.

    A projector may stand inside a tower: the longest prefix decides.
    """

    prefixes: tuple[tuple[str, Tower], ...]
    outside: Tower

    def find(self, path: str) -> Tower:
        """Return the tower the layer at ``path`` belongs to."""
        return next((tower for prefix, tower in self.prefixes if is_below(path, prefix)), self.outside)

    def find_projector(self, path: str) -> str | None:
        """Return the prefix of the projector that ``path`` is below, if it is below one."""
        found = next((item for item in self.prefixes if is_below(path, item[0])), ("", self.outside))
        return found[0] if found[1] == "projector" else None


def is_below(path: str, prefix: str) -> bool:
    """Tell whether ``path`` is ``prefix`` or stands below it, segment by segment; the empty prefix holds all."""
    return not prefix or path == prefix or path.startswith(f"{prefix}.")


def list_prefixes(towers: TowerMap) -> dict[str, tuple[str, ...]]:
    """Return the path prefixes of each tower, the towers every scan shows first."""
    prefixes: dict[str, list[str]] = {"language": [], "vision": [], "audio": [], "projector": []}
    for prefix, tower in sorted(towers.prefixes):
        prefixes.setdefault(tower, []).append(prefix)
    if not towers.prefixes:
        prefixes[towers.outside] = [""]
    return {tower: tuple(paths) for tower, paths in prefixes.items()}
