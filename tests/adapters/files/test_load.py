"""Damaged adapter files and failed injections: each is refused in clear words, and the model is what it was."""

import copy
import json
import pickle
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_zoo import Mixture, fingerprint, randomise
from safetensors.torch import load_file, save_file
from torch import nn
from zoo import MLP, convolutions, llama

from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import LoradarError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FIELDS = {"target_modules": ["seq.0", "seq.2"], "modules_to_save": ["seq.4"], "r": 4}
KEY = "base_model.model.seq.2.lora_A.weight"


class Bomb:
    """A pickle that leaves a mark where it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good adapter for ``MLP(8)``."""
    model = inject(MLP(8), LoraConfig(**FIELDS))
    randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def with_header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return a damage that changes the header of the weights and leaves their bytes."""

    def damage(folder: Path) -> None:
        whole = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", whole[:8])
        header = json.loads(whole[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])

    return damage


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return a damage that changes the bytes of the weights."""
    return lambda folder: (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes())) and None


def with_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Return a damage that writes a good file with other tensors."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return damage


def with_config(**fields: Any) -> Callable[[Path], None]:
    """Return a damage that changes the configuration."""

    def damage(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **fields}))

    return damage


def as_config(content: bytes) -> Callable[[Path], None]:
    """Return a damage that replaces the configuration."""
    return lambda folder: (folder / CONFIG).write_bytes(content) and None


def overlap(header: dict[str, Any]) -> None:
    """Let one tensor begin where another does."""
    twin = next(key for key, entry in header.items() if key not in ("__metadata__", KEY) and "lora_A" in key)
    size = header[KEY]["data_offsets"][1] - header[KEY]["data_offsets"][0]
    start = header[twin]["data_offsets"][0]
    header[KEY]["data_offsets"] = [start, start + size]


def poison(value: float) -> Callable[[Path], None]:
    """Return a damage that makes one number of one tensor unusable."""
    return with_tensors(lambda tensors: tensors[KEY][1].__setitem__(2, value))


