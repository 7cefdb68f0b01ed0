"""Measure one injection, loradar against ``peft.get_peft_model``, as a ratio within one run.

    python bench/injection.py [CASE ...] [--rounds N] [--json FILE]

Every arm gets the same targets and its own model, built before the timer starts. On meta, peft's option for such
models (``low_cpu_mem_usage``) is a third arm. On the CPU the adapters are initialised, but the weights of the model
are only allocated, because no arm reads them; they are bfloat16 where float32 would not fit. CASE selects the cases
whose name contains it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import peft
import timm
import torch
from arms import Row, alternate, compare, make_parser, print_head, seconds, write
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    NllbMoeConfig,
    NllbMoeForConditionalGeneration,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging

import loradar.adapters as ours

QV = ("q_proj", "v_proj")
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
NARROW = {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 1000,
}
LARGE = 1_000_000_000
"""Number of parameters above which a model on the CPU is bfloat16."""


class Experts(nn.Module):
    """A mixture of unfused experts; transformers 5.23 has fused those of all its decoders."""

    def __init__(self, layers: int = 8, experts: int = 128, width: int = 512) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(layers):
            attention = nn.ModuleDict({name: nn.Linear(width, width) for name in QKVO})
            each = [nn.ModuleDict({name: nn.Linear(width, width) for name in MLP}) for _ in range(experts)]
            mlp = nn.ModuleDict({"gate": nn.Linear(width, experts), "experts": nn.ModuleList(each)})
            self.layers.append(nn.ModuleDict({"self_attn": attention, "mlp": mlp}))


def llama(**size: int) -> nn.Module:
    """Return a llama of 32 layers, of 7B parameters unless ``size`` narrows it."""
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=32, **size))


class Case(NamedTuple):
    """A model with its targets and number of adapted layers, and the ratios aimed at (``None``: not run)."""

    name: str
    make: Callable[[], nn.Module]
    targets: tuple[str, ...]
    layers: int
    meta: str | None = ">= 12"
    cpu: str | None = ""


CASES = (
    Case("llama 32 layers, q v", llama, QV, 64),
    Case("llama 32 layers, all-linear", llama, QKVO + MLP, 224, ">= 25", ">= 3"),
    Case("llama 32 layers of width 128, all-linear", partial(llama, **NARROW), QKVO + MLP, 224, None, ">= 10"),
    Case("qwen3_moe 24 layers, q k v o", lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig()), QKVO, 96),
    Case(
        "nllb-moe, all-linear",
        lambda: NllbMoeForConditionalGeneration(NllbMoeConfig()),
        ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "classifier"),  # peft's own all-linear, with routers
        1722,
    ),
    Case("poolformer_m36, mlp", lambda: timm.create_model("poolformer_m36"), ("fc1", "fc2"), 72),
    Case("8 layers of 128 experts, all-linear", Experts, QKVO + MLP, 3104, ">= 25"),
)


def build(case: Case, device: str) -> nn.Module:
    """Return a new model without initialised weights."""
    with torch.device("meta"), no_init_weights():
        model = case.make()
    if device == "meta":
        return model
    is_large = sum(parameter.numel() for parameter in model.parameters()) > LARGE
    return (model.bfloat16() if is_large else model).to_empty(device=device)


def inject_ours(model: nn.Module, case: Case) -> Any:
    """Inject with loradar."""
    return ours.inject(model, ours.LoraConfig(target_modules=case.targets))


def inject_peft(model: nn.Module, case: Case, **how: bool) -> Any:
    """Inject with peft."""
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=list(case.targets)), **how)


ARMS = {"ours": inject_ours, "peft": inject_peft, "peft low": partial(inject_peft, low_cpu_mem_usage=True)}


def time_injection(arm: str, case: Case, device: str) -> float:
    """Return the seconds of one injection into a new model."""
    model, adapted = build(case, device), []
    elapsed = seconds(lambda: adapted.append(ARMS[arm](model, case)))
    if (found := len(adapted[0].targeted_module_names)) != case.layers:
        raise SystemExit(f"{case.name}: {arm} adapted {found} layers, not {case.layers}.")
    return elapsed


def measure(case: Case, device: str, target: str, rounds: int) -> list[Row]:
    """Return the ratios of the other arms to ours for one case."""
    names = [name for name in ARMS if device == "meta" or name != "peft low"]
    times = alternate({name: partial(time_injection, name, case, device) for name in names}, rounds)
    name = f"{case.name}, {device}, s"
    return [compare(name, times, other, "ours", target if other == "peft" else "") for other in names[1:]]


def main() -> None:
    """Measure the cases and print the table."""
    parser = make_parser(__doc__, 7)
    parser.add_argument("cases", nargs="*", default=[""])
    options = parser.parse_args()
    logging.set_verbosity_error()
    print_head()
    results = []
    for case in CASES:
        for device, target in (("meta", case.meta), ("cpu", case.cpu)):
            if target is not None and any(word in f"{case.name}, {device}" for word in options.cases):
                results += measure(case, device, target, options.rounds)
    write(results, options)


if __name__ == "__main__":
    main()
