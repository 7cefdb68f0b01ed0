"""Initialisations from base weights by peft's functions, held against the installed peft with the same seed."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapter_zoo import adapter_parameters, randomise
from peft.tuners.lora import preprocess_loraga
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from torch import nn
from zoo import MLP, Specimen, convolutions, gpt2, llama, words

from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig, MissingExtra

CHANGING = ("pissa", "pissa_niter_3", "olora")
NETS: dict[str, tuple[Any, list[str]]] = {"llama": (llama, ["q_proj", "down_proj"]), "gpt2": (gpt2, ["c_attn"])}


def both(kind: str, dtype: torch.dtype = torch.float32, **fields: Any) -> tuple[Specimen, PeftModel, Any, nn.Module]:
    """Return the same adapter by loradar and by peft, made with the same seed, and the base model."""
    build, targets = NETS[kind]
    specimen = build()
    base = specimen.model.to(dtype)
    first, second = copy.deepcopy(base), copy.deepcopy(base)
    given = {"target_modules": targets, "r": 4, "fan_in_fan_out": kind == "gpt2", **fields}
    torch.manual_seed(3)
    ours = inject(first, LoraConfig(**given)).eval()
    torch.manual_seed(3)
    theirs = peft.get_peft_model(second, peft.LoraConfig(**given)).eval()
    return specimen, ours, theirs, base


def trained(model: Any) -> Any:
    """Move every factor a little, the same way in every model."""
    torch.manual_seed(7)
    with torch.no_grad():
        for _, parameter in sorted(adapter_parameters(model)):
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("how", "kind"),
    [(how, kind) for how in (*CHANGING, "orthogonal") for kind in NETS if (how, kind) != ("olora", "gpt2")],
)
def test_a_beginning_is_pefts(how: str, kind: str, dtype: torch.dtype) -> None:
    """Same factors and same base weights, to the bit; ``unload`` restores the base weights, to the bit."""
    _, ours, theirs, base = both(kind, dtype, init_lora_weights=how, lora_alpha=12)
    known = {name: each for name, each in theirs.state_dict().items() if "lora_dropout" not in name}
    found = ours.state_dict()
    assert found.keys() == known.keys()
    for name, each in found.items():
        assert torch.equal(each, known[name]), name
    restored = ours.unload().state_dict()
    assert all(torch.equal(each, restored[name]) for name, each in base.state_dict().items())


@pytest.mark.parametrize("how", CHANGING)
def test_a_model_begins_as_it_was(how: str) -> None:
    """What the base weights lose, the factors add; switching them off leaves the rest, with a warning."""
    specimen, ours, _, base = both("llama", init_lora_weights=how)
    expected = specimen(base.eval())
    torch.testing.assert_close(specimen(ours), expected, rtol=1e-4, atol=1e-5)
    with (
        pytest.warns(UserWarning, match=f"changed by init_lora_weights='{how}' of 'default' stay in"),
        ours.disable_adapter(),
    ):
        assert not torch.allclose(specimen(ours), expected, atol=1e-3)
    torch.testing.assert_close(specimen(ours.merge_and_unload()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["pissa", "olora"])
def test_files_of_a_repeatable_beginning_go_both_ways(how: str, tmp_path: Path) -> None:
    """They hold the factors, and loading takes the same part out of the base weights again."""
    specimen, ours, theirs, base = both("llama", init_lora_weights=how)
    trained(ours).save_pretrained(tmp_path / "ours")
    trained(theirs).save_pretrained(tmp_path / "theirs")
    expected = specimen(ours)
    for name in ("ours", "theirs"):
        again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / name)
        torch.testing.assert_close(specimen(again), expected, rtol=1e-4, atol=1e-5)
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / name).eval()
        torch.testing.assert_close(specimen(loaded), expected, rtol=1e-4, atol=1e-5)
    ours.load_adapter(tmp_path / "theirs", "default")  # as trainers resume
    torch.testing.assert_close(specimen(ours), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}}], ids=str)
@pytest.mark.parametrize("how", CHANGING)
def test_a_converted_adapter_belongs_to_the_former_weights(how: str, fields: dict[str, Any], tmp_path: Path) -> None:
    """An ordinary LoRA of twice the rank; one that cannot be repeated is saved so without being asked."""
    specimen, ours, _, base = both("llama", init_lora_weights=how, lora_alpha=6, **fields)
    expected = specimen(trained(ours))
    asked = {} if how == "pissa_niter_3" else {"path_initial_model_for_weight_conversion": tmp_path / "first"}
    ours.save_pretrained(tmp_path / "saved", **asked)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "saved")
    assert (again.peft_config["default"].r, again.peft_config["default"].init_lora_weights) == (8, True)
    torch.testing.assert_close(specimen(again), expected, rtol=1e-4, atol=1e-5)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "saved").eval()
    torch.testing.assert_close(specimen(loaded), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad(), again.disable_adapter():
        torch.testing.assert_close(specimen(again), specimen(base.eval()))


def test_a_changed_field_does_not_change_what_a_file_means(tmp_path: Path) -> None:
    """PEFT's guides set it to ``True`` before they save the first factors."""
    specimen, ours, _, base = both("llama", init_lora_weights="pissa")
    expected = specimen(trained(ours))
    for value in (True, "olora"):
        ours.peft_config["default"].init_lora_weights = value
        ours.save_pretrained(tmp_path)
        torch.testing.assert_close(
            specimen(PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)), expected, rtol=1e-4, atol=1e-5
        )
    plain = inject(MLP(), LoraConfig(target_modules=["seq.0"], r=2))
    plain.peft_config["default"].init_lora_weights = "pissa"
    plain.save_pretrained(tmp_path / "plain")
    assert PeftModel.from_pretrained(MLP(), tmp_path / "plain").peft_config["default"].init_lora_weights is True


