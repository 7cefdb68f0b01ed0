"""Adapter layers as PEFT's functions and the libraries around PEFT see them."""

import copy
import pickle

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

import loradar


class Host(nn.Module):
    """A model with a layer of every kind."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.linear = nn.Linear(4, 4)
        self.transposed = Conv1D(4, 4)
        self.conv1d, self.conv2d, self.conv3d = nn.Conv1d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv3d(4, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        """Run every layer."""
        x = self.transposed(self.linear(self.embedding(ids))).transpose(1, 2)
        x = self.conv3d(self.conv2d(self.conv1d(x)[..., None])[..., None])[..., 0, 0].transpose(1, 2)
        return self.head(self.attention(x, x, x, need_weights=False)[0])


pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out")
LAYERS = ["embedding", "linear", "transposed", "conv1d", "conv2d", "conv3d", "attention"]
IDS = torch.arange(6).view(2, 3)


def adapted(package, **fields):
    """Return a host with an adapter that changes its output, by loradar or by peft."""
    torch.manual_seed(0)
    config = {"target_modules": LAYERS, "modules_to_save": ["head"], "init_lora_weights": False, **fields}
    return package.get_peft_model(Host(), package.LoraConfig(**config)).eval()


def test_status_of_layers_is_pefts():
    """Names, classes, switches, gradients and devices of every layer, by PEFT's own function."""
    ours, theirs = (peft.get_layer_status(adapted(each)) for each in (loradar, peft))
    assert ours == theirs
    rows = {"target_modules": ["linear"], "trainable_token_indices": {"embedding": [1, 2]}, "use_dora": True}
    ours, theirs = (peft.get_layer_status(adapted(each, **rows)) for each in (loradar, peft))
    assert ours == theirs


@pytest.mark.parametrize("use_rslora", [False, True])
def test_every_layer_states_its_strength_and_sizes_as_peft_does(use_rslora):
    """Per adapter, with patterns, and without one that was deleted."""
    names = ("r", "lora_alpha", "scaling", "use_rslora", "use_dora", "lora_bias", "in_features", "out_features")
    patterns = {"rank_pattern": {"conv2d": 6, "linear": 3}, "alpha_pattern": {"linear": 5, "embedding": 7.5}}
    found = []
    for package in (loradar, peft):
        model = adapted(package, r=4, lora_alpha=10, use_rslora=use_rslora, **patterns)
        second = package.LoraConfig(target_modules=["linear", "transposed"], r=4, use_dora=True)
        model.add_adapter("second", second)
        third = package.LoraConfig(target_modules=["linear"], r=2, lora_bias=True)
        model.add_adapter("third", third)
        model.delete_adapter("third")
        layers = {path: each for path, each in model.named_modules() if hasattr(each, "lora_A")}
        found.append({path: {name: getattr(each, name) for name in names} for path, each in layers.items()})
        assert len(layers) == len(LAYERS) + 1
    ours, theirs = found
    assert ours == theirs
    assert {type(alpha) for layer in ours.values() for alpha in layer["lora_alpha"].values()} == {int, float}


def test_a_weighted_sum_states_the_strength_that_it_has():
    """Its scaling is 1 on every layer, whatever the summed adapters' were."""
    model = adapted(loradar, target_modules=["linear", "conv2d"], r=4, lora_alpha=10, use_rslora=True)
    model.add_weighted_adapter(["default"], [0.5], "sum", combination_type="linear")
    layers = [each for each in model.modules() if isinstance(each, BaseTunerLayer)]
    stated = [(each.r["sum"], each.lora_alpha["sum"], each.use_rslora["sum"], each.scaling["sum"]) for each in layers]
    assert stated == [(4, 4, False, 1.0)] * 2


def test_ia3_layers_are_pefts():
    """Linear and convolution of two dimensions."""
    config = {"target_modules": ["linear", "conv2d"], "feedforward_modules": ["linear"]}
    ours, theirs = (each.get_peft_model(Host(), each.IA3Config(**config)) for each in (loradar, peft))
    assert isinstance(ours.base_model, peft.tuners.IA3Model)
    for path in ("linear", "conv2d"):
        layer, other = ours.get_submodule(f"base_model.model.{path}"), theirs.get_submodule(f"base_model.model.{path}")
        assert isinstance(layer, type(other))
        assert layer.adapter_layer_names == other.adapter_layer_names


def test_a_layer_is_pefts_by_isinstance_and_loradars_by_type():
    """Copies and pickles stay loradar's."""
    model = adapted(loradar)
    assert isinstance(model.base_model, peft.tuners.LoraModel)
    for clone in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - ours
        wrappers = [each for each in clone.modules() if isinstance(each, BaseTunerLayer | AuxiliaryTrainingWrapper)]
        assert len(wrappers) == len(LAYERS) + 2  # out_proj of the attention, and the head
        assert all(type(each).__module__.startswith("loradar.") for each in wrappers)
        assert torch.equal(clone(IDS), model(IDS))


