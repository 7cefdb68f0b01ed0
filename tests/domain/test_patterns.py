"""Names that hit exactly what is wanted."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradar.domain.patterns import MAX_SUFFIXES, name_targets
from loradar.domain.targets import TargetMatcher


def hits(targets, paths):
    """Return the paths that targets match, by PEFT's rule."""
    matcher = TargetMatcher(targets)
    return [path for path in paths if matcher.find(path) is not None]


def blocks(*leaves, count=3, prefix="model.layers"):
    """Return the same leaves in several blocks."""
    return [f"{prefix}.{index}.{leaf}" for index in range(count) for leaf in leaves]


def test_one_segment_is_enough_where_nothing_else_has_it():
    """A query projection goes by its own name."""
    paths = blocks("attn.q_proj", "attn.k_proj")
    assert name_targets([p for p in paths if p.endswith("q_proj")], paths) == ("q_proj",)


def test_a_leaf_met_twice_in_a_block_is_qualified():
    """gpt2's two c_proj are told apart by their parents."""
    paths = blocks("attn.c_proj", "mlp.c_proj")
    assert name_targets([p for p in paths if "attn" in p], paths) == ("attn.c_proj",)


def test_a_plain_mlp_gets_whole_paths_and_no_bare_digit():
    """`0` would hit whatever else is numbered."""
    paths = ["", "seq", *(f"seq.{index}" for index in range(6))]
    assert name_targets(["seq.0", "seq.2"], paths) == ("seq.0", "seq.2")


def test_a_module_that_is_only_a_number_is_named_by_a_regex():
    """The children of a bare Sequential have no name but their index."""
    targets = name_targets(["0", "2"], ["", "0", "1", "2"])
    assert targets == "(?:0|2)"


def test_indices_stay_open_where_a_tail_tells_the_layers_apart():
    """Bert's output.dense in the block is not the one in its attention, however deep the model is."""
    paths = blocks("attention.output.dense", "output.dense", "intermediate.dense", prefix="encoder.layer")
    wanted = [p for p in paths if p.endswith("output.dense") and "attention" not in p]
    targets = name_targets(wanted, paths)
    assert targets == r"(?:.*\.)?\d+\.output\.dense"
    deeper = blocks("attention.output.dense", "output.dense", count=9, prefix="bert.encoder.layer")
    assert len(hits(targets, deeper)) == 9


def test_the_same_leaf_in_two_towers_is_told_apart():
    """Only the language tower's q_proj is meant."""
    paths = [*blocks("q_proj", prefix="language_model.layers"), *blocks("q_proj", prefix="vision.layers")]
    targets = name_targets(blocks("q_proj", prefix="language_model.layers"), paths)
    assert hits(targets, paths) == blocks("q_proj", prefix="language_model.layers")


def test_many_suffixes_become_one_regex():
    """A list nobody would read is not given."""
    wanted = [f"part.name{letter}" for letter in "abcdefghijklmnop"]
    assert len(wanted) > MAX_SUFFIXES
    targets = name_targets(wanted, [*wanted, "part"])
    assert isinstance(targets, str)
    assert hits(targets, wanted) == wanted


segments = st.sampled_from(["a", "b", "proj", "q.x", "0", "1", "12", "layer", "o+"])
paths_of_segments = st.lists(segments, min_size=1, max_size=5).map(".".join)


@given(universe=st.sets(paths_of_segments, min_size=1, max_size=24), data=st.data())
def test_targets_hit_exactly_what_is_wanted(universe, data):
    """Whatever the paths, the targets match the wanted ones and no other, and none is a bare digit."""
    paths = sorted(universe)
    wanted = data.draw(st.lists(st.sampled_from(paths), min_size=1, unique=True))
    targets = name_targets(wanted, paths)
    assert sorted(hits(targets, paths)) == sorted(wanted)
    if not isinstance(targets, str):
        assert not any(target.isdecimal() for target in targets)


def test_an_index_that_tells_layers_apart_is_named_and_others_stay_open():
    """The linears of a numbered sequence in every block: their own index is named, the block's is not."""
    paths = [f"blocks.{block}.{index}" for block in range(3) for index in range(4)]
    targets = name_targets([p for p in paths if p.endswith((".1", ".3"))], ["blocks", *paths])
    assert targets == r"(?:.*\.)?blocks\.\d+\.(?:1|3)"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (r"stages\.2\.\d+\.conv", r"(?:.*\.)?stages\.2\.\d+\.conv"),
        (r"stages\.\d\.[1357]\.conv", r"(?:.*\.)?\d*[13579]\.conv"),
        (r"stages\.\d\.[0246]\.conv", r"(?:.*\.)?\d*[02468]\.conv"),
        (r"stages\.\d\.[1-9]\.conv", r"(?:.*\.)?[1-9]\d*\.conv"),
        (r"stages\.\d\.0\.conv", r"(?:.*\.)?\d+\.0\.conv"),
    ],
)
def test_no_block_is_named_where_its_stage_or_a_rule_tells_it(wanted, expected):
    """One stage, every second block, all but the first, the first: each fits a deeper model."""
    paths = [f"stages.{stage}.{block}.conv" for stage in range(4) for block in range(5 + stage)]
    assert name_targets([path for path in paths if re.fullmatch(wanted, path)], paths) == expected


def test_a_short_suffix_with_an_index_is_still_a_suffix():
    """`mlp.0` names no block, so it fits a deeper model."""
    paths = blocks("mlp.0", "mlp.1", "mlp.3", "attn")
    assert name_targets([p for p in paths if p.endswith(("mlp.0", "mlp.3"))], paths) == ("mlp.0", "mlp.3")


@pytest.mark.parametrize("depth", [3, 40])
def test_generated_regexes_answer_long_paths_at_once(depth):
    """Nothing in a generated regex can blow up: no repetition stands inside another."""
    paths = [*blocks("a.dense", "b.a.dense", count=depth), *blocks("a.dense", prefix="other")]
    targets = name_targets(blocks("a.dense", count=depth), paths)
    assert isinstance(targets, str)
    assert not re.search(r"[*+]\)[*+?]?[*+]", targets.replace(r"(?:.*\.)?", ""))
    assert hits(targets, ["9." * 20_000 + "x"]) == []
