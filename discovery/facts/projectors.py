"""Projectors: what carries one tower's output to another's width, outside the towers or at the end of one."""

from collections import Counter
from collections.abc import Iterable, Iterator

from .model_facts import ModelFacts
from .outline import Piece
from .tower_map import TowerMap, is_below

SENSES = ("vision", "audio")


def list_projectors(facts: ModelFacts, towers: TowerMap) -> list[str]:
    """Return the prefixes of the projectors of a composite model; none where a single tower is all there is."""
    root = facts.sub_models[0] if facts.sub_models else None
    kinds = {tower for _, tower in towers.prefixes} - {"projector"} | {towers.outside}
    kinds |= root.towers if root and root.main_tower == "language" else set()
    if not facts.outline or len(kinds) < 2:  # noqa: PLR2004  # a single tower joins nothing
        return []
    between = list(_between_towers(facts, towers))
    paths = [path for path, tower in towers.prefixes if tower in SENSES and _serves_language(path, facts, towers)]
    return [*(piece.path for piece in between), *(exit_ for path in paths for exit_ in _exits(facts, path, between))]


def _serves_language(path: str, facts: ModelFacts, towers: TowerMap) -> bool:
    """Tell whether the language of the same composite hears or sees through a tower; a vocoder is in another one."""
    languages = [prefix for prefix, tower in towers.prefixes if tower == "language"]
    composite = _composite_around(path, facts)
    return any(_composite_around(prefix, facts) == composite for prefix in languages) or (
        not languages and towers.outside == "language"
    )


def _composite_around(path: str, facts: ModelFacts) -> str:
    """Return the configuration class of the innermost model around another."""
    own = next((m.config_class for m in facts.sub_models if m.path == path), "")
    around = [m.config_class for m in facts.sub_models if is_below(path, m.path) and m.config_class != own]
    return around[-1] if around else ""


def _between_towers(facts: ModelFacts, towers: TowerMap) -> Iterator[Piece]:
    """Yield what stands beside the towers and is no head.

    Repeated blocks there resample, if a language model comes after them; else they are the model itself, and then
    only what reads a tower's width joins them.
    """
    tops = [piece for piece in _beside(facts, towers) if not _is_head(piece, facts)]
    speaks = bool(facts.language_heads) and any(m.field_tower == "language" for m in facts.sub_models)
    trunk = [piece for piece in tops if piece.has_blocks and not _resamples(piece, facts, speaks=speaks)]
    widths = {_width(facts.outline, path) for path, _ in towers.prefixes}
    for piece in tops:
        joins = not trunk or speaks or piece.reads in widths or _shares_parent_with_tower(piece, facts, towers)
        if piece.computes and piece not in trunk and joins:
            yield piece


def _beside(facts: ModelFacts, towers: TowerMap) -> list[Piece]:
    """Return the topmost pieces that neither are in a tower nor hold one."""
    paths = [path for path, tower in towers.prefixes if tower != "projector"]
    free = [
        piece
        for piece in facts.outline
        if piece.path and not any(is_below(piece.path, path) or is_below(path, piece.path) for path in paths)
    ]
    return list(_topmost(free))


def _topmost(pieces: Iterable[Piece]) -> Iterator[Piece]:
    last: Piece | None = None
    for piece in pieces:
        if last is None or not is_below(piece.path, last.path):
            last = piece
            yield piece


def _is_head(piece: Piece, facts: ModelFacts) -> bool:
    """A declared head, or what the base of a model does not hold."""
    heads = facts.task_heads.union(facts.language_heads, *(model.heads for model in facts.sub_models))
    if any(is_below(piece.path, head) for head in heads):
        return True
    around = [m for m in facts.sub_models if m.base_path != m.path and is_below(piece.path, m.path)]
    return any(is_below(m.base_path, m.path) and not is_below(piece.path, m.base_path) for m in around)


