"""Proposals: which layers, by which names, at what cost."""

import pytest
import torch
import torchvision
from discovery_zoo import ConvNet, Decoder, SparseDecoder
from scan_cache import scan
from torch import nn
from zoo import MLP

from loradar.domain.layers import Layer
from loradar.domain.selection import size_per_rank
from loradar.domain.targets import TargetMatcher, find_hits
from loradar.domain.vocabulary import PRESETS
from loradar.errors import UnknownPeftType, UnknownPreset

# The architectures the first issue names, and a few that catch naive scanners.
SENSIBLE = {
    "olmo2": (("q_proj", "v_proj"), None, 64),
    "phi3": (("qkv_proj",), None, 32),
    "vit": (("q_proj", "v_proj"), ("classifier",), 24),
    "whisper": (("q_proj", "v_proj"), None, 24),
    "modernbert": (("Wqkv",), None, 22),
    "deepseek_v3": (("q_b_proj", "kv_b_proj"), None, 122),
    "mamba": (("in_proj",), None, 32),
    "timm:resnet50": (r"(?:.*\.)?\d+\.conv1|(?:.*\.)?conv3|(?:.*\.)?downsample\.0", ("fc",), 36),
    "timm:vit_base_patch16_224": (("qkv",), ("head",), 12),
    "timm:poolformer_m36": (("fc1", "fc2"), ("head.fc",), 72),
}


@pytest.mark.parametrize("name", SENSIBLE)
def test_defaults_of_real_architectures(name):
    """The targets a person who knows the architecture would choose, with reasons."""
    proposal = scan(name).propose()
    assert (proposal.spec.target_modules, proposal.spec.modules_to_save, proposal.matched) == SENSIBLE[name]
    assert proposal.reasons


@pytest.mark.parametrize(
    ("name", "preset", "expected"),
    [
        ("timm:fasternet_t2", "default", ("mlp.0", "mlp.3")),
        ("timm:efficientvit_m0", "default", r"(?:.*\.)?qkvs\.\d+\.conv"),
        ("timm:mobileone_s1", "default", r"(?:.*\.)?\d*[13579]\.conv_kxk\.\d+\.conv"),
        ("timm:botnet26t_256", "all-linear", ("qkv", "conv3_1x1.conv")),
        ("timm:efficientnet_cc_b0_4e", "all-linear", ("conv_pw", "conv_pwl", "routing_fn")),
        ("kimi_linear", "default", ("q_proj", "kv_b_proj")),
    ],
)
def test_a_layer_is_adapted_in_every_block_that_has_it(name, preset, expected):
    """Whatever its role is in some of them, so that no block is named by its index."""
    assert scan(name).propose(preset=preset).spec.target_modules == expected


def test_the_steps_of_a_bottleneck_are_no_blocks():
    """A pointwise convolution between wide ones stays the only choice of the default."""
    spec = scan("regnet").propose().spec
    assert "layer.1.convolution" in spec.exclude_modules


@pytest.mark.parametrize("name", [*SENSIBLE, "llava", "blip-2", "qwen2_moe", "bert", "timm:mobilenetv3_small_100"])
def test_no_proposal_hits_a_head_a_router_or_a_layer_outside_the_blocks(name):
    """Whatever the preset but `everything`, for the blocks; and each hits exactly as many layers as it says."""
    found = scan(name)
    layers = {layer.path: layer for layer in found.layers}
    for proposal in found.proposals:
        if proposal.peft_type == "LN_TUNING":
            continue  # it is for norms
        matcher = TargetMatcher(proposal.spec.target_modules or ())
        excluded = TargetMatcher(proposal.spec.exclude_modules or ())
        hit = [layers[path] for path in found.module_paths if matcher.find(path) and not excluded.find(path)]
        assert not [layer.path for layer in hit if layer.role in ("head", "moe.router", "norm")]
        if proposal.preset != "everything":
            assert not [layer.path for layer in hit if not layer.depth]
            assert len({layer.tower for layer in hit}) <= 1
        stacks = [
            layer for layer in found.layers if layer.kind == "expert_parameter" and is_named(layer, proposal.spec)
        ]
        assert len(hit) + len(stacks) == proposal.matched


def is_named(layer, spec):
    """Tell whether a spec names an expert parameter."""
    return TargetMatcher(spec.target_parameters or ()).find(layer.path) is not None


def test_a_vision_language_model_is_adapted_in_its_language_tower_only():
    """And the proposal says what it leaves alone."""
    found = scan("llava")
    hit = [layer.path for layer in find_hits(found.propose().spec, found.layers)]
    assert len(hit) == 64
    assert all(path.startswith("model.language_model.layers.") for path in hit)
    assert found.propose().spec.exclude_modules == r"model\.vision_tower\..*"
    why = "only the language tower is adapted, because the model generates text; left alone: projector, vision"
    assert why in found.propose().reasons


