"""Saved modules whose names end those of others: PEFT matches modules_to_save by plain endings."""

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

from loradar.adapters import IA3Config, LoraConfig, PeftModel, inject

WIDTH = 4
CONFIGS: dict[str, Any] = {
    "lora": lambda **fields: LoraConfig(target_modules=["proj"], r=2, init_lora_weights=False, **fields),
    "dropout": lambda **fields: LoraConfig(target_modules=["proj"], r=2, lora_dropout=0.1, **fields),
    "dora": lambda **fields: LoraConfig(target_modules=["proj"], r=2, use_dora=True, **fields),
    "rows": lambda **fields: LoraConfig(target_modules=["proj"], r=2, trainable_token_indices=[1], **fields),
    "ia3": lambda **fields: IA3Config(target_modules=["proj"], feedforward_modules=[], **fields),
}


class Tower(nn.Module):
    """An embedding and two layers, and a head of a given name, in a module of its own or not."""

    def __init__(self, name: str, *, is_nested: bool) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(8, WIDTH)
        self.proj, self.xfc = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.top = nn.Module()
        self.path = f"top.{name}" if is_nested else name
        (self.top if is_nested else self).add_module(name, nn.Linear(WIDTH, 3))

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding, as models of transformers do."""
        return self.embed_tokens

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        return self.get_submodule(self.path)(self.xfc(self.proj(self.embed_tokens(ids))))


def save(name: str, config: str, folder: Path, *, is_nested: bool = True) -> tuple[nn.Module, torch.Tensor]:
    """Save an adapter and a head with random weights; return a copy of the base model, and the adapted output."""
    torch.manual_seed(0)
    base = Tower(name, is_nested=is_nested)
    copy = Tower(name, is_nested=is_nested)
    copy.load_state_dict(base.state_dict())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is a whole name here, and PEFT trains")  # fc, beside an xfc
        model = inject(base, CONFIGS[config](modules_to_save=[name])).eval()
    with torch.no_grad():
        for parameter in filter(lambda each: each.requires_grad, model.parameters()):
            parameter.normal_()
        model.save_pretrained(folder)
        return copy, model(torch.arange(5))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("out", "lora"),
        ("out", "dropout"),
        ("A", "lora"),
        ("B", "dora"),
        ("dropout", "dropout"),
        ("vector", "dora"),
        ("default", "lora"),
        ("layer", "ia3"),
        ("l", "ia3"),
        ("delta", "rows"),
        ("adapter", "rows"),
        ("fc", "lora"),
    ],
)
def test_peft_loads_a_head_inside_a_module(name: str, config: str, tmp_path: Path) -> None:
    """The file names it by its path: PEFT and loradar give the saved model's output, and train the head again."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        base, expected = save(name, config, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == [f"top.{name}"]
    for library in (peft.PeftModel, PeftModel):
        fresh = Tower(name, is_nested=True)
        fresh.load_state_dict(base.state_dict())
        model: Any = library.from_pretrained(fresh, tmp_path, is_trainable=True).eval()
        torch.testing.assert_close(model(torch.arange(5)), expected)
        head = model.base_model.model.get_submodule(f"top.{name}").modules_to_save["default"]
        assert all(parameter.requires_grad for parameter in head.parameters())
        model.save_pretrained(tmp_path / "again")
        with model.disable_adapter():
            torch.testing.assert_close(model(torch.arange(5)), base(torch.arange(5)))


def test_a_head_of_the_model_itself_has_no_other_name(tmp_path: Path) -> None:
    """PEFT rejects it, under any name; saving warns, and loradar loads it."""
    with pytest.warns(UserWarning, match=r"'out' loads in loradar, not in PEFT.*'proj.lora_dropout'.*Rename"):
        base, expected = save("out", "lora", tmp_path, is_nested=False)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == ["out"]
    torch.testing.assert_close(PeftModel.from_pretrained(base, tmp_path)(torch.arange(5)), expected)
    with pytest.raises(TypeError, match="modules_to_save cannot be applied"):
        peft.PeftModel.from_pretrained(Tower("out", is_nested=False), tmp_path)


def test_a_name_that_ends_no_other_stays(tmp_path: Path) -> None:
    """The configuration of most files is the user's own."""
    save("head", "dropout", tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == ["head"]
