"""Rarer spellings of attention, and layers of classes of their own: the roles are the same."""

import attention_zoo as rare
import flow_zoo as zoo
import pytest
import torch

from loradar.discovery import scan

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
