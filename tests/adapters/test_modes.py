"""Injection inside of torch's modes: the adapters are the same as outside, and train after it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from zoo import Specimen, bert, llama, vit

from loradar.adapters import LoraConfig, PeftModel, get_peft_model
from loradar.errors import InvalidConfig


@contextmanager
def default_device() -> Iterator[None]:
    """Set the meta device as the default."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set a dtype as the default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "device meta": lambda: torch.device("meta"),
    "default device meta": default_device,
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
    "default float64": lambda: default_dtype(torch.float64),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}
TARGETS = {"target_modules": r".*\.(q_proj|query)"}
FIELDS = {
    "saved": {**TARGETS, "bias": "lora_only"},
    "dora": {**TARGETS, "use_dora": True},
    "orthogonal": {**TARGETS, "init_lora_weights": "orthogonal"},
    "pissa": {**TARGETS, "init_lora_weights": "pissa"},
}


def run(specimen: Specimen, adapted: PeftModel, device: str = "cpu") -> torch.Tensor:
    """Return the first output, with its gradients, for inputs on a device."""
    output: torch.Tensor = adapted(**{name: each.to(device) for name, each in specimen.inputs.items()})[0]
    return output


def trained(adapted: PeftModel) -> dict[str, torch.Tensor]:
    """Return the parameters that train."""
    return {name: each for name, each in adapted.named_parameters() if each.requires_grad}


@pytest.mark.parametrize("build", [llama, bert])
@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("mode", MODES)
def test_an_adapter_made_inside_of_a_mode_is_the_one_made_outside(
    mode: str, fields: str, build: Callable[[], Specimen]
) -> None:
    """Values, dtypes, devices and gradients; the mode is as before after it."""
    found = []
    for around in (torch.enable_grad, MODES[mode]):
        torch.manual_seed(0)
        specimen = build()
        with around():
            before = torch.get_default_device(), torch.get_default_dtype(), torch.is_inference_mode_enabled()
            switches = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
            adapted = get_peft_model(specimen.model, LoraConfig(**FIELDS[fields]))
            after = torch.get_default_device(), torch.get_default_dtype(), torch.is_inference_mode_enabled()
            assert (before, switches) == (after, (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        run(specimen, adapted).sum().backward()
        found.append(adapted)
    outside, inside = map(trained, found)
    assert outside.keys() == inside.keys()
    for name, parameter in inside.items():
        assert not parameter.is_inference()
        torch.testing.assert_close(parameter, outside[name], rtol=0, atol=0)
        torch.testing.assert_close(parameter.grad, outside[name].grad)


@pytest.mark.parametrize("mode", ["device meta", "inference_mode"])
def test_further_adapters_of_a_mode_train_too(mode: str, tmp_path: Path) -> None:
    """Loaded, added and summed ones."""
    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(llama().model, config).save_pretrained(tmp_path)
    specimen = llama()
    with MODES[mode]():
        adapted = PeftModel.from_pretrained(specimen.model, tmp_path)
        adapted.add_adapter("added", config)
        adapted.load_adapter(tmp_path, "loaded")
        adapted.add_weighted_adapter(["default", "added"], [0.5, 0.5], "sum", "linear")
    for name in ("default", "added", "loaded", "sum"):
        adapted.set_adapter(name)
        adapted.zero_grad()
        run(specimen, adapted).sum().backward()
        assert all(each.grad.any() for each in trained(adapted).values())


def test_a_model_made_under_inference_mode_warns_that_it_cannot_train(tmp_path: Path) -> None:
    """It runs, saves and loads; an initialisation that would change its weights is rejected."""
    with torch.inference_mode():
        specimen = llama()
    with pytest.warns(UserWarning, match=r"LlamaForCausalLM were made under torch.inference_mode\(\), and torch rej"):
        adapted = get_peft_model(specimen.model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    with torch.inference_mode():
        expected = specimen(adapted)
    adapted.save_pretrained(tmp_path)
    adapted.unload()
    loaded = PeftModel.from_pretrained(specimen.model, tmp_path)
    with torch.inference_mode():
        assert torch.equal(specimen(loaded), expected)
    loaded.unload()
    with pytest.raises(InvalidConfig, match=r"was made under torch.inference_mode\(\) and cannot"):
        get_peft_model(specimen.model, LoraConfig(target_modules=["q_proj"], init_lora_weights="pissa"))


@pytest.mark.parametrize("build", [llama, bert, vit])
@pytest.mark.parametrize("fields", [{}, {"use_dora": True}, {"lora_dropout": 0.1}])
def test_an_adapted_model_runs_on_meta(build: Callable[[], Specimen], fields: dict[str, object]) -> None:
    """Forward and backward, in training and for inference, with the shapes of the real one."""
    specimen = build()
    shape = specimen().shape
    config = LoraConfig(target_modules=r".*\.(v_proj|value|v_lin)", **fields)
    adapted = get_peft_model(specimen.model, config).to("meta")
    for mode in (True, False):
        output = run(specimen, adapted.train(mode), "meta")
        assert (output.device.type, output.shape) == ("meta", shape)
        output.sum().backward()
        assert all(each.grad.is_meta for each in trained(adapted).values())
