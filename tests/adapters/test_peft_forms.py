"""PEFT's forms of a configuration: its enums, objects, dictionaries and files, in both directions."""

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from zoo import mlp

from loradar.adapters import IA3Config, LoraConfig, get_peft_model, inject
from loradar.adapters.checks import task_heads
from loradar.adapters.config import AdapterConfig
from loradar.adapters.peft_forms import config_from_peft
from loradar.errors import AdapterUnreadable, InvalidConfig

METHODS = [(LoraConfig, peft.LoraConfig), (IA3Config, peft.IA3Config)]
"""Ours and theirs."""


@pytest.mark.parametrize("task", [*peft.TaskType])
def test_types_are_members_of_pefts_enums(task: peft.TaskType) -> None:
    """Text and members are accepted, and read as members."""
    for given in (task, task.value):
        config = LoraConfig(task_type=given, peft_type=peft.PeftType.LORA)
        assert (config.task_type, config.peft_type) == (task, peft.PeftType.LORA)
        assert isinstance(config.task_type, peft.TaskType)
    assert IA3Config().peft_type is peft.PeftType.IA3
    assert set(task_heads()) == set(peft.TaskType)


def test_types_equal_pefts_enums_where_peft_is_not_imported() -> None:
    """Importing loradar and making a configuration leaves peft alone; a member made later equals the text."""
    code = (
        "import sys, pickle; from loradar import LoraConfig; config = LoraConfig(task_type='CAUSAL_LM');"
        "assert 'peft' not in sys.modules and type(config) is config.__class__; import peft;"
        "assert (config.peft_type, config.task_type) == (peft.PeftType.LORA, peft.TaskType.CAUSAL_LM);"
        "assert config.peft_type.value == 'LORA' and {peft.PeftType.LORA: 1}[config.peft_type];"
        "assert pickle.loads(pickle.dumps(config)) == config == LoraConfig(task_type=peft.TaskType.CAUSAL_LM)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)  # noqa: S603 - our own code


def test_peft_takes_a_configuration_for_its_own() -> None:
    """``isinstance`` is true, which trl checks; copies by ``replace`` are loradar's all the same."""
    config = LoraConfig(target_modules=["q"])
    assert isinstance(config, peft.LoraConfig)
    assert not isinstance(IA3Config(), peft.LoraConfig)
    assert {type(each) for each in (dataclasses.replace(config, r=2), copy.copy(config))} == {LoraConfig}


@pytest.mark.parametrize(
    ("ours", "theirs", "fields"),
    [
        (
            LoraConfig,
            peft.LoraConfig,
            {"target_modules": ["0", "2"], "rank_pattern": {"0": 2}, "init_lora_weights": False},
        ),
        (LoraConfig, peft.LoraConfig, {"target_modules": "all-linear", "use_dora": True, "modules_to_save": ["4"]}),
        (IA3Config, peft.IA3Config, {"target_modules": ["0", "2"], "feedforward_modules": ["2"]}),
    ],
)
def test_peft_adapts_with_our_configurations(ours, theirs, fields, tmp_path: Path) -> None:
    """PEFT reads the fields by name and by their metadata: model, further adapters and files are those of its own."""
    specimen, models = mlp(), []
    for config_class in (ours, theirs):
        torch.manual_seed(1)
        model = peft.get_peft_model(copy.deepcopy(specimen.model).eval(), config_class(**fields))
        model.add_adapter("second", config_class(**fields))
        model.save_pretrained(str(tmp_path / config_class.__module__))
        models.append(model)
    found, wanted = models
    assert found.state_dict().keys() == wanted.state_dict().keys()
    assert torch.equal(specimen(found), specimen(wanted))
    again = peft.PeftModel.from_pretrained(specimen.model.eval(), str(tmp_path / ours.__module__))
    assert torch.equal(specimen(again), specimen(wanted))


@pytest.mark.parametrize(("ours", "theirs"), METHODS)
def test_pefts_configurations_are_taken_as_they_are(ours: type[AdapterConfig], theirs: type) -> None:
    """Wherever a configuration is taken, peft's is one, and gives the layers and values of ours."""
    given = {"target_modules": ["0", "2"], "modules_to_save": ["4"], "task_type": "FEATURE_EXTRACTION"}
    wanted = inject(mlp().model.seq, ours(**given)).peft_config["default"]
    model = inject(mlp().model.seq, theirs(**given))
    model.add_adapter("second", theirs(**given))
    found = [*model.peft_config.values(), get_peft_model(mlp().model.seq, theirs(**given)).peft_config["default"]]
    assert [dataclasses.replace(each, peft_version=None) for each in found] == [wanted] * 3


def test_fields_beside_pefts_configuration_replace_its_own() -> None:
    """As with one of loradar's."""
    config = get_peft_model(mlp().model.seq, peft.LoraConfig(target_modules=["0"], r=2), lora_alpha=3).peft_config[
        "default"
    ]
    assert (config.r, config.lora_alpha) == (2, 3)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (peft.LoraConfig(use_qalora=True), "use_qalora=True is a feature of PEFT that loradar lacks: give this conf"),
        (peft.AdaLoraConfig(total_step=2), r"peft.AdaLoraConfig, a method .* loradar.auto_config\(model, 'ADALORA'\)"),
        (peft.PromptTuningConfig(), "PromptTuningConfig, a method that loradar leaves to peft: give it to peft.get_"),
        (peft.PeftConfig(), "of class peft.PeftConfig, no configuration of an adapter: give a LoraConfig"),
        (peft.EvaConfig(), "of class peft.EvaConfig, no configuration of an adapter"),
        ({"r": 8}, r"of class dict, no configuration of an adapter: LoraConfig.from_peft_type\(\*\*config\) makes one"),
        (LoraConfig, r"LoraConfig is a class, not a configuration: call it, LoraConfig\(\)"),
        ("LORA", "of class str, no configuration of an adapter: give a LoraConfig or an IA3Config"),
    ],
)
def test_what_is_no_configuration_is_rejected(config: object, says: str) -> None:
    """One line with the way out for what was given, in every place that takes a configuration."""
    model = inject(mlp().model.seq, LoraConfig(target_modules=["0"]))
    for place in (get_peft_model, inject, lambda _, config: model.add_adapter("other", config)):
        with pytest.raises(InvalidConfig, match=says) as rejected:
            place(mlp().model.seq, config)
        assert "\n" not in str(rejected.value)


