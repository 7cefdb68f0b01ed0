"""Small real builds: every slot survives, weights are real and always the same, and the process is left as it was."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig

from loradar.data import read_facts
from loradar.discovery import list_layers, sources
from loradar.discovery.meta_run.running import run_model
from loradar.discovery.small_builds import small_builds
from loradar.discovery.small_builds.builds import structure
from loradar.discovery.small_builds.config_tree import list_sections, meaning_of, replaced
from loradar.discovery.small_builds.shrink import fewer_experts, fewer_tokens, shallowed
from loradar.discovery.small_builds.widths import narrowed
from loradar.discovery.sources.recipes import Recipe
from loradar.discovery.sources.timm import find_recipe
from loradar.discovery.sources.weights import filled, wake
from loradar.domain.patterns import pattern_of
from loradar.errors import InvalidReference, ScanFailed
from loradar.references import Reference

# Different in structure: dense, rotary sections in two towers, experts after dense layers, a hybrid with a period, two
# stacks, transposed layers, a convolutional stem, a part without a class, two image models, a U-Net.
ARCHITECTURES = [
    "llama",
    "qwen2_vl",
    "deepseek_v3",
    "jamba",
    "t5",
    "gpt2",
    "wav2vec2",
    "sam_mask_decoder",
    "timm:swin_base_patch4_window7_224",
    "timm:resnet18",
    "diffusers:FluxTransformer2DModel",
    "diffusers:UNet2DConditionModel",
]


def smallest(text):
    """Build what a reference names in full, on meta, and the smallest real build of it."""
    reference = Reference.parse(text)
    layers = list_layers(sources.build(reference))
    return layers, next(small_builds(reference, layers))


def slots(layers):
    """Return the slots of layers."""
    return {(pattern_of(layer.path), layer.kind) for layer in layers}


@pytest.mark.parametrize("text", ARCHITECTURES)
def test_every_slot_survives_with_real_weights(text):
    """A small build is worth nothing if an adapter of the full model has no place on it."""
    layers, small = smallest(text)
    assert slots(list_layers(small.model)) == slots(layers)
    parameters = [*small.model.parameters()]
    assert {(held.device.type, held.dtype) for held in parameters} == {("cpu", torch.float32)}
    assert all(bool(held.isfinite().all()) and bool(held.any()) for held in parameters)
    assert sum(held.numel() for held in parameters) <= 50_000_000


@pytest.mark.parametrize("text", ["llama", "qwen2_vl", "t5", "jamba"])
def test_a_small_build_runs(text):
    """Heads, rotary sections and states still fit each other."""
    _, small = smallest(text)
    runs = run_model(small.model, torch.no_grad)
    assert any(run.path == "" and run.error is None for run in runs), runs


def test_the_builds_grow_up_to_the_full_model():
    """Whoever cannot use the smallest gets larger ones, each with its size in words."""
    reference = Reference.parse("timm:vit_small_patch16_224")
    full = sources.build(reference)
    builds = [*small_builds(reference, [*list_layers(full)] * 9)]  # as if it were too deep to be taken as it is
    sizes = [sum(held.numel() for held in build.model.parameters()) for build in builds]
    assert builds[0].says == "1/8 of its widths, 2 layers of each stack, or as many as it has kinds"
    assert sizes[0] == min(sizes)
    assert builds[-1].says == "as it is"
    assert sizes[-1] == sum(held.numel() for held in full.parameters())
    assert builds[0].input_size == (3, 224, 224)


def test_what_is_small_is_taken_as_it_is():
    """A convolutional model takes any image, so a small one is enough."""
    _, small = smallest("timm:resnet18")
    assert (small.says, small.input_size) == ("as it is", (3, 96, 96))


def test_the_same_weights_every_time():
    """A proof can be repeated."""
    first, second = (smallest("jamba")[1].model.state_dict() for _ in range(2))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_the_random_states_are_left_as_they_are():
    """A user's seeds go on as if nothing had been built."""
    states = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    smallest("gpt2")
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_fills_have_the_spread_asked_for():
    """The numbers come from a pool, but are what the model wanted."""
    with filled():
        narrow, even = torch.empty(200, 300), nn.init.uniform_(torch.empty(100, 100), 2.0, 4.0)
        narrow.normal_(1.0, 0.5)
        linear = nn.Linear(400, 100)
    assert narrow.mean().item() == pytest.approx(1.0, abs=0.01)
    assert narrow.std().item() == pytest.approx(0.5, abs=0.01)
    assert 2.0 <= even.min().item() < 2.1
    assert 3.9 < even.max().item() <= 4.0
    assert linear.weight.abs().max().item() == pytest.approx(400**-0.5, rel=0.01)


