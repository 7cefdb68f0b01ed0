"""Running statistics of norms, which a training in train mode changes, belong to the adapter's files."""

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from loradar.adapters import LoraConfig, PeftModel, get_peft_model
from loradar.errors import AdapterUnreadable

CONFIG = LoraConfig(r=2, target_modules=["2"])
X = torch.linspace(-1, 3, 2 * 3 * 6 * 6).view(2, 3, 6, 6)


def network(width: int = 4) -> nn.Module:
    """Return a network with a batch norm, the same each time."""
    torch.manual_seed(0)
    last = (nn.Flatten(), nn.Linear(width * 4, 5))
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, width, 3), *last)


def trained(model: nn.Module, *, norms_train: bool = True) -> PeftModel:
    """Return the model with an adapter after one step."""
    adapted = get_peft_model(model, CONFIG).train()
    adapted.base_model.model[1].train(norms_train)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    adapted(X).square().sum().backward()
    optimizer.step()
    return adapted.eval()


def keys(folder) -> set[str]:
    """Return the keys of the norms in a file."""
    return {key for key in load_file(folder / "adapter_model.safetensors") if ".1." in key}


def test_a_reloaded_adapter_answers_as_the_trained_one(tmp_path):
    """The norm's statistics are those of the training."""
    adapted = trained(network())
    adapted.save_pretrained(tmp_path)
    names = ("running_mean", "running_var", "num_batches_tracked")
    assert keys(tmp_path) == {f"base_model.model.1.{name}" for name in names}
    again = PeftModel.from_pretrained(network(), tmp_path)
    assert torch.equal(again(X), adapted(X))


def test_norms_in_eval_mode_are_not_saved(tmp_path):
    """They are the base model's."""
    adapted = trained(network(), norms_train=False)
    adapted.save_pretrained(tmp_path)
    assert keys(tmp_path) == set()
    assert torch.equal(PeftModel.from_pretrained(network(), tmp_path)(X), adapted(X))


def test_a_loaded_adapter_is_saved_with_its_statistics_again(tmp_path):
    """Without a training in between."""
    adapted = trained(network())
    adapted.save_pretrained(tmp_path / "first")
    PeftModel.from_pretrained(network(), tmp_path / "first").save_pretrained(tmp_path / "second")
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_unload_restores_the_statistics_and_merging_keeps_them(tmp_path):
    """The one returns the model as it was, the other as it was trained."""
    before = network().eval()(X)
    adapted = trained(network())
    after = adapted(X)
    adapted.save_pretrained(tmp_path)
    torch.testing.assert_close(adapted.merge_and_unload().eval()(X), after)
    assert torch.equal(trained(network()).unload().eval()(X), before)
    assert torch.equal(PeftModel.from_pretrained(network(), tmp_path).unload().eval()(X), before)


def test_a_disabled_adapter_leaves_them_in_place_with_a_warning():
    """As it leaves trained biases."""
    adapted = trained(network())
    with pytest.warns(UserWarning, match="Running statistics of norms"), adapted.disable_adapter():
        pass


def test_a_second_file_replaces_them_with_a_warning(tmp_path):
    """All adapters share the norms; resuming and hot-swapping put them in, too."""
    adapted = trained(network())
    adapted.save_pretrained(tmp_path)
    other = get_peft_model(network(), CONFIG)
    with pytest.warns(UserWarning, match="The file of 'b' holds running statistics of norms"):
        other.load_adapter(tmp_path, "b")
    for put in ("load_adapter", "hotswap_adapter"):
        resumed = get_peft_model(network(), CONFIG)
        getattr(resumed, put)(tmp_path, "default")
        assert torch.equal(resumed.eval()(X), adapted(X))


def test_statistics_of_another_width_are_rejected(tmp_path):
    """And the model keeps its own."""
    trained(network()).save_pretrained(tmp_path)
    model = network(width=4)
    model[1] = nn.BatchNorm2d(8)
    with pytest.raises(AdapterUnreadable, match=r"running_mean' has shape \(4,\) where this model needs \(8,\)"):
        PeftModel.from_pretrained(model, tmp_path)


def test_the_card_gives_the_number_of_norms(tmp_path):
    """Only where there are any."""
    adapted = trained(network())
    adapted.save_pretrained(tmp_path)
    assert "| norms whose running statistics, changed by the training, are in the file | 1 |" in (
        tmp_path / "README.md"
    ).read_text(encoding="utf-8")


def test_peft_loads_the_file(tmp_path):
    """Its strict=False finds the statistics at the same place."""
    adapted = trained(network())
    adapted.save_pretrained(tmp_path)
    theirs = peft.PeftModel.from_pretrained(network(), tmp_path).eval()
    torch.testing.assert_close(theirs(X), adapted(X))
