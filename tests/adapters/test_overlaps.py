"""Adapters that meet: on tied weights, on one module, on shared modules, and while others are merged."""

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from adapter_zoo import Mixture, randomise
from torch import nn
from torch.autograd import forward_ad
from zoo import attention, mlp

from loradar.adapters import IA3Config, LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*shares its weight")


class Tied(nn.Module):
    """A language model whose head reads the weight of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 8)
        self.fc = nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return a score per word."""
        result: torch.Tensor = self.head(self.fc(self.emb(ids)))
        return result


IDS = torch.arange(6).view(2, 3)


def tied(*targets: str, **fields: Any) -> tuple[Tied, PeftModel]:
    """Return the language model and our wrapper around it, with random adapters."""
    base = Tied().eval()
    model = inject(base, LoraConfig(target_modules=[*targets], r=2, **fields))
    randomise(model, std=0.3)
    return base, model


def test_an_adapter_added_while_a_tied_weight_is_merged() -> None:
    """What is tied is what the base model ties, not what is left of it while an adapter is merged."""
    base, model = tied("head", "emb")
    weight, before = base.emb.base_layer.weight, base.emb.base_layer.weight.clone()
    model.merge_adapter()
    model.add_adapter("other", LoraConfig(target_modules=["head"], r=2))
    randomise(model, std=0.3)
    model.set_adapter("other")
    expected = model(IDS)
    model.merge_adapter()
    torch.testing.assert_close(model(IDS), expected)
    assert torch.equal(weight, before)
    model.unmerge_adapter()
    assert base.head.weight is base.emb.weight is weight


def test_a_module_saved_while_it_is_merged() -> None:
    """The copy starts as the base model's module is, without the update that is merged into it."""
    base, model = tied("fc")
    before = base.fc.weight.clone()
    model.merge_adapter()
    model.add_adapter("other", LoraConfig(target_modules=["emb"], modules_to_save=["fc"], r=2))
    assert torch.equal(base.fc.modules_to_save["other"].weight, before)


def test_a_failed_addition_leaves_the_merged_merged() -> None:
    """The update is back in the weight after the error."""
    base, model = tied("fc")
    model.merge_adapter()
    merged = base.fc.weight.clone()
    with pytest.raises(InvalidConfig, match="no matrix"):
        model.add_adapter("other", LoraConfig(target_parameters=["fc.bias"]))
    assert base.fc.merged
    assert torch.equal(base.fc.weight, merged)


def test_deleting_an_adapter_freezes_its_biases() -> None:
    """Nobody else trains them."""
    base, model = tied("fc")
    model.add_adapter("other", LoraConfig(target_modules=["fc"], bias="all"))
    model.set_adapter("other")
    assert base.fc.bias.requires_grad
    with pytest.warns(UserWarning, match="active now"):
        model.delete_adapter("other")
    assert not base.fc.bias.requires_grad


def test_no_adapter_is_none_to_activate() -> None:
    """An empty list is refused, with the way to the base model."""
    _, model = tied("fc")
    with pytest.raises(InvalidConfig, match=r"disable_adapter\(\)"):
        model.set_adapter([])
    assert model.active_adapters == ["default"]


def test_an_adapter_named_twice_counts_once() -> None:
    """Its update is not added twice."""
    _, model = tied("fc")
    expected = model(IDS)
    model.set_adapter(["default", "default"])
    assert torch.equal(model(IDS), expected)


def test_disabled_is_disabled_for_every_sample() -> None:
    """Within ``disable_adapter`` the base model answers, whatever adapter is named for a sample."""
    torch.manual_seed(3)
    base = Tied().eval()
    plain = base(IDS)
    model = inject(base, LoraConfig(target_modules=["fc"], r=2)).eval()
    randomise(model, std=0.3)
    with model.disable_adapter():
        assert torch.equal(model(IDS, adapter_names=["default", "default"]), plain)


# --- on one module ------------------------------------------------------------------------------------------------


