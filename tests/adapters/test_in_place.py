"""In-place operations on an adapted layer's output give the outputs and gradients of their out-of-place equivalents.

Those on its input train where PEFT's do.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import Any, NamedTuple

import peft
import pytest
import torch
from adapter_zoo import Experts
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from loradar import adapters
from loradar.adapters import IA3Config, LoraConfig, inject

WIDTH = 6
"""Features written by every layer here; read by most."""

Change = Callable[[torch.Tensor], torch.Tensor]


class Edit(NamedTuple):
    """An in-place operation and its out-of-place equivalent."""

    in_place: Change
    out_of_place: Change


def added(y: torch.Tensor) -> torch.Tensor:
    """Return a residual for ``y``, the same one for the same shape."""
    return torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)


def add_residual(y: torch.Tensor) -> torch.Tensor:
    """Add with the augmented assignment."""
    y += added(y)
    return y


def assign_slice(y: torch.Tensor) -> torch.Tensor:
    """Overwrite the first half of the last dimension."""
    y[..., : y.shape[-1] // 2] = 0.5
    return y


def scale_slice(y: torch.Tensor) -> torch.Tensor:
    """Scale the first half of the last dimension, as attention scales the queries of a fused projection."""
    y[..., : y.shape[-1] // 2].mul_(0.5)
    return y


def with_first_half(y: torch.Tensor, change: Change) -> torch.Tensor:
    """Return ``y`` with the first half of its last dimension changed."""
    half = y.shape[-1] // 2
    return torch.cat([change(y[..., :half]), y[..., half:]], -1)


EDITS = {
    "relu_": Edit(lambda y: y.relu_(), lambda y: y.relu()),
    "mul_": Edit(lambda y: y.mul_(-1.5), lambda y: y * -1.5),
    "add_": Edit(lambda y: y.add_(added(y), alpha=2), lambda y: y.add(added(y), alpha=2)),
    "nn.ReLU": Edit(nn.ReLU(inplace=True).forward, nn.ReLU().forward),
    "dropout": Edit(lambda y: functional.dropout(y, 0.5, inplace=True), lambda y: functional.dropout(y, 0.5)),
    "assigned slice": Edit(assign_slice, lambda y: with_first_half(y, lambda half: torch.full_like(half, 0.5))),
    "scaled slice": Edit(scale_slice, lambda y: with_first_half(y, lambda half: half * 0.5)),
    "residual": Edit(add_residual, lambda y: y + added(y)),
}


class Edited(nn.Module):
    """A layer and an operation on its output."""

    def __init__(self, layer: nn.Module, change: Change) -> None:
        super().__init__()
        self.layer = layer
        self.change = change

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the changed output, the weights of an attention left out."""
        y = self.layer(*inputs)
        return self.change(y[0] if isinstance(y, tuple) else y)


class OwnForward(nn.Conv2d):
    """A convolution with a forward of its own, whose update goes into its weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad, then convolve."""
        return super().forward(functional.pad(x, (1, 1, 1, 1)))


class Kind(NamedTuple):
    """A layer to adapt, the shapes of its inputs, its configuration, and how many inputs it takes."""

    build: Callable[[], nn.Module]
    shapes: list[tuple[int, ...]]
    config: Callable[[], Any]
    inputs: int = 1


def lora(**more: Any) -> Callable[[], LoraConfig]:
    """Return the configuration of a LoRA with random factors."""
    where: dict[str, Any] = {} if "target_parameters" in more else {"target_modules": ["layer"]}
    return lambda: LoraConfig(**where, r=2, init_lora_weights=False, **more)


def ia3(*, is_feedforward: bool, **more: Any) -> Callable[[], IA3Config]:
    """Return the configuration of an IA3 with random factors, on the inputs or the outputs."""
    rescaled = ["layer"] if is_feedforward else []
    return lambda: IA3Config(target_modules=["layer"], feedforward_modules=rescaled, init_ia3_weights=False, **more)


