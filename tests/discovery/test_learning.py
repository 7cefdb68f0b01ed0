"""Layers that cannot learn as their model is written are no targets, and the reasons name the cause."""

import pytest
import torch
from torch import nn

import loradar
from loradar.discovery import scan
from loradar.errors import NoAdaptableLayers


class Block(nn.Module):
    """A feed-forward block on a residual stream."""

    def __init__(self, width=16):
        """Build it."""
        super().__init__()
        self.up, self.down = nn.Linear(width, 32), nn.Linear(32, width)

    def forward(self, x):
        """Add to the stream."""
        return x + self.down(self.up(x).relu())


class Net(nn.Module):
    """Two blocks."""

    def __init__(self):
        """Build it."""
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x):
        """Run them."""
        for block in self.blocks:
            x = block(x)
        return x


class Distilled(nn.Module):
    """A student beside a teacher that runs without gradients."""

    def __init__(self):
        """Build both."""
        super().__init__()
        self.student, self.teacher = Net(), Net()

    def forward(self, x):
        """Return what both say."""
        with torch.no_grad():
            goal = self.teacher(x)
        return self.student(x), goal


class Detaching(Distilled):
    """The teacher's result is detached instead."""

    def forward(self, x):
        """Return how far they are apart."""
        return self.student(x) - self.teacher(x).detach()


class Inferring(Distilled):
    """The teacher runs in inference mode, and only its loss is kept."""

    def forward(self, x):
        """Keep the teacher's result inside."""
        with torch.inference_mode():
            self.goal = self.teacher(x).mean()
        return self.student(x)


class Taught(Distilled):
    """Both have a head, and the teacher runs without gradients."""

    def __init__(self):
        """Build both with heads."""
        super().__init__()
        self.student = nn.Sequential(Net(), nn.Linear(16, 3))
        self.teacher = nn.Sequential(Net(), nn.Linear(16, 3))


class EvalOnly(Distilled):
    """The second net refines results outside of training alone."""

    def forward(self, x):
        """Refine, or not."""
        x = self.student(x)
        if self.training:
            return x
        return self.teacher(x)


class Frozen(Distilled):
    """The constructor freezes the second net, whose gradient passes."""

    def __init__(self):
        """Freeze it by a method."""
        super().__init__()
        self._freeze()

    def _freeze(self):
        for parameter in self.teacher.parameters():
            parameter.requires_grad = False

    def forward(self, x):
        """Run one after the other."""
        return self.teacher(self.student(x))


class Constant(nn.Module):
    """A convolution with fixed weights between two that learn, as in a detector's box decoder."""

    def __init__(self):
        """Fix the middle one."""
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.sum = nn.Conv2d(8, 8, 1, bias=False).requires_grad_(requires_grad=False)
        self.sum.weight.data[:] = 1.0

    def forward(self, x):
        """Run them."""
        return self.last(self.sum(self.first(x)))


class StraightThrough(Distilled):
    """A quantizer's trick: the second net's result passes, its own gradient does not."""

    def forward(self, x):
        """Return numbers of the second net with gradients of the first."""
        x = self.student(x)
        return x + (self.teacher(x) - x).detach()


class Streams(nn.Module):
    """A block of two streams, of which the first reads the second."""

    def __init__(self):
        """Build both."""
        super().__init__()
        self.main, self.side, self.across = Block(), Block(), nn.Linear(16, 16)

    def forward(self, x, y):
        """Run both."""
        return self.main(x + self.across(y)), self.side(y)


class TwoStreams(nn.Module):
    """Three such blocks, of which only the first stream is returned: nothing reads the last block's second one."""

    def __init__(self):
        """Build them."""
        super().__init__()
        self.blocks = nn.ModuleList([Streams() for _ in range(3)])

    def forward(self, x):
        """Return the first stream."""
        y = x
        for block in self.blocks:
            x, y = block(x, y)
        return x


class Summarising(nn.Module):
    """Adds a summary of every 4096 tokens in every second block: the inputs of a trace are shorter, and give none."""

    def __init__(self):
        """Build them."""
        super().__init__()
        self.blocks = nn.ModuleList([Streams() for _ in range(5)])

    def forward(self, x):
        """Return the stream."""
        for number, block in enumerate(self.blocks):
            x, y = block(x, x)
            if number % 2 or x.shape[1] >= 4096:
                x = x + y
        return x