def test_a_class_derived_from_pefts_is_derived_from_loradars():
    """FSDP2 sets the class of a module to one derived from its ``__class__``."""
    model = adapted(loradar)
    expected = model(IDS)
    layer = model.base_model.model.linear
    layer.__class__ = type("Sharded", (layer.__class__,), {"is_sharded": True})
    assert layer.is_sharded
    assert type(layer).__mro__[1].__module__.startswith("loradar.")
    assert torch.equal(model(IDS), expected)


@pytest.mark.parametrize("package", [loradar, peft])
def test_one_layer_is_switched_alone(package):
    """As in PEFT: off, it adds nothing and does not train; on, it does again."""
    model = adapted(package)
    on = model(IDS)
    with model.disable_adapter():
        off = model(IDS)
    layers = [each for each in model.modules() if isinstance(each, BaseTunerLayer)]
    layers[0].enable_adapters(enabled=False)
    assert layers[0].disable_adapters
    assert not any(each.disable_adapters for each in layers[1:])
    assert not any(each.requires_grad for each in layers[0].parameters())
    assert not torch.equal(model(IDS), on)
    for layer in layers[1:]:
        layer.enable_adapters(enabled=False)
    model.base_model.model.head.enable_adapters(enabled=False)
    assert torch.equal(model(IDS), off)
    for layer in (*layers, model.base_model.model.head):
        layer.enable_adapters(enabled=True)
    assert torch.equal(model(IDS), on)


@pytest.mark.parametrize("package", [loradar, peft])
def test_one_layer_activates_another_adapter_until_the_model_switches(package):
    """The next switch of the model holds for every layer."""
    model = adapted(package)
    model.add_adapter("other", package.LoraConfig(target_modules=["linear"], init_lora_weights=False))
    first = model(IDS)
    layer = model.base_model.model.linear
    layer.set_adapter("other")
    assert layer.active_adapters == ["other"]
    assert layer.lora_A["other"].weight.requires_grad
    assert not layer.lora_A["default"].weight.requires_grad
    assert not torch.equal(model(IDS), first)
    model.set_adapter("default")
    assert layer.active_adapters == ["default"]
    assert torch.equal(model(IDS), first)


@pytest.mark.parametrize("package", [loradar, peft])
def test_merging_takes_the_adapters_that_are_active_on_each_layer(package):
    """Also those of a layer that was switched alone, as by PEFT's tests of several active adapters."""
    model = adapted(package, target_modules=["linear"])
    model.add_adapter("other", package.LoraConfig(target_modules=["linear"], init_lora_weights=False))
    model.base_model.model.linear.set_adapter(["default", "other"])
    expected = model(IDS)
    model.merge_adapter()
    assert model.base_model.model.linear.merged_adapters == ["default", "other"]
    torch.testing.assert_close(model(IDS), expected)
    model.unmerge_adapter()
    torch.testing.assert_close(model.merge_and_unload()(IDS), expected)


def test_switching_the_model_off_ends_switches_of_single_layers_with_a_warning():
    """They could not be restored as a whole; PEFT warns too."""
    model = adapted(loradar)
    on = model(IDS)
    layer = model.base_model.model.linear
    layer.enable_adapters(enabled=False)
    with pytest.warns(UserWarning, match="some adapter layers that are enabled and others"), model.disable_adapter():
        assert layer.disable_adapters
    assert not layer.disable_adapters
    assert torch.equal(model(IDS), on)


def test_each_sample_has_its_adapter_on_a_layer_switched_alone():
    """``adapter_names`` comes before the switches."""
    model = adapted(loradar, target_modules=["linear"], modules_to_save=None)
    expected = model(IDS, adapter_names=["default", "__base__"])
    model.base_model.model.linear.set_adapter([])
    torch.testing.assert_close(model(IDS, adapter_names=["default", "__base__"]), expected)
    assert not torch.allclose(model(IDS), expected)


def test_a_container_that_is_not_used_is_there_and_empty():
    """PEFT's layers have them all; code that walks over them reads each."""
    layer = adapted(loradar).base_model.model.linear
    assert not layer.lora_embedding_A
    layer.lora_embedding_A["default"] = nn.Parameter(torch.zeros(1, 1))
    assert "lora_embedding_A" in layer.adapter_layer_names


@pytest.mark.parametrize("package", [loradar, peft])
def test_several_active_adapters_are_a_list_below_the_model(package):
    """PEFT's tuner has one name or a list; a saved module counts the adapters that have a copy of it."""
    model = adapted(package)
    model.add_adapter("other", package.LoraConfig(target_modules=["linear"]))
    model.base_model.set_adapter(["default", "other"])
    assert model.base_model.active_adapter == ["default", "other"]
    assert model.base_model.model.linear.active_adapters == ["default", "other"]
    assert model.base_model.model.head.active_adapters == ["default"]
    assert model.base_model.model.conv2d.in_features == model.base_model.model.conv2d.out_features == 4