def test_a_fill_longer_than_the_pool_goes_around_it():
    """A large embedding takes more numbers than the pool has."""
    with filled():
        weight = torch.empty(3000, 3001).uniform_()
    assert bool(weight.all(dim=1).any())
    assert weight[-1].std().item() > 0.2


def test_what_starts_at_zero_is_woken():
    """Behind a gate that starts at zero, every adapter would look dead."""
    model = nn.ParameterDict({"gate": nn.Parameter(torch.zeros(4)), "scale": nn.Parameter(torch.ones(4))})
    model["broken"] = nn.Parameter(torch.full((4,), float("nan")))
    with filled():
        wake(model)
    assert 0 < model["gate"].abs().max().item() < 0.2
    assert model["scale"].tolist() == [1.0] * 4
    assert bool(model["broken"].isfinite().all())


def test_a_sparse_parameter_is_left_alone():
    """One number that is not zero is a value somebody chose."""
    model = nn.ParameterList([nn.Parameter(torch.zeros(100_000))])
    with torch.no_grad():
        model[0][77] = 1.0
    with filled():
        wake(model)
    assert model[0].sum().item() == 1.0


def test_heads_go_on_dividing_widths():
    """A head keeps eight of its width, a multiple of four."""
    settings = {"hidden_size": 1152, "num_attention_heads": 16, "intermediate_size": 4304}
    changes, factors = narrowed(list_sections(settings), 64)
    assert (changes[("hidden_size",)], factors) == (128, {9})


def test_rotary_sections_add_up_to_half_a_head():
    """Equal sections stay equal, since some models pair them."""
    settings = {"head_dim": 128, "rope_parameters": {"mrope_section": [22, 22, 20]}}
    changes, _ = narrowed(list_sections(settings), 64)
    assert changes[("head_dim",)] == 8
    assert changes["rope_parameters", "mrope_section"] == [1, 1, 2]


def test_what_leaves_an_encoder_is_as_wide_as_the_text_model():
    """Where a default says another width, the features would not fit in the places of the text that wait for them."""
    settings = {
        "text_config": {"hidden_size": 8192, "num_attention_heads": 64},
        "vision_config": {"hidden_size": 1280, "num_heads": 16, "out_hidden_size": 3584},
    }
    changes, _ = narrowed(list_sections(settings), 64)
    assert changes["vision_config", "out_hidden_size"] == changes["text_config", "hidden_size"] < 8192


def test_a_layer_may_name_itself():
    """A list of every layer's own index does not keep a stack deep."""
    settings = {"num_hidden_layers": 72, "kv_source_layers": [*range(72)]}
    assert shallowed(list_sections(settings), 2) == {("num_hidden_layers",): 2, ("kv_source_layers",): [0, 1]}


def test_what_is_too_large_as_it_is_goes_on_to_smaller_builds(monkeypatch):
    """A small part may have to be built inside a model that no memory holds."""
    reference = Reference.parse("transformers:gemma4_unified_audio")
    layers = list_layers(sources.build(reference))
    build = Recipe.build_filled

    def refuse(recipe, change):
        if change is copy.deepcopy:
            raise ScanFailed("no memory", reference=recipe.reference)
        return build(recipe, change)

    monkeypatch.setattr(Recipe, "build_filled", refuse)
    assert next(small_builds(reference, layers)).says.startswith("1/64 of its widths")


def test_a_stack_keeps_every_kind_of_layer():
    """Per-layer lists are cut together with the stack, no shorter than their kinds."""
    settings = {"num_hidden_layers": 12, "layer_types": ["a", "a", "a", "b"] * 3, "first_k_dense_replace": 1}
    assert shallowed(list_sections(settings), 2) == {
        ("num_hidden_layers",): 4,
        ("layer_types",): ["a", "a", "a", "b"],
    }


def test_marked_layers_are_renumbered():
    """Some layers stay marked and some do not."""
    settings = {"depth": 32, "deepstack_visual_indexes": [8, 16, 24]}
    changes = shallowed(list_sections(settings), 2)
    assert changes == {("depth",): 4, ("deepstack_visual_indexes",): [0, 1, 2]}


def test_experts_are_enough_for_those_chosen():
    """Two for each group, and all that a token goes to."""
    settings = {"n_routed_experts": 256, "num_experts_per_tok": 6, "n_group": 8}
    assert fewer_experts(list_sections(settings)) == {("n_routed_experts",): 16}


