"""``/placement``: which layers train best, by our own bench, with an interval for every placement."""

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import Request
from starlette.responses import Response

from ....domain.reports.placement import Placement, PlacementResult, PlacementTask, Standing, load_placement
from ..rendering import PageRouter, page

LEFT, RIGHT, TOP, ROW, BOTTOM = 96, 18, 8, 24, 26
WIDTH = 340
"""Sizes of a chart in its own units; a phone shows one at about this width."""

LOW, HIGH, STEP = -20, 40, 20
"""The scale in percent; what is beyond it ends in an arrow."""

ORDER = ("recommended", "default", "attention", "mlp", "all-linear", "everything", "random")

router = PageRouter()


@dataclass(frozen=True, slots=True)
class Mark:
    """A placement in a chart: a row with an interval around a mean.

    Attributes:
        result: What is shown.
        y: Height of the row's middle.
        low: Left end of the interval.
        high: Right end.
        middle: Place of the mean; ``None`` if it is beyond the scale.
        beyond: The sides on which the interval leaves the scale, -1 for the left.
    """

    result: PlacementResult
    y: int
    low: float
    high: float
    middle: float | None
    beyond: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """The chart of one task."""

    task: PlacementTask
    marks: tuple[Mark, ...]
    height: int

    width = WIDTH
    left = LEFT
    ticks = tuple(
        (tick, LEFT + (tick - LOW) / (HIGH - LOW) * (WIDTH - LEFT - RIGHT)) for tick in range(LOW, HIGH + 1, STEP)
    )


@dataclass(frozen=True, slots=True)
class Tally:
    """The number of tasks by where a placement stands against ``recommended``."""

    name: str
    worse: int
    level: int
    better: int

    @property
    def tasks(self) -> int:
        """Tasks in which the placement was trained."""
        return self.worse + self.level + self.better


@router.page("/placement", twin="/v1/placement")
def show_placement(request: Request) -> Response:
    """Return the page of the bench."""
    found = load_placement()
    names = [name for name in ORDER if any(name == each.name for task in found.tasks for each in task.results)]
    charts = [draw(task) for task in found.tasks]
    context = {"placement": found, "names": names, "charts": charts, "tallies": [*count(found, names[1:])]}
    return page(request, "reports/placement.html", **context)


def draw(task: PlacementTask) -> Chart:
    """Return the chart of a task: its placements, but for the one that they are compared with."""
    compared = [each for each in task.results if each.difference is not None]
    marks = tuple(_mark(each, TOP + ROW * row + ROW // 2) for row, each in enumerate(compared))
    return Chart(task, marks, TOP + ROW * len(marks) + BOTTOM)


def _mark(result: PlacementResult, y: int) -> Mark:
    mean, half = result.difference or 0.0, result.half or 0.0
    beyond = tuple(side for side, is_out in ((-1, mean - half < LOW), (1, mean + half > HIGH)) if is_out)
    return Mark(result, y, _x(mean - half), _x(mean + half), _x(mean) if LOW <= mean <= HIGH else None, beyond)


def _x(value: float) -> float:
    inside = min(max(value, LOW), HIGH)
    return round(LEFT + (inside - LOW) / (HIGH - LOW) * (WIDTH - LEFT - RIGHT), 1)


def count(placement: Placement, names: list[str]) -> Iterator[Tally]:
    """Yield the tally of each placement."""
    for name in names:
        found: list[Standing] = [
            each.standing for task in placement.tasks for each in task.results if each.name == name
        ]
        yield Tally(name, found.count("worse"), found.count("level"), found.count("better"))
