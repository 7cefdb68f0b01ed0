"""Rarer spellings of attention, and layers of classes of their own: the roles are the same."""

import attention_zoo as rare
import flow_zoo as zoo
import pytest
import torch

import loradar
from loradar.discovery import scan, scan_module
from loradar.errors import NoAdaptableLayers

INPUT = torch.zeros(2, zoo.LENGTH, zoo.WIDTH)
ATTENTION = {"b": "attention.query", "d": "attention.key", "a": "attention.value", "c": "attention.output"}
FEED_FORWARD = {"b": "mlp.up", "a": "mlp.down"}


def roles(model, prefix="u.1.f."):
    """Return the roles of the layers below a path, with the model scanned by dataflow alone."""
    found = scan(model, INPUT, method="dataflow")
    assert found.untraced == ()
    layers = (x for x in found.layers if x.path.startswith(prefix) and x.kind != "norm")
    return {x.path.removeprefix(prefix): x.role for x in layers}


@pytest.mark.parametrize("block", rare.LINEAR)
def test_linear_attention_has_its_operands(block):
    """Whatever letters, order, transposition or features of a kernel: the axes tell keys, queries and values."""
    assert roles(zoo.Stack(block)) == ATTENTION


def test_an_output_that_the_same_attention_reads_again_is_no_latent():
    """It is the output in both calls."""
    assert roles(zoo.Stack(rare.AskedTwice)) == ATTENTION


@pytest.mark.parametrize("block", [rare.MixedAtTheEnd, rare.MixedAndTurned])
def test_the_key_is_what_the_weights_are_summed_over(block):
    """Wherever the axes of the scores stood when the softmax ran."""
    assert roles(zoo.Stack(block)) == {**ATTENTION, "e": "other", "g": "other"}


def test_a_linear_over_positions_is_no_projection_of_keys():
    """Keys and values are projected before it; what it writes has fewer positions and the same features."""
    assert roles(zoo.Stack(rare.FewerPositions)) == {**ATTENTION, "e": "other", "g": "other"}


def test_the_query_is_the_query_where_queries_compete():
    """The weights are summed over the keys, whichever dimension the softmax runs over."""
    assert roles(zoo.Stack(rare.Competing)) == ATTENTION


def test_a_recurrent_cell_behind_attention_parts_it_from_what_follows():
    """The layer behind the cell reads the state, not the attention: it is no output of it."""
    operands = {"b": "attention.query", "d": "attention.key", "a": "attention.value"}
    found = roles(zoo.Stack(rare.Updated))
    assert {path: role for path, role in found.items() if path != "r"} == {**operands, "e": "mlp.up", "g": "mlp.down"}
    assert found.get("r", "other") == "other"


@pytest.mark.parametrize("inputs", [None, (torch.zeros(5, zoo.WIDTH), torch.zeros(2, 7, dtype=torch.long))])
@pytest.mark.parametrize("convolution", rare.EDGES)
def test_attention_over_the_edges_of_a_graph_has_its_operands(convolution, inputs):
    """What the receiving end of an edge gathers is the query, also where nobody gives the model's inputs."""
    found = scan(rare.OverEdges(convolution), inputs, method="dataflow")
    roles = {x.path.removeprefix("u.1."): x.role for x in found.layers if x.path.startswith("u.1.")}
    assert roles == rare.EDGES[convolution]
    assert {x.path for x in found.layers if x.role == "head"} == {"o"}


def test_a_gate_over_edges_is_no_attention():
    """Nothing is normalised over the edges that come to a node."""
    found = scan(rare.OverEdges(rare.GatedEdges), method="dataflow")
    assert not [x for x in found.layers if x.role.startswith("attention.")]


def test_a_layer_behind_additive_attention_mixes_no_heads():
    """It reads values: what stands behind it is no part of the attention."""
    assert roles(zoo.Stack(rare.Additive))["a"] == "attention.value"
    assert roles(zoo.Stack(rare.Additive))["c"] == "attention.output"
    assert {x.role for x in scan(zoo.Stack(rare.Additive), INPUT).layers if ".g." in x.path} <= {"mlp.up", "mlp.down"}