def whole_folder(name: str) -> Callable[[Path], None]:
    """Return a damage that puts a folder where a file should be."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


NESTED = b"[" * 500_000 + b"]" * 500_000
DAMAGES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "truncated": (with_bytes(lambda whole: whole[:-50]), (WEIGHTS,)),
    "truncated in the header": (with_bytes(lambda whole: whole[:30]), (WEIGHTS,)),
    "truncated in the length": (with_bytes(lambda whole: whole[:5]), (WEIGHTS,)),
    "longer": (with_bytes(lambda whole: whole + b"\0" * 40), (WEIGHTS,)),
    "empty": (with_bytes(lambda _: b""), (WEIGHTS,)),
    "zeros": (with_bytes(lambda whole: b"\0" * len(whole)), (WEIGHTS,)),
    "huge header": (with_bytes(lambda whole: struct.pack("<Q", 2**63) + whole[8:]), (WEIGHTS,)),
    "large header": (with_bytes(lambda whole: struct.pack("<Q", 2**34) + whole[8:]), (WEIGHTS,)),
    "header no JSON": (with_bytes(lambda whole: whole[:8] + b"x" + whole[9:]), (WEIGHTS,)),
    "header nested": (with_bytes(lambda _: struct.pack("<Q", len(NESTED)) + NESTED), (WEIGHTS,)),
    "overlapping": (with_header(overlap), (WEIGHTS,)),
    "beyond the end": (with_header(lambda head: head[KEY].update(data_offsets=[10**9, 10**9 + 128])), (WEIGHTS,)),
    "offsets swapped": (with_header(lambda head: head[KEY]["data_offsets"].reverse()), (WEIGHTS,)),
    "shape too large": (with_header(lambda head: head[KEY].update(shape=[2**40, 2**40])), (WEIGHTS,)),
    "dtype unknown": (with_header(lambda head: head[KEY].update(dtype="F33")), (WEIGHTS,)),
    "dtype integer": (with_tensors(lambda all_: all_.update({KEY: all_[KEY].to(torch.int64)})), (WEIGHTS, KEY)),
    "dtype boolean": (with_tensors(lambda all_: all_.update({KEY: all_[KEY] > 0})), (WEIGHTS, KEY)),
    "dtype complex": (with_tensors(lambda all_: all_.update({KEY: all_[KEY] + 0j})), (WEIGHTS, KEY)),
    "missing key": (with_tensors(lambda all_: all_.pop(KEY)), (WEIGHTS, KEY)),
    "extra key": (with_tensors(lambda all_: all_.update(spare=torch.zeros(2))), (WEIGHTS, "spare")),
    "extra layer": (
        with_tensors(lambda all_: all_.update({KEY.replace("seq.2", "seq.7"): torch.zeros(4, 8)})),
        (WEIGHTS, "seq.7"),
    ),
    "no tensors": (with_tensors(lambda all_: all_.clear()), (WEIGHTS, "seq.0.lora_A.weight")),
    "wrong rank": (with_tensors(lambda all_: all_.update({KEY: all_[KEY][:3].clone()})), (WEIGHTS, KEY)),
    "wrong width": (with_tensors(lambda all_: all_.update({KEY: torch.zeros(4, 9)})), (WEIGHTS, KEY)),
    "wrong dimensions": (with_tensors(lambda all_: all_.update({KEY: all_[KEY].flatten()})), (WEIGHTS, KEY)),
    "would broadcast": (with_tensors(lambda all_: all_.update({KEY: torch.ones(1, 1)})), (WEIGHTS, KEY)),
    "nan": (poison(float("nan")), (WEIGHTS, KEY)),
    "inf": (poison(float("-inf")), (WEIGHTS, KEY)),
    "config empty": (as_config(b""), (CONFIG,)),
    "config no JSON": (as_config(b"{'r': 8}"), (CONFIG,)),
    "config no text": (as_config(b"\xff\xfe{\x00}\x00\x80"), (CONFIG,)),
    "config a list": (as_config(b"[]"), (CONFIG,)),
    "config a number": (as_config(b"8"), (CONFIG,)),
    "config null": (as_config(b"null"), (CONFIG,)),
    "config nested": (as_config(NESTED), (CONFIG,)),
    "config nested objects": (as_config(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), (CONFIG,)),
    "config huge number": (as_config(b'{"r": ' + b"9" * 10_000 + b"}"), (CONFIG,)),
    "config a folder": (whole_folder(CONFIG), (CONFIG,)),
    "weights a folder": (whole_folder(WEIGHTS), (WEIGHTS,)),
    "another method": (with_config(peft_type="LOHA"), (CONFIG, "LOHA")),
    "unknown method": (with_config(peft_type=["LORA"]), (CONFIG, "peft_type")),
    "dora without magnitudes": (with_config(use_dora=True), (WEIGHTS,)),
    "another variant": (with_config(use_qalora=True), (CONFIG, "use_qalora")),
    "unknown feature": (with_config(use_tomorrow=3), (CONFIG, "use_tomorrow")),
    "rank zero": (with_config(r=0), (CONFIG, "r=0")),
    "rank text": (with_config(r="8"), (CONFIG, "r='8'")),
    "rank of another file": (with_config(r=3), (WEIGHTS,)),
    "rank beyond memory": (with_config(r=10**13), (WEIGHTS,)),
    "alpha nan": (with_config(lora_alpha=float("nan")), (CONFIG, "lora_alpha")),
    "targets missing": (with_config(target_modules=["nowhere"]), ("nowhere",)),
    "targets a number": (with_config(target_modules=5), (CONFIG, "target_modules")),
    "targets a broken regex": (with_config(target_modules="(seq"), (CONFIG, "target_modules")),
}


def load(model: nn.Module, folder: Path) -> object:
    """Load into a plain model."""
    return PeftModel.from_pretrained(model, folder)


def load_beside(model: Any, folder: Path) -> object:
    """Load beside another adapter."""
    return model.load_adapter(folder, "second")


def load_over(model: Any, folder: Path) -> object:
    """Load in place of an adapter."""
    return model.load_adapter(folder, "default")


def swap(model: Any, folder: Path) -> object:
    """Swap the weights of an adapter."""
    return model.hotswap_adapter(folder, "default")


WAYS = [load, load_beside, load_over, swap]


def target(way: Callable[[Any, Path], object]) -> nn.Module:
    """Return what ``way`` loads into: a plain model, or one with an adapter; one parameter frozen, one module off."""
    model = MLP(8)
    model.seq[0].bias.requires_grad = False
    model.seq[1].eval()
    if way is load:
        return model
    adapted = inject(model, LoraConfig(**FIELDS))
    randomise(adapted, seed=4)
    return adapted


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_adapter_changes_nothing(damage: str, way: Callable[[Any, Path], object], folder: Path) -> None:
    """One line that names the file and the key or field; the model is the same to the bit and to the last hook."""
    act, names = DAMAGES[damage]
    if damage == "targets missing" and way in (load_over, swap):
        act, names = DAMAGES["missing key"]  # those two go by the keys of the file, as in peft
    act(folder)
    model = target(way)
    before = fingerprint(model)
    with pytest.raises(LoradarError) as refused:
        way(model, folder)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 1000
    assert all(name in message for name in names), message
    assert fingerprint(model) == before


@pytest.mark.parametrize("way", WAYS)
def test_good_files_load_by_every_way(way: Callable[[Any, Path], object], folder: Path) -> None:
    """What is refused above is refused for its damage: the same folder, undamaged, loads."""
    model = target(way)
    before = fingerprint(model)
    way(model, folder)
    assert fingerprint(model) != before


@pytest.mark.parametrize("way", WAYS)
def test_pickles_of_tensors_load_by_every_way(way: Callable[[Any, Path], object], folder: Path) -> None:
    """An older adapter has one in the place of safetensors."""
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    model = target(way)
    before = fingerprint(model)
    way(model, folder)
    assert fingerprint(model) != before


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_model.bin"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_but_tensors_is_unpickled(name: str, way: Callable[[Any, Path], object], folder: Path) -> None:
    """A pickle is refused under either name, and what it would run does not run."""
    (folder / WEIGHTS).unlink()
    mark = folder / "ran"
    (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    model = target(way)
    before = fingerprint(model)
    with pytest.raises(LoradarError, match=name.replace(".", r"\.")):
        way(model, folder)
    assert not mark.exists()
    assert fingerprint(model) == before


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_flipped_byte_is_refused_or_harmless(name: str, folder: Path) -> None:
    """Every 7th byte of the header and of the configuration, flipped: a loradar error or a whole model, no third."""
    whole = (folder / name).read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0] if name == WEIGHTS else len(whole)
    refused = 0
    for position in range(0, end, 7):
        (folder / name).write_bytes(whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :])
        model = MLP(8)
        before = fingerprint(model)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a target with another letter may be one that hits nothing
                load(model, folder)
        except LoradarError:
            refused += 1
            assert fingerprint(model) == before
    assert refused > 10


def test_an_adapter_of_another_architecture(folder: Path) -> None:
    """A llama is told what was looked for."""
    model = llama().model
    before = fingerprint(model)
    with pytest.raises(LoradarError, match=r"seq\.0"):
        load(model, folder)
    assert fingerprint(model) == before


# --- injection ----------------------------------------------------------------------------------------------------


class Late(nn.Module):
    """Layers that can be adapted, and in the end some that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Embedding(5, 8)
        self.grouped = nn.Conv1d(8, 8, 3, groups=4)
        self.experts = Mixture().experts
        self.listed = nn.ModuleList([nn.Linear(8, 8)])
        self.lazy = nn.LazyLinear(4)
        self.odd = OddConvolution(4)
        self.norm = nn.LayerNorm(8)


