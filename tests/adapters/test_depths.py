"""Models of another depth than the scanned one: the last block is left alone wherever it is."""

import re

import diffusers
import pytest
import torch
import transformers

import loradar
from loradar.adapters import LoraConfig, get_peft_model

pytestmark = pytest.mark.usefixtures("read_settings")

ENDS = re.compile(r"layout_(?:value|output|intermediate)")
"""Layers whose results only the next block's layout stream reads."""


def lilt(depth, task=transformers.LiltForTokenClassification):
    """Return a small model whose layout stream ends before its last block's output."""
    config = transformers.LiltConfig(
        vocab_size=40,
        hidden_size=24,
        num_hidden_layers=depth,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        channel_shrink_ratio=2,
        max_2d_position_embeddings=64,
    )
    return task(config)


def dead_adapters(adapted):
    """Return the adapters without a gradient after one step."""
    ids, boxes = torch.randint(3, 40, (2, 7)), torch.randint(0, 60, (2, 7, 4)).sort(-1).values
    adapted(input_ids=ids, bbox=boxes)[0].square().sum().backward()
    factors = {name: value for name, value in adapted.named_parameters() if "lora_B" in name}
    return sorted(name for name, value in factors.items() if value.grad is None or not value.grad.abs().max() > 0)


@pytest.mark.parametrize("preset", ["default", "attention", "mlp", "all-linear"])
@pytest.mark.parametrize("depth", [2, 3, 5, 14])
def test_the_dead_layers_of_the_last_block_are_left_alone(depth, preset):
    """Those of every other block are adapted, and learn."""
    adapted = get_peft_model(lilt(depth), LoraConfig(r=2), preset=preset)
    stream = [path for path in adapted.targeted_module_names if ENDS.search(path)]
    assert {int(path.split("layer.")[1].split(".")[0]) for path in stream} == {*range(depth - 1)}
    assert not dead_adapters(adapted)


@pytest.mark.parametrize("preset", ["default", "all-linear"])
def test_the_entry_serves_a_class_that_was_not_scanned(preset):
    """The blocks it leaves alone are no layers it misses."""
    adapted = get_peft_model(lilt(4, transformers.LiltModel), LoraConfig(r=2), preset=preset)
    assert adapted.decision.step == "registry"
    assert not dead_adapters(adapted)


def test_the_entry_serves_other_widths():
    """No forward shows that the last block's text queries are dead: they run through one attention with the image's."""
    sizes = {"in_channels": 16, "out_channels": 4, "attention_head_dim": 16, "num_attention_heads": 3}
    model = diffusers.QwenImageTransformer2DModel(
        **sizes, num_layers=4, joint_attention_dim=16, axes_dims_rope=(8, 4, 4)
    )
    adapted = get_peft_model(model, LoraConfig(r=2))
    queries = [path for path in adapted.targeted_module_names if path.endswith("add_q_proj")]
    assert queries == [f"transformer_blocks.{block}.attn.add_q_proj" for block in range(3)]


def test_the_answer_of_the_registry_holds_at_the_scanned_depth_and_says_so():
    """It names the layers for PEFT, and gives the rule for any depth."""
    found = loradar.lookup("lilt")
    assert found.exclude_modules == ("layer.11.attention.self.layout_value",)
    assert found.exclude_blocks == ("layer.[-1 of 12].attention.self.layout_value",)
    assert any("at any depth" in reason for reason in found.reasons)
