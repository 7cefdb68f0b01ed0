"""Measure one lookup in a new process against reading the same table through peft, as a ratio within one run.

    python bench/lookup.py [--rounds N] [--json FILE]

Alternating arms: ``loradar lookup llama --json`` on a seeded registry; a process that imports peft and prints its
entry; an empty Python process (the lower bound).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TABLE = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
PEFT = f"from peft.utils import constants; print(constants.{TABLE}['llama'])"
ARMS = {
    "loradar lookup": [sys.executable, "-m", "loradar.cli", "lookup", "llama", "--json"],
    "import peft": [sys.executable, "-c", PEFT],
    "python alone": [sys.executable, "-c", "pass"],
}


def seconds(command: list[str]) -> float:
    """Return the wall time of one successful process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own commands
    return time.perf_counter() - start


def main() -> None:
    """Measure every arm and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORADAR_HOME"] = home
        first = seconds(ARMS["loradar lookup"])
        for command in ARMS.values():
            seconds(command)  # fill caches
        for _ in range(options.rounds):
            for name, command in ARMS.items():
                times[name].append(seconds(command))
    medians = {name: statistics.median(each) for name, each in times.items()}
    ratio = medians["import peft"] / medians["loradar lookup"]
    print(f"first use, which creates and seeds the registry: {first:.2f} s")
    for name, median in medians.items():
        print(f"{name:<16}{median:>7.2f} s   {min(times[name]):.2f} to {max(times[name]):.2f}")
    print(f"ratio import peft / loradar lookup: {ratio:.1f}")
    if options.json:
        report = {"first_use_s": round(first, 3), "ratio": round(ratio, 1)}
        report |= {"median_s": {name: round(median, 3) for name, median in medians.items()}}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
