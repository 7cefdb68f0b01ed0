"""``LoraConfig`` and ``IA3Config``: PEFT's names and defaults, one-line refusals, and PEFT's file form both ways."""

import copy
import dataclasses
import pickle
from typing import Any

import numpy as np
import peft
import pytest
from zoo import mlp

from loradar.adapters import IA3Config, LoraConfig, get_peft_model, inject
from loradar.adapters.config import AdapterConfig
from loradar.domain.targets import TargetSpec
from loradar.errors import InvalidConfig

METHODS = [(LoraConfig, peft.LoraConfig), (IA3Config, peft.IA3Config)]
"""Ours and theirs."""


def fields_of(config_class: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a configuration by name."""
    return {field.name: field for field in dataclasses.fields(config_class)}


def default(field: dataclasses.Field[Any]) -> Any:
    """Return a dataclass field's default."""
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


@pytest.mark.parametrize(("ours", "theirs"), METHODS)
def test_defaults_are_pefts(ours: type[AdapterConfig], theirs: type) -> None:
    """Every field has the name and the default that the installed peft gives it."""
    known = fields_of(theirs)
    own = {name: field for name, field in fields_of(ours).items() if name not in ("peft_type", "runtime_config")}
    assert {name: default(field) for name, field in own.items()} == {name: default(known[name]) for name in own}


@pytest.mark.parametrize(("ours", "theirs"), METHODS)
def test_every_field_of_peft_is_there(ours: type[AdapterConfig], theirs: type) -> None:
    """All fields can be given at their default and read, as trainers do; the class of an attribute is peft's."""
    known = fields_of(theirs)
    assert set(known) == set(fields_of(ours))
    given = {name: default(field) for name, field in known.items()}
    assert ours(**given | {"peft_type": ours.method}) == ours()
    for name, value in given.items():
        read = getattr(ours(), name)
        assert read == (ours.method if name == "peft_type" else value) or name == "runtime_config", name
    assert ours().to_dict().keys() == theirs().to_dict().keys()
    assert (ours().is_prompt_learning, ours().is_adaption_prompt) == (False, False)


def test_feedforward_modules_are_targets() -> None:
    """As with peft, what IA3 scales at its input has to be a target."""
    with pytest.raises(InvalidConfig, match=r"feedforward_modules=\{'fc2'\} must be a part of target_modules"):
        IA3Config(target_modules=["fc1"], feedforward_modules=["fc2"])


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("r", 0, "r=0 is not a rank"),
        ("r", -4, "r=-4 is not a rank"),
        ("r", 8.0, "r=8.0 is not a rank"),
        ("r", True, "r=True is not a rank"),
        ("r", "8", "r='8' is not a rank"),
        ("lora_alpha", 0, "lora_alpha=0 is not usable: give a number above 0"),
        ("lora_alpha", float("nan"), "lora_alpha=nan"),
        ("lora_alpha", "16", "lora_alpha='16'"),
        ("lora_dropout", 1.0, "from 0 up to, not including, 1"),
        ("lora_dropout", -0.1, "lora_dropout=-0.1"),
        ("target_modules", "((", "is not a valid regex"),
        ("target_modules", ["q_proj", 3], "is not a list of names"),
        ("target_modules", 7, "target_modules=7"),
        ("target_modules", [], r"target_modules=\[\] names no layer: leave it out \(None\)"),
        ("exclude_modules", [""], "is not a list of names"),
        ("modules_to_save", "classifier", r"give a list, \['classifier'\]"),
        ("bias", "some", "give one of 'none', 'all', 'lora_only'"),
        ("fan_in_fan_out", 1, "is not a boolean"),
        ("use_rslora", None, "is not a boolean"),
        ("init_lora_weights", "pisa", "init_lora_weights='pisa' is not supported: give one of True, False"),
        ("init_lora_weights", 1, "init_lora_weights=1 is not supported"),
        ("layers_to_transform", [-1], "is no list of block indices"),
        ("layers_to_transform", "0", "is no list of block indices"),
        ("layers_pattern", "layers", "`layers_to_transform` must also be specified"),
        ("rank_pattern", {"q_proj": 0}, r"rank_pattern\['q_proj'\]=0 is not a rank"),
        ("rank_pattern", {"((": 4}, "is not a valid regex"),
        ("rank_pattern", ["q_proj"], "is not a mapping"),
        ("alpha_pattern", {"q_proj": -1}, r"alpha_pattern\['q_proj'\]=-1"),
        ("task_type", "CHAT", "Invalid task type: 'CHAT'. Must be one of .*, CAUSAL_LM,"),
        ("base_model_name_or_path", 3, "is not text"),
        ("ranks", 8, "no field 'ranks'"),
        ("lora_aplha", 16, "no field 'lora_aplha'. Closest: 'lora_alpha'"),
    ],
)
def test_impossible_values_are_refused(field: str, value: object, says: str) -> None:
    """Each impossible value gets one line that names the field, the value and the way out."""
    with pytest.raises(InvalidConfig, match=says) as refused:
        LoraConfig(**{field: value})
    assert "\n" not in str(refused.value)


def test_fields_go_by_name() -> None:
    """PEFT's first positional field is not the rank; ours takes none, and says so."""
    with pytest.raises(InvalidConfig, match="takes its fields by name, not 16"):
        LoraConfig(16)  # type: ignore[misc]


def test_a_regex_cannot_be_narrowed_by_block() -> None:
    """As in PEFT, ``layers_to_transform`` goes with suffixes only."""
    with pytest.raises(InvalidConfig, match="cannot be used when `target_modules` is a str"):
        LoraConfig(target_modules=".*q", layers_to_transform=[0])


