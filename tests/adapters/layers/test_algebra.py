"""The algebra, over drawn shapes, ranks, groups and dtypes: merged is ``base + scaling * B @ A``, and back."""

import copy
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from adapter_zoo import Mixture, fingerprint, randomise
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import LoradarError

# One draw for all in CI, where a failure must come back; new draws elsewhere, where they can find something.
prove = settings(
    deadline=None,
    max_examples=8,
    phases=(Phase.explicit, Phase.generate),  # the cases are small already: shrinking one takes minutes
    derandomize="CI" in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
WEIGHT_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
OUTPUT_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 2e-1}
INNER = "base_model.model."
SIZES = st.integers(1, 9)
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Holder(nn.Module):
    """A model with one layer, so that it has a path."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: torch.Tensor) -> Any:
        """Return what the layer returns, an attention's weights left out."""
        result = self.layer(*args)
        return result[0] if isinstance(result, tuple) else result


class Bank(nn.Module):
    """Experts in one bare parameter, (E, out, in), or (E, in, out) where ``is_transposed``."""

    def __init__(self, experts: int, read: int, written: int, *, is_transposed: bool) -> None:
        super().__init__()
        self.is_transposed = is_transposed
        shape = (experts, read, written) if is_transposed else (experts, written, read)
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what every expert makes of its rows, (E, rows, out)."""
        weight = self.weight
        return x @ (weight if self.is_transposed else weight.mT)


@dataclass
class Drawn:
    """A layer, what to call it with, and how to adapt it."""

    kind: str
    layer: nn.Module
    inputs: tuple[torch.Tensor, ...]
    r: int
    alpha: int
    use_rslora: bool
    dtype: torch.dtype

    @property
    def scaling(self) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` with rsLoRA."""
        return self.alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def adapted(self) -> PeftModel:
        """Return a model around the layer, with random factors."""
        where = {"target_parameters": ["layer.weight"]} if self.kind == "expert" else {"target_modules": ["layer"]}
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            use_rslora=self.use_rslora,
            fan_in_fan_out=self.kind == "transposed",
            **where,
        )
        model = inject(Holder(self.layer).eval(), config)
        randomise(model, std=0.5)
        return model.eval()


@st.composite
def drawn(draw: Any, kind: str, groups: int = 1) -> Drawn:
    """Draw a layer of ``kind`` with everything about it."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    dtype = draw(st.sampled_from([*WEIGHT_TOLERANCE]))
    layer, inputs = BUILDERS[kind](draw) if groups == 1 else convolution(draw, int(kind[4]), groups)
    typed = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    r = groups * draw(st.integers(1, 5))
    return Drawn(kind, layer.to(dtype), typed, r, draw(st.integers(1, 12)), draw(st.booleans()), dtype)


def linear(draw: Any) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A linear, with a bias or without."""
    read, written = draw(SIZES), draw(SIZES)
    return nn.Linear(read, written, bias=draw(st.booleans())), (torch.randn(*draw(st.lists(SIZES, max_size=2)), read),)


def transposed(draw: Any) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A linear of transformers', stored (in, out)."""
    read, written = draw(SIZES), draw(SIZES)
    layer = Conv1D(written, read)
    nn.init.normal_(layer.weight)
    return layer, (torch.randn(draw(SIZES), read),)


def convolution(draw: Any, dimensions: int, groups: int = 1) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A convolution with a kernel, stride, padding and dilation per axis."""

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(dimensions))

    read, written = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    walk = {"stride": per_axis(1, 2), "padding": per_axis(0, 2), "dilation": per_axis(1, 2)}
    layer = CONVOLUTIONS[dimensions](read, written, per_axis(1, 3), groups=groups, bias=draw(st.booleans()), **walk)
    return layer, (torch.randn(draw(st.integers(1, 2)), read, *per_axis(5, 6)),)


def embedding(draw: Any) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """An embedding, with a padding index or without."""
    ids = draw(SIZES)
    layer = nn.Embedding(ids, draw(SIZES), padding_idx=draw(st.sampled_from([None, 0])))
    return layer, (torch.randint(0, ids, (2, draw(SIZES))),)


def expert(draw: Any) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Experts in a bare parameter of either layout."""
    experts, read = draw(st.integers(1, 4)), draw(SIZES)
    layer = Bank(experts, read, draw(SIZES), is_transposed=draw(st.booleans()))
    return layer, (torch.randn(experts, draw(SIZES), read),)