class Supervised(TwoStreams):
    """What a head beside each block makes is returned in training alone."""

    def __init__(self):
        """Add the heads."""
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(16, 4) for _ in range(3)])

    def forward(self, x):
        """Return every head's result, or none."""
        y, made = x, []
        for block, head in zip(self.blocks, self.heads, strict=True):
            x, y = block(x, y)
            made.append(head(y))
        return (x, *made) if self.training else x


CASES = {
    Distilled: "without gradients",
    Detaching: "detached before every output",
    Inferring: "without gradients",
    EvalOnly: "eval mode alone",
    Frozen: "Frozen freezes it",
    StraightThrough: "detached before every output",
}


def learned(model):
    """Return the layers whose adapters get a gradient in one training step."""
    model.train()
    outputs = model(torch.randn(2, 5, 16))
    sum(each.sum() for each in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
    return {
        name.rpartition(".lora_B")[0] for name, p in model.named_parameters() if "lora_B" in name and p.grad is not None
    }


@pytest.mark.parametrize("net", CASES)
@pytest.mark.parametrize("example_inputs", [None, torch.zeros(2, 5, 16)], ids=["made", "given"])
def test_what_cannot_learn_is_no_target(net, example_inputs):
    """Every adapter gets a gradient, and the reasons say what was left out and why."""
    model = loradar.get_peft_model(net(), example_inputs=example_inputs)
    assert model.targeted_module_names
    assert not [name for name in model.targeted_module_names if name.startswith("teacher")]
    assert len(learned(model)) == len(model.targeted_module_names)
    assert any(CASES[net] in reason for reason in model.decision.reasons)


def test_what_nobody_reads_in_the_last_block_is_no_target():
    """At any depth, with the reason."""
    model = loradar.get_peft_model(TwoStreams())
    assert {name for name in model.targeted_module_names if "side" in name} == {
        f"blocks.{block}.side.{layer}" for block in (0, 1) for layer in ("up", "down")
    }
    assert len(learned(model)) == len(model.targeted_module_names)
    assert any("no output is computed from it, as in other blocks" in reason for reason in model.decision.reasons)


def test_what_is_read_in_a_later_block_may_need_longer_inputs():
    """Then nothing is concluded of the last block either."""
    reasons = {layer.path: layer.cause for layer in scan(Summarising(), torch.randn(2, 8, 16)).layers}
    assert "blocks.0.side.up" in reasons
    assert not any(reasons.values())


def test_what_a_training_returns_is_a_target():
    """In eval mode nothing reads the last block's second stream."""
    model = loradar.get_peft_model(Supervised())
    assert "blocks.2.side.up" in model.targeted_module_names


def test_a_fixed_convolution_is_no_target():
    """Its owner freezes it while it is built; the last one is the head."""
    found = scan(Constant(), torch.zeros(1, 3, 4, 4))
    proposal = found.propose("LORA", "all-linear")
    assert proposal.spec.target_modules == ("first",)  # the last one is the head
    assert any("Constant freezes it" in reason for reason in proposal.reasons)


def test_a_model_frozen_from_outside_is_adapted_whole():
    """Users freeze a base model before they adapt it; that is no statement on a layer."""
    net = Net().requires_grad_(requires_grad=False)
    assert scan(net).propose("LORA", "default").matched == 4


def test_a_model_without_any_learning_layer_is_rejected():
    """The error says why."""

    class Whole(Net):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(NoAdaptableLayers, match=r"runs without gradients"):
        loradar.get_peft_model(Whole())


def test_a_proof_outranks_the_trace():
    """A layer that got a gradient in a real forward is live."""
    found = scan(Distilled(), torch.zeros(2, 5, 16), proved=True)
    assert {layer.path.partition(".")[0] for layer in found.layers if layer.live} == {"student"}


def test_a_transposed_convolution_is_no_stack_of_experts():
    """Its three-dimensional weight is one kernel."""

    class Upsampler(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.up = nn.Conv1d(4, 8, 1), nn.ConvTranspose1d(8, 4, 4, stride=2)

        def forward(self, x):
            return self.up(self.first(x))

    assert {layer.path: layer.kind for layer in scan(Upsampler()).layers} == {"first": "conv1d"}


def test_the_head_of_a_teacher_is_not_trained_in_full():
    """It gets no gradient either."""
    found = scan(Taught(), torch.zeros(2, 5, 16))
    assert {layer.path for layer in found.layers if layer.role == "head"} >= {"student.1"}
    assert {proposal.modules_to_save for proposal in found.proposals} == {("student.1",)}
