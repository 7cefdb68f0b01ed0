"""Matching: PEFT's rules on strings alone, and words for what matches nothing."""

import peft
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists

from loradar.adapters import LoraConfig, match
from loradar.errors import TargetsNotFound

LEAVES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.experts.0.w1", "mlp.gate")
PATHS = [
    "model",
    "model.embed_tokens",
    "model.layers",
    *(f"model.layers.{block}{leaf}" for block in range(12) for leaf in ("", *(f".{leaf}" for leaf in LEAVES))),
    "lm_head",
    "score",
    "score.dense",
]


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ["model.layers.1.self_attn.q_proj", "gate"]},
        {"target_modules": ["1.self_attn.q_proj"]},
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": r"model\.layers\.[0-3]\.self_attn\.q_proj"},
        {"target_modules": ["q_proj", "dense"], "modules_to_save": ["score"]},
        {"target_modules": ["q_proj", "gate"], "exclude_modules": ["layers.0.mlp.gate"]},
        {"target_modules": ["q_proj", "gate"], "exclude_modules": r".*\.1\..*"},
        {"target_modules": ["q_proj", "w1"], "layers_to_transform": [1, 10]},
        {"target_modules": ["q_proj"], "layers_to_transform": 3},
        {"target_modules": ["w1"], "layers_to_transform": [0], "layers_pattern": "experts"},
        {"target_modules": ["w1"], "layers_to_transform": [0], "layers_pattern": ["blocks", "layers"]},
        {"target_modules": ["model.layers.5.mlp.gate", "q_proj"], "layers_to_transform": [2]},
    ],
)
def test_paths_are_pefts(fields: dict[str, object]) -> None:
    """The paths are those that PEFT's own rule accepts, in the same order."""
    theirs = peft.LoraConfig(**fields)
    expected = [path for path in PATHS if check_target_module_exists(theirs, path)]
    assert [*match(PATHS, LoraConfig(**fields)).paths] == expected


SEGMENTS = st.sampled_from(["a", "b", "q", "layers", "0", "1", "12"])
NAMES = st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join)


@given(paths=st.lists(NAMES, unique=True, max_size=12), targets=st.lists(NAMES, min_size=1, max_size=3, unique=True))
def test_suffixes_are_pefts_on_any_names(paths: list[str], targets: list[str]) -> None:
    """Whatever the names, suffixes hit what they hit in PEFT, or the error is the one for nothing."""
    theirs = peft.LoraConfig(target_modules=targets)
    expected = [path for path in paths if check_target_module_exists(theirs, path)]
    if expected:
        assert [*match(paths, LoraConfig(target_modules=targets)).paths] == expected
    else:
        with pytest.raises(TargetsNotFound):
            match(paths, LoraConfig(target_modules=targets))


def test_saved_paths_are_whole_modules() -> None:
    """A saved name means the outermost modules that end with it."""
    found = match(PATHS, LoraConfig(target_modules=["q_proj"], modules_to_save=["score", "score.dense", "lm_head"]))
    assert found.saved == ("lm_head", "score")


def test_counts_and_remarks_per_target() -> None:
    """Each target has its count; those without one are named, with the closest that exist."""
    found = match(PATHS, LoraConfig(target_modules=["q_proj", "self_attn.q_proj", "v_porj"]))
    assert found.counts == {"q_proj": 12, "self_attn.q_proj": 12, "v_porj": 0}
    assert [target for target, count in found.counts.items() if not count] == ["v_porj"]
    [remark] = found.remarks
    assert remark.startswith("No layer ends with 'v_porj': it is ignored. Closest: 'v_proj' (12 layers)")


def test_a_target_that_is_saved_is_remarked_on() -> None:
    """PEFT saves such a module in full without a word; so do we, with one."""
    found = match(PATHS, LoraConfig(target_modules=["q_proj", "score"], modules_to_save=["score"]))
    assert found.remarks == ("Every layer that 'score' names is excluded or saved in full: none is adapted.",)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"target_modules": ["q_porj"]}, r"^No layer ends with 'q_porj'\. Closest: 'q_proj' \(12 layers\)"),
        ({"target_modules": ["mlp.gat"]}, r"Closest: 'mlp.gate' \(12 layers\)"),
        ({"target_modules": ["xyz"]}, r"This model has: 'q_proj' \(12 layers\), 'k_proj'"),
        ({"target_modules": "q_proj"}, r"No whole path matches the regex 'q_proj'\. For a suffix, give a list"),
        ({"target_modules": ".*nothing"}, r"the regex '\.\*nothing'\. This model has: 'q_proj'"),
        ({}, "target_modules is not set. This model has"),
        (
            {"target_modules": ["q_proj"], "exclude_modules": ".*"},
            r"All 12 layers .* left out by exclude_modules='.\*'",
        ),
        ({"target_modules": ["q_proj"], "layers_to_transform": [99]}, r"left out by layers_to_transform=\[99\]"),
        ({"target_modules": ["dense"], "modules_to_save": ["score"]}, r"left out by modules_to_save=\['score'\]"),
        (
            {"target_modules": ["q_proj"], "modules_to_save": ["lm_haed"]},
            r"nothing to save for it\. Closest: 'lm_head'",
        ),
    ],
)
def test_nothing_matched(fields: dict[str, object], says: str) -> None:
    """The error says what was asked for, what there is instead, and how often."""
    with pytest.raises(TargetsNotFound, match=says) as refused:
        match(PATHS, LoraConfig(**fields))
    assert "\n" not in str(refused.value)


def test_a_model_without_modules_says_so() -> None:
    """There is nothing to suggest where there is nothing."""
    with pytest.raises(TargetsNotFound, match="This model has no layers"):
        match([], LoraConfig(target_modules=["q_proj"]))
