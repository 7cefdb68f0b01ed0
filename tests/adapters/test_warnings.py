"""Warnings of the adapters name the line of the user, whatever raised them and however deep."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from zoo import MLP, llama

import loradar
from loradar import LoraConfig, get_peft_model
from loradar.adapters import inject

FIELDS = {"target_modules": ["seq.0"], "r": 2}


def adapted(**fields):
    """Return a small model with an adapter."""
    return inject(MLP(8), LoraConfig(**FIELDS, **fields))


def named(name):
    """Return a small model as from a checkpoint."""
    model = MLP(8)
    model.name_or_path = name
    return model


def tied():
    """Return a model whose layers share a weight."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].weight = model[1].weight
    return model


def delete_active():
    """Delete the active of two adapters."""
    model = adapted()
    model.add_adapter("other", LoraConfig(**FIELDS))
    model.delete_adapter("default")


def switch_merged():
    """Activate an adapter while it is merged."""
    model = adapted()
    model.merge_adapter()
    model.set_adapter("default")


ACTS = {
    "pattern": lambda _folder: get_peft_model(MLP(8), LoraConfig(**FIELDS, rank_pattern={"nothing": 4})),
    "exclusion": lambda _folder: get_peft_model(MLP(8), LoraConfig(**FIELDS, exclude_modules=["nothing"])),
    "added": lambda _folder: adapted().add_adapter("b", LoraConfig(**FIELDS, alpha_pattern={"nothing": 4})),
    "base": lambda _folder: get_peft_model(named("a/b"), LoraConfig(**FIELDS, base_model_name_or_path="c/d")),
    "tied": lambda _folder: inject(tied(), LoraConfig(target_modules=["0"])),
    "deleted": lambda _folder: delete_active(),
    "switched": lambda _folder: switch_merged(),
    "disabled": lambda _folder: adapted(bias="all").disable_adapter().__enter__(),
    "saved": lambda folder: inject(llama().model, LoraConfig(target_modules=["embed_tokens"])).save_pretrained(folder),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_the_place_of_a_warning_is_the_users_line(act, tmp_path):
    """Otherwise Python shows it once per line of ours, and the user cannot find the call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act(tmp_path)
    assert {warning.filename for warning in caught} == {__file__}


def test_no_warning_of_the_adapters_counts_frames_itself():
    """A number of frames is wrong after the next refactoring."""
    sources = [*Path(loradar.adapters.__file__).parent.rglob("*.py")]
    assert sources
    assert [path.name for path in sources if "warnings.warn(" in path.read_text("utf-8")] == []


class Reversible(torch.autograd.Function):
    """A block that computes its gradients in the backward alone, and has one only if its input needs one."""

    @staticmethod
    def forward(ctx, x, block):
        """Run the block without a graph."""
        ctx.block = block
        ctx.save_for_backward(x)
        with torch.no_grad():
            return block(x)

    @staticmethod
    def backward(ctx, gradient):
        """Run it again with one."""
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            ctx.block(x).backward(gradient)
        return x.grad, None


class ReversibleMLP(MLP):
    """A model whose output needs no gradient, whatever trains in it."""

    def forward(self, x):
        """Run all layers as one reversible block."""
        return {"logits": Reversible.apply(x, self.seq), "ids": torch.arange(2)}


UNTRAINED = "in train mode needs no gradient, so no adapter trains: "


def test_a_model_that_trains_nothing_says_so_once():
    """At the first forward in train mode that shows it; with an input that needs a gradient it trains."""
    model = inject(ReversibleMLP(8), LoraConfig(**FIELDS)).train()
    x = torch.randn(3, 20)
    with warnings.catch_warnings(action="error"):
        with torch.no_grad():
            model(x)
        model.eval()(x)
        with model.train().disable_adapter():
            model(x)
    with pytest.warns(UserWarning, match=f"The output of ReversibleMLP {UNTRAINED}they are bypassed, or in blocks"):
        model(x)
    with warnings.catch_warnings(action="error"):
        model(x.requires_grad_())["logits"].sum().backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)


def test_merged_adapters_in_train_mode_say_that_they_do_not_train():
    """With the way out; frozen ones are frozen as is wanted, and others train."""
    model, x = adapted().train(), torch.randn(3, 20)
    model.merge_adapter()
    with pytest.warns(
        UserWarning, match=rf"{UNTRAINED}they are merged into the base weights. Call unmerge_adapter\(\)"
    ):
        model(x)
    with warnings.catch_warnings(action="error"):
        adapted().train()(x)
        frozen = adapted(inference_mode=True).train()
        frozen(x)


def test_targets_that_no_forward_calls_are_named():
    """A discriminator beside a generator learns only if training calls it too."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 6))
            self.discriminator = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

        def forward(self, x):
            return self.generator(x)

    with pytest.warns(
        UserWarning, match=r"never calls 3 layers of the targets \(discriminator.0, .*: adapters there learn"
    ):
        get_peft_model(Pair(), example_inputs=torch.ones(2, 4))
    get_peft_model(Pair().generator, example_inputs=torch.ones(2, 4))  # a warning would be an error
