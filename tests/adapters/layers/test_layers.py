"""The algebra: merged is ``base + scaling * B @ A``, twice is once, and unmerging undoes it."""

import math
from typing import Any

import peft
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D
from zoo import gpt2

import loradar
from loradar.adapters import LoraConfig, inject
from loradar.adapters.injection.apply import LORA_LAYERS
from loradar.adapters.layers.base_layer import adapter_dtype
from loradar.adapters.layers.lora import LoraLayer
from loradar.adapters.layers.planned import PlannedAdapter
from loradar.adapters.layers.wrappers import Steering
from loradar.domain.vocabulary import Kind


class Scaled(nn.Embedding):
    """An embedding that scales its result, as Gemma's and Bart's do."""

    embed_scale = 3.0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Look up and scale."""
        return super().forward(ids) * self.embed_scale


class SamePadding(nn.Conv2d):
    """A convolution that pads in a forward of its own, as timm's ``Conv2dSame`` does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad, then convolve."""
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Paired(nn.Linear):
    """A linear that returns a second thing beside what it writes, as I-BERT's ``QuantLinear`` does."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        """Apply, with no scaling factor."""
        return super().forward(x), None


IDS = torch.randint(0, 10, (2, 5))
BASES: dict[str, tuple[Kind, Any, torch.Tensor]] = {
    "linear": ("linear", lambda: nn.Linear(6, 8), torch.randn(3, 6)),
    "bias-free": ("linear", lambda: nn.Linear(6, 8, bias=False), torch.randn(2, 3, 6)),
    "transposed": ("transposed_linear", lambda: Conv1D(8, 6), torch.randn(3, 6)),
    "conv1d": ("conv1d", lambda: nn.Conv1d(4, 8, 3), torch.randn(2, 4, 9)),
    "conv2d": ("conv2d", lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1), torch.randn(2, 4, 9, 9)),
    "conv2d-1x1": ("conv2d", lambda: nn.Conv2d(4, 8, 1), torch.randn(2, 4, 5, 5)),
    "conv2d-dilated": ("conv2d", lambda: nn.Conv2d(4, 8, 3, dilation=2), torch.randn(2, 4, 9, 9)),
    "conv2d-circular": (
        "conv2d",
        lambda: nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"),
        torch.randn(2, 4, 9, 9),
    ),
    "conv2d-same": ("conv2d", lambda: nn.Conv2d(4, 8, 3, padding="same"), torch.randn(2, 4, 9, 9)),
    "conv2d-own-forward": ("conv2d", lambda: SamePadding(4, 8, 3), torch.randn(2, 4, 9, 9)),
    "conv3d": ("conv3d", lambda: nn.Conv3d(4, 8, (1, 3, 3)), torch.randn(2, 4, 3, 5, 5)),
    "embedding": ("embedding", lambda: nn.Embedding(10, 6, padding_idx=0), IDS),
    "embedding-scaled": ("embedding", lambda: Scaled(10, 6), IDS),
}


@pytest.fixture(params=BASES, ids=str)
def layer(request: pytest.FixtureRequest) -> tuple[LoraLayer, torch.Tensor]:
    """An adapter with random factors on each kind of base layer, and an input."""
    kind, build, x = BASES[request.param]
    return adapt(kind, build()), x


NAME = "default"


def adapt(kind: Kind, base: nn.Module, r: int = 4, dropout: float = 0.0) -> LoraLayer:
    """Return a LoRA layer with both factors random."""
    planned = PlannedAdapter("p", "p", "p", kind, r, 10 / r, dropout, fan_in_fan_out=kind == "transposed_linear")
    layer_type: Any = LORA_LAYERS[kind]
    layer: LoraLayer = layer_type(base, Steering((NAME,)))
    parts = layer_type.create_parts(base, planned)
    layer_type.initialise(parts, how=False)
    layer.insert(NAME, planned, parts)
    return layer


def test_merged_answers_as_unmerged(layer: tuple[LoraLayer, torch.Tensor]) -> None:
    """The merged weight gives what the two paths give; unmerging gives the base weight back."""
    lora, x = layer
    before, expected, plain = lora.weight.detach().clone(), lora(x), lora.base_layer(x)
    assert (expected - plain).abs().max() > 1e-4
    lora.merge([NAME])
    torch.testing.assert_close(lora(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lora.weight, before + lora.get_delta_weight(NAME))
    lora.unmerge()
    assert torch.equal(lora.weight, before)
    torch.testing.assert_close(lora(x), expected)


def test_merging_twice_is_merging_once(layer: tuple[LoraLayer, torch.Tensor]) -> None:
    """A second merge changes nothing, nor does a second unmerge."""
    lora, _ = layer
    lora.merge([NAME])
    merged = lora.weight.detach().clone()
    lora.merge([NAME])
    assert torch.equal(lora.weight, merged)
    lora.unmerge()
    unmerged = lora.weight.detach().clone()
    lora.unmerge()
    assert torch.equal(lora.weight, unmerged)


def test_disabled_answers_as_the_base(layer: tuple[LoraLayer, torch.Tensor]) -> None:
    """The switch leaves the base layer alone to answer."""
    lora, x = layer
    lora.steering.disabled = True
    assert torch.equal(lora(x), lora.base_layer(x))


def test_only_the_factors_learn(layer: tuple[LoraLayer, torch.Tensor]) -> None:
    """Both factors receive a gradient."""
    lora, x = layer
    lora.base_layer.requires_grad_(requires_grad=False)
    lora(x).square().sum().backward()
    assert all(factor.grad is not None and factor.grad.abs().sum() > 0 for factor in lora.factors(NAME))
    assert lora.base_layer.weight.grad is None


def test_delta_of_a_linear_is_the_papers() -> None:
    """``scaling * B @ A``, and its transpose where the base stores (in, out)."""
    lora = adapt("linear", nn.Linear(6, 8))
    first, second = lora.factors(NAME)
    assert torch.equal(lora.get_delta_weight(NAME), 2.5 * (second @ first))
    assert adapt("transposed_linear", Conv1D(8, 6)).get_delta_weight(NAME).shape == (6, 8)


def test_attributes_that_trainers_read_are_pefts() -> None:
    """The method of the model, and whether a weight is stored as (in, out)."""
    models = []
    for library in (loradar, peft):
        torch.manual_seed(0)
        config = library.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)
        models.append(library.get_peft_model(gpt2().model, config))
    ours, theirs = models
    assert ours.peft_type == theirs.peft_type == "LORA"
    layers = [model.transformer.h[0].attn.c_attn for model in models]
    assert layers[0].fan_in_fan_out is layers[1].fan_in_fan_out is True


def test_attributes_are_the_base_layers() -> None:
    """Model code that reads a weight, a dtype or a size still finds it."""
    lora = adapt("linear", nn.Linear(6, 8))
    assert (lora.weight.dtype, lora.in_features, lora.out_features) == (torch.float32, 6, 8)
    assert adapt("embedding", nn.Embedding(10, 6)).num_embeddings == 10
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lora.nonsense


def test_default_initialisation_is_the_papers() -> None:
    """``A`` is uniform within ``1/sqrt(in)``, ``B`` is zero, so nothing changes at first."""
    lora = adapt("linear", nn.Linear(400, 30), r=16)
    lora.initialise(lora.parts(NAME), how=True)
    first, second = lora.factors(NAME)
    assert second.abs().max() == 0
    assert 0.9 / math.sqrt(400) < first.abs().max() <= 1 / math.sqrt(400)


def test_gaussian_initialisation() -> None:
    """``A`` has a standard deviation of ``1/r``."""
    lora = adapt("linear", nn.Linear(4000, 3), r=4)
    lora.initialise(lora.parts(NAME), how="gaussian")
    first, second = lora.factors(NAME)
    assert first.std().item() == pytest.approx(0.25, rel=0.05)
    assert second.abs().max() == 0


def test_embeddings_start_with_a_zero_a() -> None:
    """In an embedding it is ``A`` that is zero, because it is looked up."""
    lora = adapt("embedding", nn.Embedding(10, 6))
    lora.initialise(lora.parts(NAME), how=True)
    first, second = lora.factors(NAME)
    assert (first.abs().max() == 0, bool(second.abs().max() > 0)) == (True, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_bases_have_full_precision_factors(dtype: torch.dtype) -> None:
    """Factors are float32, the result is the base's dtype, and merging stays in the base's dtype."""
    lora = adapt("linear", nn.Linear(6, 8, dtype=dtype))
    x = torch.randn(3, 6, dtype=dtype)
    assert {factor.dtype for factor in lora.factors(NAME)} == {torch.float32}
    expected = lora(x)
    assert expected.dtype == dtype
    lora.merge([NAME])
    assert lora.weight.dtype == dtype
    torch.testing.assert_close(lora(x), expected, rtol=0.05, atol=0.05)


def test_double_precision_stays() -> None:
    """A float64 base has float64 factors."""
    assert adapter_dtype(torch.float64) == torch.float64
    lora = adapt("linear", nn.Linear(6, 8, dtype=torch.float64))
    assert lora(torch.randn(3, 6, dtype=torch.float64)).dtype == torch.float64


def test_dropout_is_on_the_update_only() -> None:
    """In training the update varies, in evaluation it does not, and the base never does."""
    lora = adapt("linear", nn.Linear(64, 8), dropout=0.5)
    x = torch.randn(3, 64)
    assert not torch.equal(lora(x), lora(x))
    lora.eval()
    assert torch.equal(lora(x), lora(x))


def test_compiles_whole() -> None:
    """No part of the forward sends the compiler back to Python."""
    lora = adapt("linear", nn.Linear(6, 8))
    x = torch.randn(3, 6)
    compiled = torch.compile(lora, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), lora(x))


def test_what_a_linear_returns_beside_is_passed_on() -> None:
    """The update goes on the first of a tuple; merged gives the same."""
    adapter = adapt("linear", Paired(6, 8))
    x = torch.randn(3, 6)
    base, adapted = adapter.base_layer(x), adapter(x)
    assert adapted[1] is None
    torch.testing.assert_close(adapted[0], base[0] + x @ adapter.get_delta_weight(NAME).T)
    adapter.merge([NAME])
    torch.testing.assert_close(adapter(x)[0], adapted[0])


def test_an_adapted_linear_runs_on_meta():
    """Shapes alone are computed there, as by the layer without an adapter."""
    model = nn.Sequential(nn.Linear(3, 4, device="meta"))
    inject(model, LoraConfig(target_modules=("0",), r=2))
    assert model(torch.empty(5, 3, device="meta")).shape == (5, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (1, 1, 6)])
def test_one_row_without_gradients(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """A single token goes past the products for many, with the same result, base dtype and biases included."""
    model = nn.Sequential(nn.Linear(6, 5, dtype=dtype))
    adapted = inject(model, LoraConfig(target_modules=["0"], r=2, init_lora_weights=False)).eval()
    x = torch.rand(shape).to(dtype)
    with torch.no_grad():
        found, several = adapted(x), adapted(x.expand(3, *shape))[0]
    assert found.dtype == dtype
    torch.testing.assert_close(found, several, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-2)


class Frozen(nn.Sequential):
    """A part that stays in eval mode, by a method of its own."""

    def train(self, *_: bool) -> "Frozen":
        """Set eval mode."""
        return super().train(mode=False)


def test_the_mode_is_set_by_each_module_itself() -> None:
    """Inside of the model and of an adapted layer, also where ``train`` was set on the object."""
    quiet: Any = nn.Dropout()
    quiet.train = lambda *_: quiet
    layers = nn.Sequential(Frozen(nn.Linear(4, 4), nn.Dropout()), nn.Linear(4, 4), quiet)
    model = inject(layers, LoraConfig(target_modules=r"0\.0|1"))
    for mode in (False, True):
        quiet.training = not mode
        assert model.train(mode).training is layers.training is mode
        assert [each.training for each in (layers[0], layers[0][1], layers[1])] == [False, False, mode]
        factor: Any = layers[1].lora_A
        assert layers[1].base_layer.training is factor["default"].training is mode
        assert quiet.training is not mode
