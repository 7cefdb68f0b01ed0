"""How many architectures an adapter goes on when nobody says where: loradar beside the installed peft, on meta.

    python bench/zero_config.py [LIBRARY ...] [--every N] [--json FILE]

Every architecture of the catalog is built twice: for ``loradar.get_peft_model(model)``, whose layers are looked up
among those that the catalog calls dead, and for ``peft.get_peft_model(model, LoraConfig())``.
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
REFUSALS = (ValueError, NotImplementedError, TypeError, RuntimeError, AttributeError, KeyError)


@cache
def entries(library: str) -> dict[str, CatalogEntry]:
    """Return the catalog's scanned architectures by name."""
    file = next(file for file in list_catalogs() if file.name == f"{library}.jsonl")
    return {entry.architecture.name: entry for entry in read_catalog(file).entries if entry.method}


def judge(name: str, library: str) -> dict[str, str]:
    """Return what becomes of an architecture with loradar and with peft, each in a word or a sentence."""
    quiet_libraries()
    warnings.simplefilter("ignore")
    reference = Reference.parse(f"{library}:{name}")
    try:
        adapted = loradar.get_peft_model(sources.build(reference))
    except LoradarError as error:
        ours = error.message
    else:
        slots = [slot for slot in entries(library)[name].slots if slot.kind != "norm"]
        living = {slot.pattern for slot in slots if slot.live is not False}
        dead = {pattern for path in adapted.targeted_module_names if (pattern := pattern_of(path)) not in living}
        ours = f"dead: {sorted(dead)}" if dead else adapted.decision.step
    try:
        peft.get_peft_model(sources.build(reference), peft.LoraConfig(), low_cpu_mem_usage=True)
    except REFUSALS as error:
        theirs = type(error).__name__
    else:
        theirs = "adapted"
    return {"loradar": ours, "peft": theirs}


def measure(library: str, every: int) -> dict[str, Any]:
    """Return how many of a library's architectures are adapted by each, and what else came of them."""
    start = time.perf_counter()
    names = [*entries(library)][::every]
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    failed: dict[str, str] = {}
    task = partial(judge, library=library)  # the catalog and the registry are read before workers are forked
    for name, found in track(work(task, names, library, Bounds()), total=len(names), description=library):
        judged = found if isinstance(found, dict) else {"loradar": found, "peft": "unfinished"}
        theirs[judged["peft"]] += 1
        if judged["loradar"] in ("registry", "fingerprint", "structure", "scan"):
            ours[judged["loradar"]] += 1
        else:
            failed[name] = judged["loradar"]
    return {
        "scanned": len(names),
        "loradar": {"adapted": ours.total(), "decided_by": dict(ours), "not": failed},
        "peft": {"adapted": theirs.pop("adapted", 0), "not": dict(theirs)},
        "seconds": round(time.perf_counter() - start),
    }


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
