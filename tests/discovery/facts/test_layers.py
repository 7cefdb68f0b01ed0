"""Layer facts."""

from contextlib import nullcontext

import peft
import pytest
import torch
from discovery_zoo import ConvNet, Decoder, NoLayers, SparseDecoder
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers.pytorch_utils import Conv1D
from zoo import MLP

from loradar.discovery import kind_of, list_layers, walk


def by_path(model):
    """Return the layers of a model by path."""
    return {layer.path: layer for layer in list_layers(model)}


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.Linear(2, 3), "linear"),
        (Conv1D(3, 2), "transposed_linear"),
        (nn.Conv1d(2, 3, 1), "conv1d"),
        (nn.Conv2d(2, 3, 1), "conv2d"),
        (nn.Conv3d(2, 3, 1), "conv3d"),
        (nn.ConvTranspose2d(2, 3, 1), "other"),
        (weight_norm(nn.Conv1d(2, 3, 1)), "other"),
        (nn.Embedding(4, 2), "embedding"),
        (nn.MultiheadAttention(4, 2), "multihead_attention"),
        (nn.LayerNorm(4), "norm"),
        (nn.BatchNorm2d(4), "norm"),
        (nn.Dropout(), "other"),
    ],
)
def test_kind_of_a_module(module, kind):
    """Every class of module has its kind, and a recomputed weight has none."""
    assert kind_of(module) == kind


def test_walk_visits_the_modules_of_named_modules():
    """Same modules, same order, each once."""
    model = SparseDecoder()
    assert [site.path for site in walk(model)] == [path for path, _ in model.named_modules()]


def test_a_linear_has_its_sizes_owner_and_block():
    """The record holds every fact of a projection inside a block."""
    layer = by_path(Decoder())["blocks.1.attn.q_proj"]
    assert (layer.kind, layer.shape, layer.in_features, layer.out_features) == ("linear", (8, 8), 8, 8)
    assert (layer.owner, layer.block, layer.depth, layer.tied_to) == ("Attention", "blocks.1", 1, None)


def test_a_transposed_linear_reads_rows():
    """Conv1D stores (in, out)."""
    layer = by_path(nn.ModuleDict({"c_attn": Conv1D(12, 4)}))["c_attn"]
    assert (layer.shape, layer.in_features, layer.out_features) == ((4, 12), 4, 12)


def test_groups_of_a_convolution_are_kept():
    """Groups distinguish depthwise convolutions from pointwise ones."""
    layers = by_path(ConvNet())
    assert layers["blocks.0.depth"].groups == 8
    assert layers["blocks.0.point"].groups == 1


def test_dilated_convolutions_are_not_proposed():
    """PEFT's ``A`` has no dilation: its result has another size, unless one pixel is read or the padding adjusts."""
    layers = by_path(
        nn.ModuleDict(
            {
                "plain": nn.Conv1d(8, 8, 3, padding=1),
                "dilated": nn.Conv1d(8, 8, 3, padding=2, dilation=2),
                "one_axis": nn.Conv2d(8, 8, (1, 3), padding=(0, 2), dilation=(1, 2)),
                "other_axis": nn.Conv2d(8, 8, (3, 1), padding=(1, 0), dilation=(1, 2)),
                "point": nn.Conv1d(8, 8, 1, dilation=2),
                "same": nn.Conv1d(8, 8, 3, padding="same", dilation=2),
            }
        )
    )
    assert {path for path, layer in layers.items() if layer.misfit} == {"dilated", "one_axis"}
    assert "dilated" in layers["dilated"].misfit


def test_peft_runs_the_convolutions_that_are_proposed():
    """The rule is PEFT's own behaviour: what it says of a convolution is what its forward does."""
    for options in ({"padding": 2, "dilation": 2}, {"padding": "same", "dilation": 2}, {"padding": 1}):
        model = nn.Sequential(nn.Conv1d(8, 8, 3, **options))
        misfit = by_path(model)["0"].misfit
        adapted = peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["0"]), model)
        with pytest.raises(RuntimeError) if misfit else nullcontext():
            adapted(torch.ones(1, 8, 16))


class Causal(nn.Conv1d):
    """A convolution that pads on the left by itself."""

    def forward(self, x):
        """Return as many steps as are read."""
        return super().forward(nn.functional.pad(x, (self.kernel_size[0] - 1, 0)))


class Biased(nn.Conv1d):
    """A convolution that always has a bias."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)


class Reordered(nn.Conv1d):
    """A convolution that takes its dilation before its padding."""

    def __init__(self, channels, out, size, stride=1, dilation=1, **options) -> None:
        super().__init__(channels, out, size, stride, dilation=dilation, **options)


class Passed(nn.Conv1d):
    """A convolution that passes on what it is given."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)


@pytest.mark.parametrize(("own", "fits"), [(Causal, True), (Passed, True), (Biased, False), (Reordered, False)])
def test_convolutions_of_classes_that_peft_cannot_make_are_not_proposed(own, fits):
    """PEFT makes its factors of the class of the layer, with PyTorch's arguments: where it fails, there is a misfit."""
    model = nn.Sequential(own(8, 8, 3))
    assert (by_path(model)["0"].misfit is None) is fits
    with nullcontext() if fits else pytest.raises((TypeError, RuntimeError)):
        peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["0"]), model)(torch.ones(1, 8, 16))


def test_tied_weights_name_the_first_owner():
    """The head of a tied model points at the embedding."""
    layers = by_path(Decoder())
    assert layers["head"].tied_to == "embed"
    assert layers["embed"].tied_to is None


def test_expert_stacks_are_layers_of_their_own():
    """Each 3-D parameter of fused experts is one layer, owned by the class that holds it."""
    layers = by_path(SparseDecoder())
    stack = layers["layers.0.mlp.experts.gate_up_proj"]
    assert (stack.kind, stack.shape, stack.owner) == ("expert_parameter", (4, 16, 8), "Experts")


def test_the_output_of_multihead_attention_is_bypassed():
    """Its out_proj is a linear by class, but its forward never runs, unless a class has one that calls it."""

    class Calls(nn.MultiheadAttention):
        def forward(self, x):
            return self.out_proj(x)

    layers = by_path(nn.TransformerEncoderLayer(8, 2, 16))
    assert layers["self_attn"].kind == "multihead_attention"
    assert layers["self_attn.out_proj"].bypassed == "torch.nn.functional.multi_head_attention_forward"
    assert by_path(nn.ModuleDict({"attn": Calls(8, 2)}))["attn.out_proj"].bypassed is None


def test_a_sequence_of_plain_layers_is_no_list_of_blocks():
    """The numbered layers of a plain MLP stand outside every block."""
    assert {layer.depth for layer in list_layers(MLP())} == {0}


def test_a_model_cut_to_one_block_still_has_a_block():
    """A ModuleList with one composite child is a list of blocks."""
    assert by_path(Decoder(blocks=1))["blocks.0.attn.q_proj"].depth == 1


def test_a_module_registered_twice_is_one_layer():
    """A shared block is met once."""
    shared = nn.Linear(2, 2)
    assert len(list_layers(nn.ModuleList([shared, shared]))) == 1


def test_meta_and_live_models_have_the_same_layers():
    """Facts need no weights."""
    with torch.device("meta"):
        on_meta = list_layers(Decoder())
    # On meta the head is tied just as it is live.
    assert on_meta == list_layers(Decoder())


def test_a_model_without_weights_to_adapt_has_no_adaptable_layer():
    """Norms are listed, bare scales are not."""
    assert [layer.kind for layer in list_layers(NoLayers())] == ["norm"]
