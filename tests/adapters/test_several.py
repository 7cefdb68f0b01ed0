"""Several adapters in one model: each operation of PEFT's, held against the installed peft on the same tensors."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import peft
import pytest
import torch
from adapter_zoo import adapter_parameters, fingerprint, randomise
from safetensors.torch import load_file, save_file
from torch import nn
from torch._dynamo.testing import CompileCounter
from zoo import MLP, Specimen, bert, convolutions, gpt2, llama, words

import loradar
from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig, LoradarError

WEIGHTS = "adapter_model.safetensors"


class Net(NamedTuple):
    """A model and the configurations of its adapters; the first is called ``default``."""

    build: Callable[[], Specimen]
    adapters: dict[str, dict[str, Any]]


LLAMA = {
    "default": {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 8},
    "other": {"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 3, "use_rslora": True},
    "patterned": {
        "target_modules": ["q_proj", "v_proj", "gate_proj"],
        "r": 2,
        "rank_pattern": {"v_proj": 3},
        "alpha_pattern": {r"layers\.1\..*q_proj": 5},
    },
}
NETS = {
    "llama": Net(llama, LLAMA),
    "gpt2": Net(
        gpt2,
        {
            "default": {"target_modules": ["c_attn"], "r": 4, "fan_in_fan_out": True},
            "other": {"target_modules": ["c_attn", "c_fc"], "r": 4, "lora_alpha": 20, "fan_in_fan_out": True},
            "patterned": {"target_modules": ["c_proj", "c_attn"], "r": 3, "fan_in_fan_out": True},
        },
    ),
    "words": Net(
        words,
        {
            "default": {"target_modules": ["emb", "head"], "r": 4},
            "other": {"target_modules": ["emb"], "r": 4, "lora_alpha": 2},
            "patterned": {"target_modules": ["head", "emb"], "r": 3, "rank_pattern": {"emb": 5}},
        },
    ),
    "convolutions": Net(
        lambda: convolutions(2),
        {
            "default": {"target_modules": ["plain"], "r": 4},
            "other": {"target_modules": ["plain"], "r": 4, "lora_alpha": 2},
            "patterned": {"target_modules": ["plain"], "r": 2, "use_rslora": True},
        },
    ),
}
SAVED = Net(
    bert,
    {
        "default": {"target_modules": ["query"], "r": 4, "modules_to_save": ["classifier"]},
        "other": {"target_modules": ["query", "value"], "r": 4},
        "patterned": {"target_modules": ["value"], "r": 2, "modules_to_save": ["classifier", "pooler.dense"]},
    },
)


@contextmanager
def quiet() -> Iterator[None]:
    """Let both libraries warn: what they say is another test's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def filled(model: Any, net: Net, config: type, std: float = 0.2) -> Any:
    """Add the other adapters of ``net`` to ``model``, give all of them random values, and return it in eval mode."""
    for name in [*net.adapters][1:]:
        model.add_adapter(name, config(**net.adapters[name]))
    randomise(model, std=std)
    return model.eval()


def ours(net: Net, base: nn.Module) -> PeftModel:
    """Return ``base`` with all adapters of ``net``, by loradar."""
    return filled(inject(base, LoraConfig(**net.adapters["default"])), net, LoraConfig)


def theirs(net: Net, base: nn.Module) -> Any:
    """Return the same, by the installed peft."""
    with quiet():
        return filled(peft.get_peft_model(base, peft.LoraConfig(**net.adapters["default"])), net, peft.LoraConfig)


def activate(model: Any, *names: str) -> None:
    """Make these adapters active; peft's outer ``set_adapter`` (0.21.2) takes one only, its inner one a list."""
    (model.base_model if issubclass(type(model), peft.PeftModel) else model).set_adapter(list(names))


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> Net:
    """Each kind of model."""
    return NETS[request.param]


@pytest.fixture
def adapted() -> tuple[Specimen, PeftModel]:
    """A llama and our wrapper around it, with three adapters."""
    specimen = llama()
    return specimen, ours(NETS["llama"], specimen.model)


def weighted(combination: str, names: list[str], weights: list[float]) -> Callable[[Any], None]:
    """Return the operation that combines adapters and activates the result."""

    def operation(model: Any) -> None:
        model.add_weighted_adapter(names, weights, "mix", combination_type=combination)
        model.set_adapter("mix")

    return operation


