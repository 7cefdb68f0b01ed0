"""Towers from configuration structure: which sub-model each layer belongs to, and of what modality it is."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..vocabulary import Tower
from .facts import ModelFacts, SubModel


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


def list_prefixes(towers: TowerMap) -> dict[Tower, tuple[str, ...]]:
    """Return the path prefixes of each tower, the towers every scan shows first."""
    prefixes: dict[Tower, list[str]] = {"language": [], "vision": [], "audio": [], "projector": []}
    for prefix, tower in sorted(towers.prefixes):
        prefixes.setdefault(tower, []).append(prefix)
    if not towers.prefixes:
        prefixes[towers.outside] = [""]
    return {tower: tuple(paths) for tower, paths in prefixes.items()}


def map_towers(facts: ModelFacts) -> TowerMap:
    """Return the towers of a model from the configurations of the models inside it, projectors included."""
    from .projectors import list_projectors

    towers = [tower for root in _roots(facts.sub_models) for tower in _towers_of(root, facts.sub_models, "main")]
    if not towers:
        return TowerMap((), "vision" if facts.is_vision_library else "main")
    found = _sorted(TowerMap(tuple(towers), _tower_outside(facts, towers)))
    projectors = list_projectors(facts, found)
    others = [(path, tower) for path, tower in found.prefixes if not any(is_below(path, top) for top in projectors)]
    joined = (*others, *((path, "projector") for path in projectors))
    return _sorted(replace(found, prefixes=joined))


def _sorted(towers: TowerMap) -> TowerMap:
    return replace(towers, prefixes=tuple(sorted(towers.prefixes, key=lambda item: -len(item[0]))))


def _roots(models: Iterable[SubModel]) -> list[SubModel]:
    """Return the outermost models: one, or several inside a user's own module."""
    roots: list[SubModel] = []
    for model in models:
        if not any(is_below(model.path, root.path) for root in roots):
            roots.append(model)
    return roots


def _towers_of(model: SubModel, models: tuple[SubModel, ...], around: Tower) -> list[tuple[str, Tower]]:
    """Return (prefix, tower) of a model inside a tower: its parts of other configuration classes, or itself.

    A part whose field names its tower is that tower whole; so is one whose parts are all of its own tower.
    """
    is_root = model is models[0] or around == "main"
    inside = [other for other in models if other.path != model.path and is_below(other.path, model.path)]
    parts = _roots(other for other in inside if other.config_class != model.config_class)
    own = _own_tower(model, around)
    whole = (model.base_path if is_root else model.path, own)
    if model.field_tower or not parts:
        return [_narrowed(model, inside) or whole if is_root else _as_part(model, whole)]
    towers = [tower for part in parts for tower in _towers_of(part, models, own)]
    return [whole] if {tower for _, tower in towers} == {own} and len(model.towers) <= 1 else towers


def _own_tower(model: SubModel, around: Tower) -> Tower:
    """Return the tower of a model: what its field names, what it writes, its only input, its main one, as around it."""
    if model.field_tower or model.output_tower:
        return model.field_tower or model.output_tower or around
    if len(model.towers) == 1:
        return next(iter(model.towers))
    return model.main_tower or around


def _narrowed(model: SubModel, inside: list[SubModel]) -> tuple[str, Tower] | None:
    """Of a model that takes several modalities, the only model inside that takes one is the tower."""
    single = [other for other in inside if len(other.towers) == 1]
    if len(model.towers) <= 1 or len(single) != 1:
        return None
    return single[0].path, _own_tower(single[0], "main")


def _as_part(model: SubModel, whole: tuple[str, Tower]) -> tuple[str, Tower]:
    """A part that takes several modalities and says no more of itself joins them: it is the projector."""
    is_named = model.field_tower or model.output_tower
    return whole if is_named or len(model.towers) <= 1 else (model.path, "projector")


def _tower_outside(facts: ModelFacts, towers: list[tuple[str, Tower]]) -> Tower:
    """What stands outside the parts is of the language no part covers; else of what the model is for."""
    root = facts.sub_models[0]
    if root.path:  # a user's own module around models
        return "main"
    covered = {tower for _, tower in towers}
    if len(covered) == 1 and not root.towers - covered:
        return towers[0][1]
    if "language" in root.towers and ("language" not in covered or facts.language_heads):
        return "language"
    return _own_tower(root, "main")
