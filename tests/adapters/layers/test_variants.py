"""Variants of LoRA that PEFT's classes compute, held against the installed peft."""

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import KasaConfig, MontecloraConfig, VeloraConfig
from peft.tuners.lora.config import BdLoraConfig
from zoo import MLP, convolutions, words

from loradar.adapters import IA3Config, LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig

BLOCKS = {"target_modules_bd_a": ["seq.0"], "match_strict": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "velora": {"velora_config": VeloraConfig(num_groups=2, init_type="batch_average_once")},
    "monteclora": {"monteclora_config": MontecloraConfig(num_samples=2)},
    "kasa": {"kasa_config": KasaConfig()},
    "bdlora": {"use_bdlora": BdLoraConfig(**BLOCKS)},
    "mica": {"init_lora_weights": "mica"},
}
TARGETS = {"target_modules": ["seq.0", "seq.2"], "r": 4, "lora_alpha": 6}


def both(name: str, **fields: Any) -> tuple[Any, Any, MLP]:
    """Return an adapter by loradar and by peft with the same random values, in eval mode, and the base model."""
    base = MLP(8).eval()
    ours = inject(copy.deepcopy(base), LoraConfig(**TARGETS, **VARIANTS[name], **fields)).eval()
    theirs = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**TARGETS, **VARIANTS[name], **fields)).eval()
    torch.manual_seed(5)
    state = {
        key: tensor if key.endswith(("var_prior", "expert_weights")) else torch.randn_like(tensor)
        for key, tensor in peft.get_peft_model_state_dict(theirs).items()
    }
    for model in (ours, theirs):
        assert not peft.set_peft_model_state_dict(model, state).unexpected_keys
    assert peft.get_peft_model_state_dict(ours).keys() == state.keys() == ours.adapter_state().keys()
    return ours, theirs, base


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_computes_as_in_peft(name: str) -> None:
    """Outputs, and in train mode what trains with its gradients; MonteCLoRA draws its own random numbers there."""
    ours, theirs, _ = both(name)
    x = torch.randn(6, 20)
    assert torch.equal(ours(x), theirs(x))
    trained = []
    for model in (ours, theirs):
        torch.manual_seed(1)
        model.train()(x).square().sum().backward()
        trained.append({key: each.grad for key, each in model.named_parameters() if each.requires_grad})
    assert trained[0].keys() == trained[1].keys()
    if name != "monteclora":
        for key, gradient in trained[1].items():
            assert torch.equal(trained[0][key], gradient), key


@pytest.mark.parametrize("name", VARIANTS)
def test_files_of_a_variant_go_both_ways(name: str, tmp_path: Path) -> None:
    """The options are in the configuration, and loading takes the same out of the base weights again."""
    ours, theirs, base = both(name)
    x = torch.randn(6, 20)
    expected = ours(x)
    for model in (ours, theirs):
        model.save_pretrained(tmp_path)
        for load in (PeftModel.from_pretrained, peft.PeftModel.from_pretrained):
            assert torch.equal(load(copy.deepcopy(base), tmp_path).eval()(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(x), expected)  # noqa: S301 - our own
    ours.load_adapter(tmp_path, "default")
    assert torch.equal(ours(x), expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_merges_resets_and_unloads(name: str) -> None:
    """Merged it computes the same, reset nothing of its own, and unloading restores the weights bit for bit."""
    ours, _, base = both(name)
    x = torch.randn(6, 20)
    expected = ours(x)
    ours.merge_adapter(safe_merge=True)
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)
    ours.unmerge_adapter()
    ours.reset_adapter()
    with warnings.catch_warnings(action="ignore"), ours.disable_adapter():  # KaSA's weights stay changed
        untrained = ours(x)
    torch.testing.assert_close(ours(x), untrained)
    restored = ours.unload().state_dict()
    assert all(torch.equal(each, restored[key]) for key, each in base.state_dict().items())


def test_losses_of_training_are_pefts() -> None:
    """MonteCLoRA and KaSA add terms of their own, which the user adds to the loss."""
    ours, theirs, _ = both("kasa")
    assert torch.equal(ours._get_kasa_loss(), theirs.base_model._get_kasa_loss())
    ours, theirs, _ = both("monteclora")
    for model in (ours, theirs):
        model.train()
    assert torch.equal(ours.base_model._get_monteclora_loss(), theirs.base_model._get_monteclora_loss())


def test_variants_and_plain_lora_share_a_layer() -> None:
    """One after the other, together, and per sample."""
    adapted = inject(MLP(8), LoraConfig(**TARGETS, **VARIANTS["bdlora"])).eval()
    adapted.add_adapter("plain", LoraConfig(**TARGETS))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapted.base_model.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, outputs = torch.randn(2, 20), {}
    for name in ("default", "plain"):
        adapted.set_adapter(name)
        outputs[name] = adapted(x)
    mixed = adapted(x, adapter_names=["default", "plain"])
    torch.testing.assert_close(mixed, torch.stack([outputs["default"][0], outputs["plain"][1]]))
    adapted.delete_adapter("default")
    torch.testing.assert_close(adapted(x), outputs["plain"])


def test_the_frozen_factor_stays_frozen() -> None:
    """MiCA trains ``A`` alone, whoever switches."""
    adapted = inject(MLP(8), LoraConfig(**TARGETS, **VARIANTS["mica"]))
    adapted.add_adapter("other", LoraConfig(**TARGETS))
    for _ in range(2):
        for name in ("other", "default"):
            adapted.set_adapter(name)
        with adapted.disable_adapter():
            assert not any(each.requires_grad for each in adapted.parameters())
        assert {key.split(".")[-3] for key, each in adapted.named_parameters() if each.requires_grad} == {"lora_A"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({**VARIANTS["kasa"], **VARIANTS["mica"]}, "kasa_config and init_lora_weights='mica' cannot be combined"),
        ({**VARIANTS["velora"], "use_dora": True}, "velora_config and use_dora cannot be combined"),
        ({**VARIANTS["kasa"], "init_lora_weights": "pissa"}, "'pissa' changes base weights, and so does kasa_config"),
        ({"kasa_config": {"betta": 1}}, "makes no KasaConfig .*betta"),
        ({"velora_config": KasaConfig()}, "is no VeloraConfig of peft's"),
        ({"init_lora_weights": "lora_ga"}, "needs `lora_ga_config`, which must be specified"),
    ],
)
def test_impossible_options_are_rejected(fields: dict[str, Any], says: str) -> None:
    """In the configuration already, in one line."""
    with pytest.raises(InvalidConfig, match=says):
        LoraConfig(**fields)


