"""How many architectures an adapter goes on when nobody says where: loradar beside the installed peft, on meta.

    python bench/zero_config.py [LIBRARY ...] [--every N] [--json FILE]

Every architecture of the catalog is built three times: for ``loradar.get_peft_model(model)``, for
``peft.get_peft_model(model, LoraConfig())``, and for the same after ``loradar.enable_peft_defaults()``. The layers that
loradar is to blame for are looked up among those that the catalog calls dead.
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Any

import peft
from rich.progress import track

import loradar
from loradar.catalog import CatalogEntry, list_catalogs, read_catalog
from loradar.discovery import Bounds, quiet_libraries, sources
from loradar.discovery.workers import work
from loradar.errors import LoradarError
from loradar.patterns import pattern_of
from loradar.references import Reference
from loradar.registry import Registry

LIBRARIES = ["transformers", "timm", "diffusers"]
ARMS = {
    "loradar": ("registry", "fingerprint", "structure", "scan"),
    "peft": ("adapted",),
    "peft after enable_peft_defaults": ("as before", "adapted"),
}
"""Who adapts, and what a success is called."""
REFUSALS = (ValueError, NotImplementedError, TypeError, RuntimeError, AttributeError, KeyError)


@cache
def entries(library: str) -> dict[str, CatalogEntry]:
    """Return the catalog's scanned architectures by name."""
    file = next(file for file in list_catalogs() if file.name == f"{library}.jsonl")
    return {entry.architecture.name: entry for entry in read_catalog(file).entries if entry.method}


def judge(name: str, library: str) -> dict[str, str]:
    """Return what becomes of an architecture with loradar, with peft and with both, in a word or a sentence each."""
    quiet_libraries()
    warnings.simplefilter("ignore")
    reference = Reference.parse(f"{library}:{name}")
    try:
        ours = loradar.get_peft_model(sources.build(reference))
    except LoradarError as error:
        alone = error.message
    else:
        alone = find_dead(ours.targeted_module_names, name, library) or ours.decision.step
    theirs = adapt_plainly(reference)
    with loradar.enable_peft_defaults():
        both = adapt_plainly(reference)
    dead = find_dead(both, name, library) if isinstance(both, list) else both
    return {
        "loradar": alone,
        "peft": theirs.partition(":")[0] if isinstance(theirs, str) else "adapted",
        "peft after enable_peft_defaults": dead or ("as before" if both == theirs else "adapted"),
    }


def adapt_plainly(reference: Reference) -> list[str] | str:
    """Return the layers and parameters peft adapts without being told any, or its error."""
    try:
        adapted = peft.get_peft_model(sources.build(reference), peft.LoraConfig(), low_cpu_mem_usage=True)
    except REFUSALS as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    return [*adapted.targeted_module_names, *adapted.targeted_parameter_names]


def find_dead(paths: list[str], name: str, library: str) -> str:
    """Return which of these layers the catalog calls dead, or does not know; empty if none."""
    slots = [slot for slot in entries(library)[name].slots if slot.kind != "norm"]
    living = {slot.pattern for slot in slots if slot.live is not False}
    dead = {pattern for path in paths if (pattern := pattern_of(path)) not in living}
    return f"dead: {sorted(dead)}" if dead else ""


def measure(library: str, every: int) -> dict[str, Any]:
    """Return how many of a library's architectures are adapted by each, and what else came of them."""
    start = time.perf_counter()
    names = [*entries(library)][::every]
    counts = {arm: Counter[str]() for arm in ARMS}
    failed: dict[str, dict[str, str]] = {arm: {} for arm in ARMS}
    task = partial(judge, library=library)  # the catalog and the registry are read before workers are forked
    for name, found in track(work(task, names, library, Bounds()), total=len(names), description=library):
        for arm, good in ARMS.items():
            verdict = found[arm] if isinstance(found, dict) else found
            if verdict in good:
                counts[arm][verdict] += 1
            else:
                failed[arm][name] = verdict
    return {
        "scanned": len(names),
        **{arm: {"adapted": counts[arm].total(), **_told(arm, counts[arm], failed[arm])} for arm in ARMS},
        "seconds": round(time.perf_counter() - start),
    }


def _told(arm: str, counts: Counter[str], failed: dict[str, str]) -> dict[str, Any]:
    """Return how an arm came to its figure: every name it fails on, or of peft alone how many for which error."""
    return {"not": dict(Counter(failed.values()))} if arm == "peft" else {"decided_by": dict(counts), "not": failed}


def main() -> None:
    """Measure the libraries named, all by default, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=LIBRARIES)
    parser.add_argument("--every", type=int, default=1, help="measure every n-th architecture")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORADAR_HOME"] = home
        Registry.open().close()  # seeded
        report = {library: measure(library, options.every) for library in options.libraries}
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
