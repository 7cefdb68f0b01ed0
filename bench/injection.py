"""Time of one injection, ours against ``peft.get_peft_model``, as a ratio taken in one run.

    python bench/injection.py [--rounds N] [--json FILE]

Each round builds the model anew outside of the timing, times both arms, and swaps which goes first. Weights are
allocated, never filled: no arm reads them, and 13 GB of random numbers would take longer than the bench.
"""

import argparse
import gc
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.initialization import no_init_weights

import loradar.adapters as ours

QV = ("q_proj", "v_proj")
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 100,
}


class Case(NamedTuple):
    """One line of the table."""

    name: str
    targets: tuple[str, ...]
    device: str
    width: dict[str, int]
    dtype: torch.dtype


CASES = (
    Case("llama-7b, q v, meta", QV, "meta", {}, torch.float32),
    Case("llama-7b, all-linear, meta", ALL, "meta", {}, torch.float32),
    Case("llama-7b, q v, cpu, bf16 base", QV, "cpu", {}, torch.bfloat16),
    Case("llama-7b, all-linear, cpu, bf16 base", ALL, "cpu", {}, torch.bfloat16),
    Case("llama 32 layers, hidden 64, q v, cpu", QV, "cpu", TINY, torch.float32),
    Case("llama 32 layers, hidden 64, all-linear, cpu", ALL, "cpu", TINY, torch.float32),
)


def build(case: Case) -> nn.Module:
    """Return an unfilled llama of 32 layers: the 7B one, unless the case narrows it."""
    config = LlamaConfig(num_hidden_layers=32, **case.width)
    with torch.device("meta"), no_init_weights():
        model: nn.Module = LlamaForCausalLM(config).to(case.dtype)
    return model if case.device == "meta" else model.to_empty(device=case.device)


def inject_ours(model: nn.Module, case: Case) -> Any:
    """Inject with loradar."""
    return ours.inject(model, ours.LoraConfig(target_modules=case.targets))


def inject_peft(model: nn.Module, case: Case) -> Any:
    """Inject with peft."""
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=list(case.targets)))


def seconds(arm: Callable[[nn.Module, Case], Any], case: Case) -> float:
    """Return the time one injection takes on a fresh model."""
    model = build(case)
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    adapted = arm(model, case)
    elapsed = time.perf_counter() - start
    gc.enable()
    expected = 32 * len(case.targets)
    if len(adapted.targeted_module_names) != expected:
        raise SystemExit(f"{case.name}: {len(adapted.targeted_module_names)} layers adapted, not {expected}")
    return elapsed


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Return the medians of both arms, alternated, and their ratio."""
    times: dict[str, list[float]] = {"ours": [], "peft": []}
    arms = [("ours", inject_ours), ("peft", inject_peft)]
    for _, arm in arms:
        seconds(arm, case)  # imports and caches on both sides
    for _ in range(rounds):
        for name, arm in arms:
            times[name].append(seconds(arm, case))
        arms.reverse()
    medians = {name: statistics.median(each) for name, each in times.items()}
    ratios = [p / o for p, o in zip(times["peft"], times["ours"], strict=True)]
    return {
        "case": case.name,
        "layers": 32 * len(case.targets),
        "ours_ms": round(medians["ours"] * 1e3, 2),
        "peft_ms": round(medians["peft"] * 1e3, 2),
        "ratio": round(medians["peft"] / medians["ours"], 1),
        "ratio_range": [round(min(ratios), 1), round(max(ratios), 1)],
    }


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # neither arm's advice is part of the timing
    results = []
    print(f"{'case':<46}{'layers':>7}{'ours ms':>10}{'peft ms':>10}{'ratio':>8}   range")
    for case in CASES:
        row = measure(case, options.rounds)
        results.append(row)
        low, high = row["ratio_range"]
        times = f"{row['ours_ms']:>10}{row['peft_ms']:>10}"
        print(f"{row['case']:<46}{row['layers']:>7}{times}{row['ratio']:>8}   {low} to {high}")
    report = {
        "torch": torch.__version__,
        "peft": peft.__version__,
        "threads": torch.get_num_threads(),
        "results": results,
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