@pytest.mark.parametrize(
    ("name", "targets", "says"),
    [
        ("velora", ["plain"], "'plain': velora_config is not supported for Conv2d: it is no linear layer"),
        ("bdlora", ["seq.2"], "matches neither A nor B block-diagonal patterns"),
        ("kasa", ["seq.4"], "rank is above the size of its weight"),
    ],
)
def test_layers_that_no_variant_fits_are_rejected(name: str, targets: list[str], says: str) -> None:
    """Before the model is touched."""
    model = convolutions(2).model if targets == ["plain"] else MLP(8)
    given = {"use_bdlora": {**BLOCKS, "match_strict": True}} if name == "bdlora" else VARIANTS[name]
    with pytest.raises(InvalidConfig, match=says):
        inject(model, LoraConfig(target_modules=targets, **given))


def test_kasa_stands_alone() -> None:
    """Others would act on other weights than they are for; two of it find the same."""
    adapted = inject(MLP(8), LoraConfig(**TARGETS, **VARIANTS["kasa"]))
    with pytest.raises(InvalidConfig, match="KaSA cannot be combined with adapters that don't use KaSA"):
        adapted.add_adapter("other", LoraConfig(**TARGETS))
    adapted.add_adapter("other", LoraConfig(**TARGETS, **VARIANTS["kasa"]))
    with pytest.raises(InvalidConfig, match="sums plain LoRA adapters only, not those with kasa_config"):
        adapted.add_weighted_adapter(["default", "other"], [1, 1], "sum")


def test_layers_of_all_adapters_are_listed_once() -> None:
    """As in PEFT, with those of IA3 that scale their input."""
    adapted = inject(MLP(8), LoraConfig(target_modules=["seq.2"]))
    adapted.add_adapter("other", LoraConfig(target_modules=["seq.0", "seq.2"]))
    assert adapted.targeted_module_names == adapted.base_model.targeted_module_names == ["seq.2", "seq.0"]
    rows: Any = inject(words().model, LoraConfig(target_modules=["head"], trainable_token_indices={"emb": [1]}))
    own = rows.base_model.model.emb.token_adapter
    assert (own.in_features, own.out_features) == (own.base_layer.num_embeddings, own.base_layer.embedding_dim)
    scaled = inject(MLP(8), IA3Config(target_modules=["seq.0", "seq.2"], feedforward_modules=["seq.2"]))
    layers: Any = scaled.base_model.model.seq
    assert (layers[0].is_feedforward, layers[2].is_feedforward) == (False, True)