def test_dora_begins_after_the_factors() -> None:
    """Its magnitudes are those of the whole weight, as in PEFT."""
    _, ours, theirs, _ = both("llama", init_lora_weights="pissa", use_dora=True)
    known = dict(adapter_parameters(theirs))
    for name, each in adapter_parameters(ours):
        torch.testing.assert_close(each, known[name])


def test_corda_begins_where_peft_has_prepared_the_model() -> None:
    """``preprocess_corda`` of PEFT comes first; without it the error says so."""
    with pytest.raises(InvalidConfig, match="preprocess_corda has not prepared"):
        inject(MLP(), LoraConfig(target_modules=["seq.0"], init_lora_weights="corda"))
    specimen = llama()
    given = {"target_modules": ["q_proj"], "r": 4, "init_lora_weights": "corda"}
    config = peft.LoraConfig(**given, corda_config=CordaConfig(corda_method="kpm"))
    preprocess_corda(specimen.model, config, run_model=lambda: specimen.model(torch.arange(8)[None]))
    ours = inject(copy.deepcopy(specimen.model), LoraConfig(**given)).eval()
    theirs = peft.get_peft_model(specimen.model, config).eval()
    known = dict(adapter_parameters(theirs))
    for name, each in adapter_parameters(ours):
        torch.testing.assert_close(each, known[name])
    torch.testing.assert_close(specimen(ours), specimen(theirs))
    assert not hasattr(ours.get_base_model().model.layers[0].self_attn.q_proj.base_layer, "eigens")


def test_an_adapter_beside_changed_weights_is_said_to_belong_to_them(tmp_path: Path) -> None:
    """Added, loaded and saved, in either order; two that change them would not find the weights of their files."""
    plain = LoraConfig(target_modules=["seq.0"], r=2)
    changing = LoraConfig(target_modules=["seq.0"], r=2, init_lora_weights="pissa")
    inject(MLP(64), plain).save_pretrained(tmp_path)
    base = MLP(64)
    adapted = inject(copy.deepcopy(base), plain)
    with pytest.warns(UserWarning, match="'pissa' of 'other' changes base weights, on which 'default' act too"):
        adapted.add_adapter("other", changing)
    adapted = inject(copy.deepcopy(base), changing)
    with pytest.warns(UserWarning, match=r"'other' acts on base weights that init_lora_weights='pissa' of 'default'"):
        adapted.load_adapter(tmp_path, "other")
    with pytest.warns(UserWarning, match="file of 'other' belongs to base weights that init_lora_weights='pissa'"):
        adapted.save_pretrained(tmp_path / "both")
    before = copy.deepcopy(adapted.state_dict())
    with pytest.raises(InvalidConfig, match=r"'pissa' of 'third' would find base weights that .* of 'default' changed"):
        adapted.add_adapter("third", changing)
    assert all(torch.equal(each, before[key]) for key, each in adapted.state_dict().items())
    restored = adapted.unload().state_dict()
    assert all(torch.equal(each, restored[key]) for key, each in base.state_dict().items())
    adapted = inject(MLP(64), changing)
    with pytest.raises(InvalidConfig, match="base_changed_by=None, and 'default' has 'pissa'"):
        adapted.hotswap_adapter(tmp_path)


def test_resetting_begins_again() -> None:
    """From the weights of before, not from what is left of them."""
    adapted = inject(MLP(), LoraConfig(target_modules=["seq.0"], r=2, init_lora_weights="pissa"))
    before = copy.deepcopy(adapted.state_dict())
    randomise(adapted)
    adapted.reset_adapter()
    assert all(torch.equal(each, before[key]) for key, each in adapted.state_dict().items())


def test_a_beginning_on_meta_waits_for_storage() -> None:
    """``reset_adapter`` makes up for it."""
    with torch.device("meta"):
        model = MLP()
    adapted = inject(model, LoraConfig(target_modules=["seq.0"], r=2, init_lora_weights="pissa"))
    adapted.to_empty(device="cpu")
    weights = MLP()
    layer: Any = adapted.get_base_model().get_submodule("seq.0")
    with torch.no_grad():
        layer.base_layer.weight.copy_(weights.seq[0].weight)
    adapted.reset_adapter()
    torch.testing.assert_close(layer.base_layer.weight + layer.get_delta_weight("default"), weights.seq[0].weight)
    assert not torch.equal(layer.base_layer.weight, weights.seq[0].weight)


