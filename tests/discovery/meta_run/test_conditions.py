"""A model is left as it was found."""

import random

import pytest
import torch
from discovery_zoo import Decoder
from torch._dynamo import eval_frame

from loradar.discovery.meta_run.conditions import uncompiled, untouched


class Messy(torch.nn.Module):
    """Changes everything it can reach, then raises."""

    def __init__(self):
        """Own one of each."""
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros(1))
        self.history = []
        self.cache = {"kept": 1}
        self.steps = 0

    def forward(self, tensor):
        """Leave traces."""
        self.count += 1
        self.steps += 1
        self.history.append(tensor)
        self.cache["new"] = tensor
        self.extra = torch.nn.Linear(2, 2)
        self.register_buffer("late", tensor)
        self.layer.weight.requires_grad_(requires_grad=False)
        self.layer.register_forward_hook(lambda *_: None)
        self.train()
        torch.manual_seed(0)
        random.seed(0)
        torch.set_default_dtype(torch.float64)
        raise RuntimeError("enough")


@pytest.fixture
def messy():
    """A model in training, with one frozen parameter."""
    model = Messy()
    model.layer.bias.requires_grad_(requires_grad=False)
    return model


def test_everything_is_put_back_after_a_forward_that_raises(messy):
    """Attributes, containers, modules, buffers, hooks, flags and states."""
    state, numbers = torch.get_rng_state(), random.getstate()
    with pytest.raises(RuntimeError, match="enough"), untouched(messy):
        messy(torch.ones(2))
    assert messy.count.tolist() == [0.0]
    assert (messy.history, messy.cache, messy.steps) == ([], {"kept": 1}, 0)
    assert [name for name, _ in messy.named_modules()] == ["", "layer"]
    assert [name for name, _ in messy.named_buffers()] == ["count"]
    assert messy.layer.weight.requires_grad
    assert not messy.layer.bias.requires_grad
    assert not messy.layer._forward_hooks
    assert messy.training
    assert messy.layer.training
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == numbers
    assert torch.get_default_dtype() == torch.float32


def test_inside_it_evaluates_without_gradients():
    """Dropout and gradients have no place in a forward that is only watched."""
    model = Decoder()
    with untouched(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


def test_the_same_tensors_are_put_back():
    """Ties between parameters survive a swap inside."""
    model = Decoder()
    before = dict(model.named_parameters(remove_duplicate=False))
    with untouched(model):
        model.head.weight = torch.nn.Parameter(torch.zeros(32, 8))
        del model.blocks[0].mlp.alpha._parameters["bias"]
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert model.head.weight is model.embed.weight


def test_configurations_are_put_back(small_bert):
    """Settings for the run are fields of the model's configuration."""
    fields = dict(vars(small_bert.config))
    with untouched(small_bert):
        small_bert.config.use_cache = not small_bert.config.use_cache
        small_bert.config._attn_implementation_internal = "other"
        small_bert.config.more = 1
    assert vars(small_bert.config) == fields


def test_a_mode_that_was_evaluating_stays_so():
    """Single modules keep their own flag."""
    model = Decoder()
    model.blocks[1].eval()
    flags = [module.training for module in model.modules()]
    with untouched(model):
        pass
    assert [module.training for module in model.modules()] == flags


def test_compilation_is_on_again_whatever_context_is_left_last():
    """One inside a generator may outlive the one around it, and found compilation off."""
    torch.compiler.set_stance("default")
    outer, inner = uncompiled(), uncompiled()
    for context in (outer, inner):
        context.__enter__()
    assert eval_frame._stance.stance == "force_eager"
    for context in (outer, inner):
        context.__exit__(None, None, None)
    assert eval_frame._stance.stance == "default"
