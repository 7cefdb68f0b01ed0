"""PEFT's methods as data/methods.toml has them, held to the installed peft."""

import inspect

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

from loradar.domain.methods import UNTARGETED, get_family, get_method, list_methods
from loradar.errors import UnknownPeftType

LAYERS = {
    "linear": lambda: nn.Linear(256, 512),
    "transposed_linear": lambda: Conv1D(512, 256),
    "conv1d": lambda: nn.Conv1d(256, 512, 3),
    "conv2d": lambda: nn.Conv2d(256, 512, 3),
    "conv3d": lambda: nn.Conv3d(64, 64, 3),
    "multihead_attention": lambda: nn.MultiheadAttention(256, 4),
}
GROUPED = {
    "conv1d": lambda: nn.Conv1d(256, 256, 3, groups=2),
    "conv2d": lambda: nn.Conv2d(256, 256, 3, groups=2),
}
DEMANDS = {"IA3": {"feedforward_modules": []}, "ADALORA": {"total_step": 100}, "C3A": {"block_size": 64}}
REFUSALS = (ValueError, TypeError, NotImplementedError, KeyError, AttributeError)
TARGETED = [method for method in list_methods() if method.family not in UNTARGETED]
ON_LAYERS = [method for method in TARGETED if method.name != "LN_TUNING"]


def config_class(method):
    """Return PEFT's configuration of a method."""
    return PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method.name)]


def adapts(method, make_layer):
    """Tell whether PEFT adapts a model of two such layers."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"x": make_layer()}) for _ in range(2)])})
    try:
        config = config_class(method)(target_modules=["x"], **DEMANDS.get(method.name, {}))
        adapted = peft.get_peft_model(model, config)
    except REFUSALS:
        return False
    return any(parameter.requires_grad for parameter in adapted.parameters())


def test_every_method_of_peft_is_known_and_no_other():
    """A new PEFT with a new method fails here."""
    assert {method.name for method in list_methods()} == {kind.value for kind in peft.PeftType}
    assert all(get_family(method.family).says for method in list_methods())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ON_LAYERS, ids=lambda method: method.name)
def test_a_method_adapts_exactly_the_kinds_it_is_said_to(method):
    """Asked of PEFT itself, layer by layer."""
    assert {kind for kind, make in LAYERS.items() if adapts(method, make)} == method.kinds


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [m for m in ON_LAYERS if m.kinds & GROUPED.keys()], ids=lambda method: method.name)
def test_a_method_adapts_grouped_convolutions_if_it_is_said_to(method):
    """On every kind of convolution it adapts at all."""
    found = {adapts(method, make) for kind, make in GROUPED.items() if kind in method.kinds}
    assert found == {method.grouped}


@pytest.mark.parametrize("method", TARGETED, ids=lambda method: method.name)
def test_exclusion_is_a_field_where_it_is_said_to_be(method):
    """Its configuration has `exclude_modules`, or not."""
    assert ("exclude_modules" in inspect.signature(config_class(method)).parameters) == method.exclusion


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", [m for m in ON_LAYERS if m.sized_alike], ids=lambda method: method.name)
def test_a_method_of_the_same_size_trains_as_much_as_lora(method):
    """Same rank, same layer, same count."""
    counts = []
    for name in ("LORA", method.name):
        model = nn.ModuleDict({"x": nn.Linear(256, 512)})
        adapted = peft.get_peft_model(model, config_class(get_method(name))(target_modules=["x"], r=4))
        counts.append(sum(p.numel() for p in adapted.parameters() if p.requires_grad))
    assert counts[0] == counts[1] == 4 * (256 + 512)


def test_a_method_is_found_in_any_case_and_a_wrong_one_is_answered_with_the_nearest():
    """A typo costs one more look."""
    assert get_method("lokr").name == "LOKR"
    with pytest.raises(UnknownPeftType, match=r"Unknown PEFT type 'LORRA'. Closest: 'LORA'"):
        get_method("LORRA")