def test_tokens_stay_in_their_vocabulary():
    """They keep their order, and the distance to a token nearby."""
    settings = {"vocab_size": 152064, "image_token_id": 151655, "video_token_id": 151656, "pad_token_id": None}
    changed = replaced(settings, fewer_tokens(list_sections(settings)))
    assert changed == {"vocab_size": 921, "image_token_id": 512, "video_token_id": 513, "pad_token_id": None}


def test_settings_are_left_as_they_are():
    """A changed copy shares nothing with the configuration it came from."""
    config = LlamaConfig()
    changed = replaced(config, {("hidden_size",): 8, ("rope_parameters", "rope_theta"): 7.0})
    assert (changed.hidden_size, changed.rope_parameters["rope_theta"]) == (8, 7.0)
    assert (config.hidden_size, config.rope_parameters["rope_theta"]) == (4096, 10000.0)


def test_a_kind_of_block_that_is_lost_shows():
    """The same slots in other blocks are another structure."""
    whole, part = ("up", "down"), ("down",)
    dense, even = (
        list_layers(nn.ModuleList(nn.ModuleDict({name: nn.Linear(2, 2) for name in held}) for held in blocks))
        for blocks in ((whole, part), (whole, whole))
    )
    assert slots(dense) == slots(even)
    assert structure(dense) - structure(even)


def test_the_arguments_of_a_timm_class():
    """They are what the class is called with, whatever the entry in timm's registry did before."""
    settings = find_recipe("vit_base_patch16_224").settings
    assert (settings["embed_dim"], settings["depth"], settings["num_heads"]) == (768, 12, 12)


@pytest.mark.parametrize("name", ["vit_small_resnet26d_224", "vit_small_r26_s32_224"])
def test_a_timm_model_with_a_backbone_is_taken_as_it_is(name):
    """Its entry makes the backbone first, whose arguments are not the model's."""
    layers, small = smallest(f"timm:{name}")
    assert small.says == "as it is"
    assert slots(list_layers(small.model)) == slots(layers)


def test_only_the_image_of_a_timm_model_with_a_backbone_shrinks():
    """A large one costs more than its weights."""
    _, small = smallest("timm:vit_small_r26_s32_384")
    assert small.says == "at full width, at full depth, smaller images"
    assert small.input_size == (3, 192, 192)


def test_a_module_of_a_user_has_no_recipe():
    """There is nothing in it to make smaller."""
    with pytest.raises(InvalidReference, match="torch:zoo:MLP is none"):
        next(small_builds(Reference.parse("torch:zoo:MLP"), ()))


def test_no_build_with_every_slot_is_an_error():
    """The reason says what is missing."""
    layers = list_layers(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ScanFailed, match=r"timm:resnet18 has no small build with every slot.*missing"):
        next(small_builds(Reference.parse("timm:resnet18"), layers))


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("hidden_size", "model"),
        ("intermediate_size", "free"),
        ("num_attention_heads", "heads"),
        ("vocab_size", "vocabulary"),
        ("image_token_id", "token"),
        ("num_channels", "kept"),
        ("pos_emb_width", "kept"),
        ("num_output_groups", "kept"),
        ("out_hidden_size", "leaving"),
        ("intra_bottleneck_size", "width"),
        ("ext_pw_out_channel", "width"),
        ("max_position_embeddings", "kept"),
        ("encoder_layers", "depth"),
        ("x_layers", "depth"),
        ("decoder_num_layers", "depth"),
        ("num_kv_shared_layers", "last"),
        ("tie_word_embeddings", ""),
    ],
)
def test_words_have_a_meaning(name, meaning):
    """The first list that has a pattern for the whole name decides."""
    assert meaning_of(name) == meaning


def test_every_limit_has_a_reason_and_an_architecture():
    """An exception names what its library lists."""
    for text, entry in read_facts("shrink.toml")["architecture"].items():
        reference = Reference.parse(text)
        assert reference.name in sources.list_names(reference.scheme)
        assert entry["reason"]


def test_of_heads_of_an_odd_width_there_are_fewer():
    """No divisor leaves heads of 76 a multiple of four; a sixteenth of them is narrow enough."""
    sections = list_sections({"embed_dim": 2432, "num_heads": 32, "num_kv_heads": (32, 16)})
    assert narrowed(sections, 64) == ({("embed_dim",): 2432}, set())
    changes, factors = narrowed(sections, 64, has_fewer_heads=True)
    assert changes == {("embed_dim",): 152, ("num_heads",): 2, ("num_kv_heads",): (2, 1)}
    assert factors == {16}
