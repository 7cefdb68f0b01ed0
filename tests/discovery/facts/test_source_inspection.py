"""Source inspection: weights that are read without their layer being called."""

from pathlib import Path

import torch
from torch import nn

from loradar.discovery.facts.source_inspection import inspect_source


def fused_kernel(x, weight, bias):
    """Stand for a kernel compiled elsewhere."""
    return x @ weight.t() + bias


class Mixer(nn.Module):
    """Reads weights in every way there is."""

    def __init__(self):
        """Make the layers."""
        super().__init__()
        for name in ("taken", "switched", "viewed", "asked", "made", "called", "chosen"):
            setattr(self, name, nn.Linear(4, 4))
        self.helper = nn.Identity()

    def init_mixer(self):
        """Fill a weight, which is no reading of it."""
        nn.init.zeros_(self.made.weight)

    def resize(self):
        """Change a weight, which no forward does."""
        return fused_kernel(0, self.called.weight, None)

    def forward(self, x):
        """Take the one path or the other."""
        if x.is_cuda:
            x = fused_kernel(x, self.taken.weight, bias=self.taken.bias)
            x = fused_kernel(x, self.viewed.weight.squeeze(1), None)
            x = fused_kernel(x, weight=self.chosen.weight if self.training else None, bias=None)
            x = torch.nn.functional.linear(x, self.switched.weight)
            return self.helper(self.switched.weight)
        return self.called(x.to(self.asked.weight.dtype))


def test_a_weight_handed_to_a_foreign_function_is_read_by_a_kernel():
    """As an argument, a keyword, a view of it, or under a condition; torch's own functions are a switch."""
    found = inspect_source(nn.Sequential(Mixer()))
    assert {path: reading.kernel for path, reading in found.items()} == {
        "0.taken": "fused_kernel",
        "0.viewed": "fused_kernel",
        "0.chosen": "fused_kernel",
        "0.switched": None,
    }


def test_a_direct_read_has_a_place():
    """File and line, for the source to be looked at."""
    where = inspect_source(Mixer())["taken"].where
    file, line = where.split(":")
    assert file == Path(__file__).name
    assert "self.taken.weight" in Path(__file__).read_text("utf-8").splitlines()[int(line) - 1]


def test_a_class_without_a_file_has_no_reads():
    """As one typed into a notebook."""
    space = {"nn": nn}
    exec("class Typed(nn.Module):\n    def forward(self, x):\n        return x @ self.a.weight\n", space)  # noqa: S102 - the way to have no file
    assert inspect_source(space["Typed"]()) == {}
