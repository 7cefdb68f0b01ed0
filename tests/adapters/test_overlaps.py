"""Adapters that meet: on tied weights, on one module, on shared modules, and while others are merged."""

from typing import Any

import pytest
import torch
from adapter_zoo import randomise
from torch import nn

from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*shares its weight")


class Tied(nn.Module):
    """A language model whose head reads the weight of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 8)
        self.fc = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return a score per word."""
        result: torch.Tensor = self.head(self.fc(self.emb(ids)))
        return result


IDS = torch.arange(6).view(2, 3)


def tied(*targets: str, **fields: Any) -> tuple[Tied, PeftModel]:
    """Return the language model and our wrapper around it, with random adapters."""
    base = Tied().eval()
    model = inject(base, LoraConfig(target_modules=[*targets], r=2, **fields))
    randomise(model, std=0.3)
    return base, model


def test_an_adapter_added_while_a_tied_weight_is_merged() -> None:
    """What is tied is what the base model ties, not what is left of it while an adapter is merged."""
    base, model = tied("head", "emb")
    weight, before = base.emb.base_layer.weight, base.emb.base_layer.weight.clone()
    model.merge_adapter()
    model.add_adapter("other", LoraConfig(target_modules=["head"], r=2))
    randomise(model, std=0.3)
    model.set_adapter("other")
    expected = model(IDS)
    model.merge_adapter()
    torch.testing.assert_close(model(IDS), expected)
    assert torch.equal(weight, before)
    model.unmerge_adapter()
    assert base.head.weight is base.emb.weight is weight


def test_a_module_saved_while_it_is_merged() -> None:
    """The copy starts as the base model's module is, without the update that is merged into it."""
    base, model = tied("fc")
    before = base.fc.weight.clone()
    model.merge_adapter()
    model.add_adapter("other", LoraConfig(target_modules=["emb"], modules_to_save=["fc"], r=2))
    assert torch.equal(base.fc.modules_to_save["other"].weight, before)


def test_a_failed_addition_leaves_the_merged_merged() -> None:
    """The update is back in the weight after the error."""
    base, model = tied("fc")
    model.merge_adapter()
    merged = base.fc.weight.clone()
    with pytest.raises(InvalidConfig, match="no matrix"):
        model.add_adapter("other", LoraConfig(target_parameters=["fc.bias"]))
    assert base.fc.merged
    assert torch.equal(base.fc.weight, merged)


def test_deleting_an_adapter_freezes_its_biases() -> None:
    """Nobody else trains them."""
    base, model = tied("fc")
    model.add_adapter("other", LoraConfig(target_modules=["fc"], bias="all"))
    model.set_adapter("other")
    assert base.fc.bias.requires_grad
    with pytest.warns(UserWarning, match="active now"):
        model.delete_adapter("other")
    assert not base.fc.bias.requires_grad


def test_no_adapter_is_none_to_activate() -> None:
    """An empty list is refused, with the way to the base model."""
    _, model = tied("fc")
    with pytest.raises(InvalidConfig, match=r"disable_adapter\(\)"):
        model.set_adapter([])
    assert model.active_adapters == ["default"]


def test_an_adapter_named_twice_counts_once() -> None:
    """Its update is not added twice."""
    _, model = tied("fc")
    expected = model(IDS)
    model.set_adapter(["default", "default"])
    assert torch.equal(model(IDS), expected)


def test_disabled_is_disabled_for_every_sample() -> None:
    """Within ``disable_adapter`` the base model answers, whatever adapter is named for a sample."""
    torch.manual_seed(3)
    base = Tied().eval()
    plain = base(IDS)
    model = inject(base, LoraConfig(target_modules=["fc"], r=2)).eval()
    randomise(model, std=0.3)
    with model.disable_adapter():
        assert torch.equal(model(IDS, adapter_names=["default", "default"]), plain)