def packed(draw: Any) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """An attention whose three projections are one parameter."""
    heads = draw(st.integers(1, 2))
    width = heads * draw(st.integers(1, 4))
    layer = nn.MultiheadAttention(width, heads, bias=draw(st.booleans()), batch_first=draw(st.booleans()))
    x = torch.randn(2, 3, width)
    return layer, (x, x, x)


def separate(draw: Any) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """An attention whose projections are three parameters, for keys and values of other widths."""
    heads = draw(st.integers(1, 2))
    width, keys = heads * draw(st.integers(2, 4)), draw(st.integers(2, 9))
    assume(keys != width)
    values = draw(st.integers(2, 9))
    layer = nn.MultiheadAttention(width, heads, kdim=keys, vdim=values)
    return layer, (torch.randn(2, 3, width), torch.randn(4, 3, keys), torch.randn(4, 3, values))


BUILDERS: dict[str, Callable[[Any], tuple[nn.Module, tuple[torch.Tensor, ...]]]] = {
    "linear": linear,
    "transposed": transposed,
    "conv1d": lambda draw: convolution(draw, 1),
    "conv2d": lambda draw: convolution(draw, 2),
    "conv3d": lambda draw: convolution(draw, 3),
    "embedding": embedding,
    "expert": expert,
    "packed": packed,
    "separate": separate,
}