ROWS = [(WIDTH,), (3, WIDTH), (2, 3, WIDTH), (2, 2, 3, WIDTH)]
IDS = [(5,), (2, 5), (2, 2, 5)]
SIGNALS = [(WIDTH, 5), (2, WIDTH, 5)]
IMAGES = [(WIDTH, 4, 4), (2, WIDTH, 4, 4)]
VOLUMES = [(WIDTH, 3, 4, 4), (2, WIDTH, 3, 4, 4)]
SEQUENCES = [(3, WIDTH), (3, 2, WIDTH)]
KINDS = {
    "linear": Kind(lambda: nn.Linear(WIDTH, WIDTH), ROWS, lora()),
    "linear without bias": Kind(lambda: nn.Linear(WIDTH, WIDTH, bias=False), ROWS, lora()),
    "linear with dropout": Kind(lambda: nn.Linear(WIDTH, WIDTH), ROWS, lora(lora_dropout=0.5)),
    "Conv1D": Kind(lambda: Conv1D(WIDTH, WIDTH), ROWS, lora(fan_in_fan_out=True)),
    "conv1d": Kind(lambda: nn.Conv1d(WIDTH, WIDTH, 3), SIGNALS, lora()),
    "conv2d": Kind(lambda: nn.Conv2d(WIDTH, WIDTH, 3), IMAGES, lora()),
    "conv2d with groups": Kind(lambda: nn.Conv2d(WIDTH, WIDTH, 3, groups=2), IMAGES, lora()),
    "conv2d with its own forward": Kind(lambda: OwnForward(WIDTH, WIDTH, 3), IMAGES, lora()),
    "conv3d": Kind(lambda: nn.Conv3d(WIDTH, WIDTH, 2), VOLUMES, lora()),
    "embedding": Kind(lambda: nn.Embedding(10, WIDTH), IDS, lora()),
    "parameter": Kind(lambda: nn.Linear(WIDTH, WIDTH), ROWS, lora(target_parameters=["layer.weight"])),
    "experts": Kind(
        lambda: Experts(is_transposed=False, width=WIDTH),
        [(4, WIDTH), (3, 4, WIDTH), (2, 3, 4, WIDTH)],
        lora(target_parameters=["layer.gate_up_proj", "layer.down_proj"]),
    ),
    "experts stored (in, out)": Kind(
        lambda: Experts(is_transposed=True, width=WIDTH),
        [(4, WIDTH), (3, 4, WIDTH), (2, 3, 4, WIDTH)],
        lora(target_parameters=["layer.gate_up_proj", "layer.down_proj"]),
    ),
    "attention": Kind(lambda: nn.MultiheadAttention(WIDTH, 2), SEQUENCES, lora(), inputs=3),
    "IA3 linear": Kind(lambda: nn.Linear(WIDTH, WIDTH), ROWS, ia3(is_feedforward=False)),
    "IA3 feed-forward": Kind(lambda: nn.Linear(WIDTH, WIDTH), ROWS, ia3(is_feedforward=True)),
    "IA3 Conv1D": Kind(lambda: Conv1D(WIDTH, WIDTH), ROWS, ia3(is_feedforward=False, fan_in_fan_out=True)),
    "IA3 conv2d": Kind(lambda: nn.Conv2d(WIDTH, WIDTH, 3), IMAGES, ia3(is_feedforward=False)),
    "IA3 feed-forward conv2d": Kind(lambda: nn.Conv2d(WIDTH, WIDTH, 3), IMAGES, ia3(is_feedforward=True)),
    "IA3 conv3d": Kind(lambda: nn.Conv3d(WIDTH, WIDTH, 2), VOLUMES, ia3(is_feedforward=False)),
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "autocast": torch.float32}
"""Dtype of weights and inputs, by case."""


class Run(NamedTuple):
    """The output of a forward, that of one without gradients, and the gradients of the input and the adapter."""

    output: torch.Tensor
    inferred: torch.Tensor
    gradients: dict[str, torch.Tensor | None]


