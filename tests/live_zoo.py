"""Tiny models with one layer each on which an adapter learns nothing, or which cannot be merged."""

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import nn

WIDTH = 8


class Step(nn.Module):
    """A linear that is called, beside something odd."""

    def __init__(self, **odd):
        super().__init__()
        self.called = nn.Linear(WIDTH, WIDTH)
        for name, module in odd.items():
            setattr(self, name, module)

    def forward(self, x):
        """Call it."""
        return self.called(x)


class Reads(Step):
    """Reads the weight of a layer it does not call."""

    def __init__(self):
        super().__init__(odd=nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        """Multiply by its weight."""
        return F.linear(self.called(x), self.odd.weight)


class Detaches(Step):
    """Cuts off what a layer writes."""

    def __init__(self):
        super().__init__(odd=nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        """Use the numbers, not the graph."""
        return self.called(x) * self.odd(x).detach()


class Forgets(Step):
    """Calls a layer and does not use what it writes."""

    def __init__(self):
        super().__init__(odd=nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        """Call it for nothing."""
        self.odd(x)
        return self.called(x)


class Skips(Step):
    """Holds a layer it never comes to."""

    def __init__(self):
        super().__init__(odd=nn.Linear(WIDTH, WIDTH))


class TwoOutputs(Step):
    """Returns a second output, in a tuple in a dictionary."""

    def __init__(self):
        super().__init__(odd=nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        """Nest it."""
        return {"first": self.called(x), "rest": (self.odd(x).softmax(-1), 3)}


class Direct(Step):
    """Calls a layer's forward itself."""

    def __init__(self):
        super().__init__(odd=nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        """Pass by the hooks."""
        return self.odd.forward(self.called(x))


class Grouped(nn.Linear):
    """Applies half of its rows to each of two groups of features, as DeepSeek-V4's output projection does."""

    def forward(self, x):
        """Read and write the groups apart."""
        return torch.einsum("...gi,goi->...go", x, self.weight.unflatten(0, (2, -1)))


class Groups(Step):
    """A linear that no adapter fits."""

    def __init__(self):
        super().__init__(odd=Grouped(WIDTH // 2, WIDTH, bias=False))

    def forward(self, x):
        """Call it."""
        return self.odd(self.called(x).unflatten(-1, (2, -1)))


class Paired(nn.Linear):
    """Returns a scaling factor beside what it writes, as I-BERT's linears do."""

    def forward(self, x):
        """Apply, with no factor."""
        return super().forward(x), None


class Pairs(Step):
    """A linear that returns a pair."""

    def __init__(self):
        super().__init__(odd=Paired(WIDTH, WIDTH))

    def forward(self, x):
        """Take the first."""
        return self.odd(self.called(x))[0]


class Standardised(nn.Conv2d):
    """Standardises its weight before it convolves."""

    def forward(self, x):
        """Convolve with the standardised weight."""
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        weight = weight / weight.std(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class PadsItself(nn.Conv2d):
    """Pads by itself, whatever its padding says."""

    def forward(self, x):
        """Pad, and convolve."""
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class Twice(nn.Module):
    """A convolution that pads by itself from its second call on."""

    def __init__(self):
        super().__init__()
        self.called = nn.Conv2d(3, WIDTH, 3)
        self.odd = PadsLater(WIDTH, WIDTH, 3)

    def forward(self, x):
        """Call it on features, and on what it wrote."""
        return self.odd(self.odd(self.called(x)), is_padded=True)


class PadsLater(nn.Conv2d):
    """Pads where it is told to."""

    def forward(self, x, *, is_padded=False):
        """Convolve."""
        return super().forward(F.pad(x, (1, 1, 1, 1)) if is_padded else x)


class Images(nn.Module):
    """One convolution of a class, between two others."""

    def __init__(self, odd, **settings):
        super().__init__()
        self.called = nn.Conv2d(3, WIDTH, 3)
        self.odd = odd(WIDTH, WIDTH, 3, **settings)

    def forward(self, x):
        """Convolve twice."""
        return self.odd(self.called(x).relu())


class Experts(nn.Module):
    """Fused experts, every one of which works on every token."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 2 * WIDTH, WIDTH) * 0.1)
        self.down = nn.Parameter(torch.randn(3, WIDTH, 2 * WIDTH) * 0.1)

    def forward(self, x):
        """Up and down in each."""
        hidden = torch.einsum("btw,ehw->beth", x, self.up).relu()
        return torch.einsum("beth,ewh->btw", hidden, self.down)


class Random(Step):
    """Adds other noise at each call."""

    def forward(self, x):
        """Draw from a generator of its own."""
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(int(torch.seed() % 1000)))
        return self.called(x) + noise


class Drops(Step):
    """Drops most of what it computes, in train mode."""

    def __init__(self):
        super().__init__(odd=nn.Dropout(0.9))
        self.drop_rate = 0.9

    def forward(self, x):
        """Drop by a module and by a function."""
        return F.dropout(self.odd(self.called(x)), self.drop_rate, self.training)


class Rectified(Step):
    """Ends in a rectifier that lets nothing through."""

    def forward(self, x):
        """Push everything below zero."""
        return F.relu(self.called(x) - 1000)


class Whispers(Step):
    """Returns next to nothing."""

    def forward(self, x):
        """Make it too small for a gradient in single precision."""
        return self.called(x) * 1e-30 * 1e-15


class Masks(Step):
    """Returns scores of which some are minus infinity."""

    def forward(self, x):
        """Forbid the first."""
        scores = self.called(x)
        return scores.masked_fill(torch.arange(WIDTH) == 0, float("-inf"))