def _resamples(piece: Piece, facts: ModelFacts, *, speaks: bool) -> bool:
    """Blocks beside the towers resample if a language model reads them, or if they are a part made for that."""
    named = (model.field_tower for model in facts.sub_models if is_below(model.path, piece.path))
    return speaks or "projector" in named


def _shares_parent_with_tower(piece: Piece, facts: ModelFacts, towers: TowerMap) -> bool:
    """Tell whether a piece stands with a tower in a module that is itself only a part of the model."""
    parent = piece.path.rpartition(".")[0]
    base = facts.sub_models[0].base_path
    return bool(parent) and parent != base and any(is_below(path, parent) for path, _ in towers.prefixes)


def _exits(facts: ModelFacts, tower: str, between: list[Piece]) -> list[str]:
    """Return what stands at the end of a tower and leaves its width.

    The last dense piece after the blocks tells the width at which the tower ends. What writes that width too is an
    exit beside it, as are square layers right before it and lists of the same class (features of several depths).
    If something outside reads that width, the tower merely ends there.
    """
    inside = [piece for piece in facts.outline if is_below(piece.path, tower)]
    blocks = max((piece for piece in inside if piece.is_list), key=lambda piece: len(piece.widths), default=None)
    width = _width(facts.outline, tower)
    if blocks is None or width is None:
        return []
    arms = [piece for piece in _arms(inside, blocks) if not _is_model(piece, tower, facts)]
    widths = {width, *(piece.writes for piece in arms if piece.widths and not piece.is_dense)}
    dense = [piece for piece in arms if piece.is_dense]
    if not dense or not _leaves(dense[-1], width, widths) or _is_read(dense[-1], between):
        return []
    exits = [piece for piece in dense if piece.writes == dense[-1].writes and _leaves(piece, width, widths)]
    exits += [piece for piece in dense if piece not in exits and _leads_to(piece, dense, width)]
    classes = {piece.class_name for piece in exits if len(piece.widths) > 1}
    alike = [piece for piece in inside if piece.is_list and piece is not blocks and piece.class_name in classes]
    return list(dict.fromkeys(piece.path for piece in (*exits, *alike)))


def _arms(inside: list[Piece], blocks: Piece) -> Iterator[Piece]:
    """Yield the topmost pieces after the blocks, other lists of blocks included, but no later stage of the tower."""
    after = inside[inside.index(blocks) + 1 :]
    stages = {piece.class_name for piece in inside if piece is not blocks and is_below(blocks.path, piece.path)}
    tops = _topmost(piece for piece in after if not is_below(blocks.path, piece.path))
    return (piece for piece in tops if piece.is_list or piece.class_name not in stages)


def _is_model(piece: Piece, tower: str, facts: ModelFacts) -> bool:
    """Tell whether a piece is a model of its own, such as the decoder of a codec."""
    own = {model.config_class for model in facts.sub_models if model.path == tower}
    return any(model.path == piece.path and model.config_class not in own for model in facts.sub_models)


def _leaves(piece: Piece, width: int, widths: set[int | None]) -> bool:
    """Tell whether a piece reads the tower's width, or several positions of it, and writes something else."""
    reads, writes = piece.reads or 0, piece.writes
    return any(known and reads % known == 0 for known in widths) and (writes != width or reads > width)


def _leads_to(piece: Piece, arms: list[Piece], width: int) -> bool:
    return len(arms) > 1 and piece is arms[-2] and piece.widths == ((width, width),) and len(arms[-1].widths) == 1


def _is_read(piece: Piece, between: list[Piece]) -> bool:
    return any(other.reads and piece.writes and other.reads % piece.writes == 0 for other in between)


def _width(outline: tuple[Piece, ...], tower: str) -> int | None:
    """Return the width most dense layers in a tower's blocks read."""
    lists = (piece for piece in outline if piece.is_list and is_below(piece.path, tower))
    reads = Counter(reads for piece in lists for reads, _ in piece.widths)
    return reads.most_common(1)[0][0] if reads else None
