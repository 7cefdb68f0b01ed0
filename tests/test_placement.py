"""bench/placement.py: it runs, resumes where it was interrupted, and docs/evidence/placement.md is up to date."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from scipy.stats import ttest_rel

import loradar
from loradar.domain.reports.placement import load_placement

BENCH = Path(__file__).parent.parent / "bench"
DOCS = Path(__file__).parent.parent / "docs/evidence"

pytestmark = pytest.mark.usefixtures("read_settings")


def load(name):
    """Import a script of the bench; it finds its neighbours as it does when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCH), *sys.path])
        return import_module(name)


TASKS = load("placement_tasks").TASKS


@pytest.fixture(scope="module")
def bench():
    """The bench as a module."""
    return load("placement")


@pytest.fixture(scope="module")
def page():
    """The script that writes the page."""
    return load("placement_page")


@pytest.fixture(scope="module")
def measured(page):
    """The committed results, by task."""
    return {each.task.name: each for each in page.read(page.RESULTS)}


def quick(bench, folder, patch):
    """Run a few steps, and return the lines of the results."""
    path = folder / "results.jsonl"
    patch.setattr(sys, "argv", ["placement.py", "--quick", "--results", str(path), "--cache", str(folder)])
    bench.main()
    return path.read_text("utf-8").splitlines()


def test_an_interrupted_run_goes_on(bench, tmp_path, monkeypatch):
    """Every placement is swept and tested once, at about the same size; what is in the results is not run again."""
    lines = quick(bench, tmp_path, monkeypatch)
    runs = [json.loads(line) for line in lines]
    arms = ["recommended", "default", "attention", "mlp", "random"]
    assert [(run["arm"], run["seed"]) for run in runs] == [(arm, seed) for seed in (0, 1) for arm in ["none", *arms]]
    assert all(0.9 < run["parameters"] / runs[1]["parameters"] < 1.1 for run in runs if run["arm"] != "none")
    assert runs[1]["stands_for"] == ["all-linear"]
    (tmp_path / "results.jsonl").write_text("\n".join(lines[:-2]) + "\n", "utf-8")
    again = quick(bench, tmp_path, monkeypatch)
    assert again[:-2] == lines[:-2]
    timeless = [[{**json.loads(line), "seconds": 0} for line in each[-2:]] for each in (lines, again)]
    assert timeless[0] == timeless[1]


def test_the_rate_is_the_one_with_the_lowest_loss_of_seed_0(bench):
    """Test losses of other seeds have no part in the choice."""
    results = bench.Results(None)
    results.runs = [
        {"task": "vit", "arm": "mlp", "seed": seed, "rate": rate, "loss": loss}
        for seed, rate, loss in ((0, 0.1, 2.0), (0, 0.2, 1.0), (0, 0.3, 3.0), (1, 0.3, 0.1))
    ]
    assert results.choose_rate("vit", "mlp") == 0.2


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_task_is_of_the_family_it_says(task):
    """The network is recognised by its structure, as a user's would be."""
    adapted = loradar.get_peft_model(task.build(), preset="recommended")
    assert adapted.decision.recommended.family == task.family


def test_a_random_placement_differs_by_seed_and_trains(bench, tmp_path):
    """Half of the layers, others for each seed; the rest of the network stays as it is."""
    trial = bench.Trial(bench.quicken(TASKS["vit"]), tmp_path)
    drawn = [trial.draw(seed) for seed in (1, 2)]
    assert [arm.layers for arm in drawn] == [12, 12]
    assert drawn[0].config.target_modules != drawn[1].config.target_modules
    before = {name: value.clone() for name, value in trial.base.state_dict().items()}
    trial.run(drawn[0], seed=1, rate=0.01)
    assert all(torch.equal(value, before[name]) for name, value in trial.base.state_dict().items())


