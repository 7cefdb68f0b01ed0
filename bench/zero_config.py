"""Count the architectures that loradar and the installed peft adapt without a configuration, on meta.

    python bench/zero_config.py [LIBRARY ...] [--every N] [--workers N] [--json FILE]

Every architecture of the catalog is built three times: for ``loradar.get_peft_model(model)``, for
``peft.get_peft_model(model, LoraConfig())``, and for the same after ``loradar.enable_peft_defaults()``. An
architecture counts as adapted if it has at least one adapter, and none on a head, router, embedding, norm or
projector, in a tower that the catalog's proposals leave alone, or on a layer proved dead in the catalog.
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import peft
from rich.progress import track

import loradar
from loradar.catalog.entries import CatalogEntry, list_catalogs, read_catalog
from loradar.catalog.lines import count_matches
from loradar.discovery import quiet_libraries, sources
from loradar.domain.layers import Slot
from loradar.domain.patterns import pattern_of
from loradar.errors import LoradarError
from loradar.references import Reference
from loradar.registry import Registry
from loradar.sandbox import Bounds, Sandbox

LIBRARIES = ["transformers", "timm", "diffusers"]
ARMS = ("loradar", "peft", "peft after enable_peft_defaults")
ADAPTED = "adapted"
"""Prefix of the verdict on an adapted architecture; the deciding step may follow."""
OUTSIDE = ("head", "moe.router", "embedding.token", "embedding.position", "embedding.patch", "norm", "projector")
REJECTIONS = (ValueError, NotImplementedError, TypeError, RuntimeError, AttributeError, KeyError)


@cache
def entries(library: str) -> dict[str, CatalogEntry]:
    """Return the catalog's scanned architectures by name."""
    file = next(file for file in list_catalogs() if file.name == f"{library}.jsonl")
    return {entry.architecture.name: entry for entry in read_catalog(file).entries if entry.method}


def judge(name: str, library: str, home: str) -> dict[str, str]:
    """Return the verdict on an architecture in each arm: ``adapted``, or the defect.

    Runs in a worker, which does not inherit environment variables: ``home`` is the folder of the registry.
    """
    os.environ["LORADAR_HOME"] = home
    quiet_libraries()
    warnings.simplefilter("ignore")
    reference = Reference.parse(f"{library}:{name}")
    entry = entries(library)[name]
    towers = find_towers(entry)
    theirs, plain = adapt_by_peft(reference)
    with loradar.enable_peft_defaults():
        both, filled = adapt_by_peft(reference)
    how = "as before" if both == theirs else "anew"
    verdicts = (
        adapt_by_loradar(reference, entry.slots, towers),
        plain or find_misplaced(theirs, entry.slots, towers) or ADAPTED,
        filled or find_misplaced(both, entry.slots, towers) or f"{ADAPTED} {how}",
    )
    return dict(zip(ARMS, verdicts, strict=True))


def find_towers(entry: CatalogEntry) -> frozenset[str]:
    """Return the towers that any proposal of an architecture matches."""
    specs = {proposal.spec for proposal in entry.proposals}
    return frozenset(slot.tower for slot in entry.slots for spec in specs if any(count_matches(spec, [slot]).values()))


def adapt_by_loradar(reference: Reference, slots: Iterable[Slot], towers: frozenset[str]) -> str:
    """Return the deciding step, or the defect."""
    try:
        adapted = loradar.get_peft_model(sources.build(reference))
    except LoradarError as error:
        return error.message
    paths = [*adapted.targeted_module_names, *getattr(adapted, "targeted_parameter_names", ())]
    return find_misplaced(paths, slots, towers) or f"{ADAPTED} by {adapted.decision.step}"


def adapt_by_peft(reference: Reference) -> tuple[list[str], str]:
    """Return the layers and parameters peft adapts without targets, or its error."""
    try:
        adapted = peft.get_peft_model(sources.build(reference), peft.LoraConfig(), low_cpu_mem_usage=True)
    except REJECTIONS as error:
        return [], f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    return [*adapted.targeted_module_names, *adapted.targeted_parameter_names], ""


def find_misplaced(paths: list[str], slots: Iterable[Slot], towers: frozenset[str]) -> str:
    """Return the misplaced adapters by the catalog; empty if there are none."""
    if not paths:
        return "nothing is adapted"
    known: dict[str, list[Slot]] = defaultdict(list)
    for slot in slots:
        known[slot.pattern].append(slot)
    wrong = (_misplaced(pattern, n, known[pattern], towers) for pattern, n in Counter(map(pattern_of, paths)).items())
    return "; ".join(sorted(filter(None, wrong)))


def _misplaced(pattern: str, count: int, slots: list[Slot], towers: frozenset[str]) -> str:
    """Return the defect of the adapters of one pattern, which several slots may share."""
    good = [s for s in slots if s.tower in towers and s.role not in OUTSIDE and s.live is not False]
    if count <= sum(slot.count for slot in good):
        return ""
    bad = next((slot for slot in slots if slot not in good), None)
    if bad is None:
        return f"unknown: {pattern}"
    return f"{bad.role if bad.role in OUTSIDE else 'dead' if bad.live is False else bad.tower}: {pattern}"


def measure(library: str, every: int, workers: int) -> dict[str, Any]:
    """Return the number of adapted architectures of a library in each arm, and the other verdicts."""
    start = time.perf_counter()
    names = [*entries(library)][::every]
    judged: dict[str, dict[str, str]] = {arm: {} for arm in ARMS}
    task = partial(judge, library=library, home=os.environ["LORADAR_HOME"])
    with Sandbox(Bounds(workers=workers), nice=0) as sandbox:
        for name, found in track(sandbox.run_each(task, names), total=len(names), description=library):
            for arm in ARMS:
                judged[arm][name] = found[arm] if isinstance(found, dict) else found
    arms = {arm: summarise(arm, verdicts) for arm, verdicts in judged.items()}
    return {"scanned": len(names), **arms, "seconds": round(time.perf_counter() - start)}


def summarise(arm: str, verdicts: dict[str, str]) -> dict[str, Any]:
    """Return the number adapted in an arm, by deciding step, and the failures: by name, for peft alone by error."""
    good = Counter(verdict for verdict in verdicts.values() if verdict.startswith(ADAPTED))
    failed = {name: verdict for name, verdict in sorted(verdicts.items()) if not verdict.startswith(ADAPTED)}
    errors = dict(Counter(verdict.partition(":")[0] for verdict in failed.values()))
    return {"adapted": good.total(), "how": dict(good), "not": errors if arm == "peft" else failed}


def tabulate(report: dict[str, dict[str, Any]]) -> str:
    """Return the figures as a table."""
    rows = [["library", "architectures", *ARMS]]
    rows += [[name, *(str(n) for n in (found["scanned"], *(found[arm]["adapted"] for arm in ARMS)))]
             for name, found in report.items()]  # fmt: skip
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure the libraries named, all by default, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=LIBRARIES)
    parser.add_argument("--every", type=int, default=1, help="measure every n-th architecture")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at the same time")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORADAR_HOME"] = home
        Registry.open().close()  # seeded
        report = {library: measure(library, options.every, options.workers) for library in options.libraries}
    print(json.dumps(report, indent=2))
    print(tabulate(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
