"""Dataflow: the role of a layer follows from the destination of its output, not from names."""

import flow_zoo as zoo
import pytest
import torch
from torch import nn

from loradar.discovery import scan
from loradar.discovery.facts.layers import kind_of
from loradar.errors import ScanFailed
from loradar.schema import to_json

ATTENTION = {"b": "attention.query", "d": "attention.key", "a": "attention.value", "c": "attention.output"}
FEED_FORWARD = {"b": "mlp.up", "a": "mlp.down"}


def scanned(block):
    """Scan two blocks on a residual stream."""
    model = block if isinstance(block, nn.Module) else zoo.Stack(block)
    return scan(model, torch.zeros(2, zoo.LENGTH, zoo.WIDTH), method="dataflow")


def layers_of(found, prefix="u.1.f."):
    """Return the layers of the second block by the rest of their paths."""
    return {x.path.removeprefix(prefix): x for x in found.layers if x.path.startswith(prefix) and x.kind != "norm"}


def roles(block, prefix="u.1.f."):
    """Return the roles of the second block's layers."""
    return {name: layer.role for name, layer in layers_of(scanned(block), prefix).items()}


@pytest.mark.parametrize("block", [zoo.Fused, zoo.Eager, zoo.Einsum, zoo.Transposed, zoo.Kernel, zoo.Functional])
def test_operands_tell_query_key_and_value(block):
    """One function, two products, letters, keys in rows, no softmax at all, or weights given away."""
    assert roles(block) == ATTENTION


def test_layers_that_mix_heads_are_no_operands():
    """Talking heads (arXiv:2003.02436): a linear on the scores leaves them scores."""
    assert roles(zoo.TalkingHeads) == {**ATTENTION, "e": "other", "g": "other"}


def test_projected_positions_are_no_keys():
    """A product of queries with positions biases the scores."""
    assert roles(zoo.Positions) == {**ATTENTION, "e": "other"}


def test_a_gate_on_the_result_is_no_output():
    """A gate on the attended values is neither value nor output."""
    assert roles(zoo.Gated) == {**ATTENTION, "e": "other"}


@pytest.mark.parametrize(
    ("block", "layout"), [(zoo.Thirds, "thirds"), (zoo.Interleaved, "interleaved"), (zoo.Grouped, "unequal")]
)
def test_fused_projections_have_a_layout(block, layout):
    """The views of the projection are replayed on the numbers of its features."""
    layers = layers_of(scanned(block))
    assert (layers["a"].role, layers["a"].layout) == ("attention.qkv", layout)
    assert (layers["b"].role, layers["b"].layout) == ("attention.output", None)


def test_an_expanded_projection_is_latent():
    """Multi-head latent attention: the low-rank half is no query."""
    expected = {"a": "latent", "b": "latent", "c": "query", "d": "kv", "e": "output"}
    assert roles(zoo.Latent) == {name: f"attention.{role}" for name, role in expected.items()}


@pytest.mark.parametrize("block", [zoo.Plain, zoo.OwnGelu])
def test_an_activation_between_two_layers_is_a_feed_forward_network(block):
    """An activation that multiplies its input with itself is no gate."""
    assert roles(block) == FEED_FORWARD


def test_the_activated_factor_is_the_gate():
    """The activation distinguishes gate and up."""
    assert roles(zoo.GatedUnit) == {"b": "mlp.gate", "c": "mlp.up", "a": "mlp.down"}


@pytest.mark.parametrize(("block", "layout"), [(zoo.Halves, "halves"), (zoo.Alternating, "interleaved")])
def test_gate_and_up_in_one_weight(block, layout):
    """One part of a layer activated and multiplied with the other."""
    layers = layers_of(scanned(block))
    assert (layers["b"].role, layers["b"].layout) == ("mlp.gate_up", layout)
    assert layers["a"].role == "mlp.down"


def test_a_convolution_inside_leaves_it_a_feed_forward_network():
    """The mix of segformer: a depthwise convolution over the image between widening and narrowing."""
    assert roles(zoo.MixedFeedForward) == {**FEED_FORWARD, "c": "conv.depthwise"}


