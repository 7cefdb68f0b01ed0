"""Models of packages that loradar knows nothing of: no name, no configuration, no example inputs."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from foreign_zoo import ZOO
from torch import nn

import loradar
from loradar.domain.vocabulary import CONV_KINDS

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages, when they are imported and run
LAYERS = ("linear", "transposed_linear", *CONV_KINDS)


@pytest.fixture(params=ZOO.values(), ids=ZOO)
def foreign(request):
    """Return each model with what is known of it."""
    return request.param


def built(foreign) -> nn.Module:
    """Return a model; where its package is missing, skip the test, but fail in CI."""
    torch.manual_seed(0)
    try:
        return foreign.build()
    except ModuleNotFoundError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error.name} is not installed: pip install -e '.[foreign]'")


def differentiable(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a result that a loss may be made of."""
    if isinstance(value, torch.Tensor):
        yield from [value] if value.requires_grad else []
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from differentiable(each)


def test_attention_and_heads_are_exact(foreign):
    """Each layer of the attention that an adapter may go on has its role, and nothing else is a head."""
    found = loradar.scan(built(foreign))
    whole = tuple(f"{slot.pattern}." for slot in found.slots if slot.kind == "multihead_attention")
    live = [slot for slot in found.slots if not slot.bypassed and not slot.pattern.startswith(whole)]
    assert {slot.pattern: slot.role for slot in live if slot.role.startswith("attention.")} == foreign.attention
    assert {slot.pattern for slot in live if slot.role == "head" and slot.kind in LAYERS} == foreign.heads


@pytest.mark.usefixtures("seeded_settings")
@pytest.mark.parametrize("preset", ["default", "all-linear"])
def test_every_adapter_of_a_training_step_learns(foreign, preset):
    """Without a configuration; only the weights are made random, since a head of zeros passes no gradient on."""
    model = built(foreign)
    adapted = loradar.get_peft_model(model, preset=preset).train()
    factors = {name: p for name, p in adapted.named_parameters() if "lora_" in name}
    for parameter in adapted.parameters():
        if parameter.requires_grad or (parameter.ndim > 1 and not parameter.any()):
            nn.init.normal_(parameter.data, std=0.1)
    outputs = [*differentiable(adapted(*foreign.inputs()))]
    sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
    assert factors
    assert [name for name, p in factors.items() if p.grad is None or not p.grad.abs().max() > 0] == []
