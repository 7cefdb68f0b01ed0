"""Ends: heads behind a sum, in blocks beside each other, and in a model that is named for its parts."""

import pytest
import torch
from flow_zoo import WIDTH, Plain, Stack
from torch import nn

from loradar.discovery import scan


class Forecast(nn.Module):
    """A forecast to which the mean is added again that was taken off its input."""

    def __init__(self):
        super().__init__()
        self.blocks, self.top = Stack(Plain), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        """Forecast."""
        mean = x.mean(1, keepdim=True)
        return self.top(self.blocks(x - mean)) + mean


class Ahead(nn.Module):
    """Predicts a token, and by a residual layer of its own each of the next two (arXiv:2401.10774)."""

    def __init__(self):
        super().__init__()
        self.blocks, self.top = Stack(Plain), nn.Linear(WIDTH, 9)
        self.ahead = nn.ModuleList(nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 9)]) for _ in range(2))

    def forward(self, x):
        """Return all predictions."""
        x = self.blocks(x)
        return torch.stack([self.top(x), *(last(x + first(x).relu()) for first, last in self.ahead)])


class Member(nn.Module):
    """Blocks and an output."""

    def __init__(self):
        super().__init__()
        self.blocks, self.top = Stack(Plain), nn.Linear(WIDTH, 3)

    def forward(self, x):
        """Run the blocks."""
        return self.top(self.blocks(x) + x)


class ExpertChoice(nn.Module):
    """A model named for its experts, and an ensemble."""

    def __init__(self):
        super().__init__()
        self.members, self.wide = nn.ModuleList([Member(), Member()]), nn.Linear(WIDTH, 99)

    def forward(self, x):
        """Return the mean of the members, and another output."""
        return sum(member(x) for member in self.members), self.wide(x)


@pytest.mark.parametrize(
    ("build", "heads"),
    [
        (Forecast, {"top"}),
        (Ahead, {"top", *(f"ahead.{n}.{part}" for n in range(2) for part in range(2))}),
        (ExpertChoice, {"members.0.top", "members.1.top", "wide"}),
    ],
)
def test_layers_that_write_the_output_are_heads(build, heads):
    """A sum with what comes before it hides none, nor do blocks of which none reads another."""
    found = scan(build(), torch.zeros(2, 7, WIDTH))
    assert {layer.path for layer in found.layers if layer.role == "head"} == heads
