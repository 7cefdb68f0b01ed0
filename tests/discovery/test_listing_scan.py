"""A model by the names and shapes of its weights: what a header tells is enough for what a scan by names tells."""

import pytest

from loradar.discovery import scan, scan_listing, sources
from loradar.domain.architectures import Architecture
from loradar.domain.submissions import MOST_LAYERS, ListedLayer
from loradar.domain.targets import find_hits
from loradar.errors import InvalidRequest, NoAdaptableLayers
from loradar.references import Reference

NET = Architecture("torch", "somebody.Net")


def list_weights(model):
    """Return what a header lists of a model's state: weights by their module, bare parameters by themselves."""
    state = ((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())
    return [ListedLayer(name.removesuffix(".weight"), shape) for name, shape in state]


def listed(*layers, architecture=NET):
    """Return the scan of layers given as (path, shape) or (path, shape, class)."""
    return scan_listing(architecture, [ListedLayer(*layer) for layer in layers])


def kinds(*layers):
    """Return the kind of each layer that is one."""
    return {layer.path: layer.kind for layer in listed(*layers, ("anchor", (2, 2))).layers if layer.path != "anchor"}


@pytest.mark.parametrize(
    ("reference", "presets"),
    [
        ("transformers:llama", ("default", "attention", "mlp", "all-linear")),
        ("transformers:bert", ("default", "attention", "all-linear")),
        ("transformers:gpt2", ("default", "all-linear")),
        ("transformers:t5", ("default", "attention", "mlp", "all-linear")),
        ("transformers:deepseek_v3", ("default", "attention", "mlp", "all-linear", "experts")),
        ("transformers:qwen2_vl", ("default", "all-linear")),
        ("transformers:llava", ("default", "attention", "all-linear")),
        ("transformers:whisper", ("default", "all-linear")),
        ("transformers:vit", ("default", "attention", "all-linear")),
        ("timm:resnet18", ("default",)),
        ("timm:vit_tiny_patch16_224", ("default", "all-linear")),
    ],
)
def test_a_listing_is_proposed_the_layers_of_the_model(reference, presets):
    """The traced scan of the model itself says what is right."""
    model = sources.build(Reference.parse(reference))
    traced = scan(model)
    found = scan_listing(traced.architecture, list_weights(model))
    for preset in presets:
        theirs, ours = traced.propose("LORA", preset), found.propose("LORA", preset)
        expected = {layer.path for layer in find_hits(theirs.spec, traced.layers)}
        assert {layer.path for layer in find_hits(ours.spec, found.layers)} == expected, preset
        assert ours.spec.modules_to_save == theirs.spec.modules_to_save
    assert found.architecture.name == traced.architecture.name
    assert found.method == "names"
    assert "Conv1D" in found.proof
    assert all(layer.called is None and layer.live is None for layer in found.layers)


def test_towers_are_told_by_paths():
    """As the configurations of llava's parts tell them."""
    model = sources.build(Reference.parse("transformers:llava"))
    found = scan_listing(Architecture("transformers", "llava"), list_weights(model))
    assert found.towers == scan(model).towers
    assert set(found.untraced) == {"language", "vision", "projector"}


def test_kinds_follow_shapes():
    """Four dimensions are an image's convolution, five a video's; three a sound's, or experts."""
    assert kinds(
        ("a.fc", (8, 4)),
        ("a.conv", (8, 4, 3, 3)),
        ("a.video", (8, 4, 2, 3, 3)),
        ("a.sound", (8, 4, 3)),
        ("b.experts.down_proj", (8, 4, 16)),
        ("c.moe.w1", (8, 4, 16)),
        ("c.moe.w2", (8, 16, 4)),
        ("a.norm", (8,)),
        ("a.ln_1", (8,)),
        ("down.1", (8,)),
        ("wte", (100, 8)),
        ("a.relative_attention_bias", (32, 8)),
    ) == {
        "a.fc": "linear",
        "a.conv": "conv2d",
        "a.video": "conv3d",
        "a.sound": "conv1d",
        "b.experts.down_proj": "expert_parameter",
        "c.moe.w1": "expert_parameter",
        "c.moe.w2": "expert_parameter",
        "a.norm": "norm",
        "a.ln_1": "norm",
        "down.1": "norm",
        "wte": "embedding",
        "a.relative_attention_bias": "embedding",
    }


def test_a_class_outranks_the_name():
    """A transposed linear cannot be told by its shape, nor an embedding that is named for nothing."""
    found = listed(
        ("h.c_attn", (4, 12), "Conv1D"),
        ("h.embedder", (9, 4), "Linear"),
        ("h.table", (9, 4), "ScaledEmbedding"),
        ("h.scale", (4,), "RMSNorm"),
    )
    by_path = {layer.path: layer for layer in found.layers}
    assert {path: layer.kind for path, layer in by_path.items()} == {
        "h.c_attn": "transposed_linear",
        "h.embedder": "linear",
        "h.table": "embedding",
        "h.scale": "norm",
    }
    assert (by_path["h.c_attn"].in_features, by_path["h.c_attn"].out_features) == (4, 12)


def test_what_is_no_layer_is_left_out():
    """Biases, lone tokens, states and scalars."""
    bare = [("fc.bias", (4,)), ("cls_token", (1, 1, 4)), ("pos_embed", (1, 9, 4)), ("m.A_log", (4, 4)), ("s", ())]
    assert [layer.path for layer in listed(("fc", (4, 4)), *bare).layers] == ["fc"]


def test_the_parts_of_multihead_attention_are_not_proposed():
    """Its weight is a parameter of its own, and its out_proj is never called."""
    blocks = [
        item
        for n in range(2)
        for item in (
            (f"layers.{n}.self_attn.in_proj_weight", (12, 4)),
            (f"layers.{n}.self_attn.out_proj", (4, 4)),
            (f"layers.{n}.linear1", (8, 4)),
            (f"layers.{n}.linear2", (4, 8)),
        )
    ]
    found = listed(*blocks)
    assert {layer.kind for layer in found.layers if layer.path.endswith("self_attn")} == {"multihead_attention"}
    assert found.propose("LORA", "all-linear").spec.target_modules == ("self_attn", "linear1", "linear2")


def test_depthwise_convolutions_have_groups():
    """One channel per group cannot be anything else."""
    scanned = listed(("a.dw", (8, 1, 3, 3)), ("a.pw", (4, 8, 1, 1)), ("head", (2, 4)))
    found = {layer.path: layer for layer in scanned.layers}
    assert (found["a.dw"].groups, found["a.dw"].role) == (8, "conv.depthwise")
    assert (found["a.pw"].groups, found["a.pw"].role) == (1, "conv.pointwise")


def test_blocks_are_numbered_lists_of_parts_alike():
    """A numbered sequence of layers is no list of blocks; nor is a list whose parts have nothing in common."""
    found = listed(
        ("seq.0", (4, 4)),
        ("seq.2", (4, 4)),
        ("odd.0.a", (4, 4)),
        ("odd.1.b", (4, 4)),
        ("layers.0.experts.0.w", (4, 4)),
        ("layers.0.experts.1.w", (4, 4)),
        ("layers.1.experts.0.w", (4, 4)),
        ("layers.1.experts.1.w", (4, 4)),
    )
    depths = {layer.path: (layer.block, layer.depth) for layer in found.layers}
    assert depths["seq.0"] == depths["odd.0.a"] == (None, 0)
    assert depths["layers.1.experts.0.w"] == ("layers.1.experts.0", 2)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([], "0 layers are listed"),
        ([("a", (1,))] * (MOST_LAYERS + 1), f"1 to {MOST_LAYERS}"),
        ([("a", (4, 4)), ("a", (4, 4))], "'a' is listed twice"),
        ([("a..b", (4, 4))], "empty segment"),
        ([("", (4, 4))], "1 to 255"),
        ([("a b", (4, 4))], r"U\+0020"),
        ([("a\u200bb", (4, 4))], r"U\+200B"),
        ([("a" * 256, (4, 4))], "has 256"),
        ([("a", (0, 4))], r"shape \(0, 4\)"),
        ([("a", (-1,))], "sizes from 1"),
        ([("a", (1 << 40, 4))], "sizes from 1"),
        ([("a", (1,) * 9)], "up to 8 sizes"),
        ([("a", (4, 4), "Lin ear")], r"U\+0020"),
    ],
    ids=range(13),
)
def test_what_cannot_be_a_listing_is_refused(layers, says):
    """Before anything is made of it."""
    with pytest.raises(InvalidRequest, match=says):
        listed(*layers)


def test_nothing_to_adapt_is_told():
    """Norms and tables alone."""
    with pytest.raises(NoAdaptableLayers, match="None of the 2 layers"):
        listed(("norm", (4,)), ("embed", (9, 4)))


def test_a_large_listing_is_scanned_in_seconds():
    """Eight thousand layers of a thousand blocks, which no model has."""
    names = ("q", "k", "v", "o", "gate_proj", "up_proj", "down_proj", "norm")
    layers = [
        ListedLayer(
            f"model.layers.{n}.{'attn' if len(name) == 1 else 'mlp'}.{name}", (8, 8) if name != "norm" else (8,)
        )
        for n in range(1000)
        for name in names
    ]
    found = scan_listing(NET, layers)
    assert found.propose("LORA", "default").matched == 2000