def test_an_unknown_task_is_named(bench, monkeypatch, capsys):
    """With the tasks there are."""
    monkeypatch.setattr(sys, "argv", ["placement.py", "vitt"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "no task vitt; there are minilm-news" in capsys.readouterr().err


def made_up(page, losses):
    """A comparison of task vit, from the losses of each placement on three seeds; the frozen network has 2."""
    runs = [{"task": "vit", "arm": "none", "seed": 1, "loss": 2.0}]
    runs += [
        {"task": "vit", "arm": arm, "seed": seed, "loss": loss, "stands_for": ["all-linear"]}
        for arm, row in losses.items()
        for seed, loss in enumerate(row, 1)
    ]
    return page.Comparison(TASKS["vit"], runs)


def test_a_difference_is_paired_and_a_share_of_the_gain(page):
    """As scipy has it; above 0 the placement has the higher loss."""
    ours, theirs = [1.0, 0.9, 1.1], [1.2, 1.0, 1.3]
    found = made_up(page, {"recommended": ours, "mlp": theirs}).compare("mlp")
    expected = ttest_rel(theirs, ours).confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("mlp", "says"),
    [
        ([1.2, 1.1, 1.3], "`recommended` is the best"),
        ([0.9, 0.8, 1.0], "behind `mlp`"),
        ([0.4, 1.2, 0.9], "within noise of `mlp`"),
    ],
)
def test_a_verdict_follows_the_interval(page, mlp, says):
    """A random placement is none of the presets, however good."""
    comparison = made_up(page, {"recommended": [1.0, 0.91, 1.1], "mlp": mlp, "random": [0.1, 0.2, 0.1]})
    assert comparison.verdict() == says


def test_the_page_shows_the_results(page, measured, tmp_path):
    """Tables and picture are those of the committed results."""
    (tmp_path / "placement.md").write_text((DOCS / "placement.md").read_text("utf-8"), "utf-8")
    page.write_page([*measured.values()], tmp_path)
    for name in ("placement.md", "placement.svg"):
        assert (tmp_path / name).read_text("utf-8") == (DOCS / name).read_text("utf-8")


def test_the_packaged_figures_are_the_results(page, measured, tmp_path):
    """Those of the service's page; a standing follows from the interval, as on the page of the documents."""
    page.write_facts([*measured.values()], tmp_path / "placement.json")
    written = (tmp_path / "placement.json").read_text("utf-8")
    assert written == (BENCH.parent / "data/placement.json").read_text("utf-8")
    signs = {"worse": 1, "better": -1, "level": 0}
    for task in load_placement().tasks:
        comparison = measured[task.name]
        for result in task.results[1:]:
            assert signs[result.standing] == comparison.compare(result.name).sign


def test_at_least_five_seeds_were_tested_in_ten_families(measured):
    """At sizes within a tenth of those of the recommended placement."""
    assert len({each.task.family for each in measured.values()}) >= 10
    for each in measured.values():
        assert len(each.seeds) >= 5
        sizes = {name: each.values(name, "parameters") for name in each.names}
        assert all(0.9 < size / sizes["recommended"][0] < 1.1 for row in sizes.values() for size in row)


def test_what_the_page_concludes_holds(measured):
    """Each sentence of the conclusions, on the committed results; new results may need new sentences."""
    signs = {task: {name: each.compare(name).sign for name in each.names[1:]} for task, each in measured.items()}
    over = {
        name: {task for task, row in signs.items() if row.get(name) == 1} for name in ("default", "attention", "mlp")
    }
    assert over["default"] == {"llama", "qwen3_moe", "falcon_h1", "t5", "vit", "dit"}
    assert over["attention"] == {"llama", "qwen3_moe", "falcon_h1", "bamba", "dit"}
    assert over["mlp"] == {"llama", "qwen3_moe", "falcon_h1", "t5", "vit", "clip"}
    assert signs["clip"]["default"] == 0
    assert signs["qwen3_moe"]["all-linear"] == 0
    assert not any(
        signs[task][name] for task in ("minilm-news", "minilm-docs") for name in ("default", "attention", "mlp")
    )
    behind = {task: each.best for task, each in measured.items() if each.verdict().startswith("behind")}
    assert behind == {"vit": "attention", "resnet": "everything", "unet": "default"}
    assert signs["unet"]["random"] == -1
    assert measured["bamba"].best == "all-linear"
    assert measured["mamba"].same == {"default", "all-linear", "everything"}
    assert "default" in measured["bamba"].same
