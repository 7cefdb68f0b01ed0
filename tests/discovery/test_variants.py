"""Other builds of a model type than its default: classes, branches of the configuration, models inside it."""

import pytest

from loradar.discovery.variants import has_entry, list_variants
from loradar.domain.patterns import pattern_of


def found(model_type):
    """Return the path patterns of the layers of each variant."""
    variants = list_variants(model_type)
    return {one.says: {pattern_of(layer.path) for layer in one.layers} for one in variants}


def test_a_boolean_that_changes_the_layers_is_a_branch():
    """Falcon's blocks have a second norm unless attention and feed-forward run in parallel."""
    layers = found("falcon")
    norm = "transformer.h.*.post_attention_layernorm"
    assert {says for says, patterns in layers.items() if norm in patterns} == {"FalconConfig(parallel_attn=False)"}


def test_another_class_has_another_head():
    """Only one for masked language modelling has a dense layer in ``lm_head``."""
    layers = found("roberta")
    assert "classifier" in layers["RobertaForTokenClassification"]
    assert not any("lm_head.dense" in patterns for patterns in layers.values())


def test_a_free_part_may_be_another_model():
    """Published checkpoints of BLIP-2 have OPT or T5 inside."""
    layers = found("blip-2")["Blip2Config(text_config=t5)"]
    assert "language_model.encoder.block.*.layer.*.SelfAttention.q" in layers


@pytest.mark.parametrize(("name", "known"), [("llama", True), ("edgetam", False)])
def test_only_types_with_an_entry_need_variants(name, known):
    """PEFT's tables list them."""
    assert has_entry(name) is known
    assert list_variants("no such type") == ()