class OddConvolution(nn.Conv2d):
    """A subclass with a constructor of its own, which a copy of its shape cannot be made by."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve twice the input."""
        return super().forward(2 * x)


class Uncopyable(nn.Linear):
    """A layer that cannot be copied, as one that holds a lock or a handle cannot."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Uncopyable":
        raise TypeError("cannot be copied")


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "targets miss": ({"target_modules": ["nowhere"]}, "nowhere"),
    "parameters miss": ({"target_parameters": ["experts.nowhere"]}, "nowhere"),
    "all excluded": ({"target_modules": ["first"], "exclude_modules": ["first"]}, "first"),
    "a norm": ({"target_modules": ["first", "second", "norm"]}, "norm"),
    "a list": ({"target_modules": ["first", "listed"]}, "listed"),
    "a lazy layer": ({"target_modules": ["first", "lazy"]}, "lazy"),
    "groups": ({"target_modules": ["first", "grouped"], "r": 6}, "grouped"),
    "groups by pattern": ({"target_modules": ["first", "grouped"], "rank_pattern": {"grouped": 2}}, "grouped"),
    "a list saved": ({"target_modules": ["first"], "modules_to_save": ["listed"]}, "listed"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_injection_changes_nothing(refusal: str) -> None:
    """The layer is named; those before it are untouched."""
    fields, says = REFUSALS[refusal]
    model = Late()
    before = fingerprint(model)
    with pytest.raises(LoradarError, match=says):
        inject(model, LoraConfig(**fields))
    assert fingerprint(model) == before


def test_factors_beyond_memory_change_nothing() -> None:
    """The first adapter is built already when there is no memory for the second; the error may be torch's."""
    model = Late()
    before = fingerprint(model)
    with pytest.raises((LoradarError, RuntimeError)):
        inject(model, LoraConfig(target_modules=["first", "second"], rank_pattern={"second": 10**13}))
    assert fingerprint(model) == before


@pytest.mark.parametrize("name", ["", "a.b", "keys", "pop"])
def test_an_unusable_name_changes_nothing(name: str) -> None:
    """A name that cannot be a key is refused before anything is built."""
    model = MLP(8)
    before = fingerprint(model)
    with pytest.raises(LoradarError, match="adapter_name"):
        inject(model, LoraConfig(**FIELDS), name)
    assert fingerprint(model) == before