def alone(model: PeftModel, name: str, x: torch.Tensor) -> None:
    """Check that an adapter, alone active, answers merged as it does unmerged, and that it does something."""
    with model.disable_adapter():
        plain = model(x)
    model.set_adapter(name)
    expected = model(x)
    assert not torch.allclose(expected, plain)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()


def test_a_parameter_of_a_module_that_another_adapter_saves() -> None:
    """The update finds the parameter behind the copies."""
    model = inject(Mixture().eval(), LoraConfig(target_modules=["dense"], modules_to_save=["experts"], r=2))
    model.add_adapter("other", LoraConfig(target_parameters=["experts.gate_up_proj"], r=2))
    randomise(model)
    alone(model, "other", torch.randn(4, 8))


@pytest.mark.parametrize(
    ("first", "name"),
    [
        ({"target_parameters": ["attention.in_proj_weight"]}, "other"),
        ({"target_modules": ["dense"], "modules_to_save": ["out_proj"]}, "other"),
    ],
    ids=["parameter before", "output saved before"],
)
def test_an_attention_that_another_adapter_was_at(first: dict[str, Any], name: str) -> None:
    """Both of its projections are alive: the output projection changes the answer by itself."""
    specimen = attention()
    model = inject(specimen.model, LoraConfig(**first, r=2))
    model.add_adapter(name, LoraConfig(target_modules=["attention"], r=2))
    randomise(model)
    model.set_adapter(name)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f"lora_B.{name}" in key and "out_proj" not in key:
                parameter.zero_()
    alone(model, name, specimen.inputs["x"])


@pytest.mark.filterwarnings("ignore:.*is active now")
def test_an_attention_that_another_adapter_leaves() -> None:
    """Deleting the one that came first leaves the output projection of the second alive."""
    specimen = attention()
    model = inject(specimen.model, LoraConfig(target_parameters=["attention.in_proj_weight"], r=2))
    model.add_adapter("other", LoraConfig(target_modules=["attention"], r=2))
    randomise(model)
    model.set_adapter("other")
    expected = specimen(model)
    model.delete_adapter("default")
    assert torch.equal(specimen(model), expected)


@pytest.mark.parametrize("widths", [{}, {"kdim": 8, "vdim": 8}, {"kdim": 4, "vdim": 4}], ids=str)
def test_a_weighted_sum_on_an_attention_is_saved_and_read(widths: dict[str, int], tmp_path: Path) -> None:
    """The configuration of the sum names the attention, whose projections cannot be named one by one."""

    class Around(nn.Module):
        """An attention whose keys and values are as wide as said."""

        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, **widths)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Return what it attends to."""
            kept = x[..., : widths.get("kdim", 8)]
            result: torch.Tensor = self.attention(x, kept, kept)[0]
            return result

    base, x = Around().eval(), torch.randn(3, 2, 8)
    fresh = copy.deepcopy(base)
    model = inject(base, LoraConfig(target_modules=["attention"], r=2))
    model.add_adapter("other", LoraConfig(target_modules=["attention"], r=3))
    randomise(model)
    model.add_weighted_adapter(["default", "other"], [1.0, 0.5], "sum", combination_type="cat")
    model.set_adapter("sum")
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    torch.testing.assert_close(PeftModel.from_pretrained(fresh, tmp_path / "sum")(x), model(x))


# --- in several places --------------------------------------------------------------------------------------------


class Twice(nn.Module):
    """One linear layer under two parents, called in both places."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.two = nn.ModuleDict({"again": self.one[0]})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return one vector per vector."""
        result: torch.Tensor = self.two["again"](self.one(x))
        return result


