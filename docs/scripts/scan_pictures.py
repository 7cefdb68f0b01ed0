"""Draw the pictures of ``docs/discovery/how.md`` from a scan of llama: pipeline, dataflow and choice of targets.

python docs/scripts/scan_pictures.py
"""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from loradar import scan
from loradar.domain.scans import Scan

PAGES = Path(__file__).parent.parent / "discovery"
WIDTH = 880
INK, FAINT, PAPER, EDGE = "#1f2933", "#52606d", "#ffffff", "#9aa5b1"
ROLES = {
    "attention.query": "#0f766e",
    "attention.key": "#1d4ed8",
    "attention.value": "#7c3aed",
    "attention.output": "#b45309",
    "mlp.gate": "#be123c",
    "mlp.up": "#9d174d",
    "mlp.down": "#4d7c0f",
}
"""A colour for each role of the picture, all of them dark enough for white letters."""

STYLE = f"""<style>
text {{ font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: {INK} }}
.title {{ font-size: 15px; font-weight: 600 }} .small {{ font-size: 12px; fill: {FAINT} }}
.code {{ font: 12px ui-monospace, "SF Mono", Menlo, Consolas, monospace }}
.light {{ fill: #fff; font-weight: 600 }} .middle {{ text-anchor: middle }}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 8 4 0 8z" fill="{EDGE}"/></marker></defs>"""


def picture(height: int, title: str, description: str, parts: Sequence[str]) -> str:
    """Return an SVG; the description says in words what it shows."""
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    start = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    words = f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>"
    paper = f'<rect width="{WIDTH}" height="{height}" rx="10" fill="{PAPER}"/>'
    return "\n".join([start, words, STYLE, paper, *parts, "</svg>\n"])


