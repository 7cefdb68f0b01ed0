"""Sources: which class stands for a model type, and that nothing but meta is used."""

import contextlib
import gc

import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig

from loradar.data import read_facts
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


@pytest.mark.parametrize(
    "reference",
    [
        "dbrx",  # an override of a sub-configuration's field
        "musicgen",  # a composite whose parts have no default
        "sam_mask_decoder",  # a plain module that is in no mapping
        "voxtral_realtime_text",  # its mapping names a class that is not there
        "diffusers:UNet2DConditionModel",
        "diffusers:MultiControlNetModel",  # made of other models
    ],
)
def test_what_a_default_configuration_alone_does_not_build(reference):
    """Overrides, parts and composites build too, on meta as all do."""
    assert {parameter.device.type for parameter in build(reference).parameters()} == {"meta"}


def test_a_part_without_a_class_says_so():
    """No class and no constructor asks for this configuration."""

    class Lone(PreTrainedConfig):
        model_type = "lone_part"

    with pytest.raises(ScanFailed, match="lone_part"):
        sources.build_config(Lone())


def test_a_missing_package_is_a_reason():
    """What cannot be built says why in one line."""
    with pytest.raises(ScanFailed, match=r"layoutlmv2 cannot be built: .*detectron2"):
        build("layoutlmv2")


def test_a_composite_has_its_towers():
    """A composite holds a model of each of its parts' configurations."""
    kinds = {type(module.config).__name__ for module in build("musicgen").modules() if hasattr(module, "config")}
    assert {"T5Config", "EncodecConfig", "MusicgenDecoderConfig"} <= kinds


@pytest.mark.parametrize("library", sources.LISTABLE)
def test_every_override_is_used_and_has_a_reason(library):
    """An override names what its library lists."""
    overrides = read_facts("build_overrides.toml").get(library, {})
    assert set(overrides) <= set(sources.list_names(library))
    assert all(override["reason"] for override in overrides.values())


@pytest.mark.parametrize("library", sources.LISTABLE)
def test_every_library_lists(library):
    """Names are there before anything is built."""
    assert len(sources.list_names(library)) > 100


@pytest.mark.parametrize("reference", ["olmo2", "timm:resnet18", "layoutlmv2", "qwen4_exp"])
def test_building_leaves_nothing_behind(reference):
    """Weights outside are filled as ever and garbage is collected, also after a failure."""
    original = nn.init.normal_
    with contextlib.suppress(ScanFailed):
        build(reference)
    assert nn.init.normal_ is original
    assert gc.isenabled()
    assert nn.init.constant_(torch.empty(3), 2.0).tolist() == [2.0, 2.0, 2.0]
