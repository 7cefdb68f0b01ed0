"""Measure ``get_peft_model(model)`` with targets from the registry against explicit targets.

    python bench/decision.py [CASE ...] [--rounds N] [--json FILE]

Ratios within one run. Every arm gets its own model at full depth on the meta device, built before the timer starts,
and adapts the same layers. CASE selects the cases whose name contains it.
"""

import os
import tempfile
from functools import partial

from arms import Row, alternate, compare, make_parser, print_head, seconds, write
from torch import nn

import loradar
from loradar.discovery import quiet_libraries, sources
from loradar.references import Reference
from loradar.registry import Registry

CASES = {
    "llama": "<= 3",
    "bert": "<= 3",
    "qwen3_moe": "",
    "timm:vit_base_patch16_224": "",
    "diffusers:FluxTransformer2DModel": "",
}
"""References, each with the ratio aimed at."""


def build(reference: str) -> nn.Module:
    """Return a new model on the meta device."""
    return sources.build(Reference.parse(reference))


def time_decision(reference: str, config: loradar.LoraConfig | None) -> float:
    """Return the seconds of one ``get_peft_model`` on a new model."""
    model = build(reference)
    return seconds(lambda: loradar.get_peft_model(model, config))


def measure(reference: str, target: str, rounds: int) -> Row:
    """Return the ratio of decided to explicit targets for one model."""
    adapted = loradar.get_peft_model(build(reference))
    if adapted.decision is None or adapted.decision.step != "registry":
        raise SystemExit(f"{reference}: not decided by the registry.")
    arms = {"decided": None, "explicit": adapted.active_peft_config}
    times = alternate({name: partial(time_decision, reference, config) for name, config in arms.items()}, rounds)
    name = f"{reference}, {len(adapted.targeted_module_names)} layers, meta, s"
    return compare(name, times, "decided", "explicit", target)


def main() -> None:
    """Measure the cases and print the table."""
    parser = make_parser(__doc__, 15)
    parser.add_argument("cases", nargs="*", default=[""])
    options = parser.parse_args()
    quiet_libraries()
    print_head()
    with tempfile.TemporaryDirectory() as home:
        os.environ["LORADAR_HOME"] = home
        Registry.open().close()  # seeded
        chosen = [(name, target) for name, target in CASES.items() if any(word in name for word in options.cases)]
        write([measure(name, target, options.rounds) for name, target in chosen], options)


if __name__ == "__main__":
    main()
