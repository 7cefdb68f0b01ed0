"""Liveness: an adapter on every layer, one forward and backward, a merge."""

import pytest
import torch
from torch import nn

from loradar.discovery.facts.layers import list_layers
from loradar.discovery.liveness import Proof, apply_proof, proofs, prove, prove_any
from loradar.discovery.scanner import scan_module
from loradar.discovery.small_builds import SmallBuild
from loradar.domain.patterns import pattern_of
from loradar.domain.targets import find_hits
from loradar.errors import ScanFailed
from tests import live_zoo as zoo
from tests.attention_zoo import Flex


def proved(model):
    """Return the proof of a model and its layers by path with what the proof says."""
    layers = list_layers(model)
    proof = prove(model, "as it is", {pattern_of(layer.path) for layer in layers})
    return proof, {layer.path: layer for layer in apply_proof(layers, proof)}


def test_a_layer_that_is_called_is_live():
    """Its adapter receives a gradient, and nothing else need be said."""
    proof, layers = proved(zoo.Step())
    assert (layers["called"].live, layers["called"].proof) == (True, None)
    assert proof.says == "as it is: forward, backward, merged within 1e-04"


@pytest.mark.parametrize(
    ("model", "live", "says"),
    [
        (zoo.Reads, None, "no forward called it"),
        (zoo.Skips, None, "no forward called it"),
        (zoo.Detaches, False, "it is called, but what it writes reaches no output"),
        (zoo.Forgets, False, "it is called, but what it writes reaches no output"),
        (zoo.TwoOutputs, True, None),
        (zoo.Direct, True, None),
    ],
)
def test_what_an_adapter_learns_is_seen(model, live, says):
    """The layer beside it is live in any case."""
    _, layers = proved(model())
    assert layers["called"].live is True
    assert (layers["odd"].live, layers["odd"].proof) == (live, says)


@pytest.mark.parametrize("model", [zoo.Rectified, zoo.Whispers, zoo.Masks])
def test_what_only_untrained_weights_hide_is_live(model):
    """A rectifier that happens to cut off everything, numbers too small, a mask of minus infinity."""
    _, layers = proved(model())
    assert (layers["called"].live, layers["called"].proof) == (True, None)


def test_a_weight_that_is_read_past_its_layer_is_dead():
    """What the trace knows explains what the proof sees."""
    (model, said) = (zoo.Reads(), "modeling_x.py:7")
    layers = [layer if layer.path == "called" else _bypassed(layer, said) for layer in list_layers(model)]
    found = {layer.path: layer for layer in apply_proof(layers, prove(model, "as it is", set()))}
    assert found["odd"].live is False
    assert found["odd"].proof == "its weight is read at modeling_x.py:7, without calling it"
    assert found["odd"].evidence[-1].by == "liveness"


def _bypassed(layer, where):
    return type(layer)(layer.path, layer.kind, layer.class_name, layer.shape, bypassed=where)


def test_what_standardises_its_weight_is_live_but_not_merged():
    """Merging an update into a weight that is standardised afterwards is another update."""
    proof, layers = proved(zoo.Images(zoo.Standardised))
    assert layers["odd"].live is True
    assert layers["odd"].proof.startswith("merging changes the outputs by")
    assert layers["called"].proof is None
    assert "but for those it says" in proof.says


def test_a_linear_that_no_adapter_fits_is_dead():
    """Its rows are shared out among groups of features, so that PEFT's adapter fails in the forward."""
    _, layers = proved(zoo.Groups())
    assert layers["odd"].live is False
    assert "an adapter writes" in layers["odd"].proof
    assert layers["called"].live is True


def test_what_a_linear_returns_beside_is_passed_on():
    """The adapter goes on the first of a tuple."""
    proof, layers = proved(zoo.Pairs())
    assert (layers["odd"].live, layers["odd"].proof) == (True, None)
    assert proof.says == "as it is: forward, backward, merged within 1e-04"


def test_a_convolution_that_pads_by_itself_does_not_fit_an_adapter():
    """PEFT's adapter would write another shape."""
    _, layers = proved(zoo.Images(zoo.PadsItself))
    assert layers["odd"].live is None
    assert "an adapter writes" in layers["odd"].proof
    assert layers["called"].live is True