def test_the_plain_mlp_of_the_guide():
    """Every layer but the output, which is saved."""
    spec = scan(MLP()).propose().spec
    assert (spec.target_modules, spec.modules_to_save) == (("seq.0", "seq.2"), ("seq.4",))


def test_every_preset_of_a_decoder():
    """Each preset has its layers, named as shortly as can be."""
    found = scan(Decoder())
    lora = [proposal for proposal in found.proposals if proposal.peft_type == "LORA"]
    targets = {proposal.preset: proposal.spec.target_modules for proposal in lora}
    assert targets == {
        "default": ("q_proj", "v_proj"),
        "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
        "mlp": ("alpha", "beta"),
        "all-linear": ("q_proj", "k_proj", "v_proj", "o_proj", "alpha", "beta"),
        "everything": ("q_proj", "k_proj", "v_proj", "o_proj", "alpha", "beta"),
    }
    assert set(targets) == set(PRESETS) - {"experts", "recommended"}
    assert found.propose(preset="recommended").spec == found.propose(preset="all-linear").spec


def test_experts_are_parameters_to_target():
    """Fused experts are no modules; the router stays out."""
    spec = scan(SparseDecoder()).propose(preset="all-linear").spec
    assert spec.target_parameters == ("gate_up_proj", "down_proj")
    assert "gate" not in spec.target_modules
    experts = scan(SparseDecoder()).propose(preset="experts")
    assert (experts.spec.target_modules, experts.spec.target_parameters) == (None, ("gate_up_proj", "down_proj"))


def test_a_convolutional_network_is_adapted_in_its_pointwise_convolutions():
    """Depthwise ones and squeeze gates stay out."""
    assert scan(ConvNet()).propose().spec.target_modules == ("point",)


def test_blocks_without_a_pointwise_path_are_adapted_in_all_convolutions():
    """A resnet18 has pointwise convolutions in its shortcuts only."""
    found = scan("timm:resnet18")
    assert found.propose().matched == 19


def test_all_linear_of_a_convolutional_network_has_its_wider_convolutions():
    """Every one of resnet50's blocks; the default takes the pointwise ones, and says why. Depthwise ones stay out."""
    found = scan("timm:resnet50")
    assert found.propose(preset="all-linear").matched == 16 * 3 + 4
    assert any("'all-linear' adds the wider convolutions" in reason for reason in found.propose().reasons)
    net = scan(ConvNet())
    hit = find_hits(net.propose(preset="all-linear").spec, net.layers)
    assert hit
    assert not [layer for layer in hit if layer.role == "conv.depthwise"]


@pytest.mark.parametrize("name", ["timm:regnetx_002", "timm:mobilenetv4_conv_medium"])
def test_a_few_blocks_that_look_like_feed_forward_networks_do_not_decide(name):
    """Two convolutions in a row look like one; the others are in most blocks, and are adapted."""
    found = scan(name)
    for preset in ("default", "all-linear"):
        hit = find_hits(found.propose(preset=preset).spec, found.layers)
        assert {"conv.pointwise", "mlp.up"} <= {layer.role for layer in hit}
        assert len(hit) > 14


def test_a_model_with_a_vocabulary_head_saves_nothing():
    """Its head was trained with it."""
    assert scan("bert").propose().spec.modules_to_save is None


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (Layer("a", "linear", "Linear", (6, 4), 4, 6), 10),
        (Layer("a", "conv2d", "Conv2d", (6, 4, 3, 3), 4, 6), 9 * 4 + 6),
        (Layer("a", "conv2d", "Conv2d", (6, 2, 3, 3), 4, 6, groups=2), 9 * 4 + 6 // 2),
        (Layer("a", "expert_parameter", "Experts", (3, 6, 4)), 3 * 10),
    ],
)
def test_size_per_rank_counts_what_each_rank_adds(layer, size):
    """On every kind of layer."""
    assert size_per_rank(layer) == size


def test_unknown_preset_and_peft_type_name_what_there_is():
    """A typo is answered with the near name."""
    found = scan(Decoder())
    with pytest.raises(UnknownPreset, match=r"'all-linaer'. Closest: 'all-linear'"):
        found.propose(preset="all-linaer")
    with pytest.raises(UnknownPeftType, match=r"Unknown PEFT type 'LORRA'. Closest: 'LORA'"):
        found.propose("LORRA")


