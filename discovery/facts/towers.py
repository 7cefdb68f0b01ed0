"""Towers from configuration structure: which sub-model each layer belongs to, and of what modality it is."""

from collections.abc import Iterable
from dataclasses import replace

from ...domain.vocabulary import Tower
from .model_facts import ModelFacts, SubModel
from .projectors import list_projectors
from .tower_map import TowerMap, is_below

__all__ = ["TowerMap", "is_below", "map_towers"]


def map_towers(facts: ModelFacts) -> TowerMap:
    """Return the towers of a model from the configurations of the models inside it, projectors included."""
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
    is_root = around == "main"
    inside = [other for other in models if other.path != model.path and is_below(other.path, model.path)]
    parts = _roots(other for other in inside if other.config_class != model.config_class)
    own = _own_tower(model, around, models[0])
    whole = (model.base_path if is_root else model.path, own)
    if model.field_tower or not parts:
        return [(is_root and _narrowed(model, inside)) or whole]
    towers = [tower for part in parts for tower in _towers_of(part, models, own)]
    return [whole] if {tower for _, tower in towers} == {own} and len(model.towers) <= 1 else towers


def _own_tower(model: SubModel, around: Tower, root: SubModel) -> Tower:
    """Return the tower of a model: what its field names, what it writes, its only input, its main one, as around it.

    What it writes tells a part from the rest only in a model that writes that and text.
    """
    speaks = len(model.outputs) == 1 and model.outputs <= root.outputs and "language" in root.outputs - model.outputs
    if model.field_tower is not None:
        return model.field_tower
    if speaks:
        return next(iter(model.outputs))
    taken = model.towers & root.towers or model.towers
    return next(iter(taken)) if len(taken) == 1 else model.main_tower or around


def _narrowed(model: SubModel, inside: list[SubModel]) -> tuple[str, Tower] | None:
    """Of a model that takes several modalities, the only model inside that takes one is the tower."""
    single = [other for other in inside if len(other.towers) == 1]
    if len(model.towers) <= 1 or len(single) != 1:
        return None
    return single[0].path, _own_tower(single[0], "main", model)


def _tower_outside(facts: ModelFacts, towers: list[tuple[str, Tower]]) -> Tower:
    """What stands outside the parts is of the language no part covers; else of what the model is for."""
    root = facts.sub_models[0]
    if root.path:  # a user's own module around models
        return "main"
    covered = {tower for _, tower in towers}
    own = _own_tower(root, "main", root)
    if covered == {own} or (len(covered) == 1 and not root.towers - covered):
        return towers[0][1]
    speaks = "language" in root.towers | covered and (bool(facts.language_heads) or own in ("language", "main"))
    return "language" if speaks else own
