"""The combinations of ``add_weighted_adapter``, held against the installed peft on the same tensors."""

import copy
import inspect
import warnings
from typing import Any

import peft
import pytest
import torch
from adapter_zoo import adapter_parameters, randomise
from torch import nn
from zoo import MLP, Specimen, bert, convolutions, gpt2, llama, words

from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig

NETS: dict[str, tuple[Any, list[str], dict[str, Any]]] = {
    "llama": (llama, ["q_proj", "v_proj"], {}),
    "gpt2": (gpt2, ["c_attn", "c_fc"], {"fan_in_fan_out": True}),
    "words": (words, ["emb", "head"], {}),
    "convolutions": (lambda: convolutions(2), ["plain"], {}),
}
OF_FACTORS = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")
OF_UPDATES = ("svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
NAMES, WEIGHTS = ["default", "other"], [0.7, -0.4]


def filled(adapted: Any, targets: list[str], config: Any, fields: dict[str, Any]) -> Any:
    """Return a model with a second adapter, of another strength and on one layer more, and random values in both."""
    adapted.add_adapter("other", config(target_modules=targets, r=4, lora_alpha=3, **fields))
    randomise(adapted)
    return adapted.eval()


def both(kind: str) -> tuple[Specimen, PeftModel, Any]:
    """Return the same adapters by loradar and by the installed peft."""
    build, targets, fields = NETS[kind]
    specimen = build()
    first = {"target_modules": targets[:1], "r": 4, **fields}
    ours = inject(copy.deepcopy(specimen.model), LoraConfig(**first))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(specimen.model, peft.LoraConfig(**first))
        return (
            specimen,
            filled(ours, targets, LoraConfig, fields),
            filled(theirs, targets, peft.LoraConfig, fields),
        )


@pytest.fixture
def same_draws(monkeypatch: pytest.MonkeyPatch) -> list[torch.Generator]:
    """Random numbers from a generator of their own: peft draws others for the layers that it makes first."""
    generator = torch.Generator()
    draw = torch.bernoulli
    monkeypatch.setattr(torch, "bernoulli", lambda share: draw(share, generator=generator))
    return [generator]


@pytest.mark.parametrize("sign", ["total", "frequency"])
@pytest.mark.parametrize("combination", OF_FACTORS)
@pytest.mark.parametrize("kind", NETS)
def test_sums_of_factors_are_pefts(kind: str, combination: str, sign: str, same_draws: list[torch.Generator]) -> None:
    """Every factor is the same, with the same draws."""
    _, ours, theirs = both(kind)
    options = {} if combination == "linear" else {"density": 0.6, "majority_sign_method": sign}
    for model in (ours, theirs):
        same_draws[0].manual_seed(5)
        model.add_weighted_adapter(NAMES, WEIGHTS, "mix", combination, **options)
    known = {name: each for name, each in adapter_parameters(theirs) if ".mix" in name}
    found = {name: each for name, each in adapter_parameters(ours) if ".mix" in name}
    assert found.keys() == known.keys()
    for name, each in found.items():
        torch.testing.assert_close(each, known[name])
    assert any(each.abs().sum() > 0 for each in found.values())


@pytest.mark.parametrize(
    "options", [{}, {"svd_rank": 2}, {"svd_clamp": 0.9}, {"svd_full_matrices": False, "svd_rank": 3}], ids=str
)
@pytest.mark.parametrize("combination", OF_UPDATES)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "words"])
def test_truncated_sums_are_pefts(
    kind: str, combination: str, options: dict[str, Any], same_draws: list[torch.Generator]
) -> None:
    """Same outputs, with the same draws, clamped and cut at the same rank."""
    specimen, ours, theirs = both(kind)
    options = options if combination == "svd" else {"density": 0.6, **options}
    for model in (ours, theirs):
        same_draws[0].manual_seed(5)
        model.add_weighted_adapter(NAMES, WEIGHTS, "mix", combination, **options)
        model.set_adapter("mix")
    torch.testing.assert_close(specimen(ours), specimen(theirs), rtol=1e-4, atol=1e-5)


def test_one_adapter_is_scaled() -> None:
    """As in PEFT, whatever the combination; a rank truncates it all the same."""
    specimen, ours, theirs = both("llama")
    for model in (ours, theirs):
        model.add_weighted_adapter(["other"], [2.0], "mix", "dare_ties", density=0.5)
        model.set_adapter("mix")
    torch.testing.assert_close(specimen(ours), specimen(theirs))
    ours.add_weighted_adapter(["other"], [2.0], "small", svd_rank=1)
    assert ours.peft_config["small"].r == 1


def test_a_scale_that_was_changed_counts() -> None:
    """The sum is that of the updates as they act."""
    specimen, ours, theirs = both("llama")
    for model in (ours, theirs):
        for module in model.modules():
            if isinstance(scaling := getattr(module, "scaling", None), dict) and "other" in scaling:
                module.scaling["other"] *= 3
        model.add_weighted_adapter(NAMES, WEIGHTS, "mix", "linear")
        model.set_adapter("mix")
    torch.testing.assert_close(specimen(ours), specimen(theirs))


