"""How many architectures the scanner has an answer for, and whether the answers are clean and agree with PEFT's.

    python bench/coverage.py [LIBRARY ...] [--json FILE]

For every name a library knows: is it scanned, is there a default proposal, does any preset hit a head, a router, a
norm, an embedding or another tower, does a spec hit exactly the layers meant, and does ``get_peft_model(model)`` adapt
the model (on meta)? For transformers, the default proposals are compared with PEFT's LoRA table, layer by layer; the
scanner never reads that table.
"""

import argparse
import json
import os
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from rich.progress import track

from loradar.adapters import get_peft_model
from loradar.discovery import list_architectures, quiet_libraries, scan_module, sources
from loradar.errors import LoradarError
from loradar.records import Proposal, Scan
from loradar.references import Reference
from loradar.registry import load_constants
from loradar.targets import TargetMatcher, Targets

TABLE = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
NEVER = ("head", "moe.router", "norm", "embedding.token", "embedding.position", "embedding.patch", "projector")


def matched(scan: Scan, targets: Targets | None) -> set[str]:
    """Return the module paths that targets match."""
    matcher = TargetMatcher(targets or ())
    return {path for path in scan.module_paths if path and matcher.find(path)}


def faults(scan: Scan, proposal: Proposal) -> list[str]:
    """Return what is wrong with a proposal; nothing should be."""
    layers = {layer.path: layer for layer in scan.layers}
    hit = [layers.get(path) for path in matched(scan, proposal.spec.target_modules)]
    stacks = TargetMatcher(proposal.spec.target_parameters or ())
    experts = [x for x in scan.layers if x.kind == "expert_parameter" and stacks.find(x.path)]
    found = [f"hits a {layer.role}" for layer in hit if layer and layer.role in NEVER]
    found += ["hits no layer" for layer in hit if layer is None]
    found += ["hits two towers"] if len({layer.tower for layer in (*hit, *experts) if layer}) > 1 else []
    found += [] if len(hit) + len(experts) == proposal.matched else ["is not exact"]
    return found


def cover(library: str) -> dict[str, Any]:
    """Scan a whole library and return the figures."""
    start = time.perf_counter()
    unscanned: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    without: list[str] = []
    differs: dict[str, list[Any]] = {}
    decided: Counter[str] = Counter()
    not_adapted: dict[str, str] = {}
    names = list_architectures(library)
    table = load_constants().tables[TABLE] if library == "transformers" else {}
    for name in track(names, description=library):
        try:
            model = sources.build(Reference.parse(f"{library}:{name}"))
            found = scan_module(model)
        except LoradarError as error:
            unscanned[error.code] += 1
            continue
        try:
            decided[get_peft_model(model).decision.step] += 1
        except LoradarError as error:
            not_adapted[name] = error.message
        bad = [f"{p.preset} {fault}" for p in found.proposals for fault in faults(found, p)]
        wrong |= {name: sorted(set(bad))} if bad else {}
        without += [] if found.proposals else [name]
        theirs = table.get(name)
        if theirs and found.proposals:
            ours = found.propose().spec.target_modules
            if matched(found, ours) != matched(found, tuple(theirs) if isinstance(theirs, list) else theirs):
                differs[name] = [theirs, ours]
    return {
        "names": len(names),
        "scanned": len(names) - unscanned.total(),
        "unscanned": dict(unscanned),
        "without_proposal": without,
        "faulty": wrong,
        "peft_entries_that_differ": differs,
        "adapted": decided.total(),
        "adapted_by": dict(decided),
        "not_adapted": not_adapted,
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> None:
    """Cover the libraries named, all by default, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=["transformers", "timm"])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    quiet_libraries()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORADAR_HOME"] = home
        report = {library: cover(library) for library in options.libraries}
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
