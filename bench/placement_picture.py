"""Draw SVG differences with their intervals: one group per task, one row per placement, zero for ``recommended``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 880, 330, 40, 92, 30
ROW, APART = 16, 12
LOW, HIGH, STEP = -20, 40, 10
"""The scale, in percent; what is beyond it ends in an arrow."""
TITLE = "Placements at equal adapter size: test loss against preset recommended"
INK, FAINT, PAPER, LINE = "#1f2933", "#5f6c7b", "#ffffff", "#e9edf1"
WORSE, BETTER, NEITHER = "#0f766e", "#d97706", "#7b8794"
STYLE = f"""<style>
text {{ font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: {INK} }}
.title {{ font-size: 18px; font-weight: 600 }} .strong {{ font-weight: 600 }}
.faint {{ fill: {FAINT} }} .middle {{ text-anchor: middle }} .end {{ text-anchor: end }}
</style>"""


@dataclass(frozen=True)
class Mark:
    """The difference of one placement, with half of its interval."""

    name: str
    mean: float
    half: float

    @property
    def color(self) -> str:
        """Tell whether the interval leaves 0 out, and on which side."""
        if abs(self.mean) <= self.half:
            return NEITHER
        return WORSE if self.mean > 0 else BETTER


@dataclass(frozen=True)
class Group:
    """The differences of one task."""

    family: str
    task: str
    marks: tuple[Mark, ...]


def draw(groups: Sequence[Group]) -> str:
    """Return the picture."""
    height = TOP + sum(ROW * len(group.marks) + APART for group in groups) + BOTTOM
    said = "; ".join(
        f"{group.task}, {mark.name}: {mark.mean:+.1f} +- {mark.half:.1f}%" for group in groups for mark in group.marks
    )
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{TITLE}</title>",
        f"<desc>{escape(said)}</desc>",
        STYLE,
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="{PAPER}"/>',
    )
    return "\n".join([*start, *_head(height), *_body(groups), "</svg>\n"])


def _x(value: float) -> float:
    """Return the horizontal position of a percentage, within the scale."""
    inside = min(max(value, LOW), HIGH)
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (inside - LOW) / (HIGH - LOW), 1)


def _head(height: int) -> Iterator[str]:
    yield f'<text class="title" x="24" y="32">{TITLE}</text>'
    yield (
        '<text class="faint" x="24" y="52">Mean over the seeds with its paired 95% interval, in percent of what '
        "recommended gains over the frozen network.</text>"
    )
    yield f'<text class="faint end" x="{_x(0) - 8}" y="{TOP - 14}">better than recommended</text>'
    yield f'<text class="faint" x="{_x(0) + 8}" y="{TOP - 14}">worse</text>'
    for tick in range(LOW, HIGH + 1, STEP):
        color = FAINT if tick == 0 else LINE
        yield f'<line x1="{_x(tick)}" x2="{_x(tick)}" y1="{TOP - 6}" y2="{height - BOTTOM}" stroke="{color}"/>'
        yield f'<text class="faint middle" x="{_x(tick)}" y="{height - 10}">{tick:+d}%</text>'


def _body(groups: Sequence[Group]) -> Iterator[str]:
    y = TOP
    for group in groups:
        yield f'<text class="strong" x="24" y="{y + 12}">{escape(group.family)}</text>'
        if len(group.marks) > 1:
            yield f'<text class="faint" x="24" y="{y + ROW + 12}">{escape(group.task)}</text>'
        for mark in group.marks:
            yield from _mark(mark, y + ROW // 2)
            y += ROW
        y += APART


def _mark(mark: Mark, y: int) -> Iterator[str]:
    low, high = mark.mean - mark.half, mark.mean + mark.half
    yield f'<text class="end" x="{LEFT - 14}" y="{y + 4}">{escape(mark.name)}</text>'
    yield f'<line x1="{_x(low)}" x2="{_x(high)}" y1="{y}" y2="{y}" stroke="{mark.color}" stroke-width="2"/>'
    if LOW <= mark.mean <= HIGH:
        yield f'<circle cx="{_x(mark.mean)}" cy="{y}" r="4" fill="{mark.color}"/>'
    for beyond, edge, step in ((low < LOW, LOW, -6), (high > HIGH, HIGH, 6)):
        if beyond:
            x = _x(edge)
            yield f'<path d="M{x},{y - 4} L{x + step},{y} L{x},{y + 4} Z" fill="{mark.color}"/>'
