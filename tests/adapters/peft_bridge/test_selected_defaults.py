"""Plain peft after ``enable_peft_defaults`` with towers, roles, blocks and ranks of experts."""

import peft
import pytest
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Olmo2Config,
    Qwen3MoeConfig,
)

import loradar
from loradar.errors import InvalidRequest, UnknownName

pytestmark = pytest.mark.usefixtures("read_settings")

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}


def olmo():
    """Return a dense decoder of four blocks."""
    return AutoModelForCausalLM.from_config(Olmo2Config(**SIZES))


def llava():
    """Return a language model that sees."""
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 28, "patch_size": 14, "model_type": "clip_vision_model"}
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(**SIZES), image_token_index=3)
    return LlavaForConditionalGeneration(config)


def sparse():
    """Return a decoder with eight experts, two of which run for a token."""
    experts = {"moe_intermediate_size": 32, "num_experts": 8, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    return AutoModelForCausalLM.from_config(Qwen3MoeConfig(head_dim=8, **experts, **SIZES))


def adapt(model, config=None):
    """Let peft adapt a model, and return the paths it took."""
    peft.get_peft_model(model, config or peft.LoraConfig())
    return [path for path, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (olmo, {"blocks": "last 2", "roles": "mlp.down"}),
        (olmo, {"preset": "all-linear", "blocks": "first 1"}),
        (llava, {"towers": "vision,projector", "preset": "all-linear"}),
        (llava, {"towers": ["vision"], "roles": ["attention.*"]}),
    ],
)
@pytest.mark.parametrize("config", [peft.LoraConfig, peft.LoHaConfig])
def test_peft_adapts_the_layers_of_the_selection(make, given, config):
    """Exactly those that ``get_peft_model`` adapts, by each method of LoRA's family."""
    expected = loradar.get_peft_model(make(), **given).targeted_module_names
    with loradar.enable_peft_defaults(**given) as handle:
        assert adapt(make(), config()) == expected
    assert {**handle.selection.to_query(), "preset": handle.preset}.keys() == {*given, "preset"}


def test_a_selection_comes_before_the_table_of_peft():
    """LLaVA's entry names query and value of every tower."""
    with loradar.enable_peft_defaults(towers="vision"):
        assert all("vision_tower" in path for path in adapt(llava()))


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning")
@pytest.mark.parametrize("given", [{"preset": "recommended"}, {"preset": "all-linear", "expert_rank": "auto"}])
def test_experts_get_a_rank_of_their_own(given):
    """By the rank of the configuration, over the experts that run."""
    config = peft.LoraConfig(r=16, lora_alpha=32)
    with loradar.enable_peft_defaults(**given):
        model = peft.get_peft_model(sparse(), config)
    assert config.rank_pattern == {"gate_up_proj": 8, "down_proj": 8}
    assert config.alpha_pattern == {"gate_up_proj": 16.0, "down_proj": 16.0}
    ours = loradar.get_peft_model(sparse(), r=16, lora_alpha=32, **given)
    assert model.get_nb_trainable_parameters()[0] == ours.get_nb_trainable_parameters()[0]


def test_a_model_without_the_layers_is_left_to_peft_with_what_it_has():
    """PEFT then finds no targets of its own."""
    with (
        loradar.enable_peft_defaults(towers="vision"),
        pytest.warns(UserWarning, match="left to itself, .* transformers:olmo2 has the towers: language"),
        pytest.raises(ValueError, match="Please specify `target_modules`"),
    ):
        adapt(olmo())


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"towers": "eyes"}, UnknownName, "Towers: language, vision"),
        ({"blocks": "some"}, InvalidRequest, "Forms: 'last 8'"),
        ({"budget": "1%"}, InvalidRequest, r"decides the rank, .* loradar.auto_config\(model, budget=...\)"),
        ({"rank": 4}, InvalidRequest, "which each configuration has"),
        ({"layers": 4}, InvalidRequest, "'layers' selects nothing"),
    ],
)
def test_what_cannot_be_selected_is_said_at_once(given, error, says):
    """In one line, and peft stays as it is."""
    before = peft.tuners.tuners_utils.BaseTuner.inject_adapter
    with pytest.raises(error, match=says) as caught:
        loradar.enable_peft_defaults(**given)
    assert "\n" not in caught.value.message
    assert peft.tuners.tuners_utils.BaseTuner.inject_adapter is before
