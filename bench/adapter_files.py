"""Measure loading and saving of an adapter, loradar against ``peft.PeftModel``, as ratios within one run.

    python bench/adapter_files.py [--rounds N] [--json FILE]

The adapter: rank 8 on every linear of a 32-layer llama of width 128, 448 tensors in peft's file. Each load gets a new
model, built before the timer starts, and each save a new folder.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peft
from arms import alternate, compare, make_parser, print_head, seconds, write
from injection import CASES, build, inject_ours, inject_peft

import loradar.adapters as ours

CASE = next(case for case in CASES if "width 128" in case.name)


def time_loading(load: Callable[..., Any], folder: Path) -> float:
    """Return the seconds to load the adapter into a new model."""
    model, loaded = build(CASE, "cpu"), []
    elapsed = seconds(lambda: loaded.append(load(model, folder)))
    if (found := len(loaded[0].targeted_module_names)) != CASE.layers:
        raise SystemExit(f"{load} adapted {found} layers, not {CASE.layers}.")
    return elapsed


def time_saving(adapted: Any) -> float:
    """Return the seconds to save the adapter."""
    with tempfile.TemporaryDirectory() as folder:
        return seconds(lambda: adapted.save_pretrained(folder))


def main() -> None:
    """Measure both and print the table."""
    options = make_parser(__doc__, 15).parse_args()
    adapted = {"ours": inject_ours(build(CASE, "cpu"), CASE), "peft": inject_peft(build(CASE, "cpu"), CASE)}
    loads = {"ours": ours.PeftModel.from_pretrained, "peft": peft.PeftModel.from_pretrained}
    with tempfile.TemporaryDirectory() as folder:
        adapted["peft"].save_pretrained(folder)
        loading = alternate(
            {arm: partial(time_loading, load, Path(folder)) for arm, load in loads.items()}, options.rounds
        )
    saving = alternate({arm: partial(time_saving, each) for arm, each in adapted.items()}, options.rounds)
    print_head()
    results = [
        compare("loading, s", loading, "peft", "ours", ">= 10"),
        compare("saving, s", saving, "peft", "ours", ">= 3"),
    ]
    write(results, options, tensors=2 * CASE.layers)


if __name__ == "__main__":
    main()