def test_a_layer_known_to_get_no_gradient_is_left_out_and_named():
    """An indexer picks tokens by a top-k."""
    found = scan("deepseek_v32")
    dead = [layer for layer in found.layers if layer.live is False]
    proposal = found.propose(preset="all-linear")
    assert dead
    assert not any(TargetMatcher(proposal.spec.target_modules).find(layer.path) for layer in dead)
    assert any("known to get no gradient" in reason for reason in proposal.reasons)


def test_a_model_of_multihead_attention_is_adapted_there():
    """Torch's encoder layer, of which no forward runs: its attention is the projection that holds query and value."""
    found = scan(nn.ModuleDict({"layers": nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16) for _ in range(2)])}))
    assert found.propose().spec.target_modules == ("self_attn",)
    assert any("nn.MultiheadAttention" in reason for reason in found.propose().reasons)


def test_a_head_over_the_vocabulary_is_not_saved():
    """Tied to the embedding or as wide as it: it was trained with the model."""
    assert scan(Decoder()).propose().spec.modules_to_save is None
    untied = Decoder()
    untied.head = nn.Linear(8, 32)
    assert scan(untied).propose().spec.modules_to_save is None
    untied.head = nn.Linear(8, 3)
    assert scan(untied).propose().spec.modules_to_save == ("head",)


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("rt_detr", "model.decoder.bbox_embed.0"),  # a list of heads cannot be saved as one module
        ("timm:efficientvim_m1_dist", "heads.0"),  # get_classifier() answers two
    ],
)
def test_heads_in_containers_are_saved_one_by_one(name, saved):
    """A list of modules has no forward that could stand in for it."""
    assert saved in scan(name).propose().spec.modules_to_save


def test_convolutions_whose_groups_do_not_divide_the_rank_are_left_out():
    """An adapter of rank 8 cannot have three groups."""
    proposal = scan("regnet").propose()
    assert proposal.matched
    assert any("whose groups do not divide rank 8" in reason for reason in proposal.reasons)


def test_linears_in_the_blocks_outrank_the_convolutions_between_them():
    """Torchvision's ConvNeXt: two nameless linears per block, and a few convolutions that make patches smaller."""
    with torch.device("meta"):
        found = scan(torchvision.models.convnext_tiny())
    assert found.propose().spec.target_modules == ("block.3", "block.5")
    assert found.propose().matched == 36


def test_what_a_task_model_holds_beside_its_base_is_said():
    """The decoder of vit_mae is adapted in its blocks, and its output saved; what leads into the blocks is neither."""
    found = scan("vit_mae")
    assert found.propose().spec.modules_to_save == ("decoder.decoder_pred",)
    roles = {layer.path: layer.role for layer in found.layers}
    assert roles["decoder.decoder_layers.0.attention.q_proj"] == "attention.query"
    (said,) = found.frozen
    assert said.startswith("left frozen: decoder.decoder_embed, outside the base model")


TRANSFORMER = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}
DIFFUSION = {
    "DiTTransformer2DModel": (TRANSFORMER | {"sample_size": 8}, ("norm1.linear",), ("timestep_embedder.linear_1",)),
    "FluxTransformer2DModel": (
        TRANSFORMER | {"num_single_layers": 1, "axes_dims_rope": (2, 2, 4), "joint_attention_dim": 16},
        ("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear"),
        ("timestep_embedder.linear_1", "text_embedder.linear_2"),
    ),
    "SD3Transformer2DModel": (
        TRANSFORMER | {"sample_size": 8, "caption_projection_dim": 16},
        ("norm1.linear", "norm1_context.linear", "norm_out.linear"),
        ("timestep_embedder.linear_2", "text_embedder.linear_1"),
    ),
    "QwenImageTransformer2DModel": (
        TRANSFORMER | {"axes_dims_rope": (2, 2, 4), "joint_attention_dim": 16},
        ("img_mod.1", "txt_mod.1", "norm_out.linear"),
        ("timestep_embedder.linear_1",),
    ),
    "PixArtTransformer2DModel": (
        TRANSFORMER | {"sample_size": 8, "cross_attention_dim": 16, "use_additional_conditions": False},
        ("adaln_single.linear",),
        ("timestep_embedder.linear_1", "timestep_embedder.linear_2"),
    ),
    "HunyuanVideoTransformer3DModel": (
        TRANSFORMER | {"num_single_layers": 1, "num_refiner_layers": 2, "rope_axes_dim": (2, 2, 4)},
        ("norm1.linear", "norm1_context.linear", "norm.linear", "refiner_blocks.1.norm_out.linear"),
        ("timestep_embedder.linear_1", "guidance_embedder.linear_2"),
    ),
}


