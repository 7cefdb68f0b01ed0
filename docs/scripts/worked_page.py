"""Write the tables and the picture of ``worked-example.md`` from ``worked-example.json`` alone."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from worked_picture import Panel, draw

Results = dict[str, Any]
MEASURES = (("accuracy", "test accuracy"), ("macro_f1", "test macro F1"))


def write_page(results: Results, folder: Path) -> None:
    """Draw the picture and replace the tables between the marks in the page."""
    (folder / "worked-example.svg").write_text(picture(results), "utf-8")
    page = folder / "worked-example.md"
    page.write_text(fill(page.read_text("utf-8"), results), "utf-8")


def fill(page: str, results: Results) -> str:
    """Return the page with tables of the results."""
    for name, text in tables(results).items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        page, count = re.subn(f"{start}.*?{end}", (start + text + end).replace("\\", r"\\"), page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"The page has {count} tables marked {name!r}. It needs one.")
    return page


def tables(results: Results) -> dict[str, str]:
    """Return the tables by name."""
    return {"adapters": adapters(results), "scores": scores(results), "gains": gains(results)}


def adapters(results: Results) -> str:
    """Return the table of the presets: layers, rank and parameters."""
    rows = (
        (f"`{a['preset']}`", ", ".join(f"`{t}`" for t in a["kinds"]), a["layers"], a["rank"], f"{a['parameters']:,}")
        for a in results["adapters"]
    )
    return table(("preset", "in every block", "layers", "rank", "adapter parameters"), rows)


def scores(results: Results) -> str:
    """Return the table of scores: mean, lowest and highest over the seeds, and the time of a step."""
    rows = (
        (show(name), *(spread(results, name, key) for key, _ in MEASURES), step(results, name))
        for name in names(results)
    )
    return table(("", "test accuracy", "macro F1", "step"), rows)


def gains(results: Results) -> str:
    """Return the table of gains: accuracy minus the frozen model's on the same split, in points."""
    frozen = values(results, "frozen", "accuracy")
    seeds = results["settings"]["seeds"]
    rows = []
    for name in names(results)[1:]:
        points = [100 * (ours - base) for ours, base in zip(values(results, name, "accuracy"), frozen, strict=True)]
        rows.append((show(name), *(f"{point:+.1f}" for point in points), f"{mean(points):+.1f}"))
    return table(("", *(f"seed {seed}" for seed in seeds), "mean"), rows)


def names(results: Results) -> list[str]:
    """Return the frozen model and the presets, in the order they ran."""
    return [*dict.fromkeys(run["preset"] for run in results["runs"])]


def values(results: Results, name: str, key: str) -> list[float]:
    """Return one measure of one preset, seed by seed."""
    return [run[key] for run in results["runs"] if run["preset"] == name]


def show(name: str) -> str:
    """Return the label of a row."""
    return "frozen, linear head" if name == "frozen" else f"`{name}`"


def spread(results: Results, name: str, key: str) -> str:
    """Return mean, lowest and highest in percent."""
    found = [100 * value for value in values(results, name, key)]
    return f"{mean(found):.1f} ({min(found):.1f} to {max(found):.1f})"


def step(results: Results, name: str) -> str:
    """Return the median time of a step over the seeds, or a dash without steps."""
    found = [value for value in values(results, name, "step_ms") if value is not None]
    return f"{median(found):.0f} ms" if found else "-"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def picture(results: Results) -> str:
    """Return the picture: a point per seed, joined by seed, and the mean."""
    return draw([*map(show_plainly, names(results))], panels(results))


def panels(results: Results) -> Iterator[Panel]:
    """Yield a panel per measure."""
    for key, title in MEASURES:
        yield Panel(title, tuple(tuple(100 * v for v in values(results, name, key)) for name in names(results)))


def show_plainly(name: str) -> str:
    """Return the label of a row without Markdown."""
    return show(name).strip("`")