def test_layers_that_fit_no_adapter_cost_no_forward_each():
    """A decoder of films may have a hundred of them."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *(zoo.PadsItself(8, 8, 3) for _ in range(9)))
    calls: list[int] = []
    model[0].register_forward_pre_hook(lambda _, inputs: calls.append(0) if not inputs[0].is_meta else None)
    _, layers = proved(model)
    assert [layer.live for layer in layers.values()] == [True, *[None] * 9]
    assert len(calls) <= 3


def test_an_adapter_that_fits_some_calls_alone_is_tried_without():
    """The other adapters' gradients are those of a forward that it was no part of."""
    _, layers = proved(zoo.Twice())
    assert layers["called"].live is True
    assert layers["odd"].live is None
    assert "an adapter writes" in layers["odd"].proof


def test_flex_attention_is_live():
    """Torch's function has no gradient on the CPU: what is attended without its mask has."""
    proof, layers = proved(Flex())
    assert {path: layer.live for path, layer in layers.items()} == dict.fromkeys("abcd", True)
    assert proof.says == "as it is: forward, backward, merged within 1e-04"


@pytest.mark.parametrize(
    "settings",
    [
        {"groups": 4},
        {"groups": 8},
        {"stride": 2, "padding": 1},
        {"padding": 1, "padding_mode": "reflect"},
        {"dilation": 2, "padding": "same"},
    ],
)
def test_every_convolution_merges(settings):
    """Groups, strides, dilations and every way to pad."""
    _, layers = proved(zoo.Images(nn.Conv2d, **settings))
    assert (layers["odd"].live, layers["odd"].proof) == (True, None)


def test_stacks_of_experts_are_proved():
    """Each stack of matrices has an adapter of its own."""
    _, layers = proved(nn.Sequential(zoo.Step(), zoo.Experts()))
    assert {path: layer.live for path, layer in layers.items()} == {"0.called": True, "1.up": True, "1.down": True}
    assert {layer.proof for layer in layers.values()} == {None}


def test_dropout_is_off_in_train_mode():
    """By module and by function; else the two forwards would differ."""
    _, layers = proved(zoo.Drops())
    assert (layers["called"].live, layers["called"].proof) == (True, None)


def test_a_random_forward_is_not_blamed_on_merging():
    """If the same forward gives other outputs, merging cannot be judged."""
    proof, layers = proved(zoo.Random())
    assert (layers["called"].live, layers["called"].proof) == (True, None)
    assert "its forward is random" in proof.says


def test_a_model_that_does_not_run_says_why():
    """Its layers stay unproven."""

    class Refuses(zoo.Step):
        def forward(self, _):
            raise ValueError("not today")

    proof, layers = proved(Refuses())
    assert proof.says == "as it is: ValueError: not today"
    assert layers["called"].live is None