@pytest.mark.parametrize("name", DIFFUSION)
def test_modulation_is_adapted_by_everything_alone(name):
    """A layer that scales and shifts by a time is no part of the attention or the feed-forward networks."""
    settings, modulation, embedders = DIFFUSION[name]
    with torch.device("meta"):
        model = getattr(pytest.importorskip("diffusers"), name)(**settings)
    found = scan(model)
    roles = {layer.path: layer.role for layer in found.layers}
    for ends, role in ((modulation, "modulation"), (embedders, "embedding.condition")):
        for end in ends:
            assert {roles[path] for path in roles if path.endswith(f".{end}") or path == end} == {role}
    hit = {
        p.preset: {layer.role for layer in find_hits(p.spec, found.layers)}
        for p in found.proposals
        if p.peft_type == "LORA"
    }
    conditioning = {"modulation", "embedding.condition"}
    assert {preset for preset, hits in hit.items() if conditioning & hits} == {"everything"}
    assert conditioning <= hit["everything"]
    left = [reason for reason in found.propose("LORA", "all-linear").reasons if "modulation" in reason]
    assert [reason.endswith("(adapted by preset 'everything')") for reason in left] == [True]


def test_everything_takes_every_tower_but_no_head():
    """Projectors and patch embeddings too, which the reasons of the other presets name."""
    found = scan("llava")
    everything = find_hits(found.propose("LORA", "everything").spec, found.layers)
    assert {layer.tower for layer in everything} == {"language", "vision", "projector"}
    assert {"projector", "embedding.patch"} <= {layer.role for layer in everything}
    assert not {"head", "norm", "embedding.token", "embedding.position"} & {layer.role for layer in everything}
    linears = [layer for layer in found.layers if layer.kind == "linear" and layer.role != "head"]
    assert set(linears) <= set(everything)


class Causal(nn.Conv1d):
    """A convolution that pads on the left by itself, and takes no bias."""

    def __init__(self, channels, out, size) -> None:
        super().__init__(channels, out, size)

    def forward(self, x):
        """Return as many steps as are read."""
        return super().forward(nn.functional.pad(x, (self.kernel_size[0] - 1, 0)))


class Causals(nn.Module):
    """Blocks of a causal convolution and a pointwise one, and blocks that only other inputs reach."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(Causal(8, 8, 3), nn.ReLU(), nn.Conv1d(8, 8, 1)) for _ in range(3))
        self.idle = nn.ModuleList(nn.Conv1d(8, 8, 3, padding=1) for _ in range(4))

    def forward(self, x, *, is_training=False):
        """Return the steps after the blocks."""
        for block in (*self.blocks, *(self.idle if is_training else ())):
            x = x + block(x)
        return x


@pytest.mark.parametrize("preset", ["default", "recommended", "all-linear"])
def test_a_convolution_that_peft_cannot_make_is_left_out_and_named(preset):
    """The next layers are proposed instead, and PEFT runs them."""
    found = scan(Causals(), example_inputs=torch.ones(1, 8, 16))
    proposal = found.propose(preset=preset)
    hits = {layer.path for layer in find_hits(proposal.spec, found.layers)}
    assert hits & {f"blocks.{n}.{step}" for n in range(3) for step in (0, 2)} == {f"blocks.{n}.2" for n in range(3)}
    assert any("3 Causal layers, because each takes other arguments" in reason for reason in proposal.reasons)


def test_what_the_forward_never_calls_is_known():
    """Other inputs may call it, so it is unproven, not dead."""
    found = scan(Causals(), example_inputs=torch.ones(1, 8, 16))
    assert {layer.path[:4]: layer.is_uncalled for layer in found.layers} == {"bloc": False, "idle": True}
    assert {layer.live for layer in found.layers} == {None}


class Tagger(nn.Module):
    """An LSTM between an embedding and dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 32)
        self.widen = nn.Linear(32, 64)
        self.recurrence = nn.LSTM(64, 64, batch_first=True)
        self.tags = nn.Linear(64, 5)

    def forward(self, input_ids):
        """Return a tag for each sequence."""
        return self.tags(self.recurrence(self.widen(self.words(input_ids)).relu())[0][:, -1])


def test_what_no_adapter_fits_is_named_with_its_share():
    """An LSTM holds most of the weights and stays as it is."""
    reasons = scan(Tagger()).propose().reasons
    assert "left out: 1 LSTM, 86% of the weights: no adapter for it" in reasons
    assert not [reason for reason in scan(Decoder()).propose().reasons if "no adapter for it" in reason]
