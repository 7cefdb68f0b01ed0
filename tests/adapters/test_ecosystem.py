"""An adapted model among the tools people use: trainers, compilers, autocast, accelerate, copies, hooks, pipelines."""

import copy
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers
from adapter_zoo import adapter_parameters, randomise
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from zoo import MLP, Specimen, bert, convolutions, gpt2, llama, mlp, on_meta, vit, words

from loradar.adapters import LoraConfig, PeftModel, inject

# The compiler most users get needs a C++ compiler; without one, everything but its code generation is tested.
BACKEND = "inductor" if shutil.which("g++") or shutil.which("clang++") else "aot_eager"
WEIGHTS = "adapter_model.safetensors"
FIELDS = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4}
CASES = [
    (llama, FIELDS),
    (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    (words, {"target_modules": ["emb", "head"]}),
    (lambda: convolutions(2), {"target_modules": ["plain"]}),
    (bert, {"target_modules": ["query"], "modules_to_save": ["classifier"]}),
]


def adapted(specimen: Specimen, **fields: Any) -> PeftModel:
    """Return the specimen's model, in eval mode, with an adapter of random values."""
    model = inject(specimen.model, LoraConfig(**(fields or FIELDS)))
    randomise(model)
    return model.eval()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the gradients there are, by name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def backward(model: nn.Module, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the gradients of one step."""
    model.zero_grad()
    result = model(**inputs)
    (result if isinstance(result, torch.Tensor) else result[0]).float().square().sum().backward()
    return gradients(model)


# --- training -----------------------------------------------------------------------------------------------------


def trainer(model: nn.Module, folder: Path, steps: int = 6, **options: Any) -> transformers.Trainer:
    """Return a Trainer that learns eight short rows by heart."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 60, (6,), generator=generator) for _ in range(8)]
    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=steps,
        save_steps=3,
        learning_rate=0.02,
        lr_scheduler_type="constant",
        per_device_train_batch_size=4,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        logging_steps=1,
        **options,
    )
    data = [{"input_ids": row, "labels": row} for row in rows]
    return transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=data)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[transformers.Trainer, Path]:
    """A Trainer that has trained an adapter in a llama for six steps, and its folder."""
    torch.manual_seed(0)
    done = trainer(inject(llama().model, LoraConfig(**FIELDS)), tmp_path)
    before = {name: p.detach().clone() for name, p in done.model.named_parameters()}
    done.train()
    changed = {name for name, p in done.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, _ in adapter_parameters(done.model)}
    return done, tmp_path


def test_a_trainer_trains_the_adapter_alone(trained: tuple[transformers.Trainer, Path]) -> None:
    """The loss falls; that only the adapter has changed is checked where it is trained."""
    losses = [entry["loss"] for entry in trained[0].state.log_history if "loss" in entry]
    assert len(losses) == 6
    assert losses[-1] < losses[0]


def test_a_trainer_finds_the_labels(trained: tuple[transformers.Trainer, Path]) -> None:
    """Without being told their name, it evaluates the loss."""
    assert trained[0].label_names == ["labels"]
    assert trained[0].evaluate()["eval_loss"] > 0


def test_a_trainer_saves_the_adapter_alone(trained: tuple[transformers.Trainer, Path], tmp_path: Path) -> None:
    """By hand and in its checkpoints: PEFT's two files, and no weight of the base model anywhere."""
    done, folder = trained
    done.save_model(tmp_path / "saved")
    for saved in (tmp_path / "saved", folder / "checkpoint-3", folder / "checkpoint-6"):
        assert (saved / "adapter_config.json").exists()
        assert [path.name for path in saved.glob("*.safetensors")] == [WEIGHTS]
        assert not list(saved.glob("pytorch_model*"))
        assert all(".lora_" in key for key in load_file(saved / WEIGHTS))


def test_a_trainer_resumes(trained: tuple[transformers.Trainer, Path]) -> None:
    """From its third step it comes to where it came without the interruption."""
    done, folder = trained
    torch.manual_seed(0)
    again = trainer(inject(llama().model, LoraConfig(**FIELDS)), folder / "again")
    again.model.get_base_model().load_state_dict(done.model.get_base_model().state_dict())
    again.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    assert again.state.global_step == 6
    tensors = dict(adapter_parameters(done.model))
    for name, parameter in adapter_parameters(again.model):
        torch.testing.assert_close(parameter, tensors[name], rtol=1e-4, atol=1e-5)


