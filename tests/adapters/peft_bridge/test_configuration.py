"""``auto_config``: a configuration of the real peft for any of its methods, ready for one model."""

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    Olmo2Config,
    Qwen3MoeConfig,
)
from zoo import MLP

import loradar
from loradar.domain.methods import UNTARGETED, list_methods
from loradar.errors import InvalidConfig, MethodDoesNotFit, MissingExtra, UnknownPeftType, UnknownPreset

pytestmark = pytest.mark.usefixtures("read_settings")

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "moe_intermediate_size": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SETTINGS = {
    "ADALORA": {"total_step": 10},
    "C3A": {"block_size": 4},
    "FOURIERFT": {"n_frequency": 8},
    "MISS": {"r": 2},
    "OFT": {"oft_block_size": 4},
    "PSOFT": {"r": 2},
    "ROAD": {"group_size": 4},
    "SHIRA": {"r": 2},
    "VBLORA": {"vector_length": 4},
    "WAVEFT": {"n_frequency": 8},
}
TARGETED = [method.name for method in list_methods() if method.family not in UNTARGETED]
PROMPTS = [method.name for method in list_methods() if method.family == "PROMPT_LEARNING"]


def small(config_class=Olmo2Config, model_class=AutoModelForCausalLM):
    """Build a small random model."""
    return model_class.from_config(config_class(**SMALL))


@pytest.mark.filterwarnings("ignore:Unsupported layer type")  # LN tuning, of any norm but torch's own
@pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension", "ignore:Setting boft_n_butterfly_factor")
@pytest.mark.parametrize("method", TARGETED)
def test_every_method_that_takes_targets_gets_them(method):
    """Peft injects it as it is; what only the caller knows is given by name."""
    model = small()
    if method == "BEFT":  # it trains biases, and olmo2 has none
        model = small(BertConfig, AutoModelForSequenceClassification)
    config = loradar.auto_config(model, method, **SETTINGS.get(method, {}))
    assert isinstance(config, peft.PEFT_TYPE_TO_CONFIG_MAPPING[method])
    adapted = peft.get_peft_model(model, config)
    assert any(isinstance(module, BaseTunerLayer) for module in adapted.modules())


def test_the_targets_are_those_of_our_own_injection():
    """The same layers as ``loradar.get_peft_model``, heads included."""
    ours = loradar.get_peft_model(small(BertConfig, AutoModelForSequenceClassification))
    model = small(BertConfig, AutoModelForSequenceClassification)
    config = loradar.auto_config(model, r=4)
    theirs = peft.get_peft_model(model, config)
    assert theirs.targeted_module_names == ours.targeted_module_names
    assert config.modules_to_save == ["classifier"]
    assert config.r == 4


def test_experts_come_as_parameters():
    """Both of the fused products, and peft can adapt them."""
    model = small(Qwen3MoeConfig)
    config = loradar.auto_config(model, preset="experts")
    assert sorted(config.target_parameters) == ["down_proj", "gate_up_proj"]
    adapted = peft.get_peft_model(model, config)
    assert len(adapted.targeted_parameter_names) == 4


def test_ia3_is_told_its_feed_forward_layers():
    """As a part of its targets."""
    config = loradar.auto_config(small(), "ia3")
    assert config.target_modules == {"k_proj", "v_proj", "down_proj"}
    assert config.feedforward_modules == {"down_proj"}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # peft's hooks, in a model with nothing before it
def test_what_peft_reads_before_it_injects_is_named_in_time():
    """LoRA-GA takes gradients of the targets first: no adapter is there yet, and nothing that fills them in."""
    model, ids = small(), torch.arange(6)[None]
    config = loradar.auto_config(model, r=2, init_lora_weights="lora_ga", lora_ga_config=peft.LoraGAConfig())

    def train():
        model(ids, labels=ids).loss.backward()

    peft.preprocess_loraga(model, config, train)
    assert len(peft.get_peft_model(model, config).targeted_module_names) == 4


def test_targets_given_leave_all_to_the_caller():
    """Nothing is decided beside them."""
    model = small(BertConfig, AutoModelForSequenceClassification)
    config = loradar.auto_config(model, target_modules=["key"])
    assert (config.target_modules, config.modules_to_save) == ({"key"}, None)


@pytest.mark.parametrize("method", PROMPTS)
def test_prompt_learning_is_told_what_peft_would_ask(method):
    """What peft finds by itself where it can: depth, widths, and of a prefix the widths of what is cached."""
    task = {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}
    if method == "CPT":
        task = {"cpt_token_ids": [1, 2, 3], "task_type": "CAUSAL_LM"}
    model = small(LlamaConfig)
    config = loradar.auto_config(model, method, **task)
    told = config.num_layers, config.num_attention_heads, config.token_dim
    cached = method in ("PREFIX_TUNING", "CARTRIDGE")
    assert told == ((2, 2, 8) if cached else (2, 4, 16))
    adapted = peft.get_peft_model(model, config)
    assert (config.num_layers, config.num_attention_heads, config.token_dim) == told
    tasks = {"task_ids": torch.tensor([0])} if method == "MULTITASK_PROMPT_TUNING" else {}
    assert adapted(torch.arange(4)[None], **tasks).logits.shape == (1, 4 if cached else 7, 64)


def test_prompt_learning_asks_for_what_only_the_caller_knows():
    """By name, with an example."""
    with pytest.raises(InvalidConfig, match="give num_virtual_tokens=20, task_type='CAUSAL_LM'"):
        loradar.auto_config(small(), "PROMPT_TUNING")


def test_a_mixture_of_adapters_is_told_the_width():
    """X-LoRA asks for it under another name, and would assume 4096."""
    assert loradar.auto_config(small(), "XLORA", adapters={"one": "folder"}).hidden_size == 16


def test_facts_that_nothing_tells_are_an_error():
    """A multilayer perceptron has no depth and no heads."""
    with pytest.raises(MethodDoesNotFit, match="nothing tells its 'num_layers', 'num_key_value_heads'"):
        loradar.auto_config(MLP(), "PREFIX_TUNING", num_virtual_tokens=3)


def test_an_unknown_method_is_answered_with_all_there_are():
    """The nearest first."""
    with pytest.raises(UnknownPeftType, match=r"Unknown PEFT type 'LORAX'. Closest: 'LORA'.* has: ADALORA, .*XLORA"):
        loradar.auto_config(small(), "lorax")


def test_an_unknown_field_is_answered_with_the_nearest():
    """In the words of the configuration it is for."""
    with pytest.raises(InvalidConfig, match=r"IA3Config has no field .* Closest: 'feedforward_modules'"):
        loradar.auto_config(small(), "IA3", feedforward_module=["x"])


def test_a_preset_the_method_lacks_is_an_error():
    """Asked for by name, it is not replaced."""
    with pytest.raises(UnknownPreset, match="'default'"):
        loradar.auto_config(small(), "IA3", preset="all-linear")


def test_an_adapted_model_is_refused():
    """Its layers are not those to adapt."""
    model = small()
    peft.get_peft_model(model, loradar.auto_config(model))
    with pytest.raises(InvalidConfig, match="carries adapters already"):
        loradar.auto_config(model)


def test_without_peft_the_way_to_install_it_is_named(monkeypatch):
    """The error of a missing extra."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'loradar\[peft\]'"):
        loradar.auto_config(small())
