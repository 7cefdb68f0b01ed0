"""DoRA and the bias of ``B`` against the installed peft, on every kind of layer, and what PEFT has no answer to."""

import copy
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from loradar.adapters import LoraConfig, PeftModel, get_peft_model, inject
from loradar.adapters.layers import lora
from loradar.errors import AdapterUnreadable, InvalidConfig

TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}
DORA, BIAS = {"use_dora": True}, {"lora_bias": True}


class Scaled(nn.Embedding):
    """An embedding that scales its result, as Gemma's does."""

    embed_scale = torch.tensor(3.0)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Look up and scale."""
        return super().forward(ids) * self.embed_scale


KINDS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 8), (2, 5, 6)),
    "linear without bias": (lambda: nn.Linear(6, 8, bias=False), (5, 6)),
    "transposed": (lambda: Conv1D(8, 6), (2, 5, 6)),
    "conv1d": (lambda: nn.Conv1d(3, 8, 3, stride=2, padding=1), (2, 3, 7)),
    "conv2d": (lambda: nn.Conv2d(3, 8, 3, padding=1), (2, 3, 5, 5)),
    "pointwise": (lambda: nn.Conv2d(3, 8, 1, bias=False), (2, 3, 5, 5)),
    "grouped": (lambda: nn.Conv2d(4, 8, 3, groups=2), (2, 4, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2), (2, 2, 3, 3, 3)),
    "embedding": (lambda: nn.Embedding(9, 6, padding_idx=1), ()),
    "scaled embedding": (lambda: Scaled(9, 6), ()),
}
"""Layers, and the shapes of their inputs."""
UNMERGEABLE = "grouped"


class Peer(nn.Module):
    """One layer under a name."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> Any:
        """Run it."""
        return self.layer(x)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """One of the kinds of layer."""
    return str(request.param)


@pytest.fixture
def kind_with_bias(kind: str) -> str:
    """One of the kinds that ``lora_bias`` is for."""
    if "embedding" in kind:
        pytest.skip("rejected there, see test_where_a_variant_is_rejected")
    return kind


@pytest.fixture(autouse=True)
def _calm() -> Iterator[None]:
    """Pass over peft's own warnings, of groups, layouts and biases, and ours of biases that cannot be merged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def inputs(kind: str) -> torch.Tensor:
    """Return an input for a kind of layer."""
    shape = KINDS[kind][1]
    return torch.randn(shape) if shape else torch.tensor([[0, 1, 4], [8, 8, 2]])


def pair(kind: str, dtype: torch.dtype = torch.float32, **fields: Any) -> tuple[Any, Any]:
    """Return one layer adapted by us and by peft, with the same random values."""
    torch.manual_seed(0)
    base = Peer(KINDS[kind][0]()).to(dtype)
    config = {"target_modules": ["layer"], "r": 4, "lora_alpha": 6, **fields}
    mine = inject(copy.deepcopy(base), LoraConfig(**config))
    peer: Any = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**config))
    return mine, peer


def shake(mine: Any, peer: Any) -> None:
    """Give both models' adapters the same random values."""
    for name, parameter in peer.named_parameters():
        if "magnitude" in name:
            parameter.data.mul_(1 + torch.rand_like(parameter))
        elif "lora_" in name:
            nn.init.normal_(parameter, std=0.4)
    mine.load_state_dict(peer.state_dict())


def gradients(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the output for one seed, and the gradients of all that trains."""
    model.zero_grad()
    torch.manual_seed(1)
    result = model(x)
    (result * torch.linspace(-1, 1, result.numel()).view(result.shape)).sum().backward()
    return result.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("fields", [DORA, {**DORA, "use_rslora": True, "init_lora_weights": "gaussian"}])
def test_the_magnitudes_begin_as_the_norms_under_pefts_keys(kind: str, fields: dict[str, Any]) -> None:
    """A new adapter has PEFT's keys, shapes and magnitudes, and changes no output."""
    mine, peer = pair(kind, **fields)
    own, others = mine.state_dict(), peer.state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in others.items()}
    [key] = (key for key in own if key.endswith("lora_magnitude_vector.default.weight"))
    torch.testing.assert_close(own[key], others[key])
    assert {n for n, p in mine.named_parameters() if p.requires_grad} == {
        n for n, p in peer.named_parameters() if p.requires_grad
    }
    x = inputs(kind)
    torch.testing.assert_close(mine(x), mine.base_model.model.layer.base_layer(x), **TOLERANCE)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("fields", [DORA, {**DORA, "lora_dropout": 0.4}, BIAS], ids=["plain", "dropout", "bias"])
