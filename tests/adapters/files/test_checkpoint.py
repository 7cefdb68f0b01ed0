"""Adapter folders: written whole, read whole, and a bad one changes nothing."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from zoo import MLP, Specimen, bert, convolutions, llama, mlp, on_meta, words

from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.adapters.files import checkpoint
from loradar.errors import AdapterUnreadable, InvalidConfig

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"
FIELDS = {"target_modules": ["seq.0", "seq.2"], "modules_to_save": ["seq.4"]}


def shaken(model: nn.Module, **fields: object) -> PeftModel:
    """Return the model with an adapter whose every trainable value is random."""
    adapted = inject(model, LoraConfig(**fields)).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return adapted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good adapter for ``MLP(8)``."""
    shaken(MLP(8), **FIELDS).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("build", "fields"),
    [
        (mlp, FIELDS),
        (bert, {"target_modules": ["query"], "task_type": "SEQ_CLS", "bias": "lora_only"}),
        (bert, {"target_modules": ["query"], "modules_to_save": ["classifier"], "bias": "all"}),
        (llama, {"target_modules": r".*\.(q|up)_proj", "rank_pattern": {"q_proj": 3}, "use_rslora": True}),
        (words, {"target_modules": ["emb", "head"]}),
        (lambda: convolutions(3), {"target_modules": ["plain", "grouped"]}),
    ],
)
def test_there_and_back(build: Callable[[], Specimen], fields: dict[str, object], tmp_path: Path) -> None:
    """A saved adapter gives the same outputs in a fresh copy of the base model."""
    specimen = build()
    plain = copy.deepcopy(specimen.model)
    model = shaken(specimen.model, **fields)
    model.save_pretrained(tmp_path)
    back = PeftModel.from_pretrained(plain, tmp_path)
    # Where a tensor lies in memory decides in which order it is summed.
    torch.testing.assert_close(specimen(back), specimen(model), rtol=1e-5, atol=1e-6)
    assert back.get_nb_trainable_parameters()[0] == 0
    assert not back.training


def test_a_loaded_adapter_can_go_on_training(folder: Path) -> None:
    """Asked for, it is trainable, and keeps the model's mode."""
    model = PeftModel.from_pretrained(MLP(8), folder, is_trainable=True)
    assert model.get_nb_trainable_parameters() == inject(MLP(8), LoraConfig(**FIELDS)).get_nb_trainable_parameters()
    assert model.training


def test_the_files_are_pefts(folder: Path) -> None:
    """Two files and a card, PEFT's keys without the adapter's name, and a configuration marked as inference."""
    assert sorted(path.name for path in folder.iterdir()) == [CARD, CONFIG, WEIGHTS]
    assert sorted(load_file(folder / WEIGHTS)) == [
        "base_model.model.seq.0.lora_A.weight",
        "base_model.model.seq.0.lora_B.weight",
        "base_model.model.seq.2.lora_A.weight",
        "base_model.model.seq.2.lora_B.weight",
        "base_model.model.seq.4.bias",
        "base_model.model.seq.4.weight",
    ]
    config = json.loads((folder / CONFIG).read_text())
    assert (config["peft_type"], config["inference_mode"], config["r"]) == ("LORA", True, 8)
    assert config["auto_mapping"]["base_model_class"] == "MLP"


def test_other_names_get_a_folder_of_their_own(tmp_path: Path) -> None:
    """As in PEFT; the name is not in the file, so it can be loaded under another."""
    inject(MLP(8), LoraConfig(**FIELDS), "poet").save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(MLP(8), tmp_path / "poet", "critic")
    assert "base_model.model.seq.0.lora_A.critic.weight" in model.state_dict()


def test_saving_replaces_the_files_at_once(folder: Path) -> None:
    """A second save overwrites the first and leaves nothing else behind."""
    shaken(MLP(8), target_modules=["seq.0"]).save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == [CARD, CONFIG, WEIGHTS]
    assert PeftModel.from_pretrained(MLP(8), folder).targeted_module_names == ["seq.0"]


