"""Measure scans of single architectures and of whole libraries against plain builds.

    python bench/scanning.py [--workers N] [--json FILE]

The plain arm builds every architecture on meta with its library's own constructor, in one process, and lists its
layers. The other arms scan the same architectures in worker processes, by names and traced. Every arm runs in a new
process, with its imports. A single architecture is scanned twice in one process; the processor time of the second scan
counts.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PLAIN = {
    "transformers": """
import torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
classes = [getattr(transformers, name) for name in dir(transformers) if name.startswith("AutoModel")]
for model_type in sorted(CONFIG_MAPPING_NAMES):
    try:
        config = AutoConfig.for_model(model_type)
        auto = next(c for c in classes if getattr(c, "_model_mapping", None) and type(config) in c._model_mapping)
        with torch.device("meta"):
            model = auto.from_config(config)
        [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    except Exception:
        continue
    print("built", model_type)
""",
    "timm": """
import timm, torch
for name in timm.list_models():
    with torch.device("meta"):
        model = timm.create_model(name)
    [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    print("built", name)
""",
}
SCAN = """
import json, sys
from functools import partial
from loradar.discovery import How, quiet_libraries
from loradar.discovery.catalog import scan_line
from loradar.sandbox import Bounds, Sandbox
library, method, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
quiet_libraries()
task = partial(scan_line, library=library, how=How(method), summary=None)
with Sandbox(Bounds(workers), nice=0) as sandbox:
    found = [*sandbox.run_each(task, sys.stdin.read().split())]
kept = [json.loads(result[0]) for _, result in found if not isinstance(result, str) and result[1]]
traced = [scan for scan in kept if scan["method"] == "dataflow" and not scan["untraced"]]
print(json.dumps({"scanned": len(kept), "traced": len(traced)}))
"""
ONE = """
import json, sys, time
import torch
from loradar.discovery import quiet_libraries, scan_module, sources
from loradar.errors import LoradarError
from loradar.references import Reference
torch.set_num_threads(1)
quiet_libraries()
library, method = sys.argv[1], sys.argv[2]
seconds = []
for name in sys.stdin.read().split():
    try:
        model = sources.build(Reference.parse(f"{library}:{name}"))
        scan_module(model, method=method)
    except LoradarError:  # nothing to adapt
        continue
    start = time.process_time()
    found = scan_module(model, method=method)
    seconds.append(time.process_time() - start)
print(json.dumps(seconds))
"""


def run(code: str, *arguments: str, names: list[str] | None = None) -> tuple[str, float]:
    """Run Python code in a new process; return its output and its seconds."""
    start = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical"}
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        input=" ".join(names or ()),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout, time.perf_counter() - start


def cover(library: str, workers: int) -> dict[str, Any]:
    """Measure one library."""
    printed, plain = run(PLAIN[library])
    lines = (line.split() for line in printed.splitlines())  # a library may print other lines
    names = [words[1] for words in lines if len(words) == 2 and words[0] == "built"]  # noqa: PLR2004
    report: dict[str, Any] = {"architectures": len(names), "plain_seconds": round(plain, 1)}
    for method in ("names", "auto"):
        printed, seconds = run(SCAN, library, method, str(workers), names=names)
        figures = {"seconds": round(seconds, 1), "plain_over_ours": round(plain / seconds, 2)}
        report[method] = figures | json.loads(printed.splitlines()[-1])
        sample, _ = run(ONE, library, method, names=names[:: max(1, len(names) // 60)])
        report[method]["one_median_ms"] = round(1000 * statistics.median(json.loads(sample.splitlines()[-1])), 1)
    # The largest process so far, without workers, which are forked by their own server.
    report["peak_gigabytes"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6, 2)
    return report


def main() -> None:
    """Measure both libraries and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=["transformers", "timm"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    report = {library: cover(library, options.workers) for library in options.libraries}
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