def test_forward_and_gradients_are_pefts(kind: str, fields: dict[str, Any], training: bool) -> None:  # noqa: FBT001 - a case
    """Outputs and the gradients of ``A``, ``B``, the magnitudes and the bias agree, with dropout too."""
    if fields is BIAS and "embedding" in kind:
        pytest.skip("rejected there")
    mine, peer = pair(kind, **fields)
    shake(mine.train(training), peer.train(training))
    x = inputs(kind)
    (result, own), (expected, others) = gradients(mine, x), gradients(peer, x)
    torch.testing.assert_close(result, expected, **TOLERANCE)
    assert own.keys() == others.keys()
    assert len(own) >= 3
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-4, atol=1e-4)


def test_half_precision_is_pefts_and_begins_unchanged(kind: str) -> None:
    """On bfloat16, magnitudes are float32: outputs are PEFT's, and a new adapter changes no output (PEFT's does)."""
    mine, peer = pair(kind, torch.bfloat16, **DORA)
    x = inputs(kind)
    x = x.bfloat16() if x.is_floating_point() else x
    assert mine.base_model.model.layer.lora_magnitude_vector["default"].weight.dtype == torch.float32
    assert torch.equal(mine(x), mine.base_model.model.layer.base_layer(x))
    shake(mine, peer)
    torch.testing.assert_close(mine(x), peer(x), rtol=2e-2, atol=2e-2)
    mine.to(torch.bfloat16)
    peer.to(torch.bfloat16)
    torch.testing.assert_close(mine(x), peer(x), rtol=6e-2, atol=6e-2)


@pytest.mark.parametrize("order", ["ab", "ba", "pab", "bp", "apb"])
def test_several_active_adapters_add_up_and_merge_as_in_peft(kind: str, order: str) -> None:
    """Each rescales what those before it made, by norms of the base weight; merged or not."""
    if kind == UNMERGEABLE:
        pytest.skip("neither library merges it")
    mine, peer = pair(kind, **DORA)
    for name, fields in (("a", {"r": 2, **DORA}), ("b", {"r": 3, "lora_alpha": 1, **DORA}), ("p", {"r": 2})):
        mine.add_adapter(name, LoraConfig(target_modules=["layer"], **fields))
        peer.add_adapter(name, peft.LoraConfig(target_modules=["layer"], **fields))
    shake(mine, peer)
    mine.set_adapter([*order])
    peer.base_model.set_adapter([*order])
    x, before = inputs(kind), {key: value.clone() for key, value in mine.state_dict().items()}
    with torch.no_grad():
        expected = peer(x)
        torch.testing.assert_close(mine(x), expected, **TOLERANCE)
        mine.merge_adapter()
        torch.testing.assert_close(mine(x), expected, rtol=1e-4, atol=1e-4)
        mine.unmerge_adapter()
    assert all(torch.equal(value, before[key]) for key, value in mine.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(mine.merge_and_unload()(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fields", [DORA, BIAS], ids=["dora", "bias"])
def test_each_library_reads_the_others_file(kind: str, fields: dict[str, Any], tmp_path: Path) -> None:
    """Files have the same keys and shapes (no ``weight`` after the magnitudes), and give the same outputs."""
    if fields is BIAS and "embedding" in kind:
        pytest.skip("rejected there")
    mine, peer = pair(kind, **fields)
    shake(mine, peer)
    mine.save_pretrained(tmp_path / "mine", save_embedding_layers=False)
    peer.save_pretrained(tmp_path / "peer", save_embedding_layers=False)
    own, others = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("mine", "peer"))
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in others.items()}
    if fields is DORA:
        assert "base_model.model.layer.lora_magnitude_vector" in own
    x, base = inputs(kind), mine.unload()
    with torch.no_grad():
        expected = peer.eval()(x)
        torch.testing.assert_close(PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "peer")(x), expected)
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "mine")
        torch.testing.assert_close(theirs.eval()(x), expected)