def test_a_failed_save_keeps_the_old_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full halfway, the adapter that was there still loads."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = (folder / WEIGHTS).read_bytes()
    monkeypatch.setattr("loradar.adapters.files.checkpoint.serialize_file", full)
    with pytest.raises(AdapterUnreadable, match=r"cannot be written: No space left on device"):
        shaken(MLP(8), **FIELDS).save_pretrained(folder)
    assert (folder / WEIGHTS).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == [CARD, CONFIG, WEIGHTS]


def test_nothing_to_save_on_meta(tmp_path: Path) -> None:
    """An adapter without values is not written as zeros."""
    model = inject(on_meta(lambda: mlp(8)), LoraConfig(**FIELDS))
    with pytest.raises(InvalidConfig, match="is on the meta device and has no values"):
        model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def drop_weights(folder: Path) -> None:
    """Leave the configuration alone."""
    (folder / WEIGHTS).unlink()


def pickled(folder: Path) -> None:
    """Leave other bytes under the name of a pickle."""
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def truncate(folder: Path) -> None:
    """Cut the last bytes off, as an interrupted download does."""
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-100])


def truncate_header(folder: Path) -> None:
    """Cut within the header."""
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:20])


def empty(folder: Path) -> None:
    """Leave no byte."""
    (folder / WEIGHTS).write_bytes(b"")


def foreign(folder: Path) -> None:
    """Put something else in its place."""
    (folder / WEIGHTS).write_bytes(b"<!DOCTYPE html><html>Not found</html>" * 20)


def drop_config(folder: Path) -> None:
    """Leave the weights alone."""
    (folder / CONFIG).unlink()


def break_config(folder: Path) -> None:
    """Cut the JSON."""
    (folder / CONFIG).write_text((folder / CONFIG).read_text()[:-40])


def list_config(folder: Path) -> None:
    """Valid JSON of another kind."""
    (folder / CONFIG).write_text("[]")


def drop_tensors(folder: Path) -> None:
    """Lose one layer's factors."""
    tensors = load_file(folder / WEIGHTS)
    save_file({key: value for key, value in tensors.items() if "seq.2" not in key}, folder / WEIGHTS)


def add_tensors(folder: Path) -> None:
    """Hold a factor for a layer the configuration does not target."""
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "base_model.model.seq.9.lora_A.weight": torch.zeros(1)}, folder / WEIGHTS)


def reshape(folder: Path) -> None:
    """Come from a wider model."""
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "base_model.model.seq.0.lora_B.weight": torch.zeros(16, 8)}, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop_weights, r"adapter_model.safetensors is missing\.$"),
        (pickled, "adapter_model.bin is damaged, or holds more than tensors"),
        (truncate, "is damaged or truncated"),
        (truncate_header, "is damaged or truncated"),
        (empty, "is damaged or truncated"),
        (foreign, "is damaged or truncated"),
        (drop_config, "adapter_config.json is missing. Give the folder that save_pretrained wrote"),
        (break_config, "adapter_config.json is not readable JSON"),
        (list_config, "holds a list, not an adapter configuration"),
        (drop_tensors, r"lacks 'base_model.model.seq.2.lora_A.weight', 'base_model.model.seq.2.lora_B.weight': it was"),
        (add_tensors, "holds 'base_model.model.seq.9.lora_A.weight', which this model and configuration have no place"),
        (reshape, r"has shape \(16, 8\) where this model needs \(8, 8\): the adapter is for another model"),
    ],
)
def test_a_bad_folder_leaves_the_model_alone(damage: Callable[[Path], None], says: str, folder: Path) -> None:
    """One clear line, and no half-loaded adapter: modules, weights and gradient flags are what they were."""
    damage(folder)
    model = MLP(8)
    modules, weights = dict(model.named_modules()), copy.deepcopy(model.state_dict())
    with pytest.raises(AdapterUnreadable, match=says) as refused:
        PeftModel.from_pretrained(model, folder)
    assert "\n" not in str(refused.value)
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_pickle_goes_both_ways(folder: Path) -> None:
    """``safe_serialization=False`` writes PEFT's older format; each format replaces the other."""
    base, x = MLP(8), torch.randn(3, 20)
    model = PeftModel.from_pretrained(copy.deepcopy(base), folder)
    model.save_pretrained(folder, safe_serialization=False)
    assert {path.name for path in folder.iterdir()} == {"adapter_model.bin", CONFIG, CARD}
    for load in (PeftModel.from_pretrained, peft.PeftModel.from_pretrained):
        torch.testing.assert_close(load(copy.deepcopy(base), folder)(x), model(x))
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG, CARD}