def merge_some(model: Any) -> None:
    """Merge two by name, neither of them alone active."""
    model.merge_adapter(adapter_names=["other", "patterned"])


def merge_in_turn(model: Any) -> None:
    """Merge one, then another on top."""
    model.merge_adapter(adapter_names=["other"])
    model.merge_adapter(adapter_names=["default"])


def merge_and_back(model: Any) -> None:
    """Merge two and unmerge."""
    activate(model, "other", "patterned")
    model.merge_adapter()
    model.unmerge_adapter()


def delete_one_of_two(model: Any) -> None:
    """Delete one of two active ones; the other stays active."""
    activate(model, "other", "patterned")
    model.delete_adapter("other")


def readd(model: Any) -> None:
    """Delete an adapter and add one under its name."""
    model.delete_adapter("other")
    config = type(model.peft_config["default"])
    first = model.peft_config["default"]
    model.add_adapter("other", config(target_modules=list(first.target_modules), r=2))
    randomise(model, seed=3)
    model.set_adapter("other")


OPERATIONS: dict[str, Callable[[Any], object]] = {
    "as added": lambda _: None,
    "set": lambda model: model.set_adapter("other"),
    "set patterned": lambda model: model.set_adapter("patterned"),
    "set two": lambda model: activate(model, "default", "other"),
    "set three": lambda model: activate(model, "patterned", "other", "default"),
    "merge": lambda model: model.merge_adapter(),
    "merge one": lambda model: model.merge_adapter(adapter_names=["other"]),
    "merge two": merge_some,
    "merge in turn": merge_in_turn,
    "merge and back": merge_and_back,
    "delete": lambda model: model.delete_adapter("other"),
    "delete one of two": delete_one_of_two,
    "delete and add": readd,
    "linear": weighted("linear", ["default", "other"], [0.7, 0.4]),
    "linear negative": weighted("linear", ["default", "other"], [1.0, -0.5]),
    "linear of one": weighted("linear", ["default"], [2.0]),
    "cat": weighted("cat", ["default", "patterned", "other"], [0.5, 1.5, -1.0]),
}
PADDED = ("cat",)
"""Where peft fills the factors up with zeros to the same rank everywhere."""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_does_what_pefts_does(net: Net, operation: str) -> None:
    """Same outputs to 1e-6, same active adapters, same tensors under the same names, same gradient flags."""
    specimen = net.build()
    first, second = ours(net, copy.deepcopy(specimen.model)), theirs(net, specimen.model)
    with quiet():
        OPERATIONS[operation](first)
        OPERATIONS[operation](second)
    torch.testing.assert_close(specimen(first), specimen(second), rtol=1e-6, atol=1e-6)
    assert first.active_adapters == second.active_adapters
    assert first.peft_config.keys() == second.peft_config.keys()
    tensors = dict(adapter_parameters(second))
    assert dict(adapter_parameters(first)).keys() == tensors.keys()
    for name, parameter in adapter_parameters(first):
        if operation not in PADDED or ".mix." not in name:
            torch.testing.assert_close(parameter, tensors[name], rtol=1e-6, atol=1e-6)
        assert parameter.requires_grad == tensors[name].requires_grad, name


@pytest.mark.parametrize("options", [{}, {"svd_rank": 2}, {"combination_type": "svd", "svd_rank": 64}], ids=str)
@pytest.mark.parametrize("kind", [kind for kind in NETS if kind != "convolutions"])
def test_the_default_sum_is_pefts_truncated_one(kind: str, options: dict[str, Any]) -> None:
    """``svd``: same outputs, from factors that may differ in sign; a rank above the sum's is filled up with zeros."""
    specimen = NETS[kind].build()
    first, second = ours(NETS[kind], copy.deepcopy(specimen.model)), theirs(NETS[kind], specimen.model)
    if options.get("svd_rank") != 64:  # PEFT fails where the rank is above that of the weight
        with quiet():
            second.add_weighted_adapter(["default", "other"], [0.7, -0.4], "mix", **options)
            second.set_adapter("mix")
        first.add_weighted_adapter(["default", "other"], [0.7, -0.4], "mix", **options)
    else:
        first.add_weighted_adapter(["default", "other"], [0.7, -0.4], "mix", **options)
        first.add_weighted_adapter(["default", "other"], [0.7, -0.4], "exact", "cat")
        second = copy.deepcopy(first)
        second.set_adapter("exact")
    first.set_adapter("mix")
    torch.testing.assert_close(specimen(first), specimen(second), rtol=1e-4, atol=1e-5)


