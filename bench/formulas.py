"""Compare the stated sizes of all proposals with the parameters the installed peft trains.

    python bench/formulas.py [LIBRARY ...] [--every N] [--seconds S] [--rank R] [--json FILE]

Inject every proposal of the catalog, of every family, into a new build of its architecture on meta, and count the
trainable parameters. Where PEFT rejects a proposal, or rewrites the targets before it matches them, record the reason.
"""

import argparse
import json
import time
import warnings
from collections import Counter, defaultdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import peft
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from rich.progress import track

from loradar.catalog.entries import list_catalogs, read_catalog
from loradar.discovery import quiet_libraries, sources
from loradar.domain.scans import Proposal
from loradar.references import Reference
from loradar.sandbox import Bounds, Sandbox
from loradar.schema import to_json

LIBRARIES = ["transformers", "timm", "diffusers"]


def config_of(proposal: Proposal, rank: int) -> Any:
    """Return PEFT's configuration for a proposal."""
    fields = {name: value for name, value in to_json(proposal.spec).items() if value is not None}
    if proposal.peft_type == "LORA":
        fields = {"r": rank, "target_modules": [], **fields}
    if proposal.peft_type == "IA3":
        fields = {"feedforward_modules": [], **fields}
    return PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(proposal.peft_type)](**fields)


def count_trained(model: Any, proposal: Proposal, rank: int) -> tuple[int, bool]:
    """Return the number of parameters PEFT trains in ``model``, and whether it used the targets unchanged."""
    adapted = peft.get_peft_model(model, config_of(proposal, rank), low_cpu_mem_usage=proposal.peft_type == "LORA")
    is_rewritten = bool(
        getattr(adapted.peft_config["default"], "rank_pattern", None)
    )  # the proposal has no rank per layer
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad), not is_rewritten


def judge(reference: str, proposal: Proposal, rank: int) -> tuple[str, str]:
    """Return the outcome for one proposal, with a note unless it is equal."""
    stated = rank * (proposal.per_rank or 0) + (proposal.fixed or 0)
    try:
        counted, as_stated = count_trained(sources.build(Reference.parse(reference)), proposal, rank)
    except (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError, KeyError) as error:
        return "refused", f"{type(error).__name__}: {str(error).partition(chr(10))[0][:160]}"
    if counted == stated:
        return "equal", ""
    return ("differs" if as_stated else "rewritten"), f"stated {stated:,}, trained {counted:,}"


@cache
def published(library: str) -> dict[str, tuple[Proposal, ...]]:
    """Return the proposals of the catalog by architecture, without the subsets of all-linear."""
    file = next(file for file in list_catalogs() if file.name == f"{library}.jsonl")
    return {
        entry.architecture.name: tuple(p for p in entry.proposals if p.preset not in ("attention", "mlp"))
        for entry in read_catalog(file).entries
    }


def judge_all(name: str, library: str, rank: int) -> dict[str, tuple[str, str]]:
    """Return the outcome for every proposal of an architecture, by method and preset."""
    quiet_libraries()
    warnings.simplefilter("ignore")
    proposals = published(library)[name]
    return {f"{p.peft_type} {p.preset}": judge(f"{library}:{name}", p, rank) for p in proposals}


def measure(library: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the outcomes for a library, and notes on the proposals that are not equal."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    notes: dict[str, str] = {}
    start = time.perf_counter()
    names = [name for name, proposals in published(library).items() if proposals][:: options.every]
    task = partial(judge_all, library=library, rank=options.rank)
    bounds = Bounds(seconds=options.seconds)
    with Sandbox(bounds, nice=0) as sandbox:
        for name, judged in track(sandbox.run_each(task, names), total=len(names), description=library):
            found = judged if isinstance(judged, dict) else {"every proposal": ("unfinished", judged)}
            for label, (outcome, note) in found.items():
                outcomes[label][outcome] += 1
                if note:
                    notes[f"{name} {label}"] = f"{outcome}: {note}"
    counts = {label: dict(counter) for label, counter in sorted(outcomes.items())}
    return {"counts": counts, "not_equal": dict(sorted(notes.items())), "seconds": round(time.perf_counter() - start)}


def main() -> None:
    """Measure the libraries named, all by default, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=LIBRARIES)
    parser.add_argument("--every", type=int, default=1, help="measure every n-th architecture")
    parser.add_argument("--seconds", type=float, default=300.0, help="time for one architecture")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    quiet_libraries()
    warnings.simplefilter("ignore")
    report = {library: measure(library, options) for library in options.libraries}
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
