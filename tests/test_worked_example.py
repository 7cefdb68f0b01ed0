"""docs/evidence/worked-example.md: a tiny version of it runs end to end, and its figures are those of the results."""

import contextlib
import io
import json
import re
import sys
from importlib import import_module
from pathlib import Path
from statistics import median
from xml.etree import ElementTree as ET

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs/evidence"
PAGE = (DOCS / "worked-example.md").read_text("utf-8")
RESULTS = json.loads((DOCS / "worked-example.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def example():
    """The script as a module; it finds its neighbours as it does when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(DOCS.parent / "scripts"), *sys.path])
        yield import_module("worked_example")


@pytest.fixture(scope="module")
def page(example):
    """The module that writes the page."""
    return sys.modules[example.write_page.__module__]


@pytest.fixture(scope="module")
def tiny(example):
    """Settings for a few steps."""
    return example.Settings(train=48, test=20, epochs=2, seeds=(0,))


@pytest.fixture(scope="module")
def trial(example, tiny):
    """The headlines of one seed."""
    return example.draw_trial(example.read_headlines()[0], tiny, seed=0)


def test_the_page_shows_the_results(page, tmp_path):
    """Tables and picture are those of the committed results: `make example` writes both."""
    for path in DOCS.glob("worked-example.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    page.write_page(RESULTS, tmp_path)
    for name in ("worked-example.md", "worked-example.svg"):
        assert (tmp_path / name).read_text("utf-8") == (DOCS / name).read_text("utf-8")


def test_a_page_without_its_marks_is_refused(page):
    """Otherwise old figures would stay in it."""
    with pytest.raises(ValueError, match="0 tables marked 'scores'"):
        page.fill(PAGE.replace("<!-- scores -->", ""), RESULTS)


def test_what_the_page_concludes_holds(page):
    """Each sentence of the conclusions, on the committed results; new results may need new sentences."""
    found = {name: page.values(RESULTS, name, "accuracy") for name in page.names(RESULTS)}
    frozen = found["frozen"]
    gains = {name: [a - b for a, b in zip(row, frozen, strict=True)] for name, row in found.items() if name != "frozen"}
    assert sum(gain > 0 for gain in gains["default"]) == 1
    assert all(min(gains[name]) > 0 for name in gains.keys() - {"default"})
    best = [max(gains, key=lambda name: gains[name][seed]) for seed in range(3)]
    assert best == ["mlp"] * 3
    lead = min(row["mlp"] - max(row[name] for name in row.keys() - {"mlp"}) for row in by_seed(gains))
    assert lead == pytest.approx(0.002)
    times = {name: median(page.values(RESULTS, name, "step_ms")) for name in gains}
    assert 1.05 < times["all-linear"] / times["default"] < 1.15
    assert max(min(found[name]) for name in ("attention", "mlp", "all-linear")) < min(
        max(found[name]) for name in ("attention", "mlp", "all-linear")
    )


def by_seed(rows):
    """Return one dictionary per seed."""
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def test_the_results_are_of_these_settings(example):
    """Whoever changes a setting trains again."""
    found = RESULTS["settings"]
    assert example.Settings(**{**found, "seeds": tuple(found["seeds"])}) == example.Settings()
    ran = {(run["seed"], run["preset"]) for run in RESULTS["runs"]}
    assert ran == {(seed, name) for seed in found["seeds"] for name in (example.FROZEN, *example.PRESETS)}


@pytest.mark.usefixtures("read_settings")
def test_the_adapters_are_of_one_size(example):
    """Within 3% of all-linear's at rank 8; no layer outside the blocks is among them."""
    adapters = example.plan(example.Settings())
    sizes = {adapter.preset: adapter.parameters for adapter in adapters}
    assert all(abs(size / sizes["all-linear"] - 1) < 0.03 for size in sizes.values())
    assert [json.loads(json.dumps(vars(adapter))) for adapter in adapters] == RESULTS["adapters"]
    assert all(adapter.layers == 6 * len(adapter.kinds) for adapter in adapters)


def test_the_data_is_what_the_page_says(example, trial):
    """As many headlines and topics, every topic in both parts, and none of the headlines in both."""
    headlines, topics = example.read_headlines()
    assert len(headlines.texts) == len(set(headlines.texts)) == RESULTS["data"]["headlines"]
    assert topics == list(RESULTS["data"]["topics"])
    assert f"{len(headlines.texts):,} different headlines" in PAGE
    assert set(trial.train.labels) == set(trial.test.labels) == set(range(len(topics)))
    assert not set(trial.train.texts) & set(trial.test.texts)


@pytest.mark.usefixtures("read_settings")
@pytest.mark.parametrize("preset", ["default", "all-linear"])
def test_a_few_steps_train_every_adapter_and_nothing_else(example, tiny, trial, preset):
    """Each second factor has left zero, each weight of the base is what it was, and the run is complete."""
    torch.manual_seed(0)
    adapter = example.measure(preset, 4)
    run, model = example.tune(trial, adapter, tiny)
    weights = dict(model.named_parameters())
    factors = [value for name, value in weights.items() if "lora_B" in name]
    assert len(factors) == adapter.layers
    assert all(factor.abs().max() > 0 for factor in factors)
    before = dict(example.load_encoder().named_parameters())
    for name, value in before.items():
        now = [held for path, held in weights.items() if path.replace(".base_layer", "").endswith(f"model.{name}")]
        assert len(now) == 1
        assert torch.equal(now[0], value)
    assert (run.seed, run.preset) == (0, preset)
    assert 0 < run.macro_f1 <= 1
    assert 0 < run.accuracy <= 1
    assert run.step_ms > 0


@pytest.mark.usefixtures("read_settings")
def test_training_lowers_the_loss(example, tiny, trial):
    """On the headlines it trains on, against the fresh head."""
    torch.manual_seed(0)
    model = example.build(example.adapt("default", 8), trial.topics)

    def loss():
        scores = example.run_over(model.eval(), trial.train)
        return torch.nn.functional.cross_entropy(scores, torch.tensor(trial.train.labels)).item()

    before = loss()
    example.train(model, trial.train, tiny)
    assert loss() < before


def test_the_frozen_model_beats_guessing(example, trial):
    """Five topics: a fifth is chance."""
    run = example.probe(trial)
    assert run.preset == example.FROZEN
    assert run.accuracy > 0.4


@pytest.mark.usefixtures("read_settings")
def test_the_results_of_a_comparison_make_a_page(example, page, tiny, tmp_path, monkeypatch):
    """The whole way with few steps: every preset is run, the JSON holds it, and tables and picture are drawn."""
    (tmp_path / "worked-example.md").write_text(PAGE, "utf-8")
    monkeypatch.setattr(example, "Settings", lambda: tiny)
    monkeypatch.setattr(sys, "argv", ["worked_example.py", "--out", str(tmp_path)])
    with contextlib.redirect_stdout(io.StringIO()):
        example.main()
    written = json.loads((tmp_path / "worked-example.json").read_text("utf-8"))
    assert page.names(written) == [example.FROZEN, *example.PRESETS]
    assert page.scores(written) in (tmp_path / "worked-example.md").read_text("utf-8")
    assert page.scores(written) != page.scores(RESULTS)
    root = ET.fromstring((tmp_path / "worked-example.svg").read_text("utf-8"))  # noqa: S314 - ours
    assert root.tag.endswith("svg")


def test_a_point_of_the_picture_stands_at_its_value(page):
    """One circle per run and panel, at its place between the ends of the scale."""
    panels = [*page.panels(RESULTS)]
    root = ET.fromstring((DOCS / "worked-example.svg").read_text("utf-8"))  # noqa: S314 - ours
    name = "{http://www.w3.org/2000/svg}"
    drawn = [one for one in root.iter(f"{name}circle") if one.get("fill-opacity")]
    assert len(drawn) == len(panels) * len(RESULTS["runs"])
    first = [float(one.get("cx")) for one in drawn[: len(RESULTS["runs"])]]
    values = [value for row in panels[0].rows for value in row]
    (slope, start) = fit(values, first)
    assert slope > 0
    assert [start + slope * value for value in values] == pytest.approx(first, abs=0.1)


def fit(values, places):
    """Return slope and offset of the line through the lowest and the highest."""
    low, high = values.index(min(values)), values.index(max(values))
    slope = (places[high] - places[low]) / (values[high] - values[low])
    return slope, places[low] - slope * values[low]


@pytest.mark.usefixtures("read_settings")
def test_the_code_of_the_page_runs_and_prints_what_it_says():
    """The first block word for word; the second with fewer headlines, since its accuracy depends on the processor."""
    adapt, train = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (expected,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    short = train.replace("TRAIN, EPOCHS = 480, 5", "TRAIN, EPOCHS = 32, 1").replace("TRAIN + 1000", "TRAIN + 20")
    assert short.count("TRAIN, EPOCHS = 32, 1") == short.count("TRAIN + 20") == 1
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(compile(adapt, "worked-example.md", "exec"), names)  # noqa: S102 - our own document
    assert printed.getvalue() == expected
    with contextlib.redirect_stdout(printed):
        exec(compile(short, "worked-example.md", "exec"), names)  # noqa: S102 - our own document
    assert re.search(r"^\d+\.\d% of 20 headlines$", printed.getvalue(), re.MULTILINE)