@pytest.mark.parametrize(
    ("build", "fields", "says"),
    [
        (lambda: convolutions(2).model, {"target_modules": ["plain"]}, "which is no linear layer"),
        (lambda: words().model, {"target_modules": ["emb"]}, "which is no linear layer"),
        (lambda: MLP().double(), {"target_modules": ["seq.0"]}, "not float32, float16 or bfloat16"),
        (MLP, {"target_modules": ["seq.0"], "r": 512}, "rank is above the size"),
        (
            MLP,
            {"target_modules": ["seq.0"], "r": 3, "init_lora_weights": "orthogonal"},
            "rank to be even, got 3 instead, for 'seq.0'",
        ),
        (
            lambda: gpt2().model,
            {"target_modules": ["c_attn"], "init_lora_weights": "olora"},
            "stores its weight transp",
        ),
    ],
)
def test_layers_that_do_not_fit_are_rejected(build: Any, fields: dict[str, Any], says: str) -> None:
    """Before the model is touched."""
    model = build()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InvalidConfig, match=says):
        inject(model, LoraConfig(**{"init_lora_weights": "pissa", "r": 2, **fields}))
    assert all(torch.equal(each, before[key]) for key, each in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_lora_ga_begins_where_peft_has_prepared_the_model(tmp_path: Path) -> None:
    """As in PEFT, and its file is an ordinary LoRA on the former weights; without the gradients the error says so."""
    specimen = llama()
    given = {
        "target_modules": ["q_proj"],
        "r": 4,
        "init_lora_weights": "lora_ga",
        "lora_ga_config": peft.LoraGAConfig(),
    }
    with pytest.raises(InvalidConfig, match="which peft's preprocess_loraga has not prepared: call it"):
        inject(copy.deepcopy(specimen.model), LoraConfig(**given))
    ids, outputs = torch.randint(0, 32, (2, 8)), []

    def run(model: nn.Module) -> torch.Tensor:
        return model(ids).logits  # type: ignore[no-any-return]

    for make, config in ((inject, LoraConfig(**given)), (peft.get_peft_model, peft.LoraConfig(**given))):
        model = copy.deepcopy(specimen.model)
        preprocess_loraga(model, config, lambda model=model: run(model).square().sum().backward())
        torch.manual_seed(3)
        outputs.append(make(model, config).eval())
    expected = run(outputs[1])
    torch.testing.assert_close(run(outputs[0]), expected, rtol=1e-4, atol=1e-5)
    outputs[0].save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(specimen.model), tmp_path).eval()
    torch.testing.assert_close(run(loaded), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:lora with eva")
def test_eva_shares_out_ranks_as_in_peft() -> None:
    """``initialize_lora_eva_weights`` fills ``A`` and gives layers other ranks, in the configuration too."""
    specimen = llama()
    given = {"target_modules": ["q_proj", "down_proj"], "r": 4, "init_lora_weights": "eva"}
    data = [{"input_ids": torch.randint(0, 32, (4, 8)), "attention_mask": torch.ones(4, 8).long()} for _ in range(4)]
    found = []
    for make, kind in ((inject, LoraConfig), (peft.get_peft_model, peft.LoraConfig)):
        model = make(copy.deepcopy(specimen.model), kind(**given, eva_config=peft.EvaConfig(rho=2.0)))
        peft.initialize_lora_eva_weights(model, data, show_progress_bar=False)
        found.append((model.peft_config["default"].rank_pattern, peft.get_peft_model_state_dict(model)))
    assert found[0][0] == found[1][0] != {}
    assert found[0][1].keys() == found[1][1].keys()
    for key, tensor in found[1][1].items():
        torch.testing.assert_close(found[0][1][key].abs(), tensor.abs(), rtol=1e-3, atol=1e-4)


def test_loftq_names_what_it_lacks() -> None:
    """It quantises on a GPU, with bitsandbytes."""
    config = LoraConfig(target_modules=["seq.0"], init_lora_weights="loftq", loftq_config=peft.LoftQConfig())
    with pytest.raises(InvalidConfig, match="'loftq' quantises with bitsandbytes on a GPU"):
        inject(MLP(64), config)


@pytest.mark.parametrize("how", ["loftq", "lora_ga", "pissa_niter_0", "pissa_niter_x"])
def test_other_initialisations_are_rejected(how: str) -> None:
    """In a line."""
    with pytest.raises(InvalidConfig, match=f"init_lora_weights='{how}'"):
        LoraConfig(init_lora_weights=how)


def test_peft_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what to install."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'loradar\[peft\]'"):
        inject(MLP(), LoraConfig(target_modules=["seq.0"], r=2, init_lora_weights="pissa"))


def test_a_failure_leaves_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that were changed already are restored."""
    specimen = llama()
    before = copy.deepcopy(specimen.model.state_dict())
    calls = []

    def fail_at_third(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) > 2:
            raise RuntimeError("no memory")
        return svd(*args, **kwargs)

    svd = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", fail_at_third)
    with pytest.raises(RuntimeError, match="no memory"):
        inject(specimen.model, LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights="pissa"))
    assert all(torch.equal(each, before[key]) for key, each in specimen.model.state_dict().items())