def test_a_scale_set_later_counts_in_the_norm(kind: str) -> None:
    """``set_scale`` acts as in PEFT, and the delta weight is the plain one."""
    mine, peer = pair(kind, **DORA)
    shake(mine, peer)
    own, other = mine.base_model.model.layer, peer.base_model.model.layer
    own.set_scale("default", 0.3)
    other.set_scale("default", 0.3)
    x = inputs(kind)
    torch.testing.assert_close(mine(x), peer(x), **TOLERANCE)
    if kind != UNMERGEABLE:
        torch.testing.assert_close(own.get_delta_weight("default"), other.get_delta_weight("default"), **TOLERANCE)
    assert own.use_dora == other.use_dora == {"default": True}


def test_a_feature_of_zeros_stays_finite_and_learns() -> None:
    """Weights of zero have no direction: the update is added as it is, where PEFT computes NaN."""
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight[1])
    model = inject(nn.Sequential(layer), LoraConfig(target_modules=["0"], **DORA))
    x = torch.randn(5, 4)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.testing.assert_close(model(x), layer(x))
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
    assert model.base_model.model[0].lora_B["default"].weight[1].abs().sum() > 0
    merged = copy.deepcopy(model).merge_and_unload()
    torch.testing.assert_close(merged(x), model(x))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("kind", "shape"), [("linear", (6,)), ("conv2d", (3, 5, 5)), ("conv1d", (3, 7))])
def test_an_input_without_a_batch_is_one_row_of_a_batch(kind: str, shape: tuple[int, ...], dropout: float) -> None:
    """The output has the layer's own shape (PEFT's has another, or fails), in half precision with dropout too."""
    mine, peer = pair(kind, torch.bfloat16, **DORA, lora_dropout=dropout)
    shake(mine, peer)
    x = torch.randn(shape).bfloat16()
    results = []
    for given in (x, x[None]):
        torch.manual_seed(2)
        results.append(mine.train()(given))
    torch.testing.assert_close(results[0], results[1][0], rtol=2e-2, atol=2e-2)


def test_an_adapter_made_on_meta_is_filled_later() -> None:
    """``reset_adapter`` sets the magnitudes to the norms of the weights that came, merged or not."""
    with torch.device("meta"):
        empty = nn.Sequential(nn.Linear(6, 8))
    model = inject(empty, LoraConfig(target_modules=["0"], **DORA))
    assert model.base_model.model[0].lora_magnitude_vector["default"].weight.is_meta
    model.to_empty(device="cpu")
    layer = model.base_model.model[0]
    nn.init.normal_(layer.base_layer.weight)
    model.reset_adapter()
    norms = layer.base_layer.weight.norm(dim=1)
    torch.testing.assert_close(layer.lora_magnitude_vector["default"].weight.detach(), norms)
    nn.init.normal_(layer.lora_B["default"].weight)
    model.merge_adapter()
    model.reset_adapter()
    torch.testing.assert_close(layer.lora_magnitude_vector["default"].weight.detach(), norms)