def test_what_is_set_is_checked() -> None:
    """A value set later passes the check of the constructor, or the old one stays."""
    config = LoraConfig(target_modules=["q"], rank_pattern={"q": 4})
    config.r, config.target_modules, config.task_type = 16, ["v", "q"], "CAUSAL_LM"
    assert config == LoraConfig(r=16, target_modules=["v", "q"], task_type="CAUSAL_LM", rank_pattern={"q": 4})
    with pytest.raises(InvalidConfig, match="r=0 is not a rank"):
        config.r = 0
    with pytest.raises(InvalidConfig, match=r"no field 'lora_aplha'\. Closest: 'lora_alpha'"):
        config.lora_aplha = 16
    assert config.r == 16
    with pytest.raises(InvalidConfig, match="r=0"):
        dataclasses.replace(config, r=0)


def test_a_config_copies() -> None:
    """Copies and pickles are equal, and can be set on their own."""
    config = LoraConfig(target_modules=["v", "q"], rank_pattern={"q": 4})
    twin = copy.deepcopy(config)
    assert twin == config == pickle.loads(pickle.dumps(config))  # noqa: S301 - our own bytes
    twin.r = 2
    twin.rank_pattern["v"] = 2
    assert (config.r, config.rank_pattern) == (8, {"q": 4})


def test_fields_that_contradict_each_other_are_rejected_when_used() -> None:
    """Two fields that belong together are set one after the other, in any order; the use checks both."""
    config = IA3Config(target_modules=["q", "0"], feedforward_modules=["0"])
    config.target_modules = ["0", "2"]
    config.feedforward_modules = ["2"]
    assert inject(mlp().model.seq, config).targeted_module_names == ["0", "2"]
    config.target_modules = ["0"]
    with pytest.raises(InvalidConfig, match="must be a part of target_modules"):
        inject(mlp().model.seq, config)


def test_changes_in_place_are_checked_when_used() -> None:
    """Nothing notices a change of a mapping or a list; the use checks it all again."""
    config = LoraConfig(target_modules=["0"])
    config.rank_pattern["0"] = -1
    with pytest.raises(InvalidConfig, match=r"rank_pattern\['0'\]=-1 is not a rank"):
        inject(mlp().model.seq, config)


def test_a_model_has_a_configuration_of_its_own() -> None:
    """A configuration serves two models; in one, what the layers were made with cannot be set, the rest can."""
    config = LoraConfig(target_modules=["0"], r=2)
    first = inject(mlp().model.seq, config)
    config.r = 4
    second = inject(mlp().model.seq, config)
    assert (first.peft_config["default"].r, second.peft_config["default"].r) == (2, 4)
    own = first.peft_config["default"]
    with pytest.raises(InvalidConfig, match="r=16 comes too late for an adapter whose layers were made with 2"):
        own.r = 16
    own.base_model_name_or_path, own.inference_mode, own.r = "org/base", True, 2
    other = dataclasses.replace(own, r=16)
    other.lora_alpha = 1
    assert (own.base_model_name_or_path, other.r, other.lora_alpha) == ("org/base", 16, 1)


def test_names_are_sets_and_lists_as_in_peft() -> None:
    """Fields compare as those of peft's configurations do, and keep the order in which names were given."""
    given = {"target_modules": ["v", "q"], "modules_to_save": ["head"], "layers_to_transform": [0, 1]}
    ours, theirs = LoraConfig(**given, layers_pattern="h"), peft.LoraConfig(**given, layers_pattern="h")
    for name in (*given, "layers_pattern", "exclude_modules"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert isinstance(ours.target_modules, set)
    assert [*ours.target_modules] == [*copy.deepcopy(ours).target_modules] == ["v", "q"]
    assert list(LoraConfig(target_modules={"v", "q"}).target_modules or ()) == ["q", "v"]
    ours.target_modules.add("k")
    assert (ours.spec.target_modules, str(ours.target_modules)) == (("v", "q", "k"), "{'v', 'q', 'k'}")
    assert LoraConfig(modules_to_save=[], exclude_modules=[]).spec == TargetSpec()


def test_no_layer_beside_parameters_or_saved_modules_is_no_mistake() -> None:
    """PEFT's documentation writes ``target_modules=[]`` beside ``target_parameters``."""
    assert LoraConfig(target_modules=[], target_parameters=["w"]).spec.target_parameters == ("w",)
    assert LoraConfig(target_modules=[], modules_to_save=["head"]).spec.saves_alone


def test_with_spec_takes_the_targets_and_keeps_what_was_asked_for() -> None:
    """A spec from the registry or a scan sets the targets; the user's own exclusions and heads win."""
    spec = TargetSpec(target_modules=("q",), exclude_modules=("x",), modules_to_save=("head",))
    config = LoraConfig(r=4, modules_to_save=["score"]).with_spec(spec)
    assert (config.r, config.spec) == (4, TargetSpec(("q",), ("x",), ("score",)))


def test_scalars_of_numpy_become_pythons(tmp_path) -> None:
    """A search over ranks often runs over an array; PEFT takes its numbers and cannot save them."""
    pattern = {"0": np.int64(2)}
    config = LoraConfig(r=np.int64(4), lora_alpha=np.float32(8), use_rslora=np.bool_(True), rank_pattern=pattern)  # noqa: FBT003
    assert (config.r, config.lora_alpha, config.use_rslora, config.rank_pattern) == (4, 8.0, True, {"0": 2})
    assert {type(each) for each in (config.r, config.lora_alpha, config.rank_pattern["0"])} == {int, float}
    get_peft_model(mlp().model, dataclasses.replace(config, target_modules=["seq.0"])).save_pretrained(tmp_path)
    assert peft.LoraConfig.from_pretrained(tmp_path).r == 4
    with pytest.raises(InvalidConfig, match="not a rank"):
        LoraConfig(r=np.float64(4.5))