def split(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return copies of the base model's tensors, under their own names, and of the adapter's, under PEFT's."""
    base, adapter = {}, {}
    for key, tensor in model.state_dict().items():
        name = key.removeprefix(INNER)
        if "lora_" in name:
            adapter[name.replace(".default", "").removesuffix(".weight")] = tensor.detach().clone()
        else:
            base[name.replace("base_layer.", "")] = tensor.detach().clone()
    return base, adapter


def updates(case: Drawn, adapter: dict[str, torch.Tensor], shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Return ``B @ A`` for each base tensor that gets one, in its layout, in float64, from the factors alone."""
    kind = case.kind
    factors = {name: tensor.double() for name, tensor in adapter.items()}
    if kind == "embedding":
        return {"layer.weight": (factors["layer.lora_embedding_B"] @ factors["layer.lora_embedding_A"]).T}
    first, second = factors["layer.lora_A"], factors["layer.lora_B"]
    if kind == "packed":
        inside = "layer.base_layer.out_proj.lora_"
        return {
            "layer.in_proj_weight": second @ first,
            "layer.out_proj.weight": factors[f"{inside}B"] @ factors[f"{inside}A"],
        }
    shape = shapes["layer.weight"]
    if kind == "expert":
        is_transposed = case.layer.is_transposed
        per_expert = torch.einsum(
            "ore,eri->eoi",
            second.reshape(second.shape[0], -1, shape[0]),
            first.reshape(shape[0], -1, first.shape[1]),
        )
        return {"layer.weight": per_expert.mT if is_transposed else per_expert}
    product = second.flatten(1) @ first.flatten(1)
    return {"layer.weight": product.T if kind == "transposed" else product.view(shape)}


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Compare in float64, within ``tolerance`` relative to the largest value."""
    bound = tolerance * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=bound)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Tell whether all tensors are equal to the bit, the sign of a zero included."""
    return first.keys() == second.keys() and all(
        torch.equal(first[key].view(torch.uint8), second[key].view(torch.uint8)) for key in first
    )


def reach(kind: str, base: dict[str, torch.Tensor]) -> set[str]:
    """Return the names of the base tensors that an adapter on ``kind`` updates."""
    weights = {name for name in base if name.endswith("weight")}
    assert len(weights) == {"packed": 2, "separate": 4}.get(kind, 1)
    return weights


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind != "separate"])
@prove
@given(data=st.data())
def test_merged_is_base_plus_scaled_product(kind: str, data: st.DataObject) -> None:
    """The weight, in its own dtype, is what the formula gives in float64; biases and factors stay."""
    case = data.draw(drawn(kind))
    model = case.adapted()
    before, adapter = split(model)
    model.merge_adapter()
    after, kept = split(model)
    expected = updates(case, adapter, {name: tensor.shape for name, tensor in before.items()})
    assert expected.keys() == reach(kind, before)
    for name, tensor in after.items():
        wanted = before[name].double() + case.scaling * expected.get(name, torch.zeros(()))
        close(tensor, wanted, WEIGHT_TOLERANCE[case.dtype])
        assert tensor.dtype == case.dtype
    assert same(kept, adapter)


@pytest.mark.parametrize("kind", BUILDERS)
@prove
@given(data=st.data())
def test_merged_answers_as_unmerged(kind: str, data: st.DataObject) -> None:
    """Two paths or one weight: the same outputs, which are not the base model's."""
    case = data.draw(drawn(kind))
    # Frozen, as an adapted model's base is: PyTorch's attention rounds otherwise where a gradient is asked of it.
    plain = Holder(copy.deepcopy(case.layer)).eval().requires_grad_(requires_grad=False)(*case.inputs)
    model = case.adapted()
    unmerged = model(*case.inputs)
    assert unmerged.dtype == plain.dtype == case.dtype
    model.merge_adapter()
    merged = model(*case.inputs)
    close(merged, unmerged, OUTPUT_TOLERANCE[case.dtype])
    with model.disable_adapter():
        assert torch.equal(model(*case.inputs), plain)


@pytest.mark.parametrize("kind", BUILDERS)
@prove
@given(data=st.data())
def test_there_and_back_to_the_bit(kind: str, data: st.DataObject) -> None:
    """Merging twice is merging once, and unmerging restores every bit, time after time."""
    case = data.draw(drawn(kind))
    model = case.adapted()
    before, _ = split(model)
    unmerged = model(*case.inputs)
    for _ in range(3):
        model.merge_adapter()
        merged, _ = split(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.merge_adapter()
        assert same(split(model)[0], merged)
        assert all(not torch.equal(merged[name], before[name]) for name in reach(kind, before))
        model.unmerge_adapter()
        assert same(split(model)[0], before)
        assert torch.equal(model(*case.inputs), unmerged)


@pytest.mark.parametrize("kind", BUILDERS)
@prove
@given(data=st.data())
def test_unmerging_does_not_depend_on_the_factors(kind: str, data: st.DataObject) -> None:
    """Factors that were changed while merged: the base weight is restored nevertheless, to the bit."""
    case = data.draw(drawn(kind))
    model = case.adapted()
    before, _ = split(model)
    model.merge_adapter()
    randomise(model, seed=1, std=3.0)
    model.unmerge_adapter()
    assert same(split(model)[0], before)


@pytest.mark.parametrize("kind", BUILDERS)
@prove
@given(data=st.data())
def test_unloading_leaves_plain_modules(kind: str, data: st.DataObject) -> None:
    """Merged or not, the very layer is back, with its class, names and parameters; only its values may be new."""
    case = data.draw(drawn(kind))
    holder = Holder(copy.deepcopy(case.layer)).eval()
    before, classes = holder.state_dict(), [type(module) for module in holder.modules()]
    model = case.adapted()
    expected = model(*case.inputs)
    plain = model.merge_and_unload()
    assert plain.layer is case.layer
    assert [type(module) for module in plain.modules()] == classes
    assert plain.state_dict().keys() == before.keys()
    assert all(isinstance(parameter, nn.Parameter) for parameter in plain.parameters())
    close(plain(*case.inputs), expected, OUTPUT_TOLERANCE[case.dtype])


@pytest.mark.parametrize("kind", BUILDERS)
@prove
@given(data=st.data())
def test_unloading_without_merging_changes_nothing(kind: str, data: st.DataObject) -> None:
    """Injected, used, merged, and taken out again: the model is the one that was given, to the last flag."""
    case = data.draw(drawn(kind))
    before = fingerprint(case.layer.eval())
    model = case.adapted()
    holder = model.get_base_model()
    model(*case.inputs)
    if data.draw(st.booleans()):
        model.merge_adapter()
    assert model.unload() is holder
    assert fingerprint(holder.layer) == before


@pytest.mark.parametrize("kind", BUILDERS)
@prove
@given(data=st.data())
def test_both_factors_learn_and_nothing_else(kind: str, data: st.DataObject) -> None:
    """Every factor receives a gradient that is not zero; the base weights receive none."""
    case = data.draw(drawn(kind))
    assume(case.dtype in (torch.float32, torch.float64))
    model = case.adapted()
    model(*case.inputs).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name


@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "conv3d"])
@pytest.mark.parametrize("groups", [2, 3])
@prove
@given(data=st.data())
def test_grouped_convolutions(kind: str, groups: int, data: st.DataObject) -> None:
    """The update is two convolutions, ``A`` over all channels and ``B`` in groups; it is no grouped weight.

    So merging is refused, and leaves every bit as it is.
    """
    case = data.draw(drawn(kind, groups))
    assume(case.dtype in (torch.float32, torch.float64))
    layer: Any = copy.deepcopy(case.layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns here, and so may we
        model = case.adapted()
    before, adapter = split(model)
    convolve = getattr(nn.functional, kind)
    walk = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    inner = convolve(case.inputs[0], adapter["layer.lora_A"], **walk)
    update = convolve(inner, adapter["layer.lora_B"], groups=groups)
    expected = layer(*case.inputs) + case.scaling * update
    close(model(*case.inputs), expected, OUTPUT_TOLERANCE[case.dtype])
    with pytest.raises(LoradarError, match=f"'layer' has groups={groups}"):
        model.merge_adapter()
    with pytest.raises(LoradarError, match=f"'layer' has groups={groups}"):
        model.merge_and_unload()
    assert same(split(model)[0], before)
    close(model(*case.inputs), expected, OUTPUT_TOLERANCE[case.dtype])


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("parameters", [["gate_up_proj"], ["down_proj"], ["gate_up_proj", "down_proj"]], ids=str)
def test_gated_experts(parameters: list[str], is_transposed: bool) -> None:  # noqa: FBT001 - a case
    """In a model with a router: alive, merged as unmerged, back to the bit, and plain again in the end."""
    plain = Mixture(is_transposed=is_transposed).eval()
    x, before = torch.randn(5, 8), fingerprint(plain)
    expected = plain(x)
    targets = {"target_modules": ["dense"], "target_parameters": [f"experts.{name}" for name in parameters]}
    model = inject(plain, LoraConfig(r=2, **targets)).eval()
    torch.testing.assert_close(model(x), expected)
    randomise(model)
    adapted = model(x)
    adapted.sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())
    assert sum(parameter.requires_grad for parameter in model.parameters()) == 2 + 2 * len(parameters)
    model.zero_grad()
    model.merge_adapter()
    torch.testing.assert_close(model(x), adapted, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(model(x), adapted, rtol=1e-6, atol=1e-6)
    assert fingerprint(model.unload()) == before
    again = inject(plain, LoraConfig(r=2, **targets)).eval()
    randomise(again)
    merged = again.merge_and_unload()
    torch.testing.assert_close(merged(x), adapted, rtol=1e-4, atol=1e-5)
    assert type(merged.experts) is type(Mixture().experts)
