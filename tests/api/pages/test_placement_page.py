"""``/placement``: every figure in the charts stands in the table too, and in the JSON twin."""

import re
from collections import Counter

import pytest

from loradar.api.pages.reports.placement_figures import HIGH, LEFT, LOW, RIGHT, WIDTH, draw
from loradar.domain.reports.placement import Placement, PlacementResult, PlacementTask, load_placement
from loradar.schema import from_json


@pytest.fixture
def page(read):
    """The page."""
    return read("/placement")


def test_the_twin_has_the_same_figures(client, page):
    """At the path that the page links."""
    (twin,) = page.all("link", rel="alternate")
    assert from_json(Placement, client.get(twin["href"]).json()) == load_placement()


def test_each_task_has_a_chart_that_says_what_it_shows(page):
    """To who cannot see it: title and description, with every difference."""
    charts = page.all("svg", role="img")
    tasks = load_placement().tasks
    assert len(charts) == len(tasks)
    ids = {own["id"] for _, own in page.elements if "id" in own}
    assert all(ids.issuperset(chart["aria-labelledby"].split()) for chart in charts)
    for each in (result for task in tasks for result in task.results[1:]):
        assert page.text.count(f"{each.difference:+.1f} ± {each.half:.1f}") >= 2  # in the chart and in the table


def test_the_tally_counts_every_comparison(page):
    """By placement; nothing is left out."""
    counted = Counter((each.name, each.standing) for task in load_placement().tasks for each in task.results[1:])
    rows = ["".join(str(counted[name, each]) for each in ("worse", "level", "better")) for name in ("default", "mlp")]
    assert re.findall(r"\n\s*(?:default|mlp)\s+(\d+)\n", page.text)[:2] == rows


def task_of(*differences):
    """A task with placements at these differences, each with an interval of 5 around it."""
    results = [PlacementResult("recommended", 1.0, None, 1, 1, 1, 0.1)]
    results += [PlacementResult(f"p{i}", 1.0, None, 1, 1, 1, 0.1, each, 5.0) for i, each in enumerate(differences)]
    return PlacementTask("t", "family", "n", "s", 2.0, "recommended", "level", (), tuple(results))


def test_marks_stay_on_the_scale():
    """What is beyond it ends in an arrow at its side."""
    inside, left, right = draw(task_of(0.0, LOW - 50, HIGH + 2)).marks
    zero = LEFT + (WIDTH - LEFT - RIGHT) * -LOW / (HIGH - LOW)
    assert inside.middle == pytest.approx(zero, abs=0.1)
    assert (inside.beyond, left.beyond, right.beyond) == ((), (-1,), (1,))
    assert (left.middle, left.low, left.high) == (None, LEFT, LEFT)
    assert (right.middle, right.high) == (None, WIDTH - RIGHT)
    assert LEFT < right.low < right.high


@pytest.mark.parametrize(
    ("difference", "standing"), [(5.0, "level"), (5.1, "worse"), (-5.0, "level"), (-5.1, "better")]
)
def test_a_standing_follows_from_the_interval(difference, standing):
    """An interval with 0 in it tells no difference."""
    assert task_of(difference).results[1].standing == standing