def test_a_trainer_checkpoints_gradients(tmp_path: Path) -> None:
    """``activation_checkpointing=True`` trains the adapter too, though nothing before it requires gradients."""
    done = trainer(inject(llama().model, LoraConfig(**FIELDS)), tmp_path, steps=2, activation_checkpointing=True)
    before = {name: p.detach().clone() for name, p in adapter_parameters(done.model)}
    done.train()
    assert all(not torch.equal(p, before[name]) for name, p in adapter_parameters(done.model) if "lora_B" in name)


@pytest.mark.parametrize(("build", "fields"), CASES)
def test_a_plain_loop(build: Callable[[], Specimen], fields: dict[str, Any]) -> None:
    """An optimizer over what requires gradients brings the outputs nearer to one, and moves nothing else."""
    specimen = build()
    model = inject(specimen.model, LoraConfig(**fields))
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(8):
        result = model(**specimen.inputs)
        loss = ((result if isinstance(result, torch.Tensor) else result[0]) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("first", ["checkpointing", "injection"])
@pytest.mark.parametrize("build", [llama, vit])
def test_checkpointed_gradients(build: Callable[[], Specimen], first: str, reentrant: bool) -> None:  # noqa: FBT001 - a case
    """The same gradients with checkpointing as without, whichever came first."""
    specimen = build()
    fields = {"target_modules": ["q_proj", "v_proj"]}
    twin = adapted(Specimen(copy.deepcopy(specimen.model), {}), **fields)
    expected = backward(twin.train(), specimen.inputs)
    enable = partial(
        specimen.model.activation_checkpointing_enable,
        activation_checkpointing_kwargs={"use_reentrant": reentrant},
    )
    if first == "checkpointing":
        enable()
    model = adapted(specimen, **fields).train()
    if first == "injection":
        enable()
    found = backward(model, specimen.inputs)
    assert found.keys() == expected.keys() == dict(adapter_parameters(twin)).keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("build", "fields"), CASES[:4])
def test_autocast(build: Callable[[], Specimen], fields: dict[str, Any], base: torch.dtype) -> None:
    """Under bf16 autocast the adapter stays in fp32, and so do its gradients, near those without autocast."""
    specimen = build()
    model = adapted(specimen, **fields)
    expected, exact = specimen(model), backward(model, specimen.inputs)
    model.get_base_model().to(base)
    for _, parameter in adapter_parameters(model):
        parameter.data = parameter.data.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert (specimen(model).float() - expected).abs().max() < 0.1 * expected.abs().max() + 0.05
        found = backward(model, specimen.inputs) if base == torch.float32 or build is llama else exact
    assert {parameter.dtype for _, parameter in adapter_parameters(model)} == {torch.float32}
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        assert (gradient - exact[name]).norm() <= 0.2 * exact[name].norm() + 1e-3


