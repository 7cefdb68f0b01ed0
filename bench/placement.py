"""Train adapters on different layers at equal size: which placement leaves the lowest loss, family by family.

    python bench/placement.py [TASK ...] [--seeds N] [--quick] [--results FILE]

Each network of ``placement_tasks.py`` is pretrained on one distribution and adapted to another, by LoRA on the layers
of each preset and on a random half of the dense layers, at ranks that give the parameters of ``recommended``. Seed 0
sweeps the learning rate, and the lowest loss on its own examples chooses one for each arm; the other seeds train at
that rate, each on the same data and order for all arms, and their test losses are compared.

Every run is one line of the results, and is not repeated: an interrupted bench goes on. Seeds are the outer loop, so
that all tasks have as many. ``placement_page.py`` writes ``docs/evidence/placement.md`` from the results.
"""

import argparse
import copy
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from placement_tasks import TASKS, Batch, Data, Loss, Split, Task
from torch import nn

import loradar
from loradar.discovery import quiet_libraries

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "placement.jsonl"
PRESETS = ("recommended", "default", "attention", "mlp", "all-linear")
RANDOM, NONE = "random", "none"
WARM_UP = 0.1
PRETRAINING_RATE = 3e-3
SEEDS = 6


@dataclass(frozen=True)
class Arm:
    """A placement: its configuration has targets and ranks; ``stands_for`` names presets with the same layers."""

    name: str
    config: loradar.LoraConfig
    parameters: int
    layers: int
    stands_for: tuple[str, ...] = ()


class Results:
    """The lines of the file of results; one for each run, found by what was run."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text("utf-8").splitlines() if path and path.exists() else []
        self.runs: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def find(self, **what: Any) -> dict[str, Any] | None:
        """Return the run that has all these values."""
        return next((run for run in self.runs if all(run.get(name) == value for name, value in what.items())), None)

    def add(self, run: dict[str, Any]) -> None:
        """Append a run to the file, if there is one, and print it."""
        self.runs.append(run)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(run) + "\n")
        print(json.dumps(run), flush=True)

    def choose_rate(self, task: str, arm: str) -> float:
        """Return the rate at which seed 0 had the lowest loss on the examples for this choice."""
        sweep = [run for run in self.runs if (run["task"], run["arm"], run["seed"]) == (task, arm, 0)]
        rate: float = min(sweep, key=lambda run: run["loss"])["rate"]
        return rate


class Trial:
    """A pretrained network and its arms."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task = task
        self.folder = folder

    @cached_property
    def data(self) -> Data:
        """The examples of the adaptation."""
        return self.task.after()

    @cached_property
    def base(self) -> nn.Module:
        """The pretrained network; pretrained once, and kept in a file named for its task and steps."""
        torch.manual_seed(0)
        model = self.task.build()
        if self.task.before is not None:
            path = self.folder / f"{self.task.name}-{self.task.pretraining}.pt"
            if not path.exists():
                feed = batches(self.task.before().train, self.task.pretraining, self.task.batch, seed=0)
                train(model.train(), self.task.loss, feed, self.task.pretraining, PRETRAINING_RATE)
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save(model.state_dict(), path)
            model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """The presets with layers of their own, by name; those with the layers and ranks of another are named in it."""
        arms: dict[str, Arm] = {}
        presets = [*PRESETS] if has_preset(self.base, "attention") else [*PRESETS, "everything"]
        for preset in presets:
            if not has_preset(self.base, preset):
                continue
            arm = fit(self._adapt(preset), preset, self.task.rank, arms.get("recommended"))
            same = next((a for a in arms.values() if a.config == arm.config), None)
            if same:
                arms[same.name] = replace(same, stands_for=(*same.stands_for, preset))
            else:
                arms[preset] = arm
        return arms

    def _adapt(self, preset: str) -> Callable[[int], Any]:
        return lambda r: loradar.get_peft_model(copy.deepcopy(self.base), preset=preset, r=r, lora_alpha=2 * r)

    def draw(self, seed: int) -> Arm:
        """Return the arm on a random half of the dense layers and experts, another half for each seed."""
        whole = self._adapt("all-linear")(1)
        names = sorted([*whole.targeted_module_names, *whole.targeted_parameter_names])
        drawn = random.Random(seed).sample(names, (len(names) + 1) // 2)  # noqa: S311 - nothing is secret
        modules = [name for name in drawn if name in set(whole.targeted_module_names)]
        parameters = [name for name in drawn if name not in set(modules)]
        targets = {"target_modules": modules, "target_parameters": parameters or None}
        saved = whole.peft_config["default"].modules_to_save

        def adapt(r: int) -> Any:
            config = loradar.LoraConfig(r=r, lora_alpha=2 * r, modules_to_save=saved, **targets)
            return loradar.get_peft_model(copy.deepcopy(self.base), config)

        return fit(adapt, RANDOM, self.task.rank, self.arms["recommended"])

    def run(self, arm: Arm, seed: int, rate: float) -> dict[str, Any]:
        """Adapt the network, and return the run: losses are means over examples."""
        started = time.process_time()
        model = copy.deepcopy(self.base)
        torch.manual_seed(seed)
        loradar.get_peft_model(model, copy.deepcopy(arm.config))
        picked = pick(self.data.train, self.task.subset, seed)
        feed = batches(picked, self.task.steps, self.task.batch, seed)
        train(model, self.task.loss, feed, self.task.steps, rate)
        seconds = round(time.process_time() - started, 2)
        sizes = {"rank": arm.config.r, "parameters": arm.parameters, "layers": arm.layers}
        about = {"arm": arm.name, "seed": seed, "rate": rate, **sizes, "stands_for": arm.stands_for}
        return {"task": self.task.name, **about, **self.measure(model, seed), "seconds": seconds}

    def measure(self, model: nn.Module, seed: int) -> dict[str, float]:
        """Return loss and accuracy: on the examples for the choice of the rate for seed 0, else on the test."""
        loss, accuracy = evaluate(model, self.task, self.data.choose if seed == 0 else self.data.test)
        scores = {} if accuracy is None else {"accuracy": round(accuracy, 4)}
        return {"loss": round(loss, 5), **scores}


def has_preset(model: nn.Module, preset: str) -> bool:
    """Tell whether a preset has layers in a network."""
    try:
        loradar.get_peft_model(copy.deepcopy(model), preset=preset)
    except loradar.LoradarError:
        return False
    return True


def fit(adapt: Callable[[int], Any], name: str, rank: int, like: Arm | None) -> Arm:
    """Return an arm at the rank whose parameters are nearest to those of ``like``; at ``rank``, if there is none."""

    def make(r: int) -> Arm:
        adapted = adapt(r)
        count = sum(p.numel() for name, p in adapted.named_parameters() if p.requires_grad and "lora_" in name)
        layers = len(adapted.targeted_module_names) + len(adapted.targeted_parameter_names)
        return Arm(name, adapted.peft_config["default"], count, layers)

    arm = make(rank)
    if like is None:
        return arm
    for _ in range(2):  # the second is exact where ranks of experts are rounded
        nearest = max(1, round(arm.config.r * like.parameters / arm.parameters))
        arm = min(arm, make(nearest), key=lambda each: abs(each.parameters - like.parameters))
    return arm


def pick(split: Split, size: int | None, seed: int) -> Split:
    """Return ``size`` examples, drawn by the seed; all of them if no size is given."""
    count = len(next(iter(split.values())))
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: size or count]
    return {name: values[rows] for name, values in split.items()}


