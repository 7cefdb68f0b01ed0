"""PEFT's own functions on loradar's models, and adapters in a model without a wrapper around it."""

import copy

import peft
import pytest
import torch
from diffusers import UNet2DConditionModel
from peft.helpers import disable_input_dtype_casting
from peft.utils.hotswap import prepare_model_for_compiled_hotswap
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import loradar
from loradar.errors import InvalidConfig

X = torch.arange(4)


class Host(nn.Module):
    """A model with an embedding, two linear layers and a head."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(5, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids):
        """Run the layers."""
        return self.head(self.linear(self.embedding(ids)))


def adapted(package, seed=0, **fields):
    """Return a host of the same weights each time, with an adapter that changes its output."""
    torch.manual_seed(0)
    host = Host()
    torch.manual_seed(seed)
    fields = {"target_modules": ["linear"], "modules_to_save": ["head"], "init_lora_weights": False, **fields}
    return package.get_peft_model(host, package.LoraConfig(**fields)).eval()


def test_state_dicts_go_both_ways():
    """PEFT's functions read and write ours, key for key."""
    fields = {"target_modules": ["linear", "embedding"]}
    ours, theirs = adapted(loradar, **fields), adapted(peft, seed=1, **fields)
    state = loradar.get_peft_model_state_dict(ours)
    assert state.keys() == peft.get_peft_model_state_dict(theirs).keys()
    peft.set_peft_model_state_dict(theirs, state)
    torch.testing.assert_close(theirs(X), ours(X))
    other = adapted(loradar, seed=2, **fields)
    assert not torch.allclose(other(X), ours(X))
    result = loradar.set_peft_model_state_dict(other, peft.get_peft_model_state_dict(theirs))
    torch.testing.assert_close(other(X), ours(X))
    assert not result.unexpected_keys


def test_status_of_the_model_is_pefts():
    """As a function and as a method."""
    ours, theirs = adapted(loradar), adapted(peft)
    assert loradar.get_model_status(ours) == ours.get_model_status() == peft.get_model_status(theirs)
    assert loradar.get_layer_status(ours) == ours.get_layer_status() == theirs.get_layer_status()


def test_scales_are_multiplied_for_a_while():
    """And are restored."""
    ours, theirs = adapted(loradar), adapted(peft)
    before = ours(X)
    with loradar.rescale_adapter_scale(ours, 0.5), loradar.rescale_adapter_scale(theirs, 0.5):
        torch.testing.assert_close(ours(X), theirs(X))
        assert not torch.allclose(ours(X), before)
    torch.testing.assert_close(ours(X), before)


def test_an_adapter_is_swapped_by_peft(tmp_path):
    """Another rank, with factors that are padded for a compiler."""
    fields = {"modules_to_save": None}
    adapted(peft, seed=1, r=4, **fields).save_pretrained(tmp_path)
    models = [adapted(package, **fields) for package in (loradar, peft)]
    for model in models:
        prepare_model_for_compiled_hotswap(model, target_rank=16)
        loradar.hotswap_adapter(model, str(tmp_path), "default")
    torch.testing.assert_close(models[0](X), models[1](X))
    torch.testing.assert_close(models[0](X), adapted(peft, seed=1, r=4, **fields)(X))


def test_the_base_weights_are_read_and_written_under_their_own_names():
    """PEFT's functions for checkpoints of the base model."""
    ours, theirs = adapted(loradar), adapted(peft)
    state = peft.get_base_model_state_dict(ours)
    assert state.keys() == peft.get_base_model_state_dict(theirs).keys() == Host().state_dict().keys()
    changed = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    for model in (ours, theirs):
        peft.set_base_model_state_dict(model, changed)
    torch.testing.assert_close(ours(X), theirs(X))
    assert not peft.get_base_model_state_dict(ours)["linear.weight"].any()


def test_inputs_keep_their_dtype_where_casting_is_switched_off():
    """Layers behind hooks that cast for themselves."""
    model = adapted(loradar, modules_to_save=None).half()
    layer = model.base_model.model.linear
    assert layer.lora_A["default"].weight.dtype == torch.float16
    layer.lora_A.float()
    layer.lora_B.float()
    x = torch.ones(2, 4, dtype=torch.float16)
    assert layer.update(x, "default").dtype == torch.float32
    with disable_input_dtype_casting(model), pytest.raises(RuntimeError, match="dtype"):
        layer.update(x, "default")


# Without a wrapper