def test_cat_sums_a_grouped_convolution_group_by_group() -> None:
    """The groups of ``B`` read consecutive ranks, so those of each group have to stay together."""
    model, x = nn.Sequential(nn.Conv2d(8, 8, 3, groups=4)).eval(), torch.randn(2, 8, 6, 6)
    plain = model(x)
    adapted = inject(model, LoraConfig(target_modules=["0"], r=4, init_lora_weights=False), "first")
    adapted.add_adapter("second", LoraConfig(target_modules=["0"], r=8, init_lora_weights=False))
    adapted.add_weighted_adapter(["first", "second"], [0.5, 2.0], "mix", "cat")
    updates = {}
    for name in ("first", "second", "mix"):
        adapted.set_adapter(name)
        updates[name] = adapted(x) - plain
    torch.testing.assert_close(updates["mix"], 0.5 * updates["first"] + 2 * updates["second"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("names", [None, ["other"], ["other", "default"]], ids=str)
def test_merging_and_unloading_is_pefts(net: Net, names: list[str] | None) -> None:
    """With the adapters named or the active one: the same plain model comes out."""
    specimen = net.build()
    first = ours(net, copy.deepcopy(specimen.model)).merge_and_unload(adapter_names=names)
    second = theirs(net, specimen.model).merge_and_unload(adapter_names=names)
    assert first.state_dict().keys() == second.state_dict().keys()
    torch.testing.assert_close(specimen(first), specimen(second), rtol=1e-6, atol=1e-6)


def test_unloading_gives_the_base_model_back(net: Net) -> None:
    """Also with several adapters, two of them merged."""
    specimen = net.build()
    before, plain = fingerprint(specimen.model), specimen()
    model = ours(net, specimen.model)
    model.merge_adapter(adapter_names=["other", "patterned"])
    unloaded = model.unload()
    assert torch.equal(specimen(unloaded), plain)
    assert fingerprint(unloaded) == before


@pytest.mark.parametrize("names", [["default"], ["other", "patterned"]], ids=str)
def test_disabled_and_back(net: Net, names: list[str]) -> None:
    """The base model answers within the block, whatever was active; the same are active after it."""
    specimen = net.build()
    plain = specimen()
    model = ours(net, specimen.model)
    activate(model, *names)
    expected = specimen(model)
    with model.disable_adapter():
        assert torch.equal(specimen(model), plain)
    assert torch.equal(specimen(model), expected)
    assert model.active_adapters == names


def test_disabled_inside_of_a_merge_is_the_base_model_to_the_bit(net: Net) -> None:
    """Merged adapters are taken out for the block and are merged again after it."""
    specimen = net.build()
    plain = specimen()
    model = ours(net, specimen.model)
    model.merge_adapter(adapter_names=["default", "other"])
    merged = specimen(model)
    with model.disable_adapter():
        assert torch.equal(specimen(model), plain)
    torch.testing.assert_close(specimen(model), merged, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "names", [["default", "__base__"], ["other", "default"], ["__base__", "patterned"], ["other", "other"]], ids=str
)
def test_an_adapter_per_sample_is_pefts(net: Net, names: list[str]) -> None:
    """Each sample gets the answer of its own adapter, as in peft, and as it gets alone."""
    specimen = net.build()
    inputs = {key: value[:2] for key, value in specimen.inputs.items()}
    plain = copy.deepcopy(specimen.model)
    first, second = ours(net, copy.deepcopy(specimen.model)), theirs(net, specimen.model)
    mixed = Specimen(first, {**inputs, "adapter_names": names})
    torch.testing.assert_close(mixed(), mixed(second), rtol=1e-6, atol=1e-6)
    for index, name in enumerate(names):
        alone = Specimen(first, {key: value[index : index + 1] for key, value in inputs.items()})
        if name != "__base__":
            first.set_adapter(name)
        expected = alone(plain if name == "__base__" else first)
        torch.testing.assert_close(mixed()[index : index + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("names", [["default", "other"], ["__base__", "patterned"], ["other", "__base__"]], ids=str)
def test_an_adapter_per_sample_has_its_saved_module(names: list[str]) -> None:
    """A sample whose adapter trained the head is answered by that head, another by the original.

    Held against each adapter alone: peft 0.21.2 fails on a sample whose adapter saved nothing (``KeyError``).
    """
    specimen = bert()
    plain, model = copy.deepcopy(specimen.model), ours(SAVED, specimen.model)
    mixed = Specimen(model, {**specimen.inputs, "adapter_names": names})()
    for index, name in enumerate(names):
        if name != "__base__":
            model.set_adapter(name)
        alone = specimen(plain if name == "__base__" else model)
        torch.testing.assert_close(mixed[index], alone[index], rtol=1e-4, atol=1e-5)


def test_generating_with_an_adapter_per_sample(adapted: tuple[Specimen, PeftModel]) -> None:
    """Greedy generation of a mixed batch gives each sample what its adapter alone gives it."""
    specimen, model = adapted
    options = {"max_new_tokens": 3, "do_sample": False}
    mixed = model.generate(**specimen.inputs, **options, adapter_names=["other", "default"])
    for index, name in enumerate(["other", "default"]):
        model.set_adapter(name)
        alone = model.generate(input_ids=specimen.inputs["input_ids"][index : index + 1], **options)
        assert torch.equal(mixed[index][: len(alone[0])], alone[0])  # what ends early is filled up in a batch


@pytest.mark.parametrize("active", ["default", "other", "patterned"])
def test_saved_modules_follow_their_adapter(active: str) -> None:
    """Each adapter has its own copy of the head, or the original one; flags and outputs are peft's."""
    specimen = bert()
    first, second = ours(SAVED, copy.deepcopy(specimen.model)), theirs(SAVED, specimen.model)
    first.set_adapter(active)
    second.set_adapter(active)
    torch.testing.assert_close(specimen(first), specimen(second), rtol=1e-6, atol=1e-6)
    flags = {name: parameter.requires_grad for name, parameter in adapter_parameters(second)}
    assert {name: parameter.requires_grad for name, parameter in adapter_parameters(first)} == flags
    merged = specimen(first)
    torch.testing.assert_close(specimen(first.merge_and_unload()), merged, rtol=1e-4, atol=1e-5)


def test_only_the_active_adapter_learns(adapted: tuple[Specimen, PeftModel]) -> None:
    """One backward gives gradients to the active adapter and to nothing else."""
    specimen, model = adapted
    model.set_adapter("other")
    model(**specimen.inputs)[0].square().sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in adapter_parameters(model) if ".other." in name}
    assert len(learning) == 8


def test_an_active_adapter_can_stay_frozen(adapted: tuple[Specimen, PeftModel]) -> None:
    """``inference_mode=True`` activates without training, as in peft."""
    _, model = adapted
    model.set_adapter("other", inference_mode=True)
    assert model.active_adapters == ["other"]
    assert not any(parameter.requires_grad for parameter in model.parameters())


# --- files --------------------------------------------------------------------------------------------------------


def test_several_are_saved_as_peft_saves_them(net: Net, tmp_path: Path) -> None:
    """The first in the folder, the others in folders of their names, with the same tensors to the bit."""
    specimen = net.build()
    first, second = ours(net, copy.deepcopy(specimen.model)), theirs(net, specimen.model)
    with quiet():
        first.save_pretrained(tmp_path / "ours")
        second.save_pretrained(tmp_path / "theirs")
    for part in (".", "other", "patterned"):
        mine, its = load_file(tmp_path / "ours" / part / WEIGHTS), load_file(tmp_path / "theirs" / part / WEIGHTS)
        adapters = {key: value for key, value in its.items() if "lora_" in key}
        assert {key for key in mine if "lora_" in key} == adapters.keys()
        assert all(torch.equal(mine[key], value) for key, value in adapters.items())


def test_some_are_saved(adapted: tuple[Specimen, PeftModel], tmp_path: Path) -> None:
    """``selected_adapters`` leaves the others out; an unknown one is refused and nothing is written."""
    _, model = adapted
    model.save_pretrained(tmp_path / "one", selected_adapters=["other"])
    assert [path.parent.name for path in (tmp_path / "one").rglob(WEIGHTS)] == ["other"]
    with pytest.raises(LoradarError, match="nobody"):
        model.save_pretrained(tmp_path / "none", selected_adapters=["other", "nobody"])
    assert not list(tmp_path.glob("none/**/*.safetensors"))


def test_peft_reads_several_of_ours_and_back(tmp_path: Path) -> None:
    """From loradar to peft and back: every adapter answers alike, its tensors the same to the bit."""
    specimen = llama()
    bases = [copy.deepcopy(specimen.model) for _ in range(2)]
    model = ours(NETS["llama"], specimen.model)
    model.save_pretrained(tmp_path / "ours")
    middle = peft.PeftModel.from_pretrained(bases[0], tmp_path / "ours")
    for name in ("other", "patterned"):
        middle.load_adapter(tmp_path / "ours" / name, name)
    middle.save_pretrained(tmp_path / "theirs")
    back = PeftModel.from_pretrained(bases[1], tmp_path / "theirs")
    for name in ("other", "patterned"):
        back.load_adapter(tmp_path / "theirs" / name, name)
    tensors = dict(adapter_parameters(model))
    assert all(torch.equal(parameter, tensors[name]) for name, parameter in adapter_parameters(back))
    for name in ("default", "other", "patterned"):
        for each in (model, middle, back):
            each.set_adapter(name)
        torch.testing.assert_close(specimen(model), specimen(middle), rtol=1e-6, atol=1e-6)
        assert torch.equal(specimen(model), specimen(back))


def test_a_loaded_adapter_waits(adapted: tuple[Specimen, PeftModel], tmp_path: Path) -> None:
    """Loading beside another neither activates nor trains it, and leaves the answer as it was."""
    specimen, model = adapted
    expected = specimen(model)
    model.save_pretrained(tmp_path)
    model.load_adapter(tmp_path / "other", "twin")
    assert torch.equal(specimen(model), expected)
    assert model.active_adapters == ["default"]
    assert not any(parameter.requires_grad for name, parameter in adapter_parameters(model) if ".twin." in name)
    model.set_adapter("twin")
    twin = specimen(model)
    model.set_adapter("other")
    assert torch.equal(specimen(model), twin)


def test_loading_into_an_adapter_that_is_there(adapted: tuple[Specimen, PeftModel], tmp_path: Path) -> None:
    """As in peft, and as trainers resume: the weights are replaced, and it trains on when asked to."""
    specimen, model = adapted
    expected = specimen(model)
    model.save_pretrained(tmp_path)
    randomise(model, seed=9)
    assert not torch.equal(specimen(model), expected)
    model.load_adapter(tmp_path, "default", is_trainable=True)
    assert torch.equal(specimen(model.eval()), expected)
    assert all(parameter.requires_grad for name, parameter in adapter_parameters(model) if ".default." in name)


# --- hot-swapping -------------------------------------------------------------------------------------------------

SWAPS = {
    "same shape": {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 8},
    "other alpha": {"target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 1},
    "lower rank": {"target_modules": ["q_proj", "v_proj"], "r": 2, "lora_alpha": 5},
    "lower rank in places": {"target_modules": ["q_proj", "v_proj"], "r": 4, "rank_pattern": {"v_proj": 1}},
    "fewer targets": {"target_modules": ["q_proj"], "r": 4},
}


def saved(folder: Path, base: nn.Module, seed: int = 5, **fields: Any) -> Path:
    """Write a random adapter for ``base``, which is not changed, and return its folder."""
    model = inject(copy.deepcopy(base), LoraConfig(**fields))
    randomise(model, seed=seed)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("swap", SWAPS)
def test_hotswapping_is_loading(swap: str, tmp_path: Path) -> None:
    """The adapter answers as the one in the folder, in the same parameters, and can be swapped back."""
    specimen = llama()
    base = copy.deepcopy(specimen.model)
    folder = saved(tmp_path / "new", base, **SWAPS[swap])
    model = inject(specimen.model, LoraConfig(**LLAMA["default"])).eval()
    randomise(model)
    before, parameters = specimen(model), {key: id(value) for key, value in adapter_parameters(model)}
    model.save_pretrained(tmp_path / "old")
    model.hotswap_adapter(folder, "default")
    expected = specimen(PeftModel.from_pretrained(base, folder))
    torch.testing.assert_close(specimen(model), expected, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(expected, before)
    assert {key: id(value) for key, value in adapter_parameters(model)} == parameters
    model.hotswap_adapter(tmp_path / "old", "default")
    assert torch.equal(specimen(model), before)


def test_what_was_swapped_in_can_be_saved(tmp_path: Path) -> None:
    """Saved again after a swap to another alpha, the adapter answers as it does now."""
    specimen = llama()
    base = copy.deepcopy(specimen.model)
    folder = saved(tmp_path / "new", base, **SWAPS["other alpha"])
    model = inject(specimen.model, LoraConfig(**LLAMA["default"])).eval()
    model.hotswap_adapter(folder, "default")
    model.save_pretrained(tmp_path / "again")
    back = PeftModel.from_pretrained(base, tmp_path / "again")
    torch.testing.assert_close(specimen(back), specimen(model), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("swap", ["same shape", "other alpha", "lower rank"])
def test_a_compiled_model_stays_compiled(swap: str, tmp_path: Path) -> None:
    """Another alpha or a lower rank costs no second compilation, and the answer is the new adapter's."""
    specimen = llama()
    base = copy.deepcopy(specimen.model)
    folder = saved(tmp_path, base, **SWAPS[swap])
    model = inject(specimen.model, LoraConfig(**LLAMA["default"])).eval()
    randomise(model)
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = Specimen(torch.compile(model, backend=counter), specimen.inputs)
    before, compiled_once = compiled(), counter.frame_count
    assert compiled_once > 0
    model.hotswap_adapter(folder, "default")
    after = compiled()
    assert counter.frame_count == compiled_once
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, specimen(PeftModel.from_pretrained(base, folder)), rtol=1e-5, atol=1e-6)


def test_hotswapping_one_of_several(adapted: tuple[Specimen, PeftModel], tmp_path: Path) -> None:
    """An inactive adapter is swapped without a change of the answer; activated, it answers as the new one."""
    specimen, model = adapted
    plain = copy.deepcopy(model).unload()
    folder = saved(tmp_path, plain, **LLAMA["other"])
    before = specimen(model)
    model.hotswap_adapter(folder, "other")
    assert torch.equal(specimen(model), before)
    model.set_adapter("other")
    torch.testing.assert_close(
        specimen(model), specimen(PeftModel.from_pretrained(plain, folder)), rtol=1e-6, atol=1e-6
    )


def swap_more_targets(model: Any, folder: Path) -> None:
    """Swap in an adapter that has targets which this one lacks."""
    model.hotswap_adapter(saved(folder, llama().model, target_modules=["q_proj", "up_proj"], r=4), "default")


def swap_another_model(model: Any, folder: Path) -> None:
    """Swap in an adapter whose input is wider than this model's."""
    saved(folder, llama().model, **LLAMA["default"])
    tensors = load_file(folder / WEIGHTS)
    save_file({key: value.repeat(1, 2) for key, value in tensors.items()}, folder / WEIGHTS)
    model.hotswap_adapter(folder, "default")


def swap_merged(model: Any, folder: Path) -> None:
    """Swap an adapter that is in the base weights."""
    saved(folder, llama().model, **LLAMA["default"])
    model.merge_adapter()
    model.hotswap_adapter(folder, "default")


def swap_unknown(model: Any, folder: Path) -> None:
    """Swap an adapter that is not there."""
    model.hotswap_adapter(saved(folder, llama().model, **LLAMA["default"]), "nobody")


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (swap_more_targets, r"up_proj"),
        (swap_another_model, r"q_proj\.lora_[AB]"),
        (swap_merged, r"(?i)merge"),
        (swap_unknown, r"nobody"),
    ],
)
def test_a_swap_that_does_not_fit(operation: Callable[[Any, Path], None], says: str, tmp_path: Path) -> None:
    """It is refused, and the adapter keeps its weights."""
    specimen = llama()
    model = inject(specimen.model, LoraConfig(**LLAMA["default"])).eval()
    randomise(model)
    before = {name: parameter.detach().clone() for name, parameter in adapter_parameters(model)}
    with pytest.raises(LoradarError, match=says):
        operation(model, tmp_path)
    assert all(torch.equal(before[name], parameter) for name, parameter in adapter_parameters(model))


# --- errors -------------------------------------------------------------------------------------------------------


def call_merged(model: Any) -> None:
    """Ask for an adapter per sample while one is merged."""
    model.merge_adapter()
    model(**llama().inputs, adapter_names=["default", "other"])


ERRORS: dict[str, tuple[Callable[[Any], object], str]] = {
    "set unknown": (lambda model: model.set_adapter("nobody"), "nobody"),
    "set one unknown": (lambda model: model.set_adapter(["default", "nobody"]), "nobody"),
    "delete unknown": (lambda model: model.delete_adapter("nobody"), "nobody"),
    "add twice": (lambda model: model.add_adapter("other", LoraConfig(target_modules=["q_proj"])), "other"),
    "add unusable name": (lambda model: model.add_adapter("a.b", LoraConfig(target_modules=["q_proj"])), r"a\.b"),
    "add misses": (lambda model: model.add_adapter("new", LoraConfig(target_modules=["q_porj"])), "q_porj"),
    "merge unknown": (lambda model: model.merge_adapter(adapter_names=["default", "nobody"]), "nobody"),
    "unload unknown": (lambda model: model.merge_and_unload(adapter_names=["nobody"]), "nobody"),
    "weighted unknown": (
        lambda model: model.add_weighted_adapter(["default", "nobody"], [1, 1], "mix", combination_type="cat"),
        "nobody",
    ),
    "weighted ranks": (
        lambda model: model.add_weighted_adapter(["default", "patterned"], [1, 1], "mix", combination_type="linear"),
        r"(?i)rank|\br\b",
    ),
    "weighted count": (
        lambda model: model.add_weighted_adapter(["default", "other"], [1.0], "mix", combination_type="cat"),
        "weight",
    ),
    "weighted kind": (
        lambda model: model.add_weighted_adapter(["default", "other"], [1, 1], "mix", combination_type="sum"),
        "sum",
    ),
    "weighted rank": (
        lambda model: model.add_weighted_adapter(["default", "other"], [1, 1], "mix", "cat", svd_rank=4),
        "svd_rank=4 is for 'svd' and the combinations that end with it, not for 'cat'",
    ),
    "weighted none": (lambda model: model.add_weighted_adapter([], [], "mix", combination_type="cat"), "adapter"),
    "sample count": (lambda model: model(**llama().inputs, adapter_names=["default"]), "adapter_names"),
    "sample unknown": (lambda model: model(**llama().inputs, adapter_names=["default", "nobody"]), "nobody"),
    "sample in training": (
        lambda model: model.train()(**llama().inputs, adapter_names=["default", "other"]),
        "training",
    ),
    "load nowhere": (lambda model: model.load_adapter("/nowhere", "new"), "nowhere"),
    "save unknown": (lambda model: model.save_pretrained("/nowhere", selected_adapters=["nobody"]), "nobody"),
}


@pytest.mark.parametrize("operation", ERRORS)
def test_a_wrong_request_changes_nothing(adapted: tuple[Specimen, PeftModel], operation: str) -> None:
    """It is refused in words that name what was wrong, and the model is what it was, to the bit."""
    _, model = adapted
    act, says = ERRORS[operation]
    before = fingerprint(model)
    with pytest.raises(LoradarError, match=says):
        act(model)
    assert fingerprint(model.eval()) == before
    assert [*model.peft_config] == ["default", "other", "patterned"]
    assert model.active_adapters == ["default"]


def test_no_adapter_per_sample_while_merged(adapted: tuple[Specimen, PeftModel]) -> None:
    """The base weights are not the base model's then: it is refused, with the way out."""
    with pytest.raises(LoradarError, match="unmerge"):
        call_merged(adapted[1])


def test_merging_twice_is_merging_once(net: Net) -> None:
    """A second merge of the same adapter changes no bit, whether or not it says so."""
    specimen = net.build()
    model = ours(net, specimen.model)
    model.merge_adapter()
    before = specimen(model)
    with quiet():
        model.merge_adapter()
        model.merge_adapter(adapter_names=["default"])
    assert torch.equal(specimen(model), before)


def test_deleting_the_active_adapter_is_said(adapted: tuple[Specimen, PeftModel]) -> None:
    """The user is told which adapter answers from now on."""
    _, model = adapted
    with pytest.warns(UserWarning, match="other"):
        model.delete_adapter("default")
    assert model.active_adapters == ["other"]
    assert not [name for name, _ in adapter_parameters(model) if ".default." in name]


def test_a_failed_addition_leaves_no_trace(adapted: tuple[Specimen, PeftModel]) -> None:
    """An adapter that fits in some places only is in none afterwards, and its name is free."""
    specimen, model = adapted
    before = fingerprint(model)
    with pytest.raises(LoradarError, match="input_layernorm"):
        model.add_adapter("new", LoraConfig(target_modules=["q_proj", "input_layernorm"]))
    assert fingerprint(model) == before
    model.add_adapter("new", LoraConfig(target_modules=["q_proj"]))
    assert specimen(model).isfinite().all()


def test_two_adapters_that_save_the_same_module_are_never_active_together() -> None:
    """Only one copy could run: PEFT refuses it as well."""
    adapted = inject(MLP(8), LoraConfig(target_modules=["seq.0"], modules_to_save=["seq.4"]))
    adapted.add_adapter("b", LoraConfig(target_modules=["seq.2"], modules_to_save=["seq.4"]))
    adapted.add_adapter("c", LoraConfig(target_modules=["seq.2"]))
    with pytest.raises(InvalidConfig, match=r"'default', 'b' each save 'seq.4' in full.*: activate one"):
        adapted.set_adapter(["default", "b"])
    with pytest.raises(InvalidConfig, match=r"each save 'seq\.4' in full"):
        adapted.merge_adapter(["default", "b"])
    assert adapted.active_adapters == ["default"]
    adapted.set_adapter(["b", "c"])
    assert adapted.active_adapters == ["b", "c"]


@pytest.mark.parametrize("library", [peft, loradar])
def test_an_adapter_of_a_model_for_a_task_trains_its_head_without_stating_the_task(library) -> None:
    """PEFT's class of the model decides, not the added configuration: the head of the second stayed untrained."""
    fields = {"target_modules": ["query"]}
    model = library.PeftModelForSequenceClassification(bert().model, library.LoraConfig(**fields))
    model.add_adapter("other", library.LoraConfig(**fields))
    for name in ("default", "other"):
        model.set_adapter(name)
        trained = {name for name, tensor in model.named_parameters() if tensor.requires_grad and "classifier" in name}
        copy = f"base_model.model.classifier.modules_to_save.{name}"
        assert trained == {f"{copy}.weight", f"{copy}.bias"}


def test_a_merge_while_adapters_are_off_leaves_them_off(adapted: tuple[Specimen, PeftModel]) -> None:
    """The update was merged, so that adapters which are switched off changed the output; PEFT unmerges it again."""
    specimen, model = adapted
    expected = specimen(model)
    model.disable_adapter_layers()
    base = specimen(model)
    with pytest.warns(UserWarning, match=r"switched off are not merged: call enable_adapter_layers\(\) first"):
        model.merge_adapter()
    assert torch.equal(specimen(model), base)
    model.enable_adapter_layers()
    assert torch.equal(specimen(model), expected)


def test_an_unknown_argument_of_save_pretrained_is_named(tmp_path) -> None:
    """It was dropped without a word; what trainers pass is accepted."""
    adapted = inject(MLP(8), LoraConfig(target_modules=["seq.0"]))
    with pytest.raises(InvalidConfig, match=r"save_pretrained has no field 'save_embeding_layers'\. Closest: 'save_e"):
        adapted.save_pretrained(tmp_path, save_embeding_layers=True)
    assert not [*tmp_path.iterdir()]
    adapted.save_pretrained(tmp_path, save_function=print, max_shard_size="5GB", safe_serialization=True)
    assert (tmp_path / "adapter_config.json").exists()
