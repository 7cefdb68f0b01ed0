"""Measure training steps and single tokens with an adapter: loradar against peft and the frozen base.

    python bench/training.py [--rounds N] [--json FILE]

A llama of 4 layers, width 512, in float32 on one thread; LoRA of rank 8. A step is the forward of 4 x 128 tokens, the
backward and AdamW. The frozen base trains nothing: its embedding's output requires a gradient, so that the backward
runs through all layers, slightly further than an adapter's (the first layer's q, k and v). One token: eval and
inference mode, nothing merged.

Memory is the peak beyond the frozen weights, each arm in new processes, measured twice: the largest resident size of
the process (on Linux; includes memory the allocator cannot reuse), and the sum of all live tensors in torch's
profiler. Both count the adapter, its gradients and the optimizer's state.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
from arms import Row, alternate, compare, make_parser, print_head, seconds, write
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

import loradar.adapters as ours

TARGETS = {
    "all-linear": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "q v": ["q_proj", "v_proj"],
}
SIZE = {
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "vocab_size": 4096,
}
SHAPE = (4, 128)
GOALS = {
    ("step", "all-linear", "peft"): "<= 0.94",
    ("step", "all-linear", "base"): "<= 1.08",
    ("step", "q v", "base"): "<= 1.02",
    ("one token", "all-linear", "peft"): "<= 0.92",
    ("one token", "all-linear", "base"): "<= 1.10",
    ("peak of process", "all-linear", "peft"): "<= 0.78",
}
TOKENS_IN_A_ROW = 10
STEPS_TO_THE_PEAK = 4
ARMS = ("base", "peft", "ours")


class Subject:
    """The model of one arm, with its batch and optimizer."""

    def __init__(self, model: nn.Module, arm: str, targets: list[str], shape: tuple[int, int] = SHAPE) -> None:
        self.model: Any = model
        if arm == "ours":
            self.model = ours.inject(model, ours.LoraConfig(target_modules=targets, r=8))
        elif arm == "peft":
            self.model = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, r=8))
        else:
            model.requires_grad_(requires_grad=False)
            self.model.enable_input_require_grads()
        where = next(model.parameters()).device
        self.ids = torch.randint(0, model.config.vocab_size, shape, device=where)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained) if self.trained else None

    def step(self, ids: torch.Tensor | None = None) -> None:
        """Train on one batch."""
        ids = self.ids if ids is None else ids
        self.model(input_ids=ids, labels=ids).loss.backward()
        if self.optimizer:
            self.optimizer.step()
            self.optimizer.zero_grad()

    def forward_token(self) -> None:
        """Run forwards of one token, several times in a row."""
        with torch.inference_mode():
            for _ in range(TOKENS_IN_A_ROW):
                self.model(input_ids=self.ids[:1, :1])

    def adapter_bytes(self) -> int:
        """Return the bytes of the adapter and of AdamW's two averages."""
        return sum(3 * parameter.nbytes for parameter in self.trained)


def build(size: dict[str, Any]) -> nn.Module:
    """Return a random llama."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(use_cache=False, **size))


def compare_arms(measure: str, preset: str, unit: str, times: dict[str, list[float]]) -> list[Row]:
    """Print and return the ratios ours / peft, ours / base and peft / base."""
    pairs = (("ours", "peft"), ("ours", "base"), ("peft", "base"))
    name = f"{measure}, {preset}, {unit}"
    return [
        compare(name, times, *pair, GOALS.get((measure, preset, pair[1]), "") if "ours" in pair else "")
        for pair in pairs
    ]


def measure_times(make: Callable[[str], Subject], preset: str, rounds: int) -> list[Row]:
    """Measure steps and single tokens of one preset."""
    subjects = {arm: make(arm) for arm in ARMS}
    steps = alternate({arm: partial(seconds, each.step) for arm, each in subjects.items()}, rounds)
    rows = compare_arms("step", preset, "s", steps)
    for each in subjects.values():
        each.model.eval()
    tokens = alternate({arm: partial(seconds, each.forward_token) for arm, each in subjects.items()}, 3 * rounds)
    return rows + compare_arms("one token", preset, f"s for {TOKENS_IN_A_ROW}", tokens)


def resident(field: str) -> int:
    """Return this process's current or largest resident size in bytes; ``ru_maxrss`` would include the parent's."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure_peak(arm: str, preset: str) -> dict[str, float]:
    """Return both memory peaks of this process beyond the frozen weights, in bytes."""
    subject = Subject(build(SIZE), arm, TARGETS[preset])
    spare = nn.Parameter(torch.zeros(1))
    spare.grad = torch.zeros(1)
    torch.optim.AdamW([spare]).step()  # imports of the optimizer count for no arm
    subject.step(subject.ids[:1, :2])
    before = resident("VmRSS")
    for _ in range(STEPS_TO_THE_PEAK):
        subject.step()
    most = resident("VmHWM")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        subject.step()
    with tempfile.TemporaryDirectory() as folder:
        seen.export_chrome_trace(str(file := Path(folder, "trace.json")))
        events = [event for event in json.loads(file.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    return {"process": most - before + subject.adapter_bytes(), "tensors": peak + subject.adapter_bytes()}


def measure_memory(preset: str, rounds: int) -> list[Row]:
    """Measure both memory peaks, with a new process for each arm and round."""
    peaks: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for arm in ARMS:
            command = [sys.executable, __file__, "--peak", arm, preset]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this script
            for kind, figure in json.loads(done.stdout.splitlines()[-1]).items():
                peaks.setdefault(kind, {}).setdefault(arm, []).append(figure / 1e6)
    return [row for kind, each in peaks.items() for row in compare_arms(f"peak of {kind}", preset, "MB", each)]


def main() -> None:
    """Measure both presets and print the table."""
    parser = make_parser(__doc__, 15)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(measure_peak(*options.peak)))
        return
    print_head()
    results = []
    for preset, targets in TARGETS.items():
        results += measure_times(
            lambda arm, targets=targets: Subject(build(SIZE), arm, targets), preset, options.rounds
        )
        results += measure_memory(preset, max(1, options.rounds // 5))
    write(results, options)


if __name__ == "__main__":
    main()
