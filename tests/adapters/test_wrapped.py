"""Compiled, data-parallel and distributed models adapt, train and save like plain ones."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapter_zoo import adapter_parameters
from safetensors.torch import load_file
from torch import distributed, nn
from torch._dynamo.testing import CompileCounter
from zoo import llama

from loradar.adapters import LoraConfig, PeftModel, auto_config, get_peft_model, rank_layers
from loradar.errors import InvalidConfig

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, as it traces

TARGETS = ["q_proj", "v_proj"]
TOKENS = torch.arange(6)[None]


class Block(nn.Module):
    """Two projections."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(4, 4)
        self.v_proj = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input and what they make of it."""
        return x + self.v_proj(self.q_proj(x).tanh())


class Decoder(nn.Module):
    """Two blocks over an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.layers = nn.ModuleList([Block(), Block()])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Run the blocks."""
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return x


class Tiny(nn.Module):
    """A decoder with a head, which dynamo follows quickly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = Decoder()
        self.lm_head = nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.lm_head(self.model(ids))


@pytest.fixture(autouse=True)
def _forget_graphs() -> None:
    torch._dynamo.reset()


def compiled(model: nn.Module) -> Any:
    """Return a compiled model."""
    return torch.compile(model, backend="eager")


def in_place(model: nn.Module) -> nn.Module:
    """Compile a model in place, which leaves no wrapper."""
    model.compile(backend="eager")
    return model


def by_block(model: Any) -> nn.Module:
    """Compile each block by itself."""
    for index, block in enumerate(model.model.layers):
        model.model.layers[index] = torch.compile(block, backend="eager")
    return model


def by_layer(model: Any) -> nn.Module:
    """Compile some linears, which adapters are for."""
    for block in model.model.layers:
        block.q_proj = torch.compile(block.q_proj, backend="eager")
    return model


def inner_parallel(model: Any) -> nn.Module:
    """Wrap the decoder alone."""
    model.model = nn.DataParallel(model.model)
    return model


WRAPS = (compiled, in_place, by_block, by_layer, nn.DataParallel, inner_parallel)


def adapt(model: nn.Module, **fields: Any) -> PeftModel:
    """Return a model with random adapters."""
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(target_modules=TARGETS, init_lora_weights=False, **fields))


def run(model: Any) -> torch.Tensor:
    """Return logits."""
    with torch.no_grad():
        result: torch.Tensor = model(TOKENS)
    return result


