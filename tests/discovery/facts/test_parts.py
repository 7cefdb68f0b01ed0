"""The parts of composite models, as their configurations declare them."""

import pytest

from loradar.discovery.facts.parts import list_parts
from loradar.discovery.scanner import read_model
from loradar.discovery.sources import build, make_config
from loradar.discovery.sources.transformers import build_config
from loradar.references import Reference

FREE = {
    "blip-2": {"text": ("opt", "language_model", False)},
    "llava": {
        "vision": ("clip_vision_model", "model.vision_tower", True),
        "text": ("llama", "model.language_model", True),
    },
    "encoder-decoder": {"encoder": ("bert", "encoder", True), "decoder": ("bert", "decoder", False)},
    "rag": {"question_encoder": ("dpr", "rag.question_encoder", False), "generator": ("bart", "rag.generator", False)},
    "musicgen": {"text_encoder": ("t5", "text_encoder", True), "audio_encoder": ("encodec", "audio_encoder", True)},
}
"""Type, path and bareness of the free parts: declared for any type, or, as rag's, not declared at all."""


def parts_of(model):
    """Return the parts of a model by name."""
    return {part.name: part for part in list_parts(model, read_model(model).facts)}


@pytest.mark.parametrize("name", FREE)
def test_the_free_parts_of_a_composite_are_found(name):
    """By the structure of the configuration; fixed ones are listed beside them."""
    parts = parts_of(build(Reference.parse(name)))
    free = {part.name: (part.model_type, part.prefix, part.is_bare) for part in parts.values() if part.is_free}
    assert free == FREE[name]
    if name == "blip-2":
        assert (parts["vision"].model_type, parts["vision"].is_free) == ("blip_2_vision_model", False)


@pytest.mark.parametrize("name", ["clip", "llama", "t5"])
def test_a_model_whose_parts_are_fixed_lists_none(name):
    """Nothing in it can be another model."""
    assert parts_of(build(Reference.parse(name))) == {}


def test_the_parts_of_a_model_at_hand_are_its_own():
    """Not those of the default configuration."""
    model = build_config(make_config("blip-2", {"text_config": {"model_type": "t5"}}))
    assert (parts_of(model)["text"].model_type, parts_of(model)["text"].class_name) == (
        "t5",
        "T5ForConditionalGeneration",
    )