def test_a_forward_without_outputs_says_nothing():
    """A composite may return the names of outputs in their place; no layer is dead for that."""

    class Names(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return [*{"first": self.layer(x)}]

    proof = prove(Names(), "as it is", {"layer"})
    assert (proof.verdicts["layer"].live, proof.verdicts["layer"].says) == (
        None,
        "no backward: no output depends on a weight",
    )


def test_the_random_state_is_kept():
    """Whoever proves something draws the same numbers afterwards."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    model = zoo.Step()
    torch.manual_seed(3)
    proved(model)
    assert torch.equal(torch.rand(2), expected)


def test_what_cannot_be_built_or_computed_is_said():
    """The scan goes on without a proof."""

    def short_of_memory():
        raise RuntimeError("can't allocate memory\nat great length")
        yield

    def unbuilt():
        raise ScanFailed("it has no small build")
        yield

    assert prove_any(short_of_memory(), set()) == Proof("can't allocate memory", {})
    assert prove_any(unbuilt(), set()) == Proof("it has no small build", {})
    assert prove_any(iter(()), set()).verdicts == {}


def test_a_proof_without_time_for_another_build_says_so(monkeypatch):
    """The layers that the first one left open might have a verdict on the second."""
    monkeypatch.setattr(proofs, "PATIENCE", -1.0)
    builds = (SmallBuild(zoo.Step(), says, None, scale) for says, scale in (("small", "1/8"), ("large", "1/2")))
    assert prove_any(builds, {"called", "elsewhere"}).is_cut_short
    assert not prove_any(iter([SmallBuild(zoo.Step(), "small", None, "1/8")]), {"called"}).is_cut_short


def test_the_best_of_several_builds_counts():
    """A build on which nothing runs is no reason to stop, but to skip deeper ones of its scale."""

    class Refuses(zoo.Step):
        def forward(self, _):
            raise ValueError("not today")

    small = (SmallBuild(Refuses(), "small", None, "1/8"), SmallBuild(zoo.Step(), "small and deep", None, "1/8"))
    proof = prove_any(iter([*small, SmallBuild(zoo.Step(), "large", None, "1/2")]), {"called"})
    assert proof.says.startswith("large: forward")
    assert proof.verdicts["called"].live is True


def test_of_a_build_on_which_nothing_runs_the_next_depth_is_tried():
    """Long skips want an even number of blocks: of three, the third takes what none of the first wrote."""

    class Skips(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))

        def forward(self, x):
            skips, half = [], len(self.blocks) // 2
            for number, block in enumerate(self.blocks):
                x = block(x + skips.pop() if number > half else x)
                skips += [x] if number < half - 1 else []
            return x

    deeper = SmallBuild(Skips(4), "of four", None, "1/8")
    three = SmallBuild(Skips(3), "of three", None, "1/8", lambda: [deeper])
    builds = [three, SmallBuild(Skips(41), "of 41", None, "1")]
    proof = prove_any(iter(builds), {"blocks.*"})
    assert proof.says.startswith("of four: forward")
    assert all(verdict.live for verdict in proof.verdicts.values())


class TwoStreams(nn.Module):
    """Blocks with two streams, of which the model returns the first: nothing reads the second of the last block."""

    def __init__(self, depth):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"first": nn.Linear(8, 8), "second": nn.Linear(8, 8)}) for _ in range(depth)
        )

    def forward(self, x):
        """Return the first stream."""
        other = x
        for block in self.blocks:
            x, other = block["first"](x + other), block["second"](other)
        return x


def small(depth, *deeper):
    """Return a build of so many blocks, and deeper ones."""
    return SmallBuild(TwoStreams(depth), "small", None, "1/8", lambda: map(small, deeper))


def test_the_last_block_is_the_last_at_any_depth():
    """In a small build it has another index: a second depth shows that it is the last one."""
    proof = prove_any([small(2, 3)], {"blocks.*.first", "blocks.*.second"})
    for depth in (2, 3, 5, 12):
        layers = apply_proof(list_layers(TwoStreams(depth)), proof)
        assert [layer.path for layer in layers if layer.live is False] == [f"blocks.{depth - 1}.second"]
        assert all(layer.live is not None for layer in layers)


@pytest.mark.parametrize("depth", [2, 3, 5, 60])
def test_a_proposal_leaves_the_last_block_alone_without_an_index(depth):
    """The targets are names, and the rule for the dead layers holds at every depth."""
    found = scan_module(TwoStreams(depth), None, "auto", lambda _: [small(2, 3)])
    proposal = found.propose(preset="all-linear")
    assert proposal.spec.target_modules == ("first", "second")
    assert proposal.spec.exclude_modules is None
    assert proposal.exclude_blocks == (f"blocks.[-1 of {depth}].second",)
    assert proposal.exclude_modules == (f"blocks.{depth - 1}.second",)
    deeper = list_layers(TwoStreams(depth + 3))
    missed = {layer.path for layer in deeper} - {layer.path for layer in find_hits(proposal.spec, deeper)}
    assert missed == {f"blocks.{depth + 2}.second"}


def test_one_depth_does_not_decide_another():
    """The second of two blocks may be the last or the second: unproven in a deeper model, and the reason is given."""
    proof = prove_any([small(2)], {"blocks.*.first", "blocks.*.second"})
    for layer in apply_proof(list_layers(TwoStreams(4)), proof):
        assert layer.live is (None if layer.name == "second" else True)
        assert (layer.proof or "").startswith("live or dead by its place") is (layer.name == "second")


def test_a_model_whose_layers_agree_is_proved_at_one_depth():
    """No deeper build is made: it would cost as much again."""

    def never():
        pytest.fail("a deeper build was made")

    build = SmallBuild(nn.Sequential(zoo.Step(), zoo.Step()), "small", None, "1/8", never)
    assert prove_any([build], {"*.called"}).deeper == ()


class Tokenizer(nn.Module):
    """Returns the codes of its input, or of its parts."""

    def __init__(self):
        super().__init__()
        self.encoder, self.codes = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        """Return the likeliest code of each position, by name."""
        return {"codes": self.codes(self.encoder(x)).argmax(-1)}


def test_no_layer_learns_from_whole_numbers():
    """Codes have no gradient: the layers are dead, and nothing is proposed."""
    found = scan_module(Tokenizer(), None, "auto", lambda _: [SmallBuild(Tokenizer(), "small", None, "1/8")])
    says = "it is called, but its forward returns whole numbers alone"
    assert {(layer.live, layer.proof) for layer in found.layers} == {(False, says)}
    assert found.proposals == ()
