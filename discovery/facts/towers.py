"""Towers: assign each part of a model to a modality by its configurations, and find the projectors between them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...domain.vocabulary import Tower
from .layers import Part
from .model_facts import ModelFacts, SubModel

SENSES = ("vision", "audio")


@dataclass(frozen=True, slots=True)
class TowerMap:
    """Path prefixes of towers and projectors, longest first, and the tower of everything outside.

    A projector may stand inside a tower: the longest prefix decides.
    """

    prefixes: tuple[tuple[str, Tower], ...]
    outside: Tower

    def find(self, path: str) -> Tower:
        """Return the tower the layer at ``path`` belongs to."""
        return next((tower for prefix, tower in self.prefixes if is_below(path, prefix)), self.outside)

    def find_projector(self, path: str) -> str | None:
        """Return the prefix of the projector around ``path``, or ``None``."""
        found = next((item for item in self.prefixes if is_below(path, item[0])), ("", self.outside))
        return found[0] if found[1] == "projector" else None


def is_below(path: str, prefix: str) -> bool:
    """Return whether ``path`` equals ``prefix`` or stands below it, by segments; the empty prefix holds all."""
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
    roots = _outermost(facts.sub_models)
    towers = [tower for root in roots for tower in _towers_of(root, facts.sub_models, "main")]
    if not towers:
        return TowerMap((), "vision" if facts.is_vision_library else "main")
    outside = _tower_outside(facts, towers)
    projectors = list_projectors(facts, TowerMap(_longest_first(towers), outside))
    kept = [item for item in _longest_first(towers) if not any(is_below(item[0], path) for path in projectors)]
    return TowerMap(_longest_first([*kept, *((path, "projector") for path in projectors)]), outside)


def _longest_first(towers: Iterable[tuple[str, Tower]]) -> tuple[tuple[str, Tower], ...]:
    return tuple(sorted(towers, key=lambda item: -len(item[0])))


def _outermost(models: Iterable[SubModel]) -> list[SubModel]:
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
    parts = _outermost(other for other in inside if other.config_class != model.config_class)
    own = _own_tower(model, around, models[0])
    whole = (model.base_path if is_root else model.path, own)
    if model.field_tower or not parts:
        return [(is_root and only_single_modality_inside(model, inside)) or whole]
    towers = [tower for part in parts for tower in _towers_of(part, models, own)]
    return [whole] if {tower for _, tower in towers} == {own} and len(model.towers) <= 1 else towers


def only_single_modality_inside(model: SubModel, inside: list[SubModel]) -> tuple[str, Tower] | None:
    """Return, for a model of several modalities, the only model inside that takes a single one: that is the tower."""
    single = [other for other in inside if len(other.towers) == 1]
    if len(model.towers) <= 1 or len(single) != 1:
        return None
    return single[0].path, _own_tower(single[0], "main", model)


def _own_tower(model: SubModel, around: Tower, root: SubModel) -> Tower:
    """Return the tower of a model: of its field, its output, its only input, its main input, or the tower around it.

    The output identifies a part only in a model that generates both that and text.
    """
    if model.field_tower is not None:
        return model.field_tower
    if len(model.outputs) == 1 and model.outputs <= root.outputs and "language" in root.outputs - model.outputs:
        return next(iter(model.outputs))
    taken = model.towers & root.towers or model.towers
    return next(iter(taken)) if len(taken) == 1 else model.main_tower or around


def _tower_outside(facts: ModelFacts, towers: list[tuple[str, Tower]]) -> Tower:
    """Return the tower of the layers outside the parts: language if no part covers it, else the model's own."""
    root = facts.sub_models[0]
    if root.path:  # a user's own module around models
        return "main"
    covered = {tower for _, tower in towers}
    own = _own_tower(root, "main", root)
    if covered == {own} or (len(covered) == 1 and not root.towers - covered):
        return towers[0][1]
    speaks = "language" in root.towers | covered and (bool(facts.language_heads) or own in ("language", "main"))
    return "language" if speaks else own


