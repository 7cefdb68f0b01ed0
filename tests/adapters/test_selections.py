"""``get_peft_model`` and ``auto_config`` with towers, roles, blocks, ranks and a budget."""

import peft
import pytest
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import loradar
from loradar.adapters.injection.host_model import unwrapped
from loradar.errors import InvalidConfig, InvalidRequest, UnknownName

pytestmark = pytest.mark.usefixtures("read_settings")

SIZES = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 100}


def olmo():
    """Return a dense decoder of four blocks."""
    return Olmo2ForCausalLM(Olmo2Config(intermediate_size=128, **SIZES))


def sparse():
    """Return a decoder with eight experts, two of which run for a token."""
    experts = {"moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(num_key_value_heads=2, head_dim=16, **experts, **SIZES))


def count(model):
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_ones_own_numbers_go_with_automatic_targets():
    """The fields of the configuration beside the model, or in a configuration without targets."""
    adapted = loradar.get_peft_model(olmo(), r=16, lora_alpha=32, lora_dropout=0.05, use_rslora=True)
    config = adapted.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora) == (16, 32, 0.05, True)
    assert config.target_modules == {"q_proj", "v_proj"}
    again = loradar.get_peft_model(olmo(), loradar.LoraConfig(r=16), lora_alpha=4).peft_config["default"]
    assert (again.r, again.lora_alpha, again.target_modules) == (16, 4, {"q_proj", "v_proj"})


def test_blocks_and_roles_are_resolved_on_the_model_at_hand():
    """Four blocks, not those of the registry's entry."""
    adapted = loradar.get_peft_model(olmo(), blocks="last 2", roles="mlp.down")
    assert adapted.targeted_module_names == ["model.layers.2.mlp.down_proj", "model.layers.3.mlp.down_proj"]
    assert adapted.decision.says == "live scan, preset 'default', roles mlp.down, blocks last 2"


def test_a_tower_is_adapted_instead_of_the_language_model():
    """With the projector, where it is named."""
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 28, "patch_size": 14, "model_type": "clip_vision_model"}
    text = LlamaConfig(intermediate_size=64, **SIZES)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=3))
    adapted = loradar.get_peft_model(model, preset="all-linear", towers=["vision", "projector"])
    towers = {path.split(".")[1] for path in adapted.targeted_module_names}
    assert towers == {"vision_tower", "multi_modal_projector"}


BLIND = pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning")
"""peft 0.21.2 warns of patterns for bare parameters, which it looks for among the modules alone, and applies them."""


@BLIND
@pytest.mark.parametrize("budget", [2_500, 20_000, 60_000, "5%"])
def test_a_budget_is_used_and_never_exceeded(budget):
    """Counted on the model, by ours and by PEFT."""
    base = count(sparse())
    limit = base * 5 // 100 if budget == "5%" else budget
    adapted = loradar.get_peft_model(sparse(), budget=budget, expert_rank="auto")
    theirs = peft.get_peft_model(sparse(), loradar.auto_config(sparse(), budget=budget, expert_rank="auto"))
    assert 0.9 * limit <= count(adapted) <= limit
    assert count(theirs) == count(adapted)


UNCOUNTED = {
    "use_dora": True,
    "lora_bias": True,
    "bias": "all",
    "modules_to_save": ["lm_head"],
    "rank_pattern": {"v": 64},
}


@pytest.mark.parametrize("field", [{name: value} for name, value in UNCOUNTED.items()], ids=UNCOUNTED)
@pytest.mark.parametrize("call", [loradar.get_peft_model, loradar.auto_config])
def test_a_budget_is_not_exceeded_by_what_it_does_not_count(call, field):
    """PEFT's configuration came back larger than the budget, without a word."""
    with pytest.raises(InvalidConfig, match=rf"{next(iter(field))}=.* trains another number: leave it out, or give r"):
        call(sparse(), budget="5%", **field)


@BLIND
def test_experts_are_ranked_and_scaled_by_the_experts_that_run():
    """At half the rank the alpha is half, too, so that the scaling is that of the other layers."""
    config = loradar.auto_config(sparse(), preset="all-linear", expert_rank="auto", r=8, lora_alpha=16)
    assert config.rank_pattern == {"gate_up_proj": 4, "down_proj": 4}
    assert config.alpha_pattern == {"gate_up_proj": 8.0, "down_proj": 8.0}
    adapted = loradar.get_peft_model(sparse(), preset="all-linear", expert_rank="auto", r=8, lora_alpha=16)
    assert count(adapted) == count(peft.get_peft_model(sparse(), config))
    assert adapted.peft_config["default"].rank_pattern == config.rank_pattern


def test_experts_keep_the_common_rank_by_default():
    """As in PEFT."""
    assert loradar.get_peft_model(sparse(), preset="all-linear").peft_config["default"].rank_pattern == {}


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"presset": "mlp"}, InvalidConfig, "no field 'presset'. Closest: 'preset'"),
        ({"lora_alfa": 4}, InvalidConfig, "Closest: 'lora_alpha'"),
        ({"towers": "vision"}, UnknownName, "transformers:olmo2 has the towers: language"),
        ({"r": 4, "budget": 100}, InvalidConfig, "both decide the rank"),
        ({"budget": 25}, InvalidRequest, "its smallest adapter trains 1,024 parameters"),
        ({"target_modules": ["q_proj"], "towers": "language"}, InvalidConfig, "leave one of both out"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(given, error, says):
    """With the way out."""
    with pytest.raises(error, match=says):
        loradar.get_peft_model(olmo(), **given)


def test_a_further_adapter_without_targets_is_decided_as_the_first() -> None:
    """On the model without adapters; shorthands and merged adapters included, and nothing else is changed."""
    model = loradar.get_peft_model(olmo(), loradar.LoraConfig(target_modules=["down_proj"]))
    model.merge_adapter()
    before = {path: id(module) for path, module in model.named_modules()}
    with unwrapped(model.get_base_model()) as plain:
        assert not any("lora" in path for path, _ in plain.named_modules())
    assert {path: id(module) for path, module in model.named_modules()} == before
    model.unmerge_adapter()
    expected = loradar.get_peft_model(olmo())
    model.add_adapter("decided", loradar.LoraConfig())
    assert model.adapter_state("decided").keys() == expected.adapter_state().keys()
    model.add_adapter("all", loradar.LoraConfig(target_modules="all-linear"))
    whole = loradar.get_peft_model(olmo(), loradar.LoraConfig(target_modules="all-linear"))
    assert model.adapter_state("all").keys() == whole.adapter_state().keys()