def test_a_shared_module_is_adapted_in_every_place() -> None:
    """Its weight is one in all of them, and so is the update; merging keeps the answers, unloading takes it out."""
    base, x = Twice().eval(), torch.randn(3, 8)
    linear, plain = base.one[0], base(x)
    model = inject(base, LoraConfig(target_modules=["0"], r=2))
    model.add_adapter("other", LoraConfig(target_modules=["one.0"], r=3))
    randomise(model)
    assert base.two["again"] is base.one[0]
    alone(model, "other", x)
    alone(model, "default", x)
    model.unload()
    assert base.one[0] is base.two["again"] is linear
    assert torch.equal(base(x), plain)


def test_a_shared_module_that_is_saved() -> None:
    """Its copy answers in every place, and takes its place in all of them."""
    base, x = Twice().eval(), torch.randn(3, 8)
    model = inject(nn.Sequential(base, nn.Linear(8, 8)), LoraConfig(target_modules=r"1", modules_to_save=["0.one.0"]))
    randomise(model)
    expected = model(x)
    merged = model.merge_and_unload()
    assert base.one[0] is base.two["again"]
    torch.testing.assert_close(merged(x), expected)


def test_replicas_of_data_parallel_run_their_own_model() -> None:
    """``nn.DataParallel`` copies the modules: each replica has to call its own, not the one it was copied from."""
    replication = importlib.import_module("torch.nn.parallel.replicate")
    base, model = tied("fc", "head")
    expected = model(IDS)

    def zeroed(tensors: list[torch.Tensor], devices: list[int], detach: bool = False) -> list[list[torch.Tensor]]:  # noqa: ARG001, FBT001, FBT002 - PyTorch's own
        return [[tensor * factor for tensor in tensors] for factor in range(len(devices))]

    with (
        mock.patch.object(replication, "_broadcast_coalesced_reshape", zeroed),
        mock.patch.object(replication, "_get_device_index", lambda device, _: device),
    ):
        zeros, same = replication.replicate(model, [0, 1])
    assert not zeros(IDS).any()
    torch.testing.assert_close(same(IDS), expected)
    torch.testing.assert_close(same(IDS, adapter_names=["default"] * 2), expected)
    assert torch.equal(base.head(base.fc(base.emb(IDS))), expected)


def test_nothing_is_loaded_into_the_meta_device(tmp_path: Path) -> None:
    """The values would be lost without a word."""
    _, model = tied("fc")
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        empty = Tied()
    with pytest.raises(InvalidConfig, match=r"lora_[AB]\.weight' would go to the meta device"):
        PeftModel.from_pretrained(empty, tmp_path)
    assert isinstance(empty.fc, nn.Linear)


def test_backward_hooks_on_a_base_layer_are_called() -> None:
    """What watches a gradient still sees it, beside a fused update too."""
    base, model = tied("fc")
    calls: list[nn.Module] = []
    base.fc.base_layer.register_full_backward_hook(lambda module, *_: calls.append(module))
    base.fc.lora_A["default"].register_full_backward_pre_hook(lambda module, *_: calls.append(module))
    base.emb.weight.requires_grad = True
    model(IDS).sum().backward()
    assert {*calls} == {base.fc.base_layer, base.fc.lora_A["default"]}


def test_experts_of_a_lower_rank_are_swapped_in(tmp_path: Path) -> None:
    """``A`` holds the ranks expert by expert: each expert's are filled up, not the last one's."""
    base, x = Mixture().eval(), torch.randn(4, 8)
    fields: dict[str, Any] = {"target_parameters": ["gate_up_proj", "down_proj"], "target_modules": ["dense"]}
    smaller = inject(copy.deepcopy(base), LoraConfig(**fields, r=2)).eval()
    randomise(smaller)
    smaller.save_pretrained(tmp_path)
    model = inject(base, LoraConfig(**fields, r=3, lora_alpha=1)).eval()
    randomise(model, seed=1)
    model.hotswap_adapter(tmp_path)
    torch.testing.assert_close(model(x), smaller(x))