def test_experts_are_truncated_each() -> None:
    """PEFT rejects bare parameters."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 8, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight.mT

    fields = {"target_parameters": ["0.weight"], "target_modules": [], "init_lora_weights": False}
    adapted = inject(nn.Sequential(Experts()), LoraConfig(r=2, **fields))
    adapted.add_adapter("other", LoraConfig(r=3, **fields))
    adapted.add_weighted_adapter(NAMES, WEIGHTS, "mix", "magnitude_prune_svd", svd_rank=6, density=0.5)
    layer: Any = adapted.get_base_model()[0]
    expected = torch.zeros(3, 8, 6)
    for name, weight in zip(NAMES, WEIGHTS, strict=True):
        delta = layer.get_delta_weight(name)
        limit = delta.abs().flatten().sort(descending=True).values[delta.numel() // 2 - 1]
        expected += weight * delta * (delta.abs() >= limit)
    torch.testing.assert_close(layer.get_delta_weight("mix"), expected, rtol=1e-4, atol=1e-5)


def test_a_module_that_one_of_them_saves_is_copied(tmp_path: Any) -> None:
    """With its trained values, which PEFT leaves behind; two of the same are rejected in PEFT's words."""
    specimen = bert()
    base = copy.deepcopy(specimen.model)
    adapted = inject(specimen.model, LoraConfig(target_modules=["query"]))
    adapted.add_adapter("other", LoraConfig(target_modules=["query"], modules_to_save=["classifier"]))
    randomise(adapted)
    adapted.add_weighted_adapter(NAMES, WEIGHTS, "mix", "linear")
    assert torch.equal(
        adapted.adapter_state("mix")["base_model.model.classifier.weight"],
        adapted.adapter_state("other")["base_model.model.classifier.weight"],
    )
    adapted.set_adapter("mix")
    expected = specimen(adapted.eval())
    adapted.save_pretrained(tmp_path, selected_adapters=["mix"])
    loaded = PeftModel.from_pretrained(base, tmp_path / "mix")
    torch.testing.assert_close(specimen(loaded), expected)
    with pytest.raises(InvalidConfig, match=r"same module with modules_to_save, but found 1 such instance\(s\)"):
        adapted.add_weighted_adapter(["other", "mix"], WEIGHTS, "again", "cat")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"combination_type": "ties"}, "density=None does not fit: combination_type='ties' needs the share"),
        ({"combination_type": "svd", "density": 0.5}, "combination_type='svd' prunes nothing"),
        ({"combination_type": "ties", "density": -0.5}, "density=-0.5 is not usable"),
        ({"combination_type": "ties", "density": "half"}, "density='half' is not usable"),
        ({"combination_type": "dare_ties", "density": 0}, "density=0 keeps nothing"),
        ({"combination_type": "ties", "density": 0.5, "majority_sign_method": "most"}, "'total', 'frequency'"),
        ({"combination_type": "linear", "svd_clamp": 0.5}, "svd_clamp=0.5 is for 'svd' and the combinations"),
        ({"svd_clamp": 1.5}, "svd_clamp=1.5 is no quantile"),
        ({"svd_driver": "gesvdj"}, "svd_driver='gesvdj' is one of CUDA"),
        ({"svd_driver": "fast"}, "svd_driver='fast' is not supported"),
        ({"combination_type": "tie"}, "combination_type='tie' is not supported"),
    ],
)
def test_options_that_do_not_fit_are_rejected(options: dict[str, Any], says: str) -> None:
    """In a line; no adapter is added."""
    adapted = inject(MLP().eval(), LoraConfig(target_modules=["seq.0"]))
    adapted.add_adapter("other", LoraConfig(target_modules=["seq.0"]))
    with pytest.raises(InvalidConfig, match=says):
        adapted.add_weighted_adapter(NAMES, WEIGHTS, "mix", **options)
    assert [*adapted.peft_config] == NAMES


def test_a_density_of_one_prunes_nothing() -> None:
    """With PEFT's warning."""
    adapted = inject(MLP().eval(), LoraConfig(target_modules=["seq.0"], init_lora_weights=False))
    adapted.add_adapter("other", LoraConfig(target_modules=["seq.0"], init_lora_weights=False))
    with pytest.warns(UserWarning, match="no pruning will be performed"):
        adapted.add_weighted_adapter(NAMES, WEIGHTS, "mix", "magnitude_prune", density=1)
    adapted.add_weighted_adapter(NAMES, WEIGHTS, "plain", "linear")
    mix, plain = adapted.adapter_state("mix"), adapted.adapter_state("plain")
    assert all(torch.equal(each, plain[name]) for name, each in mix.items())


def test_arguments_are_in_pefts_order() -> None:
    """So that positional calls mean the same."""
    known = inspect.signature(peft.LoraModel.add_weighted_adapter).parameters
    found = inspect.signature(PeftModel.add_weighted_adapter).parameters
    assert [*found] == [*known]
    assert {name: each.default for name, each in found.items()} == {name: each.default for name, each in known.items()}