def test_the_step_of_plain_lora_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused step knows neither magnitudes nor a bias of ``B``; the plain adapter beside them still takes it."""
    taken = []
    plain = lora.low_rank_linear
    monkeypatch.setattr(lora, "low_rank_linear", lambda *args: taken.append(1) or plain(*args))
    model = inject(nn.Sequential(nn.Linear(6, 8)), LoraConfig(target_modules=["0"], **DORA))
    for name, fields in (("bias", BIAS), ("plain", {})):
        model.add_adapter(name, LoraConfig(target_modules=["0"], **fields))
    for name, expected in (("default", 0), ("bias", 0), ("plain", 1)):
        model.set_adapter(name)
        model(torch.randn(2, 6))
        assert len(taken) == expected


def test_a_sample_may_not_name_a_dora_adapter() -> None:
    """As in PEFT: rejected where one is named, and other adapters on the same layer work."""
    model = inject(nn.Sequential(nn.Linear(6, 8)), LoraConfig(target_modules=["0"], **DORA)).eval()
    model.add_adapter("plain", LoraConfig(target_modules=["0"], init_lora_weights=False))
    x = torch.randn(2, 6)
    with pytest.raises(InvalidConfig, match=r"Cannot pass .adapter_names. when DoRA is enabled: '0'"):
        model(x, adapter_names=["default", "plain"])
    mixed = model(x, adapter_names=["plain", "__base__"])
    model.set_adapter("plain")
    torch.testing.assert_close(mixed[0], model(x)[0])


class Packed(nn.Module):
    """A linear with packed weights, as quantisation libraries make them."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features, self.out_features = 6, 8
        self.register_buffer("qweight", torch.randint(-8, 8, (8, 6), dtype=torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Unpack and multiply."""
        return x @ (self.qweight.float() * 0.1).T  # type: ignore[operator]


class Hqq(nn.Module):
    """A linear packed as HQQ does it."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = 6, 8, None
        self.W_q = nn.Parameter(torch.randint(-8, 8, (8, 6), dtype=torch.int8), requires_grad=False)

    def dequantize(self) -> torch.Tensor:
        """Unpack."""
        return self.W_q.float() * 0.1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Unpack and multiply."""
        return x @ self.dequantize().T


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_quantised_weight_is_unpacked_for_its_norm(dropout: float) -> None:
    """On HQQ, DoRA computes what it does on the unpacked linear, and cannot be merged."""
    packed = Hqq()
    plain = nn.Linear(6, 8, bias=False)
    plain.weight.data.copy_(packed.dequantize())
    config = LoraConfig(target_modules=["0"], lora_dropout=dropout, **DORA)
    models = [inject(nn.Sequential(layer), config).train() for layer in (packed, plain)]
    for model in models:
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.linspace(0.1, 1, parameter.numel()).view(parameter.shape)
    x = torch.randn(3, 6)
    (first, own), (second, others) = (gradients(model, x) for model in models)
    torch.testing.assert_close(first, second)
    assert all(torch.allclose(own[name], gradient, rtol=1e-4) for name, gradient in others.items() if "lora_" in name)
    with pytest.raises(InvalidConfig, match="no update can be merged"):
        models[0].merge_adapter()


def test_an_offloaded_weight_is_rejected() -> None:
    """A weight that accelerate offloads is there in the forward of its layer alone: one clear line says so."""
    model = nn.Sequential(nn.Linear(4, 8))
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(InvalidConfig, match=r"'0': Linear does not support DoRA .* or offloaded"):
        inject(model, LoraConfig(target_modules=["0"], **DORA))


class Attention(nn.Module):
    """PyTorch's attention, over itself."""

    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend."""
        return self.mha(x, x, x)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (DORA, r" does not support DoRA \(yet\), please set use_dora to False or leave it out"),
        (BIAS, r": lora_bias=True is not supported for \w+"),
    ],
)
@pytest.mark.parametrize(
    ("build", "targets", "why"),
    [
        (Attention, {"target_modules": ["mha"]}, "its parameter 'in_proj_weight' is adapted, not its output"),
        (lambda: Peer(nn.Linear(4, 4)), {"target_parameters": ["layer.weight"]}, "its parameter 'weight' is adapted"),
    ],
)
def test_where_a_variant_is_rejected(build: Any, targets: Any, why: str, fields: Any, says: str) -> None:
    """Bare parameters take neither; the model is unchanged and the error one line with the way out."""
    model = build()
    before = [type(module) for module in model.modules()]
    with pytest.raises(InvalidConfig, match=rf"{says}: {why}"):
        inject(model, LoraConfig(**targets, **fields))
    assert [type(module) for module in model.modules()] == before


@pytest.mark.parametrize(
    ("layer", "fields", "says"),
    [
        (nn.Embedding(4, 4), BIAS, "'layer': lora_bias=True is not supported for Embedding"),
        (Packed(), DORA, "'layer': Packed does not support DoRA .* packed in a way"),
    ],
)
def test_layers_without_what_a_variant_needs_are_rejected(layer: nn.Module, fields: Any, says: str) -> None:
    """An embedding has no module ``B``; a weight nobody can unpack has no norm."""
    with pytest.raises(InvalidConfig, match=says):
        inject(Peer(layer), LoraConfig(target_modules=["layer"], **fields))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({**DORA, **BIAS}, "lora_bias=True is not supported with use_dora=True"),
        ({**BIAS, "init_lora_weights": "gaussian"}, "lora_bias=True is not supported with init_lora_weights='gauss"),
        ({"use_dora": "yes"}, "use_dora='yes' is not a boolean"),
    ],
)
def test_fields_that_exclude_each_other(fields: dict[str, Any], says: str) -> None:
    """As in PEFT, on construction."""
    with pytest.raises(InvalidConfig, match=says):
        LoraConfig(**fields)
    with pytest.raises(InvalidConfig, match="budget=100 counts plain LoRA"):
        get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(**DORA), budget=100)


def test_dora_adapters_have_no_weighted_sum() -> None:
    """PEFT sums the factors and drops the magnitudes; we say so."""
    model = inject(nn.Sequential(nn.Linear(6, 8)), LoraConfig(target_modules=["0"], **DORA))
    with pytest.raises(InvalidConfig, match="cannot sum DoRA adapters"):
        model.add_weighted_adapter(["default"], [1.0], "sum")


# lora_bias


def test_a_bias_is_merged_into_the_base_bias(kind_with_bias: str) -> None:
    """Merging adds ``scaling`` times the bias, as PEFT does, and restores it to the bit; without one it is rejected."""
    mine, peer = pair(kind_with_bias, **BIAS)
    shake(mine, peer)
    x, layer = inputs(kind_with_bias), mine.base_model.model.layer
    if kind_with_bias == UNMERGEABLE:
        pytest.skip("neither library merges it")
    if layer.base_layer.bias is None:
        with pytest.raises(InvalidConfig, match=r"lora_bias=True` because the base layer has no bias: 'layer'"):
            mine.merge_adapter()
        with pytest.raises(RuntimeError, match="base layer has no bias"):
            peer.merge_adapter()
        return
    before, expected = layer.base_layer.bias.detach().clone(), mine(x)
    mine.merge_adapter()
    peer.merge_adapter()
    torch.testing.assert_close(mine(x), expected, **TOLERANCE)
    torch.testing.assert_close(layer.base_layer.bias, peer.base_model.model.layer.base_layer.bias)
    mine.unmerge_adapter()
    assert torch.equal(layer.base_layer.bias, before)
    assert torch.equal(mine(x), expected)


def test_a_bias_begins_as_in_peft(kind_with_bias: str) -> None:
    """Zero, or uniform like that of any layer where ``B`` is not zero."""
    mine, _ = pair(kind_with_bias, **BIAS)
    assert not mine.base_model.model.layer.lora_B["default"].bias.any()
    mine, peer = pair(kind_with_bias, **BIAS, init_lora_weights=False)
    own, other = (model.base_model.model.layer.lora_B["default"] for model in (mine, peer))
    bound = 1 / other.weight[0].numel() ** 0.5
    assert 0 < own.bias.abs().max() <= bound
    assert other.bias.abs().max() <= bound


def test_a_missing_base_bias_is_told_when_injected() -> None:
    """Training works without one, merging will not: a warning says so at once, with the number of such layers."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    with pytest.warns(UserWarning, match=r"layer of type Linear has no bias \('0', 2 such layers in all\)"):
        inject(model, LoraConfig(target_modules=["0", "1", "2"], **BIAS))


@pytest.mark.parametrize("how", ["cat", "linear", "svd"])
def test_a_weighted_sum_keeps_the_biases(how: str) -> None:
    """The bias of the sum is the sum of the biases (PEFT's is zero), and both kinds of adapter do not mix."""
    torch.manual_seed(0)
    model = inject(nn.Sequential(nn.Linear(6, 8)), LoraConfig(target_modules=["0"], init_lora_weights=False, **BIAS))
    model.add_adapter("other", LoraConfig(target_modules=["0"], init_lora_weights=False, lora_alpha=3, **BIAS))
    model.add_adapter("plain", LoraConfig(target_modules=["0"]))
    model.base_model.model[0].set_scale("other", 0.5)
    with pytest.raises(InvalidConfig, match="with and without lora_bias=True"):
        model.add_weighted_adapter(["default", "plain"], [1, 1], "sum")
    model.add_weighted_adapter(["default", "other"], [0.7, -0.2], "sum", how)
    layer, zero = model.base_model.model[0], torch.zeros(1, 6)
    expected = 0.7 * layer.lora_B["default"].bias - 0.2 * (3 / 8) * 0.5 * layer.lora_B["other"].bias
    torch.testing.assert_close(layer.update(zero, "sum")[0], expected)


# Files, copies and compilers


@pytest.mark.parametrize("fields", [DORA, BIAS], ids=["dora", "bias"])
def test_hotswapping_gives_the_other_adapter(fields: dict[str, Any], tmp_path: Path) -> None:
    """Another alpha and a lower rank keep their meaning; a layer the new one leaves out does nothing any more."""

    def build(*targets: str, **others: Any) -> PeftModel:
        torch.manual_seed(3)
        base = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 6))
        model = inject(base, LoraConfig(target_modules=[*targets], **fields, **others))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data += torch.rand_like(parameter)
        return model.eval()

    swapped, new = build("0", "1", r=4), build("0", r=2, lora_alpha=5)
    new.save_pretrained(tmp_path)
    swapped.hotswap_adapter(tmp_path)
    x = torch.randn(3, 6)
    torch.testing.assert_close(swapped(x), new(x), **TOLERANCE)
    plain = inject(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 6)), LoraConfig(target_modules=["0"]))
    with pytest.raises(InvalidConfig, match=rf"it has {next(iter(fields))}=True, and 'default' has False"):
        plain.hotswap_adapter(tmp_path)