# --- projectors -------------------------------------------------------------------------------------------------------


def list_projectors(facts: ModelFacts, towers: TowerMap) -> list[str]:
    """Return the prefixes of the projectors, which map one tower's output to another's width.

    They stand outside the towers or at the end of one; a model with a single tower has none.
    """
    root = facts.sub_models[0] if facts.sub_models else None
    kinds = {tower for _, tower in towers.prefixes} - {"projector"} | {towers.outside}
    kinds |= root.towers if root and root.main_tower == "language" else set()
    if not facts.outline or len(kinds) < 2:  # noqa: PLR2004  # a single tower joins nothing
        return []
    between = list(_between_towers(facts, towers))
    paths = [path for path, tower in towers.prefixes if tower in SENSES and serves_language(path, facts, towers)]
    return [*(part.path for part in between), *(exit_ for path in paths for exit_ in _exits(facts, path, between))]


def serves_language(path: str, facts: ModelFacts, towers: TowerMap) -> bool:
    """Return whether a tower is an input of the language model of its composite; a vocoder is in another one."""
    languages = [prefix for prefix, tower in towers.prefixes if tower == "language"]
    if not languages:
        return towers.outside == "language"
    composites = {_composite_around(prefix, facts) for prefix in languages}
    return _composite_around(path, facts) in composites


def _composite_around(path: str, facts: ModelFacts) -> str:
    """Return the configuration class of the innermost model around another."""
    own = next((m.config_class for m in facts.sub_models if m.path == path), "")
    around = [m.config_class for m in facts.sub_models if is_below(path, m.path) and m.config_class != own]
    return around[-1] if around else ""


def _between_towers(facts: ModelFacts, towers: TowerMap) -> Iterator[Part]:
    """Yield the topmost parts that neither are in a tower nor hold one, heads and models that read tokens excluded.

    Repeated blocks there that do not resample are the model itself; then only a part that reads a tower's width, or
    shares an inner module with a tower, joins the towers.
    """
    free = [part for part in facts.outline if part.path and is_outside_towers(part, towers)]
    tops = [part for part in _topmost(free) if not is_head(part, facts) and not reads_tokens(part, facts)]
    trunk = [part for part in tops if part.has_blocks and not is_resampler(part, facts)]
    widths = {_width(facts.outline, path) for path, _ in towers.prefixes}
    for part in tops:
        joins = not trunk or part.reads in widths or shares_parent_with_tower(part, facts, towers)
        if part.computes and part not in trunk and joins:
            yield part


def is_outside_towers(part: Part, towers: TowerMap) -> bool:
    """Return whether a part neither is in a tower nor holds one."""
    paths = [path for path, tower in towers.prefixes if tower != "projector"]
    return not any(is_below(part.path, path) or is_below(path, part.path) for path in paths)


def reads_tokens(part: Part, facts: ModelFacts) -> bool:
    """Return whether blocks beside the towers embed the vocabulary that the head writes: they are a language model."""
    words = {head.writes for head in facts.outline if head.path in facts.language_heads}
    return part.has_blocks and not words.isdisjoint(part.tables)


def is_resampler(part: Part, facts: ModelFacts) -> bool:
    """Return whether blocks beside the towers resample: a language model reads them, or their field is a projector's.

    A composite has such a language model if it generates text and one of its fields configures the model.
    """
    feeds_language = bool(facts.language_heads) and any(m.field_tower == "language" for m in facts.sub_models)
    return feeds_language or any(m.field_tower == "projector" and is_below(m.path, part.path) for m in facts.sub_models)


def _topmost(parts: Iterable[Part]) -> Iterator[Part]:
    last: Part | None = None
    for part in parts:
        if last is None or not is_below(part.path, last.path):
            last = part
            yield part


