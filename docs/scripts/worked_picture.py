"""Draw SVG points on a scale: one row per model, one point per seed, the points of a seed joined."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor
from statistics import mean

WIDTH, LEFT, RIGHT, TOP, BOTTOM, APART = 880, 180, 30, 112, 44, 50
ROW = 40
"""Height of a row."""

INK, FAINT, PAPER, LINE = "#1f2933", "#5f6c7b", "#ffffff", "#e9edf1"
SEEDS = ("#0f766e", "#d97706", "#4f46e5")
TICKS = 4
TITLE = "Presets at equal adapter size, on the same headlines"
STYLE = f"""<style>
text {{ font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: {INK} }}
.title {{ font-size: 18px; font-weight: 600 }} .strong {{ font-weight: 600 }} .small {{ font-size: 12px }}
.faint {{ fill: {FAINT} }} .middle {{ text-anchor: middle }} .end {{ text-anchor: end }}
</style>"""


@dataclass(frozen=True)
class Panel:
    """One measure: the percentages of each row, seed by seed."""

    title: str
    rows: tuple[tuple[float, ...], ...]

    @property
    def edges(self) -> tuple[int, int]:
        """The ends of the scale: even whole numbers around all points."""
        points = [point for row in self.rows for point in row]
        return 2 * floor(min(points) / 2), 2 * ceil(max(points) / 2 + 1e-9)


@dataclass(frozen=True)
class Frame:
    """The position of a panel, and the mapping of its scale."""

    panel: Panel
    start: float
    width: float

    def x(self, value: float) -> float:
        """Return the horizontal position of a percentage."""
        low, high = self.panel.edges
        return self.start + self.width * (value - low) / (high - low)

    def y(self, row: int) -> float:
        """Return the vertical middle of a row."""
        return TOP + ROW * (row + 0.5)


def draw(names: Sequence[str], panels: Iterable[Panel]) -> str:
    """Return the picture; every panel has a row for each of ``names``."""
    every = tuple(panels)
    height = TOP + ROW * len(names) + BOTTOM
    width = (WIDTH - LEFT - RIGHT - APART * (len(every) - 1)) / len(every)
    frames = [Frame(panel, LEFT + n * (width + APART), width) for n, panel in enumerate(every)]
    body = [*_head(len(every[0].rows[0])), *_rows(names), *(part for frame in frames for part in _panel(frame))]
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{TITLE}</title>",
        f"<desc>{escape(_describe(names, every))}</desc>",
        STYLE,
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="{PAPER}"/>',
    )
    return "\n".join([*start, *body, "</svg>\n"])


def _describe(names: Sequence[str], panels: Iterable[Panel]) -> str:
    means = (
        f"{panel.title} of {name}: {mean(row):.1f}%"
        for panel in panels
        for name, row in zip(names, panel.rows, strict=True)
    )
    return "; ".join(means)


def _head(seeds: int) -> Iterator[str]:
    yield _text(24, 36, TITLE, "title")
    x = 30.0
    for seed in range(seeds):
        yield f'<circle cx="{x:g}" cy="59" r="4.5" fill="{SEEDS[seed % len(SEEDS)]}"/>'
        yield _text(x + 12, 63.5, f"seed {seed}", "faint")
        x += 75
    yield f'<line x1="{x:g}" y1="51" x2="{x:g}" y2="67" stroke="{INK}" stroke-width="2.5"/>'
    yield _text(x + 10, 63.5, "mean", "faint")


def _rows(names: Sequence[str]) -> Iterator[str]:
    for row, name in enumerate(names):
        yield _text(24, TOP + ROW * (row + 0.5) + 4.5, name, "strong")


def _panel(frame: Frame) -> Iterator[str]:
    yield _text(frame.start, TOP - 18, frame.panel.title, "strong")
    yield from _scale(frame)
    for seed, values in enumerate(zip(*frame.panel.rows, strict=True)):
        colour = SEEDS[seed % len(SEEDS)]
        points = " ".join(f"{frame.x(value):.1f},{frame.y(row):g}" for row, value in enumerate(values))
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-opacity="0.3"/>'
    for row, values in enumerate(frame.panel.rows):
        yield from _points(frame, row, values)


def _scale(frame: Frame) -> Iterator[str]:
    """Draw lines behind the points, each with its value, because the scale does not start at zero."""
    low, high = frame.panel.edges
    end = TOP + ROW * len(frame.panel.rows)
    for tick in range(TICKS + 1):
        value = low + (high - low) * tick / TICKS
        x = frame.x(value)
        yield f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{end + 6}" stroke="{LINE}"/>'
        yield _text(x, end + 24, f"{value:g}%", "small faint middle")


def _points(frame: Frame, row: int, values: Sequence[float]) -> Iterator[str]:
    y, middle = frame.y(row), frame.x(mean(values))
    ends = f'x1="{middle:.1f}" y1="{y - 11:g}" x2="{middle:.1f}" y2="{y + 11:g}"'
    yield f'<line {ends} stroke="{INK}" stroke-width="2.5"/>'
    for seed, value in enumerate(values):
        colour = SEEDS[seed % len(SEEDS)]
        yield f'<circle cx="{frame.x(value):.1f}" cy="{y:g}" r="4.5" fill="{colour}" fill-opacity="0.85"/>'


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(text)}</text>'
