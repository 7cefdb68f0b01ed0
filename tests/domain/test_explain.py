"""Each layer of a name is explained: its role and evidence, what takes it, and the first cause that leaves it out."""

from dataclasses import replace

import pytest
from zoo import llama

import loradar
from loradar.domain.explaining.explanations import Subject, explain
from loradar.domain.layers import Layer
from loradar.errors import NotRegistered, UnknownLayer
from loradar.registry import Registry


@pytest.fixture
def registry(read_settings):
    """A registry that is read."""
    with Registry.open(read_settings) as opened:
        yield opened


def about(registry, name, layer, library="transformers"):
    """Return the explanation of layers of an architecture."""
    return explain(Subject.of_registry(registry.get_architecture(library, name)), layer)


def choices(explanation):
    """Return the target and the reason of each preset of LoRA, of the first kind of layer."""
    lora = [choice for choice in explanation.layers[0].choices if choice.peft_type == "LORA"]
    return {choice.preset: (choice.target, choice.why) for choice in lora}


@pytest.mark.parametrize(
    ("given", "found_as", "count"),
    [
        ("model.layers.3.self_attn.q_proj", "path", 1),
        ("model.layers.3.self_attn.q_proj.weight", "path", 1),
        ("base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight", "path", 1),
        ("model.layers.*.self_attn.q_proj", "pattern", 32),
        ("model.layers.77.self_attn.q_proj", "deeper path", 32),
        ("q_proj", "name", 32),
        ("self_attn.q_proj", "name", 32),
    ],
)
def test_a_layer_is_found_by_any_of_its_names(registry, given, found_as, count):
    """As it is written in a target, in a file of weights or of an adapter."""
    found = about(registry, "llama", given)
    assert found.found_as == found_as
    (layer,) = found.layers
    assert (layer.pattern, layer.count) == ("model.layers.*.self_attn.q_proj", count)
    assert layer.is_target


def test_each_preset_says_what_it_does_with_a_layer(registry):
    """Its target and source, or what it adapts instead; PEFT's own entry and other methods are named."""
    found = about(registry, "llama", "q_proj")
    assert choices(found)["default"] == ("q_proj", "")
    assert choices(found)["recommended"] == ("q_proj", "")
    assert "every layer of the feed-forward networks" in choices(found)["mlp"][1]
    sources = {choice.source for choice in found.layers[0].choices}
    assert sources == {"peft 0.21.2", "scanner 0.1.0"}
    assert {"ADALORA", "OSF"} <= {choice.peft_type for choice in found.layers[0].choices}


@pytest.mark.parametrize(
    ("name", "layer", "preset", "why"),
    [
        ("llama", "lm_head", "all-linear", "an output head is left as it is"),
        ("llama", "embed_tokens", "everything", "new tokens need modules_to_save"),
        ("llama", "input_layernorm", "default", "LN_TUNING trains norms"),
        ("mixtral", "mlp.gate", "experts", "a router decides which experts run"),
        (
            "llava",
            "vision_tower.encoder.layers.0.mlp.fc1",
            "mlp",
            "the vision tower: only the language tower is adapted",
        ),
        ("wavlm", "q_proj", "all-linear", "its weight is read at modeling_wavlm.py"),
        ("vit", "patch_embeddings.projection", "all-linear", "preset 'everything' adds it"),
    ],
)
def test_the_first_cause_that_holds_is_the_reason(registry, name, layer, preset, why):
    """Of what cannot learn, what is never adapted, and what is elsewhere."""
    target, said = choices(about(registry, name, layer))[preset]
    assert target is None
    assert why in said


def test_a_head_that_is_trained_in_full_is_saved(registry):
    """By every proposal of resnet50."""
    assert about(registry, "resnet50", "fc", "timm").layers[0].saved
    assert not about(registry, "llama", "lm_head").layers[0].saved


def test_a_module_is_explained_by_the_layers_inside(registry):
    """A row of each kind, in the order of the model."""
    found = about(registry, "llama", "model.layers.0.mlp")
    assert found.found_as == "module"
    assert [layer.path.rpartition(".")[2] for layer in found.layers] == ["gate_proj", "up_proj", "down_proj"]
    assert about(registry, "llama", "mlp").layers[0].count == 32


def test_a_name_of_another_model_gives_the_layers_of_its_kind(registry):
    """A slip gives the nearest, and a text like nothing the names there are."""
    with pytest.raises(UnknownLayer, match="Layers of its kind there: query_key_value") as caught:
        about(registry, "gpt_neox", "q_proj")
    assert caught.value.near == ["query_key_value"]
    with pytest.raises(UnknownLayer, match="Closest: 'q_proj'"):
        about(registry, "llama", "qproj")
    with pytest.raises(UnknownLayer, match="Its layers are named embed_tokens"):
        about(registry, "llama", "zzz")


def test_an_architecture_without_layers_on_record_says_how_to_get_them(registry):
    """Known from PEFT's tables alone."""
    detail = replace(registry.get_architecture("transformers", "llama"), slots=())
    with pytest.raises(NotRegistered, match="loradar scan llama --store"):
        explain(Subject.of_registry(detail), "q_proj")


def test_a_scan_gives_the_evidence_of_each_role():
    """By dataflow and by name, the deciding one first."""
    found = loradar.explain(loradar.scan(llama().model), "q_proj")
    (layer,) = found.layers
    assert (found.origin, layer.role_from) == ("scan", "dataflow")
    assert [evidence.by for evidence in layer.evidence] == ["dataflow", "names"]
    assert {choice.source for choice in layer.choices} == {"scan"}


def test_what_no_adapter_fits_says_so():
    """A misfit, a part of an attention that is adapted as a whole, and groups that do not divide the rank."""
    layers = (
        Layer("a.0.attn", "multihead_attention", "", (4, 4), role="attention.qkv"),
        Layer("a.0.attn.out_proj", "linear", "", (4, 4), role="attention.output"),
        Layer("a.0.odd", "linear", "", (4, 4), role="mlp.up", misfit="its forward is its own"),
        Layer("a.0.split", "conv2d", "", (4, 4), groups=3, role="conv.spatial"),
        Layer("a.0.other", "other", "", (4, 4)),
    )
    scan = loradar.scan(llama().model)
    subject = replace(Subject.of_scan(scan), layers=layers)
    whys = [choices(explain(subject, layer.path))["default"][1] for layer in layers[1:]]
    assert whys[0] == "it is a part of an nn.MultiheadAttention, which is adapted as a whole"
    assert whys[1] == "its forward is its own"
    assert whys[2] == "its 3 groups do not divide the rank 8"
    assert whys[3] == "there is no adapter for its kind, other"


def test_any_spelling_of_the_architecture_is_understood(read_settings):
    """As in a lookup; a slip gives its error."""
    assert read_settings
    assert loradar.explain("Qwen/Qwen3-8B", "q_proj").reference == "transformers:qwen3"
    assert loradar.explain("resnet50", "fc", library="timm").reference == "timm:resnet50"
    with pytest.raises(NotRegistered, match="llama"):
        loradar.explain("lama", "q_proj")
