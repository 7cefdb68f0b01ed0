"""Towers from configuration structure: which sub-model each layer belongs to, and of what modality it is."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..vocabulary import Tower
from .facts import ModelFacts, SubModel


@dataclass(frozen=True, slots=True)
class TowerMap:
    """Path prefixes of the towers, longest first, and the tower of everything outside them."""

    prefixes: tuple[tuple[str, Tower], ...]
    outside: Tower

    def find(self, path: str) -> Tower:
        """Return the tower the layer at ``path`` belongs to."""
        for prefix, tower in self.prefixes:
            if is_below(path, prefix):
                return tower
        return self.outside


def is_below(path: str, prefix: str) -> bool:
    """Tell whether ``path`` is ``prefix`` or stands below it, segment by segment; the empty prefix holds all."""
    return not prefix or path == prefix or path.startswith(f"{prefix}.")


def map_towers(facts: ModelFacts) -> TowerMap:
    """Return the towers of a model from the configurations of the models inside it."""
    found = [tower for root in _roots(facts.sub_models) for tower in _towers_of(root, facts.sub_models)]
    towers = sorted(found, key=lambda item: -len(item[0]))
    if not towers:
        return TowerMap((), "vision" if facts.is_vision_library else "main")
    root = facts.sub_models[0]
    if root.path:  # a user's own module around models
        return TowerMap(tuple(towers), "main")
    is_composite = any(model.config_class != root.config_class for model in facts.sub_models)
    outside = _tower_between(root, {tower for _, tower in towers}) if is_composite else towers[0][1]
    return TowerMap(tuple(towers), outside)


def _roots(models: Iterable[SubModel]) -> list[SubModel]:
    """Return the outermost models: one, or several inside a user's own module."""
    roots: list[SubModel] = []
    for model in models:
        if not any(is_below(model.path, root.path) for root in roots):
            roots.append(model)
    return roots


def _towers_of(model: SubModel, models: tuple[SubModel, ...]) -> list[tuple[str, Tower]]:
    """Return (prefix, tower) of a model: its parts of other configuration classes, or itself if it has none."""
    inside = [other for other in models if other.path != model.path and is_below(other.path, model.path)]
    parts = _roots(other for other in inside if other.config_class != model.config_class)
    if not parts:
        narrowed = [other for other in inside if len(other.towers) == 1]
        if len(model.towers) > 1 and len(narrowed) == 1:
            return [(narrowed[0].path, _own_tower(narrowed[0]))]
        return [(model.base_path, _own_tower(model))]
    towers = [tower for part in parts for tower in _towers_of(part, models)]
    labelled = [(path, _as_part(tower, path, parts)) for path, tower in towers]
    joins_nothing = all(tower == "projector" for _, tower in labelled)
    return towers if joins_nothing else labelled


def _own_tower(model: SubModel) -> Tower:
    """Return the tower of a model without parts: its only modality, else the one of its main input."""
    if len(model.towers) == 1:
        return next(iter(model.towers))
    return model.main_tower or "main"


def _as_part(tower: Tower, path: str, parts: list[SubModel]) -> Tower:
    """A part that takes several modalities and holds no tower of its own joins them: it is the projector."""
    part = next(part for part in parts if is_below(path, part.path))
    return "projector" if len(part.towers) > 1 and part.base_path == path else tower


def _tower_between(root: SubModel, covered: set[Tower]) -> Tower:
    """What a composite holds outside its parts serves the language no part covers; else it joins the parts."""
    if len(root.towers | covered) == 1:
        return _own_tower(root)
    return "language" if "language" in root.towers - covered else "projector"