def test_fused_experts_router_and_shared_expert():
    """Four outputs ranked beside four matrices; the scale of the shared expert is a router as well."""
    layers = layers_of(scanned(zoo.Experts))
    shared = {"h.b": "mlp.gate", "h.c": "mlp.up", "h.a": "mlp.down"}
    expected = {"a": "moe.router", "s.e": "expert.gate_up", "s.f": "expert.down", "g": "moe.router", **shared}
    assert {name: layer.role for name, layer in layers.items()} == expected
    assert (layers["s.e"].layout, layers["s.f"].layout) == ("in_out", "in_out")


def test_experts_in_a_list():
    """As many modules in a list as the router has outputs."""
    found = roles(zoo.ExpertList)
    assert found.pop("a") == "moe.router"
    assert found == {f"x.{n}.{name}": f"expert.{role}" for n in range(4) for name, role in (("a", "down"), ("b", "up"))}


@pytest.mark.parametrize(
    ("network", "active"),
    [(zoo.Experts, 2), (zoo.ExpertList, 1), (zoo.BestExpert, 1), (zoo.SecondExpert, 2), (zoo.Plain, None)],
)
def test_routers_tell_how_many_experts_run_for_a_token(network, active):
    """By a top-k, or by a maximum for each; the value and the index of one are no two."""
    assert scanned(network).prompt_facts.active_experts == active


def test_a_mean_over_copies_of_a_stream_is_no_pooling():
    """Hyper-connections (qwen4_exp): every position is there still."""
    found = roles(zoo.Copies)
    assert {name: found[name] for name in "ba"} == FEED_FORWARD


def test_a_single_expert_is_known_by_its_network():
    """One matrix in each stack: a default configuration may have one expert, and its router one output."""
    layers = layers_of(scanned(zoo.OneExpert))
    assert {name: layers[name].role for name in ("a", "s.e", "s.f")} == {
        "a": "moe.router",
        "s.e": "expert.gate_up",
        "s.f": "expert.down",
    }


def test_a_router_of_several_layers_may_rank_experts_that_compute_nothing():
    """Every layer that the router alone reads belongs to it."""
    found = roles(zoo.EmptyExperts)
    assert found == {**dict.fromkeys("abc", "moe.router"), "s.e": "expert.gate_up", "s.f": "expert.down"}


def test_stacks_of_different_numbers_of_matrices_are_experts():
    """What proves experts is that their matrices lead to an inner width and back; learned tokens do not."""
    assert kind_of(zoo.MoreRows()) == "expert_parameter"
    assert kind_of(zoo.Tables()) == "other"


def conditioned(block):
    """Return the roles in a model whose blocks are conditioned on a time."""
    found = scan(zoo.Conditioned(block), (torch.zeros(2, zoo.LENGTH, 5), torch.zeros(2, 8)), method="dataflow")
    return {layer.path: layer.role for layer in found.layers if layer.kind != "norm"}


@pytest.mark.parametrize("block", [zoo.Modulated, zoo.Shifted])
def test_a_layer_that_scales_or_shifts_by_a_condition_modulates(block):
    """It writes one vector per sample, which is not computed from the features it changes."""
    found = conditioned(block)
    assert [found[f"u.{n}.m"] for n in (0, 1)] == ["modulation", "modulation"]
    assert [found["e"], found["f"]] == ["embedding.condition", "embedding.condition"]
    assert [found["u.1.b"], found["u.1.a"]] == ["mlp.up", "mlp.down"]


def test_a_layer_that_shifts_the_channels_of_an_image_modulates():
    """Also in no block: the same number is added at every position."""
    found = scan(zoo.ShiftedImage(), (torch.zeros(2, 3, 9, 9), torch.zeros(2, 8)), method="dataflow")
    roles = {layer.path: layer.role for layer in found.layers}
    assert (roles["m"], roles["e"], roles["c"]) == ("modulation", "embedding.condition", "head")


