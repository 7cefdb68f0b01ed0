"""Tables and pictures for notebooks: every text of a table is escaped, and its colours are those of the notebook."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "attention": "#1d4ed8",
    "mlp": "#b45309",
    "expert": "#be123c",
    "moe": "#be123c",
    "conv": "#0f766e",
    "ssm": "#7c3aed",
    "mixer": "#7c3aed",
    "projector": "#4d7c0f",
}
"""Colours by the first word of a role; of the others it is ``OTHER``."""
OTHER, UNTOUCHED = "#52606d", "#dde3ea"
MOST_ROWS = 40
"""Rows of a table that are seen at first: a mapping of 128 experts has 533 reasons."""
_LEFT = 'style="text-align: left"'


def render_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a title; a head of no names is left out, and rows beyond ``MOST_ROWS`` are folded."""
    names = f"<thead><tr>{_cells('th', head)}</tr></thead>" if head else ""
    every = [f"<tr>{_cells('td', row)}</tr>" for row in rows]
    caption, body, rest = f"<caption {_LEFT}>{escape(title)}</caption>", "".join(every[:MOST_ROWS]), every[MOST_ROWS:]
    more = f"<details><summary>{len(rest):,} more rows</summary><table>{''.join(rest)}</table></details>"
    folded = more if rest else ""
    return f"<table>{caption}{names}<tbody>{body}</tbody></table>{folded}"


def _cells(tag: str, values: Iterable[object]) -> str:
    return "".join(f"<{tag} {_LEFT}>{escape(str(value))}</{tag}>" for value in values)


Stack = Mapping[tuple[str, str], Mapping[int, float]]
"""The rows of a stack of blocks: by a role and a path, the share of these layers that is adapted, by block."""


def draw_stacks(title: str, stacks: Mapping[str, Stack]) -> "Figure":
    """Draw stacks of blocks: a row for each kind of layer, a column for each block, adapted ones in a role's colour.

    Layers that are left alone are grey, and a block without such a layer is empty; of several layers in a block, such
    as experts, the height of the colour is the share that is adapted.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and takes half a second

    rows = [len(stack) for stack in stacks.values()]
    figure = Figure(figsize=(10, 0.6 + sum(0.27 * count + 0.6 for count in rows)), layout="constrained")
    figure.suptitle(title, fontsize=11)
    drawn = figure.subplots(len(rows), 1, squeeze=False, height_ratios=rows)[:, 0]
    for (name, stack), axes in zip(stacks.items(), drawn, strict=True):
        _draw_stack(axes, name, stack)
    return figure


def _draw_stack(axes: "Axes", name: str, stack: Stack) -> None:
    blocks = {number for shares in stack.values() for number in shares}
    covered = {number for shares in stack.values() for number, share in shares.items() if share}
    for y, ((role, _), shares) in enumerate(stack.items()):
        colour = COLOURS.get(role.partition(".")[0], OTHER)
        axes.bar([*shares], 0.8, 0.86, y - 0.4, color=UNTOUCHED)
        axes.bar([*shares], [0.8 * share for share in shares.values()], 0.86, y - 0.4, color=colour)
    count = f": {len(covered)} of {len(blocks)} blocks" if len(blocks) > 1 else ""
    axes.set_title(f"{name}{count}", fontsize=10, loc="left")
    axes.set_yticks(range(len(stack)), [f"{path}  ({role})" for role, path in stack])
    axes.set_xticks(range(0, len(blocks), max(1, len(blocks) // 12)) if len(blocks) > 1 else ())
    axes.set(xlim=(-0.43, max(blocks) + 0.43), ylim=(len(stack) - 0.5, -0.5))
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