def batches(split: Split, steps: int, batch: int, seed: int) -> Iterator[Batch]:
    """Yield batches of shuffled examples, from the start again when they are used up."""
    source = torch.Generator().manual_seed(seed)
    count = len(next(iter(split.values())))
    order = torch.cat([torch.randperm(count, generator=source) for _ in range(1 + steps * batch // count)])
    for start in range(0, steps * batch, batch):
        rows = order[start : start + batch]
        yield {name: values[rows] for name, values in split.items()}


def train(model: nn.Module, loss: Loss, feed: Iterable[Batch], steps: int, rate: float) -> None:
    """Train what requires a gradient: AdamW without decay; the rate rises, then falls to zero, linearly.

    The mode is the caller's: adapters train in eval mode, without dropout and at the statistics of pretraining.
    """
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=rate, weight_decay=0.0)
    rise = max(1, round(WARM_UP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, (steps - step) / (steps - rise + 1))
    )
    for batch in feed:
        loss(model, batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, split: Split) -> tuple[float, float | None]:
    """Return the mean loss, and the share of labels with the highest score where examples have one."""
    count = len(next(iter(split.values())))
    loss, right = 0.0, None
    for start in range(0, count, 100):
        batch = {name: values[start : start + 100] for name, values in split.items()}
        size = len(next(iter(batch.values())))
        mean, scores = task.loss(model, batch)
        loss += mean.item() * size
        if scores is not None:
            right = (right or 0) + int((scores.argmax(-1) == batch["labels"]).sum())
    return loss / count, None if right is None else right / count


def run_seed(trial: Trial, seed: int, results: Results) -> None:
    """Run what is missing of one task and seed: every rate for seed 0, else the chosen one."""
    name = trial.task.name
    if results.find(task=name, arm=NONE, tested=seed > 0) is None:
        results.add({"task": name, "arm": NONE, "seed": seed, "tested": seed > 0, **trial.measure(trial.base, seed)})
    for label in [*trial.arms, RANDOM]:
        rates = trial.task.rates if seed == 0 else (results.choose_rate(name, label),)
        missing = [rate for rate in rates if results.find(task=name, arm=label, seed=seed, rate=rate) is None]
        arm = trial.draw(seed) if missing and label == RANDOM else trial.arms.get(label)
        for rate in missing:
            results.add(trial.run(arm, seed, rate))


def quicken(task: Task) -> Task:
    """Return the task with a few steps at one rate, which shows that the bench runs and nothing else."""
    return replace(task, pretraining=4, steps=3, rates=task.rates[:1], subset=48)


def main() -> None:
    """Run every task, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}; all by default")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="the first one sweeps the rate")
    parser.add_argument("--quick", action="store_true", help="a few steps of task vit, to see that the bench runs")
    parser.add_argument("--results", type=Path, help=f"{RESULTS.relative_to(ROOT)}; none with --quick")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "placement", help="for pretrained networks")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"no task {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    os.environ.setdefault("LORADAR_HOME", str(ROOT / ".cache" / "home"))
    quiet_libraries()
    torch.set_num_threads(1)
    tasks = [TASKS[name] for name in options.tasks or (["vit"] if options.quick else TASKS)]
    trials = [Trial(quicken(task) if options.quick else task, options.cache) for task in tasks]
    results = Results(options.results or (None if options.quick else RESULTS))
    for seed in range(2 if options.quick else options.seeds):
        for trial in trials:
            run_seed(trial, seed, results)


if __name__ == "__main__":
    main()
