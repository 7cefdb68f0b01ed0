"""The default of every type in PEFT's table is PEFT's own, layer for layer (tests/golden/peft_defaults.json)."""

import json
import tomllib
from collections import Counter
from pathlib import Path

import peft
import pytest
import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TABLE
from peft.utils.constants import TRANSFORMERS_MODELS_TO_OSF_TARGET_MODULES_MAPPING as OSF

import loradar
from loradar.discovery import read_model, sources
from loradar.domain.patterns import pattern_of
from loradar.domain.selection import Choice, count_fixed
from loradar.domain.targets import TargetSpec, find_hits
from loradar.references import Reference

RECORDED = json.loads((Path(__file__).parent / "golden" / "peft_defaults.json").read_text("utf-8"))
"""Targets, layers by path pattern, and size of each entry that fits its model."""
UNUSED = {
    "llama4": "its entry also adapts the vision tower",
    **dict.fromkeys(["RefinedWeb", "RefinedWebModel", "btlm", "chatglm", "rwkv7"], "transformers has no class for it"),
}
"""Entries of the table that are not recorded, with the reason."""

CONVERTED = {"mixtral"}
"""Types whose entry peft 0.21.2 converts for transformers 5 before it reads it, to no targets at all."""

pytestmark = pytest.mark.usefixtures("read_settings")


def test_every_entry_of_the_table_is_recorded_or_listed():
    """34 of 34 that can be."""
    assert len(RECORDED) == 34
    assert TABLE.keys() == {*RECORDED, *UNUSED}


def test_a_lookup_answers_with_the_entry():
    """Its targets, from PEFT, live on the scanned model, with the recorded size."""
    for name, recorded in RECORDED.items():
        answer = loradar.lookup(name)
        assert answer.source.kind == "peft", name
        targets = answer.target_modules
        assert (targets if isinstance(targets, str) else [*targets]) == recorded["targets"] == TABLE[name], name
        assert answer.verification.status == "live", name
        assert (answer.formula.per_rank, answer.formula.fixed) == (recorded["per_rank"], recorded["fixed"]), name
        assert answer.matched == sum(recorded["layers"].values()), name


def build(name):
    """Build a type at its default size on the meta device."""
    with torch.device("meta"):
        return sources.build(Reference("transformers", name))


SIZES = tomllib.loads((Path(__file__).parent.parent / "data" / "peft_sizes.toml").read_text("utf-8"))
COUNTED = [(method, name) for method in ("IA3", "LN_TUNING", "OSF") for name in SIZES[method]]


@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")
@pytest.mark.parametrize(("method", "name"), COUNTED)
def test_the_size_of_an_entry_for_another_method_is_counted_on_the_model(method, name):
    """By PEFT; for OSF, which decomposes weights with values, by the shapes of the layers its entry names."""
    model, expected = build(name), SIZES[method][name]
    if method == "OSF":
        layers = find_hits(TargetSpec(tuple(OSF[name])), read_model(model).layers)
        assert count_fixed(Choice("OSF", layers, ""), {}, {}) == expected
    else:
        config = {"IA3": peft.IA3Config, "LN_TUNING": peft.LNTuningConfig}[method]()
        adapted = peft.get_peft_model(model, config, low_cpu_mem_usage=True)
        assert sum(each.numel() for each in adapted.parameters() if each.requires_grad) == expected
    answer = loradar.lookup(name, method)
    assert (answer.source.kind, answer.trainable, answer.verification.library_version) == (
        "peft",
        expected,
        SIZES["library_version"],
    )


def count(paths):
    """Return the number of layers of each pattern."""
    return dict(Counter(map(pattern_of, paths)))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning", "ignore:No layer ends with:UserWarning")
@pytest.mark.parametrize("name", sorted(RECORDED))
def test_both_adapt_the_recorded_layers(name):
    """PEFT without targets, and ours, in the model itself."""
    ours = loradar.get_peft_model(build(name))
    assert count(ours.targeted_module_names) == RECORDED[name]["layers"]
    config = peft.LoraConfig(target_modules=TABLE[name] if name in CONVERTED else None)
    theirs = peft.get_peft_model(build(name), config, low_cpu_mem_usage=True)
    assert theirs.targeted_module_names == ours.targeted_module_names
    saved = sum(p.numel() for path, p in ours.named_parameters() if p.requires_grad and ".modules_to_save." in path)
    assert ours.get_nb_trainable_parameters()[0] - saved == 8 * RECORDED[name]["per_rank"]