def test_layers_registered_with_peft_are_pefts() -> None:
    """Classes of layers that the user registered would be ignored."""
    config = peft.LoraConfig(target_modules=["0"])
    config._register_custom_module({torch.nn.Linear: torch.nn.Identity})
    with pytest.raises(InvalidConfig, match="with classes of layers of its own: give it to peft"):
        inject(mlp().model.seq, config)


@pytest.mark.parametrize(
    ("config_class", "field", "says"),
    [
        (LoraConfig, "feedforward_modules", "no field 'feedforward_modules', IA3Config has it"),
        (IA3Config, "r", "no field 'r', LoraConfig has it"),
        (LoraConfig, "num_virtual_tokens", "no field 'num_virtual_tokens', PEFT's .*PROMPT_TUNING"),
        (LoraConfig, "init_r", r"PEFT's ADALORA have it: loradar.auto_config\(model, 'ADALORA', init_r=...\)"),
        (LoraConfig, "lora_rank", "no field 'lora_rank'. The rank is 'r'"),
    ],
)
def test_fields_of_other_methods_name_the_method(config_class: type[AdapterConfig], field: str, says: str) -> None:
    """The way out is the method that has the field, not the field with the closest name."""
    with pytest.raises(InvalidConfig, match=says):
        config_class(**{field: 4})


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("use_qalora", True, r"peft.get_peft_model\(model, loradar.auto_config\(model, use_qalora=True\)\) has it"),
        ("arrow_config", peft.ArrowConfig(), r"loradar.auto_config\(model, arrow_config=...\)"),
        (
            "runtime_config",
            peft.LoraRuntimeConfig(ephemeral_gpu_offload=True),
            "runtime_config.ephemeral_gpu_offload=True",
        ),
        ("peft_type", "IA3", "peft_type='IA3' is another method than LORA"),
    ],
)
def test_features_that_are_lacking_name_what_has_them(field: str, value: object, says: str) -> None:
    """In the constructor and when set."""
    with pytest.raises(InvalidConfig, match=says):
        LoraConfig(**{field: value})
    with pytest.raises(InvalidConfig, match=says):
        setattr(LoraConfig(), field, value)


def test_a_field_without_effect_says_so() -> None:
    """As PEFT does for the fields of an initialisation that is not chosen."""
    with pytest.warns(UserWarning, match="qalora_group_size=32 has no effect"):
        assert LoraConfig(qalora_group_size=32) == LoraConfig()


@pytest.mark.parametrize(("ours", "theirs"), METHODS)
def test_files_and_dictionaries_as_in_peft(ours: type[AdapterConfig], theirs: type, tmp_path: Path) -> None:
    """What is saved, either class reads: whole, as a dictionary, and from a subfolder; the file decides the method."""
    more = {"feedforward_modules": ["v"]} if ours is IA3Config else {"rank_pattern": {"q": 2}}
    given = {
        "target_modules": ["q", "v"],
        "modules_to_save": ["head"],
        "task_type": "SEQ_CLS",
        "peft_version": "0.20.0",
    }
    config = ours(**given, **more)
    config.save_pretrained(tmp_path / "sub")
    read = [kind.from_pretrained(tmp_path, subfolder="sub") for kind in (LoraConfig, IA3Config)]
    assert read == [config, config]
    assert theirs.from_pretrained(str(tmp_path / "sub")).to_dict() == config.to_dict()
    data = ours.from_json_file(tmp_path / "sub" / "adapter_config.json")
    assert theirs.from_json_file(str(tmp_path / "sub" / "adapter_config.json")) == data
    assert LoraConfig.from_peft_type(**data) == config
    ours().save_pretrained(tmp_path)
    assert ours.from_pretrained(tmp_path).to_dict() == ours().to_dict()
    with pytest.raises(InvalidConfig, match="no field 'invented_later'"):
        LoraConfig.from_peft_type(peft_type="LORA", invented_later=1)
    with pytest.raises(InvalidConfig, match="peft_type='VERA' is not supported"):
        LoraConfig.from_peft_type(peft_type="VERA")


