"""bench/placement.py: it runs, goes on where it was interrupted, and its tasks are what the page says they are."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import loradar

BENCH = Path(__file__).parent.parent / "bench"

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
