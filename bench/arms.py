"""Share the parts of the benches against peft: alternating arms, ratios per round, options, table and report.

Each round gives a ratio, so both arms run under the same load; the median and the range are reported. Work on the CPU
is measured in processor time, on one thread, because other processes may use the same machine.
"""

import argparse
import gc
import json
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch

Times = Mapping[str, list[float]]
Row = dict[str, Any]


def seconds(action: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """Return the seconds ``action`` takes by ``clock``, with the garbage collector off."""
    gc.collect()
    gc.disable()
    start = clock()
    action()
    elapsed = clock() - start
    gc.enable()
    return elapsed


def alternate(arms: Mapping[str, Callable[[], float]], rounds: int) -> Times:
    """Return the measurements of each arm, after one round to fill caches; the order reverses with every round."""
    order = list(arms)
    times: dict[str, list[float]] = {name: [] for name in order}
    for number in range(rounds + 1):
        for name in order:
            times[name].append(arms[name]())
        if number == 0:
            times = {name: [] for name in order}
        order.reverse()
    return times


def compare(measure: str, times: Times, over: str, under: str, target: str = "") -> Row:
    """Print and return one row: the ratio ``over`` / ``under``, with the ratio aimed at."""
    ratios = [a / b for a, b in zip(times[over], times[under], strict=True)]
    medians = {name: statistics.median(times[name]) for name in (over, under)}
    low, middle, high = (f"{each(ratios):.3g}" for each in (min, statistics.median, max))
    figures = f"{medians[over]:>11.4g}{medians[under]:>11.4g}{middle:>8}   {f'{low} to {high}':<16}"
    print(f"{measure:<46}{f'{over} / {under}':<24}{figures}{target}".rstrip(), flush=True)
    ratio = {"ratio": float(middle), "ratio_range": [float(low), float(high)], "target": target}
    return {"measure": measure, "of": f"{over} / {under}", "medians": medians, **ratio}


def print_head() -> None:
    """Print the header of the rows of ``compare``; medians are in the unit named by the measure."""
    print(f"{'measure':<46}{'ratio of':<24}{'medians':>22}{'ratio':>8}   {'range':<16}target")


def make_parser(doc: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the common options; limit torch to one thread and silence warnings."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser


def write(results: list[Row], options: argparse.Namespace, **about: Any) -> None:
    """Write the figures to the file of ``--json``, if given."""
    versions = {"torch": torch.__version__, "peft": peft.__version__, "threads": torch.get_num_threads()}
    report = {**versions, **about, "rounds": options.rounds, "results": results}
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
