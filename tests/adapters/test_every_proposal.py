"""A proposal is one that the injector takes: every model of the zoos, every method of ours, every preset."""

import inspect
from importlib import import_module

import multihead_zoo
import pytest
import torch
from torch import nn

import loradar
from loradar.adapters import IA3Config, LoraConfig, inject
from loradar.errors import LoradarError

ZOOS = ("discovery_zoo", "flow_zoo", "edge_zoo", "live_zoo", "multihead_zoo", "zoo")
CONFIGS = {"LORA": LoraConfig, "IA3": IA3Config}


class OwnPadding(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x):
        """Pad by itself."""
        return super().forward(nn.functional.pad(x, (0, 0, 0, 0)))


class Convolves(nn.Module):
    """Two blocks with a convolution in groups, which LoRA can imitate only if its forward is PyTorch's."""

    def __init__(self, conv):
        super().__init__()
        blocks = (
            nn.ModuleDict({"point": nn.Conv2d(8, 8, 3, padding=1), "grouped": conv(8, 8, 3, padding=1, groups=2)})
            for _ in "ab"
        )
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        """Return logits of images of 8 channels."""
        for block in self.blocks:
            x = x + block["grouped"](block["point"](x).relu())
        return self.head(x.mean((2, 3)))


class Lists(nn.Module):
    """Stacks of matrices in a list of parameters, which no forward calls."""

    def __init__(self):
        super().__init__()
        blocks = [nn.ModuleDict({"up": nn.Linear(8, 8)}) for _ in range(2)]
        for block in blocks:
            block["experts"] = nn.ParameterList([nn.Parameter(torch.randn(2, 8, 8)) for _ in range(2)])
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        """Multiply with each."""
        for block in self.blocks:
            x = block["up"](x) @ block["experts"][0][0] @ block["experts"][1][1]
        return self.head(x)


ODD = {
    "plain groups": lambda: Convolves(nn.Conv2d),
    "own groups": lambda: Convolves(OwnPadding),
    "lists": Lists,
    "several widths": multihead_zoo.several_widths,
    "passes on": lambda: multihead_zoo.Encoder(multihead_zoo.Block, multihead_zoo.PassesOn),
    "returns a tensor": lambda: multihead_zoo.Encoder(multihead_zoo.Block, multihead_zoo.ReturnsTensor),
    "packed": lambda: multihead_zoo.Encoder(multihead_zoo.Block, multihead_zoo.Packed),
    "own projections": lambda: multihead_zoo.Encoder(multihead_zoo.Block, multihead_zoo.OwnProjections),
    "read outside": lambda: multihead_zoo.Encoder(multihead_zoo.ReadsOutside),
}


def models():
    """Yield (name, builder) of every module of the zoos that needs no argument, and of the odd ones here."""
    for zoo in map(import_module, ZOOS):
        for name, kind in vars(zoo).items():
            is_own = inspect.isclass(kind) and issubclass(kind, nn.Module) and kind.__module__ == zoo.__name__
            if is_own and not required(kind):
                yield f"{zoo.__name__}.{name}", kind
    yield from ODD.items()


def required(kind):
    """Return the parameters a class cannot be built without."""
    parameters = inspect.signature(kind).parameters.values()
    return [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


MODELS = dict(models())


def test_the_zoos_are_not_empty():
    """Fewer would mean that the search for them is broken."""
    assert len(MODELS) > 50


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["auto", "names"])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_the_injector_takes_every_proposal(build, method):
    """What is proposed can be done, whether a forward ran or not."""
    try:
        found = loradar.scan(build(), method=method)
    except LoradarError:
        return  # nothing is proposed
    for proposal in found.proposals:
        make = CONFIGS.get(proposal.peft_type)
        if make is not None:
            spec = {name: value for name, value in proposal.spec.values.items() if value is not None}
            inject(build(), make(**spec))
