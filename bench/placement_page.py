"""Write the tables and the picture of ``docs/evidence/placement.md`` from the results of ``placement.py``.

    python bench/placement_page.py [--out FOLDER] [--facts FILE]

The service's page ``/placement`` shows the same figures from ``data/placement.json``, which is written too.

A difference is the test loss of a placement minus that of ``recommended``, seed by seed, with the 95% interval of a
paired t test, in percent of the loss that ``recommended`` takes off the frozen network: above 0, ``recommended`` is
better.
"""

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from placement import NONE, PRESETS, RANDOM, RESULTS, ROOT
from placement_picture import Group, Mark, draw
from placement_tasks import TASKS, Task
from scipy.stats import t as students

from loradar.domain.reports.placement import Placement, PlacementResult, PlacementTask
from loradar.schema import to_json

RECOMMENDED, DEFAULT = "recommended", "default"
ARMS = (*PRESETS, RANDOM, "everything")
SAME = "="
"""A placement with the layers and ranks of ``recommended``."""


@dataclass(frozen=True)
class Difference:
    """The mean over the seeds, and half of the 95% interval."""

    mean: float
    half: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval is all above or all below 0, else 0."""
        return (self.mean > self.half) - (self.mean < -self.half)

    def __str__(self) -> str:
        """Show both in percent; bold where the interval leaves 0 out."""
        text = f"{100 * self.mean:+.1f} ± {100 * self.half:.1f}"
        return f"**{text}**" if self.sign else text


class Comparison:
    """The runs of one task that were tested."""

    def __init__(self, task: Task, runs: Iterable[dict[str, Any]]) -> None:
        self.task = task
        self.runs = [run for run in runs if run["task"] == task.name]
        self.frozen = next(run["loss"] for run in self.runs if run["arm"] == NONE and run["seed"] > 0)

    @cached_property
    def same(self) -> frozenset[str]:
        """The presets that have the layers and ranks of ``recommended``."""
        return frozenset(self.first(RECOMMENDED)["stands_for"])

    @cached_property
    def names(self) -> list[str]:
        """The placements that were trained."""
        return [name for name in ARMS if any(run["arm"] == name for run in self.runs)]

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds that every placement was tested on."""
        every = [{run["seed"] for run in self.runs if run["arm"] == name and run["seed"]} for name in self.names]
        return sorted(set.intersection(*every))

    def first(self, name: str) -> dict[str, Any]:
        """Return a tested run of a placement."""
        return next(run for run in self.runs if run["arm"] == name and run["seed"] > 0)

    def values(self, name: str, of: str = "loss") -> list[float]:
        """Return a figure of a placement for each seed."""
        found = {run["seed"]: run[of] for run in self.runs if run["arm"] == name and run["seed"]}
        return [found[seed] for seed in self.seeds]

    def compare(self, name: str) -> Difference:
        """Return the difference of a placement to ``recommended``, as a share of what that gains."""
        ours, theirs = self.values(RECOMMENDED), self.values(name)
        gain = self.frozen - mean(ours)
        each = [(b - a) / gain for a, b in zip(ours, theirs, strict=True)]
        quantile = float(students.ppf(0.975, len(each) - 1))
        return Difference(mean(each), quantile * stdev(each) / len(each) ** 0.5)

    @cached_property
    def best(self) -> str:
        """The preset with the lowest mean loss, of those that were trained."""
        presets = [name for name in self.names if name != RANDOM]
        return min(presets, key=lambda name: mean(self.values(name)))

    def verdict(self) -> str:
        """Say where ``recommended`` stands among the presets."""
        if self.best == RECOMMENDED:
            return "`recommended` is the best"
        behind = self.compare(self.best)
        return f"{'behind' if behind.sign < 0 else 'within noise of'} `{self.best}`"


def read(path: Path) -> list[Comparison]:
    """Return the tasks of which every placement was tested on two seeds at least."""
    runs = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    tested = {run["task"] for run in runs if run["seed"] > 0}
    found = [Comparison(task, runs) for task in TASKS.values() if task.name in tested]
    return [each for each in found if len(each.seeds) > 1]


def write_page(comparisons: Sequence[Comparison], folder: Path) -> None:
    """Draw the picture, and replace what stands between the marks of the page."""
    (folder / "placement.svg").write_text(draw([group(each) for each in comparisons]), "utf-8")
    page = folder / "placement.md"
    text = page.read_text("utf-8")
    for name, rows in tables(comparisons).items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->\n)"
        text, count = re.subn(pattern, lambda found, rows=rows: found[1] + rows + found[2], text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"The page has {count} tables marked {name!r}. It needs one.")
    page.write_text(text, "utf-8")


