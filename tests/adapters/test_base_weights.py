"""Weights of the base model under their original names, loaded into a model that has adapters already."""

import copy
from typing import Any

import peft
import pytest
import torch
from adapter_zoo import adapter_parameters
from torch import nn

from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig

FIELDS: dict[str, Any] = {"target_modules": ["words", "hidden"], "modules_to_save": ["head"], "r": 2}


class Tied(nn.Module):
    """An embedding, a hidden layer, a head, and an output that shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.hidden = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return classes and words."""
        x = self.norm(self.hidden(self.words(ids)))
        return self.head(x), self.output(x)


def checkpoint() -> dict[str, torch.Tensor]:
    """Return weights as a file has them: a tied weight once."""
    torch.manual_seed(3)
    state = {name: torch.rand(tensor.shape).to(tensor.dtype) for name, tensor in Tied().state_dict().items()}
    del state["output.weight"]
    return state


def adapted(device: str = "cpu") -> PeftModel:
    """Return the model with an adapter, on meta or not."""
    with torch.device(device):
        model = Tied()
    with pytest.warns(UserWarning, match="shares its weight"):
        return inject(model.eval(), LoraConfig(**FIELDS))


def expected() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs of the plain model with the weights of the checkpoint."""
    model = Tied().eval()
    model.load_state_dict(checkpoint(), strict=False)
    result: tuple[torch.Tensor, torch.Tensor] = model(torch.arange(7))
    return result


def test_into_adapters_on_meta() -> None:
    """Base weights go where they belong, tied ones stay tied, the adapter and the copy of the head are filled."""
    model = adapted("meta")
    found = model.load_base_state_dict(checkpoint(), assign=True)
    assert found == ([], [])
    assert not [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    inner = model.get_base_model()
    assert inner.output.weight is inner.words.base_layer.weight
    for got, wanted in zip(model(torch.arange(7)), expected(), strict=True):
        torch.testing.assert_close(got, wanted)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in adapter_parameters(model)}
    assert all(parameter.abs().sum() for name, parameter in adapter_parameters(model) if "lora_A.default" in name)


def test_into_storage_given_before() -> None:
    """After ``to_empty`` the values are copied, and ``reset_adapter`` fills the adapter and its copy of the head."""
    model = adapted("meta").to_empty(device="cpu")
    inner = model.get_base_model()
    inner.output.weight = inner.words.base_layer.weight  # which to_empty unties
    assert model.load_base_state_dict(checkpoint()) == ([], [])
    model.reset_adapter()
    for got, wanted in zip(model(torch.arange(7)), expected(), strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_state_is_the_plain_models() -> None:
    """The names and values that the plain model has, as PEFT's function gives them, and back again."""
    plain = Tied()
    state = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    with pytest.warns(UserWarning, match="shares its weight"):
        model = inject(copy.deepcopy(plain), LoraConfig(**FIELDS))
    theirs = peft.get_base_model_state_dict(peft.get_peft_model(copy.deepcopy(plain), peft.LoraConfig(**FIELDS)))
    found = model.get_base_model_state_dict()
    assert found.keys() == state.keys() == theirs.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert model.load_base_state_dict({f"module.{name}": tensor for name, tensor in state.items()}) == ([], [])


def test_the_key_map_names_the_adapted_models_tensors() -> None:
    """From each original name to that in the adapted model's state dict, blocks compiled or not."""
    model = adapted()
    names = model.base_key_map()
    assert names["hidden.weight"] == "base_model.model.hidden.base_layer.weight"
    assert names["head.bias"] == "base_model.model.head.original_module.bias"
    assert names.keys() == Tied().state_dict().keys()
    assert {*names.values()} < model.state_dict().keys()
    model.get_base_model().norm = torch.compile(model.get_base_model().norm)
    assert model.base_key_map()["norm.weight"] == "base_model.model.norm._orig_mod.weight"
    assert {*model.base_key_map().values()} < model.state_dict().keys()


def test_missing_and_unexpected_names() -> None:
    """They are rejected, or returned; nothing is loaded in the first case."""
    model, state = adapted(), checkpoint()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    del state["hidden.bias"]
    with pytest.raises(InvalidConfig, match="lacks 'hidden"):
        model.load_base_state_dict(state)
    state["hiden.bias"] = torch.zeros(4)
    with pytest.raises(InvalidConfig, match="has shape"):
        model.load_base_state_dict(checkpoint() | {"hidden.bias": torch.zeros(5)})
    with pytest.raises(InvalidConfig, match="unexpected 'hiden"):
        model.load_base_state_dict(checkpoint() | {"hiden.bias": torch.zeros(4)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.load_base_state_dict(state, strict=False) == (["hidden.bias"], ["hiden.bias"])


def test_what_would_be_lost_is_rejected() -> None:
    """Values copied to meta, and base weights that updates are merged into."""
    with pytest.raises(InvalidConfig, match="assign=True"):
        adapted("meta").load_base_state_dict(checkpoint())
    model = adapted()
    model.merge_adapter()
    with pytest.raises(InvalidConfig, match="unmerge_adapter first"):
        model.load_base_state_dict(checkpoint())