def test_a_gate_on_what_it_was_computed_from_does_not_modulate():
    """Squeeze and excite; and what is added before the blocks may be a token."""
    found = conditioned(zoo.Squeezed)
    assert found["u.0.m"] == found["u.1.m"] == "other"
    assert "modulation" not in found.values()


def test_a_gated_convolution_along_the_sequence_is_a_mixer():
    """Nothing is softmaxed, so it is no attention."""
    assert roles(zoo.ShortConv) == {"a": "mixer.input", "b": "mixer.output", "c": "mixer.state"}


def test_a_loop_over_positions_is_a_mixer():
    """A state carried from position to position looks like a gated unit but is none."""
    assert roles(zoo.Recurrence) == {"a": "mixer.input", "b": "mixer.input", "c": "mixer.output"}


def test_parallel_branches_stand_on_one_stream():
    """Attention and feed-forward network of one sum."""
    model = nn.Sequential(zoo.Parallel(), zoo.Parallel())
    assert roles(model, "1.f.") == ATTENTION
    assert roles(model, "1.g.") == FEED_FORWARD


def test_a_weight_read_directly_is_bypassed():
    """An adapter there would never run; the layer records the place of the read."""
    for layer in layers_of(scanned(zoo.Functional)).values():
        assert layer.called is False
        assert layer.bypassed.startswith("flow_zoo.py:")
    assert not scanned(zoo.Functional).proposals


def test_a_weight_used_as_a_table_is_bypassed():
    """A linear is not called only because its weight is used; of an unused one it is unknown whether it is called."""
    layers = layers_of(scanned(zoo.Table))
    assert layers["a"].called is False
    assert (layers["b"].called, layers["b"].bypassed) == (None, None)
    assert layers["f.b"].called is True


def test_both_verdicts_are_kept_and_differences_shown():
    """The verdict of the names, which differs, stays in the evidence."""

    class Misnamed(zoo.Fused):
        def __init__(self):
            super().__init__()
            self.q_proj, self.v_proj = self.a, self.b
            del self.a, self.b

        def forward(self, x):
            self.__dict__.update(a=self.q_proj, b=self.v_proj)
            return super().forward(x)

    layer = layers_of(scanned(Misnamed))["q_proj"]
    assert (layer.role, layer.confidence) == ("attention.value", "high")
    assert [item.by for item in layer.evidence] == ["dataflow", "names"]
    assert layer.evidence[1].says.startswith("attention.query: ")


def test_a_forward_that_does_not_run_leaves_the_names():
    """``auto`` falls back and records its method; ``dataflow`` raises."""

    class Broken(zoo.Stack):
        def forward(self, x):
            raise RuntimeError(f"no {x.shape}")

    model = Broken(zoo.Fused)
    assert scan(model).method == "names"
    assert {layer.called for layer in scan(model).layers} == {None}
    with pytest.raises(ScanFailed, match="Give example_inputs"):
        scan(model, method="dataflow")


def test_remembered_shapes_change_nothing(monkeypatch):
    """A repeated operation returns the shape of its first result; the scan is the same either way."""
    remembered = to_json(scanned(zoo.Experts))
    monkeypatch.setattr("loradar.discovery.dataflow.recorder.PURE", frozenset())
    assert to_json(scanned(zoo.Experts)) == remembered


def test_a_layer_named_for_the_role_of_another_is_other():
    """The bottleneck.attention.dense of mobilebert is not the output of the attention: that is another layer's role."""
    found = scan("mobilebert")
    layer = next(layer for layer in found.layers if layer.path.endswith("layer.0.bottleneck.attention.dense"))
    assert (layer.role, layer.evidence[0].by) == ("other", "dataflow")
    assert layer.evidence[1].says.startswith("attention.output: ")


def test_blocks_the_whole_never_reaches_run_by_themselves():
    """Nothing is left to names only because one forward takes another path."""

    class Idle(zoo.Stack):
        def forward(self, x):
            return x * self.u[0].n.weight

    found = scanned(Idle(zoo.Fused))
    assert (found.method, found.untraced) == ("dataflow", ())
    assert {name: layer.role for name, layer in layers_of(found).items()} == ATTENTION