@pytest.mark.parametrize("devices", [{"": "cpu"}, {"": "cuda:1"}, "auto"], ids=str)
def test_a_device_map_names_where_the_layers_are(devices: Any, folder: Path) -> None:
    """Adapters follow their layers, so that any other map cannot be honoured."""
    if devices == {"": "cpu"}:
        PeftModel.from_pretrained(MLP(8), folder, device_map=devices)
        return
    with pytest.raises(InvalidConfig, match=r"device_map=.* cannot be honoured: dispatch the model"):
        PeftModel.from_pretrained(MLP(8), folder, device_map=devices)


def test_a_given_configuration_becomes_the_models(folder: Path) -> None:
    """It is the same object, whose layer fields are fixed from then on."""
    config = LoraConfig(**FIELDS)
    model = PeftModel.from_pretrained(MLP(8), folder, config=config)
    assert model.peft_config["default"] is config
    assert config.inference_mode
    with pytest.raises(InvalidConfig, match="comes too late"):
        config.r = 2


def test_mismatched_sizes_are_left_out_if_asked(folder: Path) -> None:
    """With a warning that names them; without it they are a ``RuntimeError`` too, as in PEFT."""
    with pytest.raises(RuntimeError, match=r"size mismatch.*shape"):
        PeftModel.from_pretrained(MLP(16), folder)
    with pytest.warns(UserWarning, match=r"'base_model.model.seq.0.lora_B.weight'.* has another size in this model"):
        model = PeftModel.from_pretrained(MLP(16), folder, ignore_mismatched_sizes=True)
    state = model.adapter_state()
    kept = "base_model.model.seq.0.lora_A.weight"
    assert torch.equal(state[kept], load_file(folder / WEIGHTS)[kept])
    assert not state["base_model.model.seq.0.lora_B.weight"].any()


def test_no_folder(tmp_path: Path) -> None:
    """A path that is not there is named."""
    with pytest.raises(AdapterUnreadable, match=r"nowhere is no folder"):
        PeftModel.from_pretrained(MLP(8), tmp_path / "nowhere")


def test_another_models_adapter(folder: Path) -> None:
    """Its targets do not exist here: the error is the one for targets."""
    with pytest.raises(InvalidConfig, match=r"No layer ends with 'seq\.0'"):
        PeftModel.from_pretrained(words().model, folder)


@pytest.mark.parametrize("small", [0, 2**26], ids=["mapped", "at once"])
@pytest.mark.parametrize("piece", [1, 100, 2**22])
def test_a_value_that_is_no_number_is_found_in_every_piece(folder, monkeypatch, small, piece) -> None:
    """However many tensors are looked through together, and however the file is read."""
    monkeypatch.setattr(checkpoint, "SMALL_FILE", small)
    monkeypatch.setattr(checkpoint, "PIECE", piece)
    good = load_file(folder / WEIGHTS)
    _, found = checkpoint.read(folder)
    torch.testing.assert_close(found, good)
    for key, value in good.items():
        for wrong in (float("nan"), float("-inf")):
            bad = value.clone()
            bad.view(-1)[-1] = wrong
            save_file({**good, key: bad}, folder / WEIGHTS)
            with pytest.raises(AdapterUnreadable, match=f"no numbers .* in '{key}'"):
                checkpoint.read(folder)
