"""Sources: which class stands for a model type, and that nothing but meta is used."""

import pytest

from loradar.discovery import sources
from loradar.errors import ScanFailed
from loradar.references import Reference


def build(text):
    """Build what a reference names."""
    return sources.build(Reference.parse(text))


@pytest.mark.parametrize(
    ("model_type", "class_name"),
    [
        ("bert", "BertForMaskedLM"),  # also in the causal mapping, but trained with masks
        ("bart", "BartForConditionalGeneration"),  # also in both
        ("olmo2", "Olmo2ForCausalLM"),
        ("llava", "LlavaForConditionalGeneration"),
        ("whisper", "WhisperForConditionalGeneration"),
        ("clip", "CLIPModel"),  # classifies with its vision tower alone
        ("vit", "ViTForImageClassification"),
        ("siglip_text_model", "SiglipTextModel"),  # in no auto mapping
        ("kosmos_2_text_model", "Kosmos2TextForCausalLM"),  # nor this, which has three classes
    ],
)
def test_the_class_a_user_would_load(model_type, class_name):
    """The whole model with its usual head."""
    assert type(build(model_type)).__name__ == class_name


@pytest.mark.parametrize("reference", ["olmo2", "timm:resnet18", "torch:zoo:MLP"])
def test_models_are_built_on_meta(reference):
    """No weight is allocated, whatever the size."""
    assert {parameter.device.type for parameter in build(reference).parameters()} == {"meta"}


def test_a_part_without_a_class_says_so():
    """SAM builds its mask decoder itself."""
    with pytest.raises(ScanFailed, match="sam_mask_decoder has no model class of its own"):
        build("sam_mask_decoder")
