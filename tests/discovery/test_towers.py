"""Towers from configuration structure."""

import pytest
from torch import nn

from loradar.discovery import scan
from loradar.discovery.facts import ModelFacts, SubModel
from loradar.discovery.towers import is_below, map_towers
from loradar.records import Architecture


def facts(*models, vision=False):
    """Return the facts of a model made of these sub-models."""
    return ModelFacts(
        Architecture("torch", "x"), models, frozenset(), frozenset(), frozenset(), is_vision_library=vision
    )


def model(path, config, towers=("language",), base=None):
    """Return a sub-model."""
    main = next(iter(towers), None)
    return SubModel(path, config, frozenset(towers), main, path if base is None else base)


TEXT_AND_IMAGE = ("language", "vision")


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [("model.a", "model", True), ("models.a", "model", False), ("a", "", True), ("model", "model", True)],
)
def test_below_is_by_whole_segments(path, prefix, expected):
    """`models` is not below `model`."""
    assert is_below(path, prefix) is expected


def test_a_plain_module_has_one_unnamed_tower():
    """Nothing says what modality a user's module has."""
    assert map_towers(facts()).find("seq.0") == "main"


def test_all_of_timm_is_vision():
    """The library holds vision models only."""
    assert map_towers(facts(vision=True)).find("blocks.0.attn.qkv") == "vision"


def test_a_text_model_is_one_language_tower_head_included():
    """The base model gives the prefix; what is outside belongs to the same tower."""
    towers = map_towers(facts(model("", "LlamaConfig", base="model"), model("model", "LlamaConfig")))
    assert towers.prefixes == (("model", "language"),)
    assert towers.find("lm_head") == "language"


def test_parts_of_other_configurations_are_towers_and_what_joins_them_projects():
    """A vision-language model falls into its parts."""
    towers = map_towers(
        facts(
            model("", "LlavaConfig", TEXT_AND_IMAGE, base="model"),
            model("model", "LlavaConfig", TEXT_AND_IMAGE),
            model("model.vision_tower", "CLIPVisionConfig", ("vision",)),
            model("model.language_model", "LlamaConfig"),
        )
    )
    assert towers.find("model.language_model.layers.0.q") == "language"
    assert towers.find("model.vision_tower.layers.0.q") == "vision"
    assert towers.find("model.multi_modal_projector.linear_1") == "projector"


def test_a_part_that_takes_both_modalities_joins_them():
    """A Q-Former holds no tower of its own."""
    towers = map_towers(
        facts(
            model("", "Blip2Config", TEXT_AND_IMAGE),
            model("vision_model", "Blip2VisionConfig", ("vision",)),
            model("qformer", "Blip2QFormerConfig", TEXT_AND_IMAGE),
            model("language_model", "OPTConfig", base="language_model.model"),
        )
    )
    assert towers.find("qformer.encoder.layer.0") == "projector"
    assert towers.find("language_model.model.layers.0") == "language"


def test_a_composite_whose_text_stands_in_itself():
    """Where only the vision part has a configuration of its own, the rest is the language tower."""
    towers = map_towers(
        facts(model("", "IdeficsConfig", TEXT_AND_IMAGE), model("vision", "IdeficsVisionConfig", ("vision",)))
    )
    assert towers.find("model.layers.0.self_attn.q_proj") == "language"


@pytest.mark.parametrize(
    ("name", "towers"),
    [
        ("llama", {"language": ("model",)}),
        ("vit", {"vision": ("vit",)}),
        ("whisper", {"audio": ("model",)}),
        ("t5", {"language": ("",)}),
        (
            "llava",
            {
                "language": ("model.language_model",),
                "vision": ("model.vision_tower",),
                "projector": ("model.multi_modal_projector",),
            },
        ),
        (
            "blip-2",
            {
                "language": ("language_model.model",),
                "vision": ("vision_model",),
                "projector": ("qformer", "language_projection"),
            },
        ),
    ],
)
def test_towers_of_real_architectures(name, towers):
    """Prefixes as a user would give them."""
    assert {tower: paths for tower, paths in scan(name).towers.items() if paths} == towers


def test_a_model_inside_a_users_module_keeps_its_tower(small_bert):
    """A wrapper without configuration does not hide what it holds."""
    found = scan(nn.ModuleDict({"encoder": small_bert, "extra": nn.Linear(4, 4)}))
    assert found.towers["language"] == ("encoder.bert",)
    assert {layer.tower for layer in found.layers if layer.path == "extra"} == {"main"}