def llama():
    """Return a model of transformers."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)).eval()


def fields(**more):
    """Return the fields of a configuration that changes a llama."""
    return {"target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **more}


IDS = torch.arange(8)[None]


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_the_model_itself_comes_back_with_pefts_result():
    """Same layers, values and gradient flags; a further call adds and activates a further adapter."""
    outputs, flags, status = [], [], []
    for package in (loradar, peft):
        model = llama()
        for name, r in (("default", 8), ("other", 4)):
            torch.manual_seed(r)
            assert package.inject_adapter_in_model(package.LoraConfig(**fields(r=r)), model, name) is model
            outputs.append(model(IDS).logits)
            flags.append({name for name, each in model.named_parameters() if each.requires_grad})
            status.append(peft.get_layer_status(model))
        assert [*model.peft_config] == ["default", "other"]
    torch.testing.assert_close(outputs[:2], outputs[2:])
    assert status[0] == status[2]
    assert flags[0] == flags[2]
    assert flags[1] == flags[3] - flags[0]  # PEFT leaves the first trainable too, though nothing runs it


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_injected_adapter_has_the_dtype_of_its_layers(dtype):
    """Half precision too, as in PEFT, where ``get_peft_model`` alone makes it float32."""
    found = []
    for package in (loradar, peft):
        model = package.inject_adapter_in_model(
            package.LoraConfig(**fields(modules_to_save=["lm_head"])), llama().to(dtype)
        )
        found.append({name: each.dtype for name, each in model.named_parameters() if each.requires_grad})
    assert found[0] == found[1]
    assert {*found[0].values()} == {dtype}


def test_a_module_trained_in_full_has_values_while_the_factors_wait():
    """As in PEFT: a state dict may lack it."""
    config = loradar.LoraConfig(**fields(modules_to_save=["lm_head"]))
    model = loradar.inject_adapter_in_model(config, llama(), low_cpu_mem_usage=True)
    assert torch.equal(model.lm_head.modules_to_save["default"].weight, model.lm_head.original_module.weight)
    waiting = {name.split(".")[-3] for name, each in model.named_parameters() if each.is_meta}
    assert waiting == {"lora_A", "lora_B"}


def test_transformers_switches_and_saves_injected_adapters(tmp_path, monkeypatch):
    """Its own methods, which talk to each layer; its file goes into a model of PEFT's."""
    monkeypatch.setattr("transformers.integrations.peft.check_peft_version", lambda **_: None)
    model = llama()
    off = model(IDS).logits
    loradar.inject_adapter_in_model(loradar.LoraConfig(**fields()), model)
    on = model(IDS).logits
    model.disable_adapters()
    torch.testing.assert_close(model(IDS).logits, off)
    model.enable_adapters()
    torch.testing.assert_close(model(IDS).logits, on)
    assert model.active_adapters() == ["default"]
    model.save_pretrained(tmp_path)
    other = llama()
    other.load_adapter(str(tmp_path))
    torch.testing.assert_close(other(IDS).logits, on)
    torch.testing.assert_close(copy.deepcopy(model)(IDS).logits, on)


def test_diffusers_scales_and_switches_injected_adapters():
    """Its own methods, on a network of its own."""
    sizes = {"block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2, "attention_head_dim": 2}
    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    blocks |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=8, cross_attention_dim=8, **sizes, **blocks).eval()
    inputs = torch.randn(1, 4, 8, 8), 1, torch.randn(1, 3, 8)
    off = unet(*inputs).sample
    config = {"target_modules": ["to_q", "to_v"], "init_lora_weights": False}
    loradar.inject_adapter_in_model(loradar.LoraConfig(**config), unet)
    on = unet(*inputs).sample
    unet.set_adapters("default", weights=0.0)
    torch.testing.assert_close(unet(*inputs).sample, off)
    unet.set_adapters("default", weights=1.0)
    torch.testing.assert_close(unet(*inputs).sample, on)
    unet.disable_lora()
    torch.testing.assert_close(unet(*inputs).sample, off)
    unet.enable_lora()
    torch.testing.assert_close(unet(*inputs).sample, on)
    assert not torch.allclose(on, off)


def test_a_state_dict_names_the_layers():
    """The configuration of such a file may be lost; the adapter waits for its values on the meta device."""
    source = adapted(peft, modules_to_save=None)
    state = peft.get_peft_model_state_dict(source)
    host = Host()
    loradar.inject_adapter_in_model(loradar.LoraConfig(), host, low_cpu_mem_usage=True, state_dict=state)
    assert host.linear.lora_A["default"].weight.is_meta
    peft.set_peft_model_state_dict(host, state, low_cpu_mem_usage=True)
    assert torch.equal(host.linear.lora_A["default"].weight, source.linear.lora_A["default"].weight)


def test_a_state_dict_without_an_adapter_is_rejected():
    """The message names what it looked for."""
    with pytest.raises(InvalidConfig, match="holds no lora_A, lora_embedding_A, ia3_l among its 1 keys"):
        loradar.inject_adapter_in_model(loradar.LoraConfig(), Host(), state_dict={"head.weight": X})