def test_options_of_a_process_stay_out_of_files(tmp_path: Path) -> None:
    """As in PEFT: left out when written, ignored with a warning when read."""
    config = LoraConfig()
    config.runtime_config.ephemeral_gpu_offload = True
    config.save_pretrained(tmp_path)
    assert "runtime_config" not in (tmp_path / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "runtime_config": {"ephemeral_gpu_offload": true}}'
    )
    with pytest.warns(UserWarning, match="runtime_config, which is ignored"):
        assert LoraConfig.from_json_file(tmp_path / "adapter_config.json") == {"peft_type": "LORA"}
    assert LoraConfig.from_pretrained(tmp_path) == LoraConfig()


def test_unreadable_files_and_unknown_options_are_rejected(tmp_path: Path) -> None:
    """Each is one line with the path or the option."""
    with pytest.raises(AdapterUnreadable, match="is missing"):
        LoraConfig.from_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 0}')
    with pytest.raises(InvalidConfig, match=r"adapter_config\.json: r=0 is not a rank"):
        LoraConfig.from_pretrained(tmp_path)
    with pytest.raises(InvalidConfig, match="save_pretrained of a configuration has no field 'nonsense'"):
        LoraConfig().save_pretrained(tmp_path, nonsense=1)
    with pytest.raises(InvalidConfig, match="is for a repo, and"):
        LoraConfig.from_pretrained(tmp_path, revision="v1")
    with pytest.raises(AdapterUnreadable, match="cannot be written"):
        LoraConfig().save_pretrained(tmp_path / "adapter_config.json")
    LoraConfig().save_pretrained(tmp_path, auto_mapping_dict={"base_model_class": "MLP"})
    assert LoraConfig.from_pretrained(tmp_path).auto_mapping == {"base_model_class": "MLP"}


def test_what_we_write_peft_reads(tmp_path: Path) -> None:
    """PEFT builds its own configuration from our file, field by field the same, without a warning."""
    config = LoraConfig(target_modules=["q"], r=4, lora_alpha=16, rank_pattern={"q": 2}, modules_to_save=["head"])
    (tmp_path / "adapter_config.json").write_text(json.dumps(config.to_peft_dict()))
    read = peft.LoraConfig.from_pretrained(str(tmp_path))
    assert (read.r, read.lora_alpha, read.target_modules, read.modules_to_save) == (4, 16, {"q"}, ["head"])
    assert read.rank_pattern == {"q": 2}
    assert config.to_peft_dict().keys() == read.to_dict().keys()


def test_what_peft_writes_we_read(tmp_path: Path) -> None:
    """Our configuration comes back from PEFT's file."""
    theirs = peft.LoraConfig(target_modules=["q", "v"], r=4, use_rslora=True, init_lora_weights="gaussian")
    theirs.save_pretrained(str(tmp_path))
    ours = config_from_peft(json.loads((tmp_path / "adapter_config.json").read_text()))
    assert (ours.r, ours.use_rslora, ours.init_lora_weights) == (4, True, "gaussian")
    assert sorted(ours.target_modules or ()) == ["q", "v"]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("use_qalora", True, "use_qalora=True is a feature of PEFT that loradar lacks: load this adapter with peft"),
        ("peft_type", "VERA", "peft_type='VERA' is not supported: only LORA and IA3 adapters load"),
        ("invented_later", {"a": 1}, "unknown to peft 0.21.2"),
        ("init_lora_weights", "corda", "init_lora_weights='corda' cannot be loaded here"),
    ],
)
def test_pefts_other_features_are_refused(field: str, value: object, says: str) -> None:
    """A file that asks for what we lack is refused by name, never loaded as something else."""
    with pytest.raises(InvalidConfig, match=says):
        config_from_peft({"peft_type": "LORA", "target_modules": ["q"], field: value})


def test_inert_and_idle_fields_are_accepted() -> None:
    """Fields at their inert value, and those that qualify only them, change nothing."""
    data = {**LoraConfig(target_modules=["q"]).to_peft_dict(), "qalora_group_size": 32, "invented_later": None}
    assert config_from_peft(data) == LoraConfig(target_modules=["q"])