# --- under PyTorch's own machinery --------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_exported_it_answers_as_before(strict: bool) -> None:  # noqa: FBT001 - a case
    """``torch.export`` takes the wrapper itself, in both of its ways."""
    specimen = mlp(8)
    model = inject(specimen.model, LoraConfig(target_modules=["seq.0", "seq.2"], r=2)).eval()
    randomise(model)
    exported = torch.export.export(model, (), specimen.inputs, strict=strict)
    torch.testing.assert_close(exported.module()(**specimen.inputs), specimen(model))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_forward_mode_derivatives() -> None:
    """The tangent of the output is the merged layer's."""
    model = inject(nn.Sequential(nn.Linear(8, 5)), LoraConfig(target_modules=["0"], r=2))
    randomise(model)
    x, direction = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(model(forward_ad.make_dual(x, direction))).tangent
    model.merge_adapter()
    torch.testing.assert_close(found, model(direction) - model(torch.zeros_like(direction)))


@pytest.mark.parametrize("order", [["saved", "low"], ["low", "saved"]], ids=str)
def test_a_copy_answers_for_itself(order: list[str]) -> None:
    """Active beside an adapter on the same module, a copy has no update, in whichever order the two came."""
    configs = {
        "saved": LoraConfig(target_modules=["emb"], modules_to_save=["fc"], r=2),
        "low": LoraConfig(target_modules=["fc"], r=2),
    }
    base = Tied().eval()
    model = inject(base, configs[order[0]], order[0])
    model.add_adapter(order[1], configs[order[1]])
    randomise(model, std=0.3)
    model.set_adapter(order)
    copied = base.fc.modules_to_save["saved"]
    x = torch.randn(2, 8)
    assert torch.equal(base.fc(x), copied(x))
    expected = model(IDS)
    model.merge_adapter()
    torch.testing.assert_close(model(IDS), expected)


@pytest.mark.parametrize("active", [["default"], ["other"], ["default", "other"]], ids=str)
@pytest.mark.parametrize("build", [lambda: nn.Linear(4, 6), lambda: nn.Conv2d(4, 6, 1, groups=2)])
def test_adapters_that_rescale_a_layer_at_either_end(build: Callable[[], nn.Module], active: list[str]) -> None:
    """One IA3 scales what a layer reads and another what it writes: together, both."""
    x = torch.randn(2, 4) if build().__class__ is nn.Linear else torch.randn(2, 4, 3, 3)
    model = inject(nn.Sequential(build()), IA3Config(target_modules=["0"], feedforward_modules=["0"]))
    model.add_adapter("other", IA3Config(target_modules=["0"]))
    for name, parameter in model.named_parameters():
        if "ia3_l" in name:
            nn.init.normal_(parameter.data)
    model.set_adapter(active)
    layer: Any = model.get_base_model()[0]
    read, written = (layer.ia3_l[name].detach() for name in ("default", "other"))
    read = read if x.ndim > 2 else read.flatten()
    written = written if x.ndim > 2 else written.flatten()
    expected = layer.base_layer(x * read if "default" in active else x) * (written if "other" in active else 1)
    torch.testing.assert_close(model(x), expected)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected)


def test_no_adapter_per_sample_where_a_convolution_pads_for_itself() -> None:
    """Its update is in the weight, which all samples share: it is refused."""

    class Padded(nn.Conv2d):
        """A convolution that pads in a forward of its own."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Return a map of the same size."""
            return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))

    model = inject(nn.Sequential(Padded(3, 4, 3)), LoraConfig(target_modules=["0"], r=2)).eval()
    with pytest.raises(InvalidConfig, match="'0' runs all samples alike"):
        model(torch.randn(2, 3, 5, 5), adapter_names=["default", "__base__"])


def test_an_embedding_with_sparse_gradients_trains() -> None:
    """Its factors have gradients of the usual kind."""
    model = inject(nn.Sequential(nn.Embedding(11, 4, sparse=True)), LoraConfig(target_modules=["0"], r=2))
    randomise(model)
    model(IDS).sum().backward()
    assert all(p.grad is not None and not p.grad.is_sparse for p in model.parameters() if p.requires_grad)