def precision(dtype: str) -> AbstractContextManager[Any]:
    """Return the context in which a case runs."""
    return torch.autocast("cpu", torch.bfloat16) if dtype == "autocast" else nullcontext()


def run(model: nn.Module, inputs: tuple[torch.Tensor, ...], dtype: str) -> Run:
    """Return what a forward and a backward give, dropout drawn from a fixed seed."""
    x = inputs[0].detach().clone().requires_grad_(inputs[0].is_floating_point())
    with precision(dtype):
        torch.manual_seed(1)
        output = model(x, *inputs[1:])
        torch.manual_seed(1)
        with torch.no_grad():
            inferred = model(x, *inputs[1:])
    model.zero_grad()
    output.float().square().sum().backward()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
    return Run(output.detach(), inferred, {**gradients, "input": x.grad})


def example(shape: tuple[int, ...], kind: Kind, dtype: str) -> tuple[torch.Tensor, ...]:
    """Return inputs of a shape, for a kind of layer."""
    torch.manual_seed(2)
    if shape in IDS:
        return (torch.randint(0, 10, shape),)
    return tuple(torch.randn(shape, dtype=PRECISIONS[dtype]) for _ in range(kind.inputs))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", KINDS)
def test_an_output_may_be_changed_in_place(name: str, edit: str, dtype: str) -> None:
    """Output and gradients are those of the out-of-place equivalent, in every dimension, in training and evaluation."""
    kind = KINDS[name]
    torch.manual_seed(0)
    layer = kind.build().to(PRECISIONS[dtype])
    model = inject(Edited(layer, torch.clone), kind.config())
    for shape, training in product(kind.shapes, (True, False)):
        model.train(training)
        inputs, runs = example(shape, kind, dtype), []
        for model.base_model.model.change in EDITS[edit]:
            runs.append(run(model, inputs, dtype))
        actual, expected = runs
        assert all(gradient is not None for key, gradient in expected.gradients.items() if key != "input")
        torch.testing.assert_close(actual, expected, msg=lambda text: f"{shape=}, {training=}: {text}")  # noqa: B023 - called at once


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("shape", ROWS, ids=str)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_gradients_after_an_edit_are_pefts(edit: str, shape: tuple[int, ...], dtype: str) -> None:
    """Two linear layers with an in-place operation between them train as with PEFT."""
    runs = []
    for library, adapt in ((adapters, inject), (peft, peft.get_peft_model)):
        torch.manual_seed(0)
        first = Edited(nn.Linear(WIDTH, WIDTH), EDITS[edit].in_place)
        model: Any = nn.Sequential(first, nn.Linear(WIDTH, 4))
        config: Any = library.LoraConfig(target_modules=["0.layer", "1"], r=2, lora_alpha=3)
        model = adapt(model.to(PRECISIONS[dtype]), config)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in filter(lambda each: each.requires_grad, model.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        runs.append(run(model, example(shape, KINDS["linear"], dtype), dtype))
    ours, pefts = ([each.output, *each.gradients.values()] for each in runs)
    for actual, expected in zip(ours, pefts, strict=True):  # in half precision, the order of the sums differs
        error = (actual - expected).norm() / expected.norm()
        assert error <= (1e-5 if dtype == "float32" else 0.03)


def test_an_adapted_layer_before_an_in_place_activation_trains() -> None:
    """Activations that save memory by working in place are common between linear layers."""
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8))
    adapted_model = inject(model, LoraConfig(target_modules=["0", "2"], r=2))
    adapted_model(torch.randn(2, 3, 8)).sum().backward()
    assert all(each.grad is not None for each in adapted_model.parameters() if each.requires_grad)


class Residual(nn.Module):
    """Three layers of one input, the second after a change of it, and a sum added to the input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output."""
        x = self.enter(x)
        q = self.q(x)
        x.mul_(1.5)
        x += q * self.k(x) + self.v(x)
        return self.leave(x)


ALL = ["enter", "leave", "q", "k", "v"]