@pytest.mark.parametrize("wrap", WRAPS)
def test_like_the_plain_model(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    """Outputs through the adapter and through the user's own handle, files, loading, training and unloading."""
    plain = Tiny()
    model = wrap(copy.deepcopy(plain))
    base = run(model)  # compiled before the adapters are there
    adapted, twin = adapt(model), adapt(plain)
    expected = run(twin)
    assert not torch.allclose(expected, base, atol=1e-4)
    torch.testing.assert_close(run(adapted), expected)
    torch.testing.assert_close(run(model), expected)
    torch.testing.assert_close(run(copy.deepcopy(adapted)), expected)

    for each, folder in ((twin, "plain"), (adapted, "wrapped")):
        each.save_pretrained(tmp_path / folder)
    one, other = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("plain", "wrapped"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    configs = [json.loads((tmp_path / name / "adapter_config.json").read_text()) for name in ("plain", "wrapped")]
    assert configs[0] == configs[1]
    torch.testing.assert_close(run(PeftModel.from_pretrained(wrap(Tiny()), tmp_path / "wrapped")), expected)

    for each in (adapted, twin):
        each.train()(TOKENS).sum().backward()
    gradients = dict(adapter_parameters(twin))
    for name, parameter in adapter_parameters(adapted):
        twins = gradients[name.replace("_orig_mod.", "").replace("model.module.", "model.")]
        torch.testing.assert_close(parameter.grad, twins.grad)

    classes = [type(module) for module in wrap(Tiny()).modules()]
    adapted.eval().unload()
    assert [type(module) for module in model.modules()] == classes
    torch.testing.assert_close(run(model), base)


def test_the_wrapped_model_is_what_runs() -> None:
    """The adapted model goes through the compiler, once more and not at each forward."""
    counter = CompileCounter()
    model = torch.compile(Tiny(), backend=counter)
    run(model)
    before = counter.frame_count
    adapted = adapt(model)
    run(adapted)
    after = counter.frame_count
    run(adapted)
    assert before < after == counter.frame_count


@pytest.mark.parametrize(("wrap", "fields"), [(by_block, {}), (inner_parallel, {"target_modules": "all-linear"})])
def test_targets_are_decided_as_for_the_plain_model(wrap: Callable[[Any], Any], fields: dict[str, Any]) -> None:
    """Neither the registry nor a scan sees the wrappers."""
    plain = get_peft_model(llama().model, **fields)
    adapted = get_peft_model(wrap(llama().model), **fields)
    assert adapted.targeted_module_names == plain.targeted_module_names
    assert adapted.decision == plain.decision


def test_a_saved_head_that_is_compiled(tmp_path: Path) -> None:
    """Its copy is saved under the plain name, and is in the model after a merge."""
    model = Tiny()
    model.lm_head = torch.compile(model.lm_head, backend="eager")
    adapted = adapt(model, modules_to_save=["lm_head"])
    adapted.save_pretrained(tmp_path)
    assert "base_model.model.lm_head.weight" in load_file(tmp_path / "adapter_model.safetensors")
    merged = adapted.merge_and_unload()
    assert type(merged.lm_head) is nn.Linear


def test_peft_loads_what_a_compiled_model_saved(tmp_path: Path) -> None:
    """PEFT's model gives the same."""
    adapted = adapt(compiled(Tiny()))
    adapted.save_pretrained(tmp_path)
    theirs = peft.PeftModel.from_pretrained(Tiny(), tmp_path)
    torch.testing.assert_close(run(theirs), run(adapted))


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_the_state_of_a_wrapped_wrapper_is_saved(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    """Trainers wrap the adapted model, and give ``save_pretrained`` the values of that state dict."""
    adapted = adapt(Tiny())
    values = {name: tensor + 1 for name, tensor in wrap(adapted).state_dict().items()}
    adapted.save_pretrained(tmp_path, state_dict=values)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    for key, tensor in adapted.adapter_state().items():
        torch.testing.assert_close(saved[key], tensor.detach() + 1)


def test_samples_are_not_split_over_devices() -> None:
    """``adapter_names`` is for the whole batch, of which each replica gets a part."""
    model = nn.DataParallel(Tiny().eval())
    adapted, ids, names = adapt(model), TOKENS.expand(2, -1), ["default", "__base__"]
    with torch.no_grad():
        assert not torch.equal(*adapted(ids, adapter_names=names))
    model.device_ids = [0, 1]
    with pytest.raises(InvalidConfig, match="adapt the model inside"):
        adapted(ids, adapter_names=names)


# --- distributed --------------------------------------------------------------------------------------------------


@pytest.fixture
def _group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("_group")
def test_replicas_are_adapted_inside(tmp_path: Path) -> None:
    """DDP knows the parameters it was made with: the old one rejects forwards, a new one trains the adapters."""
    replicas = nn.parallel.DistributedDataParallel(Tiny())
    with pytest.warns(UserWarning, match=r"DistributedDataParallel\(peft_model\)"):
        adapted = adapt(replicas)
    with pytest.raises(InvalidConfig, match="made before the adapters"):
        replicas(TOKENS)
    adapted.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert saved
    assert all(key.startswith("base_model.model.model.layers.") for key in saved)

    again = nn.parallel.DistributedDataParallel(adapted.train())
    again(TOKENS).sum().backward()
    assert all(parameter.grad is not None for _, parameter in adapter_parameters(adapted))
    values = {name: tensor + 1 for name, tensor in again.state_dict().items()}
    adapted.save_pretrained(tmp_path / "again", state_dict=values)
    trained = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert all(torch.equal(trained[key], saved[key] + 1) for key in saved)

    adapted.unload()
    assert replicas(TOKENS).requires_grad


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_what_only_reads_a_model_reads_the_wrapped_one_inside(wrap: Callable[[Any], Any]) -> None:
    """Ranks of layers and configurations for peft name layers as in the model inside."""
    model = llama().model
    batches = [{"input_ids": TOKENS, "labels": TOKENS}]
    found = [rank_layers(each, batches) for each in (model, wrap(model))]
    assert found[0].layers == found[1].layers
    assert auto_config(wrap(model)).target_modules == auto_config(model).target_modules == {*TARGETS}