def is_head(part: Part, facts: ModelFacts) -> bool:
    """Return whether a part is a declared head, or outside the base of a model."""
    heads = facts.task_heads.union(facts.language_heads, *(model.heads for model in facts.sub_models))
    if any(is_below(part.path, head) for head in heads):
        return True
    around = [m for m in facts.sub_models if m.base_path != m.path and is_below(part.path, m.path)]
    return any(is_below(m.base_path, m.path) and not is_below(part.path, m.base_path) for m in around)


def shares_parent_with_tower(part: Part, facts: ModelFacts, towers: TowerMap) -> bool:
    """Return whether a part stands with a tower in a module that is itself only a part of the model."""
    parent = part.path.rpartition(".")[0]
    base = facts.sub_models[0].base_path
    return bool(parent) and parent != base and any(is_below(path, parent) for path, _ in towers.prefixes)


def _exits(facts: ModelFacts, tower: str, between: list[Part]) -> list[str]:
    """Return the parts at the end of a tower that leave its width, with lists of the same class inside it.

    Such lists take the features of several depths.
    """
    inside = [part for part in facts.outline if is_below(part.path, tower)]
    blocks = max((part for part in inside if part.is_list), key=lambda part: len(part.widths), default=None)
    width = _width(facts.outline, tower)
    if blocks is None or width is None:
        return []
    arms = [part for part in _arms(inside, blocks) if not is_model_of_its_own(part, tower, facts)]
    exits = parts_that_leave(arms, width, between)
    classes = {part.class_name for part in exits if len(part.widths) > 1}
    alike = [part for part in inside if part.is_list and part is not blocks and part.class_name in classes]
    return list(dict.fromkeys(part.path for part in (*exits, *alike)))


def parts_that_leave(arms: list[Part], width: int, between: list[Part]) -> list[Part]:
    """Return the parts after a tower's blocks that map its width to another.

    The last dense part has the width at which the tower ends. A part that writes that width too is an exit beside it,
    as is a square layer right before it. If something outside reads that width, the tower merely ends there, unless it
    has another one and a single layer leads there from what all blocks write.
    """
    dense = [part for part in arms if part.is_dense]
    widths = {width, *(part.writes for part in arms if part.widths and not part.is_dense)}
    leaving = [part for part in dense if _leaves(part, width, widths)]
    if not leaving or leaving[-1] is not dense[-1]:
        return []
    end = dense[-1].writes
    is_last_step = len(leaving) == 1 and dense[-1].widths == ((width, end),)
    if end and not is_last_step and any(part.reads and part.reads % end == 0 for part in between):
        return []
    exits = [part for part in leaving if part.writes == end]
    if len(dense) > 1 and len(dense[-1].widths) == 1 and dense[-2].widths == ((width, width),):
        exits.append(dense[-2])
    return exits


def is_model_of_its_own(part: Part, tower: str, facts: ModelFacts) -> bool:
    """Return whether a part is a model of its own, such as the decoder of a codec."""
    own = {model.config_class for model in facts.sub_models if model.path == tower}
    return any(model.path == part.path and model.config_class not in own for model in facts.sub_models)


def _arms(inside: list[Part], blocks: Part) -> Iterator[Part]:
    """Yield the topmost parts after the blocks, other lists of blocks included, but no later stage of the tower."""
    after = inside[inside.index(blocks) + 1 :]
    stages = {part.class_name for part in inside if part is not blocks and is_below(blocks.path, part.path)}
    tops = _topmost(part for part in after if not is_below(blocks.path, part.path))
    return (part for part in tops if part.is_list or part.class_name not in stages)


def _leaves(part: Part, width: int, widths: set[int | None]) -> bool:
    """Return whether a part reads the tower's width, or several positions of it, and writes another."""
    reads, writes = part.reads or 0, part.writes
    return any(known and reads % known == 0 for known in widths) and (writes != width or reads > width)


def _width(outline: tuple[Part, ...], tower: str) -> int | None:
    """Return the most common input width of the dense layers in a tower's blocks."""
    lists = (part for part in outline if part.is_list and is_below(part.path, tower))
    reads = Counter(reads for part in lists for reads, _ in part.widths)
    return reads.most_common(1)[0][0] if reads else None