def adapted(library: Any, dtype: torch.dtype, frozen: str = "") -> Any:
    """Return a residual model with random factors, those of one name frozen."""
    torch.manual_seed(0)
    model: Any = library.get_peft_model(Residual().to(dtype), library.LoraConfig(target_modules=ALL, r=2))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
                parameter.requires_grad = not (frozen and frozen in name)
    return model


@pytest.mark.parametrize(
    ("dtype", "frozen"),
    [
        (torch.bfloat16, ""),
        (torch.float16, ""),
        (torch.bfloat16, "lora_A"),
        (torch.float32, "lora_A"),
        (torch.float32, "lora_"),
    ],
    ids=str,
)
def test_an_input_changed_in_place_trains_as_in_peft(dtype: torch.dtype, frozen: str) -> None:
    """In half precision PEFT keeps a converted copy of the input, and of frozen factors none is needed."""
    x = torch.linspace(-1, 1, 3 * 5 * WIDTH).view(3, 5, WIDTH).to(dtype)
    ours, pefts = (run(adapted(library, dtype, frozen), (x,), "as it is") for library in (adapters, peft))
    pairs: Any = zip([ours.output, *ours.gradients.values()], [pefts.output, *pefts.gradients.values()], strict=True)
    for actual, expected in ((actual.double(), expected.double()) for actual, expected in pairs):
        assert (actual - expected).norm() <= (1e-5 if dtype == torch.float32 else 0.03) * expected.norm()


def test_an_input_that_both_keep_itself_raises_as_in_peft() -> None:
    """In float32 neither copies it, and autograd finds the change."""
    for library in (adapters, peft):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            adapted(library, torch.float32)(torch.randn(3, WIDTH)).sum().backward()


def kept_bytes(library: Any, x: torch.Tensor) -> int:
    """Return the size of all that the backward of three layers of one input keeps, but weights."""
    base: Any = nn.ModuleDict({name: nn.Linear(64, 64) for name in "qkv"}).to(x.dtype)
    base.forward = lambda x: sum(base[name](x) for name in "qkv")
    model = library.get_peft_model(base, library.LoraConfig(target_modules=["q", "k", "v"], r=2))
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(x)
    output.sum().backward()
    return sum(sizes.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_of_one_input_keep_it_once(dtype: torch.dtype) -> None:
    """A copy for each of q, k and v, as PEFT keeps in float32, would take three times the memory, or six times."""
    x = torch.randn(100, 64).to(dtype)
    ranks = 3 * 100 * 2 * 4
    assert kept_bytes(adapters, x) == x.nbytes + ranks
    assert kept_bytes(peft, x) == (x.nbytes if dtype == torch.float32 else 6 * x.nbytes) + ranks


def test_a_copy_is_that_of_the_current_graph() -> None:
    """An input that trains from now on, or came from inference mode, gets the gradients that it gets in PEFT."""
    base = nn.Linear(WIDTH, WIDTH).bfloat16()
    model = inject(nn.Sequential(base), LoraConfig(target_modules=["0"], r=2, init_lora_weights=False))
    x = torch.randn(3, WIDTH).bfloat16()
    first = model(x)
    x.requires_grad_()
    (first.sum() + model(x).sum()).backward()
    assert x.grad is not None
    with torch.inference_mode():
        inferred = torch.ones(3, WIDTH).bfloat16()
    model(inferred).sum().backward()


def test_second_derivatives_of_converted_inputs_are_pefts() -> None:
    """The copy of an input is part of its graph."""
    penalties = []
    for library in (adapters, peft):
        model = adapted(library, torch.float32)
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.double() if "lora_" in name else parameter.data
        x = torch.linspace(-1, 1, 3 * WIDTH).view(3, WIDTH).requires_grad_()
        output = model(x).square().sum()
        (gradient,) = torch.autograd.grad(output, x, create_graph=True)
        gradient.square().sum().backward()
        penalties.append([x.grad, *(each.grad for name, each in model.named_parameters() if "lora_" in name)])
    torch.testing.assert_close(*penalties, rtol=1e-3, atol=1e-4)