def test_a_file_without_magnitudes_is_rejected(tmp_path: Path) -> None:
    """The error names the missing key; the model is unchanged."""
    inject(nn.Sequential(nn.Linear(6, 8)), LoraConfig(target_modules=["0"])).save_pretrained(tmp_path)
    config = tmp_path / "adapter_config.json"
    config.write_text(config.read_text().replace('"use_dora": false', '"use_dora": true'))
    with pytest.raises(AdapterUnreadable, match=r"lacks 'base_model\.model\.0\.lora_magnitude_vector'"):
        PeftModel.from_pretrained(nn.Sequential(nn.Linear(6, 8)), tmp_path)


def test_copies_deletion_and_unloading() -> None:
    """A copy and a pickle compute the same; deleting and unloading leave nothing behind."""
    base = nn.Sequential(nn.Linear(6, 8))
    x = torch.randn(3, 6)
    plain = base(x)
    model = inject(base, LoraConfig(target_modules=["0"], **DORA, init_lora_weights=False))
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        assert torch.equal(other(x), expected)
    model.add_adapter("second", LoraConfig(target_modules=["0"], **DORA))
    model.delete_adapter("default")
    assert not any("default" in key for key in model.state_dict())
    assert torch.equal(model.unload()(x), plain)


@pytest.mark.parametrize("kind", ["linear", "transposed"])
def test_factors_gathered_in_their_own_forward(kind: str) -> None:
    """Sharded apart, as by PEFT's policy for FSDP, a factor has its weight in its own forward alone."""
    mine, peer = pair(kind, **DORA)
    shake(mine, peer)
    x, layer = inputs(kind), mine.base_model.model.layer
    with torch.no_grad():
        expected = mine(x)
        for factor in (layer.lora_A["default"], layer.lora_B["default"]):
            full = factor.weight.data

            def gather(module: Any, _: Any, full: torch.Tensor = full) -> None:
                module.weight.data = full

            def release(module: Any, _: Any, __: Any) -> None:
                module.weight.data = torch.empty(0)

            factor.register_forward_pre_hook(gather)
            factor.register_forward_hook(release)
            factor.weight.data = torch.empty(0)
        torch.testing.assert_close(mine(x), expected, **TOLERANCE)


@pytest.mark.parametrize("kind", ["transposed", "conv2d", "scaled embedding"])
def test_a_compiler_sees_one_graph(kind: str) -> None:
    """Forward and backward compile whole, with the same result."""
    torch.compiler.reset()
    mine, peer = pair(kind, **DORA)
    shake(mine, peer)
    x = inputs(kind)
    compiled = torch.compile(mine, fullgraph=True, backend="aot_eager")
    (result, own), (expected, others) = gradients(compiled, x), gradients(mine, x)
    torch.testing.assert_close(result, expected, **TOLERANCE)
    for (_, gradient), (_, other) in zip(sorted(own.items()), sorted(others.items()), strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-4)