def tables(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Return the tables by name."""
    return {
        "tasks": table(("task", "family", "network", "shift"), map(describe, comparisons)),
        "differences": table(("family", "task", *map(code, ARMS[1:]), "verdict"), map(differ, comparisons)),
        "losses": table(("task", "frozen", *map(code, ARMS)), map(lose, comparisons)),
        "sizes": table(("task", *map(code, ARMS)), map(size, comparisons)),
    }


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table of Markdown."""
    head = [*head]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def code(name: str) -> str:
    """Return a name as code."""
    return f"`{name}`"


def describe(each: Comparison) -> list[str]:
    """Return the row of a task."""
    return [code(each.task.name), code(each.task.family), each.task.network, each.task.shift]


def differ(each: Comparison) -> list[str]:
    """Return the differences of a task to ``recommended``."""
    cells = [cell(each, name, lambda name: str(each.compare(name))) for name in ARMS[1:]]
    return [code(each.task.family), code(each.task.name), *cells, each.verdict()]


def lose(each: Comparison) -> list[str]:
    """Return the mean losses of a task, with the accuracies where it has any."""

    def show(name: str) -> str:
        loss = f"{mean(each.values(name)):.3f}"
        return f"{loss}, {mean(each.values(name, 'accuracy')):.0%}" if "accuracy" in each.first(name) else loss

    return [code(each.task.name), f"{each.frozen:.3f}", *(cell(each, name, show) for name in ARMS)]


def size(each: Comparison) -> list[str]:
    """Return layers, ranks, parameters and rates of a task."""

    def show(name: str) -> str:
        run = each.first(name)
        drawn = "on average, " if name == RANDOM else ""
        count = mean(each.values(name, "parameters"))
        rank = f"{run['layers']} x r {run['rank']}" if name != RANDOM else f"{run['layers']} layers"
        return f"{rank}, {drawn}{count:,.0f}, rate {run['rate']:g}"

    return [code(each.task.name), *(cell(each, name, show) for name in ARMS)]


def cell(each: Comparison, name: str, show: Any) -> str:
    """Return what to show of a placement: that it is the recommended one, or does not exist, where so."""
    if name in each.names:
        return show(name)
    return SAME if name in each.same else ""


def group(each: Comparison) -> Group:
    """Return the differences of a task as they are drawn."""
    marks = []
    for name in each.names:
        if name != RECOMMENDED:
            found = each.compare(name)
            marks.append(Mark(name, 100 * found.mean, 100 * found.half))
    return Group(each.task.family, each.task.name, tuple(marks))


def write_facts(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write the figures of the page as a file of ``data/``, a task a line."""
    found = to_json(Placement(len(comparisons[0].seeds), tuple(map(summarise, comparisons))))
    tasks = ",\n".join(json.dumps(task) for task in found["tasks"])
    path.write_text(f'{{"seeds": {found["seeds"]}, "tasks": [\n{tasks}\n]}}\n', "utf-8")


def summarise(each: Comparison) -> PlacementTask:
    """Return the record of a task."""
    sign = 0 if each.best == RECOMMENDED else each.compare(each.best).sign
    return PlacementTask(
        each.task.name,
        each.task.family,
        each.task.network,
        each.task.shift,
        round(each.frozen, 4),
        each.best,
        "better" if sign < 0 else "worse" if sign > 0 else "level",
        tuple(name for name in ARMS if name in each.same),
        tuple(summarise_one(each, name) for name in each.names),
    )


def summarise_one(each: Comparison, name: str) -> PlacementResult:
    """Return the record of a placement."""
    run = each.first(name)
    found = None if name == RECOMMENDED else each.compare(name)
    return PlacementResult(
        name,
        round(mean(each.values(name)), 4),
        round(mean(each.values(name, "accuracy")), 4) if "accuracy" in run else None,
        run["layers"],
        run["rank"] if name != RANDOM else None,
        round(mean(each.values(name, "parameters"))),
        run["rate"],
        found and round(100 * found.mean, 4),
        found and round(100 * found.half, 4),
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/evidence", help="folder of the page")
    parser.add_argument("--facts", type=Path, default=ROOT / "data/placement.json", help="file of the same figures")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    comparisons = read(options.results)
    write_page(comparisons, options.out)
    write_facts(comparisons, options.facts)


if __name__ == "__main__":
    main()