def test_a_second_derivative() -> None:
    """The gradient of a gradient, as penalties on gradients need it, is that of the plain computation."""
    specimen = mlp(8)
    model = adapted(specimen, target_modules=["seq.0", "seq.2"])
    model.requires_grad_(requires_grad=True)
    first, x = model.get_base_model().seq[0], torch.randn(3, 20, requires_grad=True)
    factors = [p for name, p in adapter_parameters(model) if "seq.0" in name]

    def penalty(result: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (slope,) = torch.autograd.grad(result.square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), factors)

    weight, scaling = first.base_layer.weight, 1.0
    plain = nn.functional.linear(x, weight + scaling * factors[1] @ factors[0], first.base_layer.bias)
    for found, expected in zip(penalty(first(x)), penalty(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Callable[[], Any]) -> None:
    """The same answer, attached to nothing; and training goes on after it."""
    specimen = llama()
    model = adapted(specimen)
    expected = model(**specimen.inputs)[0]
    with mode():
        found = model(**specimen.inputs)[0]
    assert not found.requires_grad
    assert torch.equal(found, expected)
    assert backward(model, specimen.inputs)


# --- compilers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "fields", "training"),
    [*((*CASES[index], False) for index in (0, 2, 3, 4)), *((*CASES[index], True) for index in (0, 2, 3))],
)
def test_compiled_whole(build: Callable[[], Specimen], fields: dict[str, Any], training: bool) -> None:  # noqa: FBT001
    """No graph break, the eager outputs and gradients, and one compilation for two calls."""
    specimen = build()
    model = adapted(specimen, **fields)
    expected, exact = specimen(model), backward(model, specimen.inputs) if training else {}
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for _ in range(2):
        if training:
            found = backward(compiled, specimen.inputs)
            for name, gradient in found.items():
                original = name.removeprefix("_orig_mod.")
                torch.testing.assert_close(gradient, exact[original], rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(Specimen(compiled, specimen.inputs)(), expected, rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 1


def test_compiled_to_machine_code() -> None:
    """With the default compiler, where it can run."""
    specimen = mlp(8)
    model = adapted(specimen, target_modules=["seq.0", "seq.2"])
    expected = specimen(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=BACKEND, fullgraph=True)
    torch.testing.assert_close(Specimen(compiled, specimen.inputs)(), expected, rtol=1e-5, atol=1e-6)


# --- accelerate ---------------------------------------------------------------------------------------------------


def test_accelerate(tmp_path: Path) -> None:
    """Prepared, stepped, unwrapped; its saved state brings the adapter back."""
    specimen = llama()
    model = adapted(specimen)
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    assert accelerator.unwrap_model(prepared) is model
    accelerator.save_state(tmp_path, safe_serialization=False)
    expected = specimen(prepared)
    accelerator.backward(prepared(**specimen.inputs)[0].square().mean())
    optimizer.step()
    assert not torch.equal(specimen(prepared), expected)
    accelerator.load_state(tmp_path)
    assert torch.equal(specimen(prepared), expected)


def test_offloading_hooks() -> None:
    """Weights that are fetched for each layer and put away after it give the same answer, adapter included."""
    specimen = llama()
    model = adapted(specimen)
    expected = specimen(model)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert any(parameter.is_meta for parameter in model.parameters())
    torch.testing.assert_close(specimen(model), expected, rtol=1e-5, atol=1e-6)


def test_injected_under_hooks() -> None:
    """A model that was dispatched before the injection keeps its hooks, and answers."""
    specimen = llama()
    plain = specimen()
    accelerate.dispatch_model(specimen.model, {"": "cpu"}, force_hooks=True)
    model = inject(specimen.model, LoraConfig(**FIELDS)).eval()
    assert torch.equal(specimen(model), plain)
    assert hasattr(model.get_base_model(), "_hf_hook")


# --- placement, copies and states ---------------------------------------------------------------------------------


def test_an_adapter_follows_its_layer() -> None:
    """One layer elsewhere: its factors are there too, those of the others are not."""
    model = MLP(8)
    model.seq[2].to("meta")
    found = dict(adapter_parameters(inject(model, LoraConfig(target_modules=["seq.0", "seq.2"]))))
    assert {name: p.is_meta for name, p in found.items()} == {name: "seq.2" in name for name in found}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("build", "fields"), CASES)
def test_moved_to_a_dtype(build: Callable[[], Specimen], fields: dict[str, Any], dtype: torch.dtype) -> None:
    """``.to(dtype)`` moves base and adapter, and the model answers in it."""
    specimen = build()
    model = adapted(specimen, **fields)
    expected = specimen(model)
    model.to(dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    inputs = {key: x.to(dtype) if x.is_floating_point() else x for key, x in specimen.inputs.items()}
    found = Specimen(model, inputs)()
    assert found.dtype == dtype
    assert (found - expected).abs().max() < 0.05 * expected.abs().max() + 0.02


def test_storage_for_a_meta_model() -> None:
    """Built on meta, given storage, filled from another's state: it answers as the other, and trains."""
    specimen = llama()
    model = adapted(specimen)
    later = inject(on_meta(llama), LoraConfig(**FIELDS))
    later.to_empty(device="cpu")
    later.load_state_dict(model.state_dict())
    for module, source in zip(later.modules(), model.modules(), strict=True):
        for name, buffer in source._buffers.items():  # those that no state holds
            module._buffers[name] = buffer
    assert torch.equal(specimen(later.eval()), specimen(model))
    assert backward(later, specimen.inputs).keys() == dict(adapter_parameters(later)).keys()


@pytest.mark.parametrize(("build", "fields"), CASES)
def test_states(build: Callable[[], Specimen], fields: dict[str, Any]) -> None:
    """One model's state is all another needs; assigned or copied, strictly."""
    specimen = build()
    blank = copy.deepcopy(specimen.model)
    model = adapted(specimen, **fields)
    for assign in (False, True):
        second = inject(copy.deepcopy(blank), LoraConfig(**fields)).eval()
        second.load_state_dict(model.state_dict(), strict=True, assign=assign)
        assert torch.equal(specimen(second), specimen(model))
        learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {name for name, parameter in second.named_parameters() if parameter.requires_grad} == learning


def saved_whole(model: nn.Module, folder: Path) -> nn.Module:
    """Write the whole model to a file and read it."""
    torch.save(model, folder / "model.pt")
    back: nn.Module = torch.load(folder / "model.pt", weights_only=False)
    return back


COPIES: dict[str, Callable[[nn.Module, Path], nn.Module]] = {
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own bytes
    "torch.save": saved_whole,
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(("build", "fields"), CASES)
def test_copies(
    build: Callable[[], Specimen],
    fields: dict[str, Any],
    merged: bool,  # noqa: FBT001 - a case
    way: str,
    tmp_path: Path,
) -> None:
    """A copy answers alike, shares nothing, trains, and can be unmerged to the bit and unloaded on its own."""
    specimen = build()
    plain = specimen()
    model = adapted(specimen, **fields)
    if merged:
        model.merge_adapter()
    expected = specimen(model)
    twin = COPIES[way](model, tmp_path)
    assert torch.equal(specimen(twin), expected)
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in model.parameters()}
    assert {n: p.requires_grad for n, p in twin.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    twin.unmerge_adapter() if merged else backward(twin, specimen.inputs)
    assert torch.equal(specimen(twin.unload()), plain)
    assert torch.equal(specimen(model), expected)


# --- what users do to layers --------------------------------------------------------------------------------------


def test_hooks_on_base_layers_are_called() -> None:
    """Before and after the injection, on the layer that was there."""
    specimen = mlp(8)
    layer, seen = specimen.model.seq[0], []
    layer.register_forward_hook(lambda *_: seen.append("after"))
    layer.register_forward_pre_hook(lambda *_: seen.append("before"))
    model = adapted(specimen, target_modules=["seq.0"])
    specimen(model)
    assert seen == ["before", "after"]
    layer.register_forward_hook(lambda _, __, result: result * 0)
    layer.register_full_backward_hook(lambda *_: seen.append("backward"))
    backward(model, {"x": specimen.inputs["x"].clone().requires_grad_()})
    assert seen[-1] == "backward"


def test_a_hook_changes_what_the_adapter_adds_to() -> None:
    """What a hook makes of the base layer's result is what the update is added to."""
    specimen = mlp(8)
    layer, x = specimen.model.seq[0], specimen.inputs["x"]
    layer.register_forward_hook(lambda _, __, result: result + 1)
    model = inject(specimen.model, LoraConfig(target_modules=["seq.0"])).eval()
    wrapped = model.get_base_model().seq[0]
    assert torch.equal(wrapped(x), nn.functional.linear(x, layer.weight, layer.bias) + 1)


def test_a_forward_replaced_on_the_instance_is_used() -> None:
    """Patched layers, as libraries leave them, keep their patch."""
    specimen = mlp(8)
    layer, x = specimen.model.seq[0], specimen.inputs["x"]
    layer.forward = lambda x: nn.functional.linear(x, layer.weight, layer.bias) * 2
    model = adapted(specimen, target_modules=["seq.0"])
    wrapped = model.get_base_model().seq[0]
    factors = dict(adapter_parameters(wrapped))
    update = x @ factors["lora_A.default.weight"].T @ factors["lora_B.default.weight"].T
    torch.testing.assert_close(wrapped(x), layer.forward(x) + update, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrized_weights(name: str) -> None:
    """A base weight that is computed still answers under the adapter, and merging keeps the answer or is refused."""
    specimen = mlp(8)
    layer = getattr(nn.utils.parametrizations, name)(specimen.model.seq[2])
    plain = specimen()
    model = adapted(specimen, target_modules=["seq.2"])
    expected = specimen(model)
    assert not torch.equal(expected, plain)
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    with model.disable_adapter():
        assert torch.equal(specimen(model), plain)
    try:
        model.merge_adapter()
    except ValueError as refused:
        assert "seq.2" in str(refused)  # noqa: PT017 - either outcome is right, a wrong answer is not
    torch.testing.assert_close(specimen(model), expected, rtol=1e-4, atol=1e-5)


# --- transformers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}], ids=str)
def test_generates_as_merged(options: dict[str, Any]) -> None:
    """Greedy, beams, without a cache: the tokens of the merged model."""
    specimen = llama()
    model = adapted(specimen)
    asked = {**specimen.inputs, **options, "min_new_tokens": 4, "max_new_tokens": 4, "do_sample": False}
    found = model.generate(**asked)
    assert found.shape == (2, 11)
    assert torch.equal(model.merge_and_unload().generate(**asked), found)


def test_a_pipeline_accepts_it() -> None:
    """transformers' pipelines run it as the model it stands for."""  # noqa: D403 - a name
    specimen = vit()
    model = adapted(specimen, target_modules=["q_proj", "v_proj"])
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    pipe = transformers.pipeline("image-classification", model=model, image_processor=processor, device="cpu")
    image = torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8)
    values = processor(image, return_tensors="pt")["pixel_values"]
    best = model(pixel_values=values)[0].softmax(-1).max().item()
    found = pipe(transformers.image_transforms.to_pil_image(image.numpy()))
    assert found[0]["score"] == pytest.approx(best, rel=1e-4)