@pytest.mark.parametrize("block", rare.FLEX)
def test_flex_attention_runs_as_one_operation(block):
    """It runs on a few devices only, and compiles itself; its operands are all that counts."""
    assert roles(zoo.Stack(block)) == ATTENTION


@pytest.mark.parametrize("model", rare.LISTS)
def test_blocks_may_be_lists_of_their_parts(model):
    """The sums that make the residual stream stand outside of the parts, or of every block."""
    attention, feed_forward = rare.LISTS[model]
    assert roles(model(), attention) == ATTENTION
    assert roles(model(), feed_forward) == FEED_FORWARD


@pytest.mark.parametrize("linear", rare.QUANTISED)
def test_quantised_linears_are_followed_by_their_boundary(linear):
    """A kernel that has no meta version hides the product, not what a linear reads and writes."""
    model = rare.quantised(linear)
    assert roles(model, "1.f.") == ATTENTION
    assert roles(model, "1.g.") == FEED_FORWARD
    assert {type(module) for module in model.modules() if hasattr(module, "in_features")} == {linear}
    assert not any("forward" in module.__dict__ for module in model.modules())


def proposed(model):
    """Return the targets of the default preset, and whether each adapter on them gets a gradient."""
    adapted = loradar.get_peft_model(model, preset="all-linear")
    adapted(torch.randn(2, zoo.LENGTH, zoo.WIDTH)).square().sum().backward()
    gradients = {n: bool(p.grad.abs().sum()) for n, p in adapted.named_parameters() if "lora_B" in n}
    return {*adapted.targeted_parameter_names}, {*gradients.values()}


@pytest.mark.parametrize("block", rare.BARE)
def test_bare_matrices_are_layers_by_what_they_compute(block):
    """A module that multiplies with a matrix of its own: no class says it, the product does."""
    end = rare.BARE[block]
    assert roles(zoo.Stack(block)) == {f"{name}{end}": role for name, role in ATTENTION.items()}
    targets, live = proposed(zoo.Stack(block))
    assert targets == {f"u.{n}.f.{name}{end}" for n in range(2) for name in "abcd"}
    assert live == {True}


def test_a_small_build_need_not_have_bare_matrices():
    """A build is read without a forward, which alone shows them; every other layer it must have."""
    asked = []
    scan_module(zoo.Stack(rare.BareFeedForward), INPUT, builds=lambda layers: iter(asked.extend(layers) or ()))
    assert asked
    assert not [layer.path for layer in asked if layer.kind == "expert_parameter"]


def test_a_table_is_no_bare_weight():
    """Rows that are looked up and added stay out; the widths are those of the product."""
    found = scan(zoo.Stack(rare.BareFeedForward), INPUT)
    layers = {x.path: x for x in found.layers if x.path.startswith("u.1.f.")}
    assert {path.removeprefix("u.1.f."): x.role for path, x in layers.items()} == FEED_FORWARD
    assert [(x.in_features, x.out_features) for x in (layers["u.1.f.b"], layers["u.1.f.a"])] == [(24, 48), (48, 24)]
    assert found.propose(preset="mlp").formula.per_rank == 2 * 2 * (24 + 48)


def test_mixed_kernels_are_no_bare_weights():
    """What a product makes of them is a kernel, not features."""
    found = scan(zoo.Stack(rare.MixedKernel), INPUT)
    assert {x.path for x in found.layers if x.kind != "norm"} == {"u.0.f.r", "u.1.f.r"}


def test_matrices_in_a_dictionary_are_left_out_with_a_reason():
    """Nobody calls a dictionary, so an adapter on it would be dead."""
    found = scan(zoo.Stack(rare.InDict), INPUT)
    assert {x.path for x in found.layers if x.kind != "norm"} == {"u.0.f.c", "u.1.f.c"}
    assert any("6 matrices in containers of parameters (u.0.f.w.a" in reason for reason in found.proposals[0].reasons)


def test_a_model_of_bare_matrices_says_how_to_name_them():
    """By names alone nothing can be proposed: the error names the classes and the way out."""
    with pytest.raises(NoAdaptableLayers, match=r"held by LayerNorm, Bare.* target_parameters .* 'u.0.f.a'"):
        scan(zoo.Stack(rare.Bare), method="names")
