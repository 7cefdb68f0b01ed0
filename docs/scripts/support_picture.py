"""Draw SVG bars of the share of each library's architectures with proved and unproved targets, ours and PEFT's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 880, 200, 130, 92, 56
THICK, GAP, APART = 22, 6, 30
"""Thickness of a bar, gap in a pair, and gap between two libraries."""

INK, FAINT, PAPER, EMPTY = "#1f2933", "#5f6c7b", "#ffffff", "#e9edf1"
PARTS = (("live", "#0f766e"), ("unproven", "#7cc4bb"), ("partial or dead", "#d97706"))
STYLE = f"""<style>
text {{ font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: {INK} }}
.title {{ font-size: 18px; font-weight: 600 }} .strong {{ font-weight: 600 }} .small {{ font-size: 12px }}
.faint {{ fill: {FAINT} }} .middle {{ text-anchor: middle }} .end {{ text-anchor: end }}
</style>"""
TITLE = "Architectures with default LoRA targets"


@dataclass(frozen=True)
class Bar:
    """One bar: a library's architectures by verdict."""

    library: str
    who: str
    every: int
    live: int
    unproven: int
    wrong: int

    @property
    def counts(self) -> tuple[int, int, int]:
        """The parts of the bar, from left to right."""
        return self.live, self.unproven, self.wrong


def draw(bars: Sequence[Bar]) -> str:
    """Return the picture; the two bars of a library are adjacent."""
    pairs = len(bars) // 2
    height = TOP + pairs * (2 * THICK + GAP) + (pairs - 1) * APART + BOTTOM
    description = "; ".join(
        f"{bar.library}, {bar.who}: {bar.live} live, {bar.unproven} unproven of {bar.every}" for bar in bars
    )
    body = [*_head(), *_scale(height), *(part for n, bar in enumerate(bars) for part in _bar(n, bar))]
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{TITLE}</title>",
        f"<desc>{escape(description)}</desc>",
        STYLE,
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="{PAPER}"/>',
    )
    return "\n".join([*start, *body, "</svg>\n"])


def _head() -> Iterator[str]:
    yield _text(24, 36, TITLE, "title")
    x = 24.0
    for name, colour in (*PARTS, ("no targets", EMPTY)):
        yield f'<rect x="{x:g}" y="53" width="12" height="12" rx="2" fill="{colour}"/>'
        yield _text(x + 18, 63.5, name, "faint")
        x += 40 + 7 * len(name)


def _scale(height: int) -> Iterator[str]:
    """Draw a line at every quarter, behind the bars."""
    end = height - BOTTOM + 10
    for quarter in range(5):
        x = LEFT + quarter * (WIDTH - LEFT - RIGHT) / 4
        yield f'<line x1="{x:g}" y1="{TOP - 8}" x2="{x:g}" y2="{end}" stroke="{EMPTY}"/>'
        yield _text(x, end + 18, f"{25 * quarter}%", "small faint middle")


def _bar(number: int, bar: Bar) -> Iterator[str]:
    pair, second = divmod(number, 2)
    y = TOP + pair * (2 * THICK + GAP + APART) + second * (THICK + GAP)
    if not second:
        yield _text(24, y + 16, bar.library, "strong")
        yield _text(24, y + 16 + THICK + GAP, f"{bar.every:,} names", "small faint")
    yield _text(LEFT - 10, y + 15.5, bar.who, "small faint end")
    full = WIDTH - LEFT - RIGHT
    yield f'<rect x="{LEFT}" y="{y}" width="{full}" height="{THICK}" rx="3" fill="{EMPTY}"/>'
    x = float(LEFT)
    for count, (_, colour) in zip(bar.counts, PARTS, strict=True):
        if count:
            width = full * count / bar.every
            yield f'<rect x="{x:.2f}" y="{y}" width="{width:.2f}" height="{THICK}" fill="{colour}"/>'
            x += width
    yield _text(LEFT + full + 10, y + 15.5, _share(bar), "strong" if bar.live else "")


def _share(bar: Bar) -> str:
    """Return the live share, or the unproven share if none is live."""
    if bar.live:
        return f"{bar.live / bar.every:.1%} live"
    return f"{bar.unproven / bar.every:.1%} unproven" if bar.unproven else "none"


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(text)}</text>'