def test_a_second_injection_changes_nothing() -> None:
    """A model with an adapter is refused, and keeps the one it has."""
    model = inject(MLP(8), LoraConfig(**FIELDS))
    before = fingerprint(model)
    with pytest.raises(LoradarError, match="already"):
        inject(model.get_base_model(), LoraConfig(**FIELDS))
    assert fingerprint(model) == before


def test_a_convolution_of_an_own_class_is_adapted_through_its_weight() -> None:
    """Neither its constructor nor its forward has to be imitated: merged is what unmerged was."""
    model = inject(Late(), LoraConfig(target_modules=["odd"]))
    randomise(model)
    odd, x = model.base_model.model.odd, torch.randn(2, 4, 6, 6)
    expected = odd(x)
    assert not torch.allclose(expected, odd.base_layer(x))
    model.merge_adapter()
    torch.testing.assert_close(odd(x), expected, rtol=1e-4, atol=1e-5)


def test_a_module_that_cannot_be_copied_changes_nothing() -> None:
    """The copy to train is made before anything is replaced."""
    model = MLP(8)
    model.seq[4] = Uncopyable(8, 2)
    before = fingerprint(model)
    with pytest.raises((LoradarError, TypeError)):
        inject(model, LoraConfig(**FIELDS))
    assert fingerprint(model) == before


class Stumble(Exception):
    """What goes wrong in the tests below."""


STEPS: dict[str, tuple[Any, str]] = {
    "allocation": (torch, "empty"),
    "initialisation": (nn.init, "kaiming_uniform_"),
    "copy": (copy, "deepcopy"),
    "parameter": (nn.Parameter, "__new__"),
    "module": (nn.Module, "__init__"),
    "dictionary": (nn.ModuleDict, "__init__"),
}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_changes_nothing(step: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first, a middle or the last call of what an injection is made of fails; the model is as it was."""
    owner, name = STEPS[step]
    genuine, calls = getattr(owner, name), []

    def stumbling(fatal: int) -> Callable[..., Any]:
        calls.clear()

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if len(calls) == fatal:
                raise Stumble
            return genuine(*args, **kwargs)

        return call

    rehearsed, model = MLP(8), MLP(8)
    before = fingerprint(model)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stumbling(0))
        inject(rehearsed, LoraConfig(**FIELDS))
        total = len(calls)
        patch.setattr(owner, name, stumbling(max(1, round(share * total))))
        if total:  # an injection need not come by here at all
            with pytest.raises(Stumble):
                inject(model, LoraConfig(**FIELDS))
    assert fingerprint(model) == before


def test_grouped_layers_are_checked_before_the_first_is_replaced() -> None:
    """The plain convolution comes first, the one that does not fit second."""
    model = convolutions(2).model
    before = fingerprint(model)
    with pytest.raises(LoradarError, match="'grouped'"):
        inject(model, LoraConfig(target_modules=["plain", "grouped"], r=3))
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda key: f"module.{key}",
        lambda key: key.replace("base_model.model.", "base_model.model.module."),
        lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda key: key.replace("seq.", "seq._orig_mod."),
    ],
    ids=["ddp", "inside", "compiled", "part compiled"],
)
def test_names_of_wrappers_in_a_file_are_passed_over(folder: Path, wrapped: Callable[[str], str]) -> None:
    """A script that saved the wrapped model wrote them; when loaded, resumed and swapped in they mean nothing."""
    expected = load_file(folder / WEIGHTS)
    save_file({wrapped(key): tensor for key, tensor in expected.items()}, folder / WEIGHTS)
    model = PeftModel.from_pretrained(MLP(8), folder)
    assert {key: tensor.tolist() for key, tensor in model.adapter_state().items()} == {
        key: tensor.tolist() for key, tensor in expected.items()
    }
    model.load_adapter(folder, "default")
    model.hotswap_adapter(folder)


@pytest.mark.parametrize("how", ["pissa_niter_16", "corda", "lora_ga"])
def test_factors_of_a_changed_base_are_rejected_with_the_way_out(folder: Path, how: str) -> None:
    """On the unchanged weights they would give another model, silently."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "init_lora_weights": how}))
    with pytest.raises(LoradarError, match="path_initial_model_for_weight_conversion"):
        PeftModel.from_pretrained(MLP(8), folder)


@pytest.mark.parametrize("how", ["orthogonal", "eva"])
def test_trained_factors_load_however_they_began(folder: Path, how: str) -> None:
    """These initialisations leave the base weights as they are."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "init_lora_weights": how}))
    model = PeftModel.from_pretrained(MLP(8), folder)
    assert torch.equal(model.adapter_state()[KEY], load_file(folder / WEIGHTS)[KEY])
