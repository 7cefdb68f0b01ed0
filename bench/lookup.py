"""Measure one lookup in a new process against reading the same table through peft, as a ratio within one run.

    python bench/lookup.py [--rounds N] [--json FILE]

Alternating arms: ``loradar lookup llama --json`` on a machine without a registry, which reads the packaged one; the
same with a registry of the user's own; the first write, which makes that; a process that imports peft and prints its
entry; an empty Python process (the lower bound).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TABLE = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
PEFT = f"from peft.utils import constants; print(constants.{TABLE}['llama'])"
LOOKUP = [sys.executable, "-m", "loradar.cli", "lookup", "llama", "--json"]
WRITE = [sys.executable, "-m", "loradar.cli", "token", "create", "me", "--role", "admin"]
ARMS = {
    "first lookup": LOOKUP,
    "first write": WRITE,
    "lookup": LOOKUP,
    "import peft": [sys.executable, "-c", PEFT],
    "python alone": [sys.executable, "-c", "pass"],
}
NEW_HOME = {"first lookup", "first write"}


def measure(name: str, home: Path) -> tuple[float, float]:
    """Return the wall time and the CPU time of one successful process."""
    if name in NEW_HOME:
        shutil.rmtree(home / name, ignore_errors=True)
    environment = {**os.environ, "LORADAR_HOME": str(home / name)}
    start = time.perf_counter()
    process = subprocess.Popen(ARMS[name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)  # noqa: S603 - our own commands
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise subprocess.CalledProcessError(status, ARMS[name])
    return wall, used.ru_utime + used.ru_stime


def main() -> None:
    """Measure every arm and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        ARMS["lookup"] = WRITE
        measure("lookup", home)
        ARMS["lookup"] = LOOKUP
        for name in ARMS:
            measure(name, home)  # fill caches
        for _ in range(options.rounds):
            for name in ARMS:
                times[name].append(measure(name, home))
    wall, cpu = ({name: statistics.median(each[n] for each in times[name]) for name in ARMS} for n in (0, 1))
    ratio = cpu["import peft"] / cpu["lookup"]
    for name in ARMS:
        walls = [each[0] for each in times[name]]
        print(f"{name:<16}{wall[name]:>7.2f} s   {min(walls):.2f} to {max(walls):.2f}, CPU {cpu[name]:.2f} s")
    first = cpu["first lookup"] / cpu["lookup"]
    print(f"CPU time of import peft / lookup: {ratio:.1f}, of first lookup / lookup: {first:.2f}")
    if options.json:
        report = {"ratio": round(ratio, 1)}
        for what, medians in (("median_s", wall), ("cpu_s", cpu)):
            report |= {what: {name: round(median, 3) for name, median in medians.items()}}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
