"""Whether every size the scanner states is what the installed peft trains: one injection on meta per proposal.

    python bench/formulas.py [LIBRARY ...] [--every N] [--rank R] [--json FILE]

Every proposal of every family is injected into a fresh build of its architecture and the trainable parameters are
counted. Where PEFT refuses, or rewrites the targets before it matches them, the reason is kept instead.
"""

import argparse
import json
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import peft
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from rich.progress import track

from loradar.discovery import list_architectures, quiet_libraries, scan_module, sources
from loradar.errors import LoradarError
from loradar.records import Proposal
from loradar.references import Reference

LIBRARIES = ["transformers", "timm", "diffusers"]
FAMILIES = ("LORA", "IA3", "LN_TUNING", "OSF", "BEFT")


def config_of(proposal: Proposal, rank: int) -> Any:
    """Return PEFT's configuration for a proposal."""
    fields = {name: value for name, value in proposal.spec.to_dict().items() if value is not None}
    if proposal.peft_type == "LORA":
        fields = {"r": rank, "target_modules": [], **fields}
    if proposal.peft_type == "IA3":
        fields = {"feedforward_modules": [], **fields}
    return PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(proposal.peft_type)](**fields)


def count_trained(model: Any, proposal: Proposal, rank: int) -> tuple[int, bool]:
    """Return how many parameters PEFT trains in ``model``, and whether it took the targets as they are."""
    adapted = peft.get_peft_model(model, config_of(proposal, rank), low_cpu_mem_usage=proposal.peft_type == "LORA")
    is_rewritten = bool(getattr(adapted.peft_config["default"], "rank_pattern", None))  # no rank was asked for by layer
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad), not is_rewritten


def judge(reference: str, proposal: Proposal, rank: int) -> tuple[str, str]:
    """Return the outcome for one proposal and what is to be said of it."""
    stated = rank * (proposal.per_rank or 0) + (proposal.fixed or 0)
    try:
        counted, as_stated = count_trained(sources.build(Reference.parse(reference)), proposal, rank)
    except (ValueError, TypeError, RuntimeError, AttributeError, NotImplementedError, KeyError) as error:
        return "refused", f"{type(error).__name__}: {str(error).partition(chr(10))[0][:160]}"
    if counted == stated:
        return "equal", ""
    return ("differs" if as_stated else "rewritten"), f"stated {stated:,}, trained {counted:,}"


def measure(library: str, every: int, rank: int) -> dict[str, Any]:
    """Return the outcomes over a library, and what is not equal."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    said: dict[str, str] = {}
    start = time.perf_counter()
    for name in track(list_architectures(library)[::every], description=library):
        reference = f"{library}:{name}"
        try:
            found = scan_module(sources.build(Reference.parse(reference)), method="auto")
        except LoradarError:
            outcomes["unscanned"]["unscanned"] += 1
            continue
        for proposal in found.proposals:
            if proposal.preset in ("attention", "mlp"):
                continue  # subsets of all-linear
            what = f"{proposal.peft_type} {proposal.preset}"
            outcome, note = judge(reference, proposal, rank)
            outcomes[what][outcome] += 1
            if note:
                said[f"{name} {what}"] = f"{outcome}: {note}"
    counts = {what: dict(counter) for what, counter in sorted(outcomes.items())}
    return {"counts": counts, "not_equal": said, "seconds": round(time.perf_counter() - start)}


def main() -> None:
    """Measure the libraries named, all by default, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=LIBRARIES)
    parser.add_argument("--every", type=int, default=1, help="measure every n-th architecture")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    quiet_libraries()
    warnings.simplefilter("ignore")
    report = {library: measure(library, options.every, options.rank) for library in options.libraries}
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