def write(x: float, y: float, text: str, style: str = "") -> str:
    """Return a line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(text)}</text>'


def box(x: float, y: float, width: float, lines: Sequence[str], fill: str = "#f1f5f9") -> str:
    """Return a box with a title and further lines."""
    height = 30 + 18 * (len(lines) - 1)
    style = "light middle" if fill != "#f1f5f9" else "title middle"
    middle = x + width / 2
    shape = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height}" rx="6" fill="{fill}" stroke="{EDGE}"/>'
    rest = [write(middle, y + 38 + 18 * n, line, "small middle") for n, line in enumerate(lines[1:])]
    return "\n".join([shape, write(middle, y + 20, lines[0], style), *rest])


def arrow(*points: tuple[float, float]) -> str:
    """Return an arrow through some points."""
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{EDGE}" stroke-width="1.6" marker-end="url(#tip)"/>'


def draw_pipeline(scanned: Scan) -> str:
    """Draw the steps of a scan, each with what it found in llama."""
    linears = sum(layer.kind == "linear" for layer in scanned.layers)
    proposal = scanned.propose("LORA", "default")
    query = next(slot for slot in scanned.slots if slot.role == "attention.query")
    (covered,) = proposal.coverage
    above = (
        ("model", "a reference, a module", "or a config.json"),
        ("layers", f"{len(scanned.layers)}, of which", f"{linears} are linear"),
        ("roles by name", "q_proj, wq, query:", "attention.query"),
        ("roles by dataflow", "a forward without weights", "shows what reads what"),
    )
    below = (
        ("slots", f"{query.count} layers in one:", query.role),
        ("proposals", "preset default:", ", ".join(proposal.target_modules or ())),
        ("proof", f"{covered.hit} of {covered.of} blocks:", "a gradient arrives"),
        ("registry", "kept with reasons,", "version and verdict"),
    )
    wide, apart, left = 184, 28, 30
    parts = []
    for y, row in ((24, above), (150, below)):
        for n, lines in enumerate(row):
            x = left + n * (wide + apart)
            parts.append(box(x, y, wide, lines))
            if n:
                parts.append(arrow((x - apart + 3, y + 33), (x - 4, y + 33)))
    end = left + 3 * (wide + apart) + wide / 2
    parts.append(arrow((end, 92), (end, 120), (left + wide / 2, 120), (left + wide / 2, 146)))
    parts.append(write(left + wide / 2 + 14, 114, f"query in one block: {query.pattern}", "code"))
    description = "; ".join(": ".join((lines[0], " ".join(lines[1:]))) for lines in (*above, *below))
    return picture(240, "The steps of a scan, with what each finds in llama", description, parts)


def draw_dataflow(scanned: Scan) -> str:
    """Draw one block of llama: what the layers' results reach gives each layer its role."""
    found = {layer.path.rpartition(".")[2]: layer for layer in scanned.layers if ".layers.0." in layer.path}

    def layer(name: str, x: float, y: float) -> str:
        role = found[name].role
        return box(x, y, 132, (name,), ROLES[role]) + write(x + 66, y + 46, role, "small middle")

    parts = [
        box(20, 112, 84, ("hidden", "states")),
        *(arrow((104, 135), (128, 135), (128, y + 15), (148, y + 15)) for y in (30, 120, 210)),
        layer("q_proj", 150, 30),
        layer("k_proj", 150, 120),
        layer("v_proj", 150, 210),
        arrow((282, 45), (300, 45), (300, 125), (322, 125)),
        arrow((282, 135), (322, 135)),
        arrow((282, 225), (300, 225), (300, 147), (322, 147)),
        box(324, 105, 126, ("attention", "scaled dot product")),
        arrow((450, 135), (466, 135)),
        layer("o_proj", 468, 120),
        arrow((600, 135), (650, 135), (650, 290), (40, 290), (40, 345), (148, 345)),
        write(468, 186, "the next layer on its result", "small"),
        write(660, 208, "added to the hidden states", "small"),
        layer("gate_proj", 150, 330),
        layer("up_proj", 150, 420),
        arrow((40, 345), (40, 435), (148, 435)),
        arrow((282, 345), (322, 345)),
        box(324, 330, 120, ("SiLU",)),
        arrow((444, 345), (480, 345), (480, 374), (504, 374)),
        arrow((282, 435), (480, 435), (480, 392), (504, 392)),
        box(506, 366, 84, ("times",)),
        arrow((590, 382), (628, 382)),
        layer("down_proj", 630, 367),
        write(324, 320, "activated, and multiplied with its sibling", "small"),
    ]
    description = "; ".join(f"{name} is {found[name].role}: it {found[name].evidence[0].says}" for name in LAYERS)
    return picture(490, "One block of llama: what a layer's result reaches gives its role", description, parts)


LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def draw_choice(_scanned: Scan) -> str:
    """Draw the steps by which ``get_peft_model`` chooses targets."""
    steps = (
        ("configuration", "targets you name", "are taken as they are"),
        ("by name", "an entry for", "transformers:llama"),
        ("by fingerprint", "another name,", "the same layer names"),
        ("by structure", "other names,", "the same computation"),
        ("scan", "of the model", "that you have"),
    )
    wide, apart, left = 150, 18, 24
    parts = []
    for n, lines in enumerate(steps):
        x = left + n * (wide + apart)
        parts.append(box(x, 24, wide, lines))
        if n:
            parts.append(arrow((x - apart + 2, 57), (x - 3, 57)))
    parts.append(
        write(left, 122, "The first step with an answer decides, if the answer fits the layers of your model;", "")
    )
    parts.append(write(left, 142, "model.decision says which step it was, and why.", ""))
    description = ", then ".join(lines[0] for lines in steps)
    return picture(160, "How get_peft_model chooses the layers", description, parts)


PICTURES: dict[str, Callable[[Scan], str]] = {
    "pipeline.svg": draw_pipeline,
    "dataflow.svg": draw_dataflow,
    "choice.svg": draw_choice,
}

if __name__ == "__main__":
    llama = scan("llama")
    for name, draw in PICTURES.items():
        (PAGES / name).write_text(draw(llama), "utf-8")
