"""Selections by preset, towers, roles and blocks: what is matched is exactly what a filter over the layers gives."""

import re
from dataclasses import replace
from fnmatch import fnmatchcase

import peft
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from loradar.discovery.proposals import Subject, propose_all
from loradar.discovery.saved_modules import Saved
from loradar.domain.architectures import Architecture, PromptFacts
from loradar.domain.choosing.query import BlockChoice, Selection
from loradar.domain.choosing.stacks import find_positions
from loradar.domain.layers import Layer
from loradar.domain.patterns import list_prefixes
from loradar.domain.scans import Scan
from loradar.domain.targets import find_hits
from loradar.errors import InvalidRequest, MethodDoesNotFit, UnknownName, UnknownPreset

STACKS = {
    "language": ("model.language_model.layers", "self_attn.q_proj self_attn.o_proj mlp.gate_proj mlp.down_proj"),
    "vision": ("model.visual.blocks", "attn.qkv attn.proj mlp.gate_proj mlp.down_proj"),
    "audio": ("model.audio.layers", "self_attn.q_proj self_attn.o_proj fc1 fc2"),
}
ROLES = {
    "q_proj": "attention.query",
    "qkv": "attention.qkv",
    "o_proj": "attention.output",
    "proj": "attention.output",
    "gate_proj": "mlp.gate",
    "fc1": "mlp.up",
    "down_proj": "mlp.down",
    "fc2": "mlp.down",
}
PRESETS = {
    "default": ("attention.query", "attention.value", "attention.qkv"),
    "attention": ("attention.*",),
    "mlp": ("mlp.*",),
    "all-linear": ("attention.*", "mlp.*"),
}
"""The roles of each preset in towers that have attention."""


def make_layer(path, role, tower, block=None, **fields):
    """Return a small linear layer."""
    depth = 1 if block else 0
    return Layer(path, "linear", "Linear", (8, 8), 8, 8, role=role, tower=tower, block=block, depth=depth, **fields)


def make_composite(depths):
    """Return the scan of a model with a stack per tower, a projector and a head."""
    layers = []
    for tower, depth in depths.items():
        stack, leaves = STACKS[tower]
        for index in range(depth):
            for leaf in leaves.split():
                block = f"{stack}.{index}"
                layers.append(make_layer(f"{block}.{leaf}", ROLES[leaf.rpartition(".")[2]], tower, block))
    layers += [make_layer(f"model.visual.merger.mlp.{index}", "projector", "projector") for index in (0, 2)]
    layers.append(make_layer("lm_head", "head", "language"))
    return make_scan(tuple(layers))


def make_scan(layers, **fields):
    """Return the scan of a model with these layers alone."""
    modules = tuple(dict.fromkeys(path for layer in layers for path in list_prefixes(layer.module_path)))
    subject = Subject(layers, modules, tuple(f"{layer.path}.weight" for layer in layers), {}, Saved(), 0)
    return Scan(
        architecture=Architecture("torch", "composite"),
        method="names",
        layers=layers,
        towers={},
        slots=(),
        proposals=propose_all(subject),
        module_paths=modules,
        beside=subject.beside,
        **fields,
    )


depths = st.fixed_dictionaries(
    {"language": st.integers(1, 13), "vision": st.integers(1, 5)}, optional={"audio": st.integers(1, 12)}
)
blocks = st.none() | st.one_of(
    st.tuples(st.sampled_from(["first", "last", "every"]), st.integers(1, 14)).map(lambda x: f"{x[0]} {x[1]}"),
    st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda x: f"{min(x)}-{max(x)}"),
    st.sets(st.integers(0, 13), min_size=1).map(sorted),
)
towers = st.lists(st.sampled_from(["language", "vision", "audio", "projector", "all"]), unique=True)
roles = st.lists(
    st.sampled_from(["attention.*", "mlp.down", "mlp.*", "projector", "*", "attention.q*", "head"]), unique=True
)


def is_in_blocks(index, depth, wanted):
    """Return whether a block is wanted, computed apart from the code under test."""
    if wanted is None:
        return True
    if isinstance(wanted, list):
        return index in wanted
    word, _, number = wanted.partition(" ")
    if not number:
        first, last = map(int, wanted.split("-"))
        return first <= index <= last
    number = int(number)
    return {"first": index < number, "last": depth - index <= number, "every": index % number == 0}[word]


def filter_by_force(scan, depths, preset, wanted):
    """Return the paths that a plain filter over the layers selects."""
    towers, roles, blocks = wanted
    chosen = {*towers} or {*depths}  # the presets adapt every tower that leads to an output
    found = set()
    for layer in scan.layers:
        if "all" not in chosen and layer.tower not in chosen:
            continue
        names = roles or ()
        by_role = any(name == layer.role or (layer.role != "head" and fnmatchcase(layer.role, name)) for name in names)
        by_preset = any(fnmatchcase(layer.role, name) for name in PRESETS[preset])
        if layer.tower == "projector" and preset in ("default", "all-linear"):
            by_preset = True
        is_wanted = by_role if roles and preset == "default" else by_preset and (by_role or not roles)
        if layer.block:
            is_wanted = is_wanted and is_in_blocks(int(layer.block.rpartition(".")[2]), depths[layer.tower], blocks)
        elif blocks is not None:
            is_wanted = False
        if is_wanted:
            found.add(layer.path)
    return found


@given(depths, st.sampled_from(sorted(PRESETS)), towers, roles, blocks)
def test_a_combination_is_the_set_that_a_filter_over_the_layers_gives(depths, preset, towers, roles, blocks):
    """Towers, roles, blocks and presets together; the real PEFT matches the same layers among all modules."""
    scan = make_composite(depths)
    expected = filter_by_force(scan, depths, preset, (towers, roles, blocks))
    choice = {"towers": towers or None, "roles": roles or None, "blocks": blocks}  # an empty list is an error
    if "audio" in towers and "audio" not in depths:
        with pytest.raises(UnknownName, match="has the towers"):
            scan.propose("LORA", preset, **choice)
    elif not expected:
        with pytest.raises(InvalidRequest):
            scan.propose("LORA", preset, **choice)
    else:
        proposal = scan.propose("LORA", preset, **choice)
        assert {layer.path for layer in find_hits(proposal.spec, scan.layers)} == expected
        targets, excluded = proposal.target_modules, proposal.exclude_modules
        config = peft.LoraConfig(
            target_modules=targets if isinstance(targets, str) else [*targets], exclude_modules=excluded
        )
        assert {path for path in scan.module_paths if check_target_module_exists(config, path)} == expected
        assert proposal.trainable == 8 * 16 * len(expected)


@given(st.integers(1, 40), blocks.filter(bool))
def test_blocks_are_the_same_in_canonical_form(depth, wanted):
    """The canonical text names the same blocks as the given form."""
    choice = BlockChoice.parse(wanted)
    expected = {index for index in range(depth) if is_in_blocks(index, depth, wanted)}
    assert choice.list_in(depth) == BlockChoice.parse(choice.says).list_in(depth) == expected


@pytest.mark.parametrize(
    ("choice", "error", "says"),
    [
        ({"towers": "visoin"}, UnknownName, "Closest: 'vision'. Towers: language, vision, audio"),
        ({"towers": "audio"}, UnknownName, "torch:composite has the towers: language, vision, projector"),
        ({"roles": "atention.query"}, UnknownName, "Closest: 'attention.query'"),
        ({"roles": "mixer.*"}, InvalidRequest, r"Layers there, by role: attention.output \(5\), attention.qkv \(2\)"),
        ({"blocks": "3-1"}, InvalidRequest, "has the range 3-1, which ends before it starts"),
        ({"blocks": "0-2,2"}, InvalidRequest, "names a block twice"),
        ({"blocks": [1, 1]}, InvalidRequest, "names a block twice"),
        ({"blocks": "last 0"}, InvalidRequest, "Forms: 'last 8'"),
        ({"blocks": []}, InvalidRequest, "names no blocks"),
        (
            {"blocks": "7"},
            InvalidRequest,
            "in blocks 0-2 of 3 in model.language_model.layers; 0-1 of 2 in model.visual",
        ),
        ({"towers": "projector", "blocks": "first 1"}, InvalidRequest, "nowhere: it has none"),
        ({"tower": "vision"}, InvalidRequest, "Closest: 'towers'"),
        ({"budget": "few"}, InvalidRequest, "give 20_000_000, '20M' or '0.5%'"),
        ({"budget": 1}, InvalidRequest, "its smallest adapter trains 80 parameters"),
        ({"budget": "1%"}, InvalidRequest, "whose size is not on record"),
        ({"rank": 0}, InvalidRequest, "rank=0 is no rank"),
        ({"rank": 8, "budget": "1M"}, InvalidRequest, "rank=8 and budget='1M' both decide the rank: leave one out"),
        ({"towers": ""}, InvalidRequest, "towers='' names no tower: leave it out, or name some of language, vision"),
        ({"roles": [" ", ","]}, InvalidRequest, "names no role: leave it out, or name some of attention.query"),
        ({"blocks": ""}, InvalidRequest, "blocks='' cannot be read"),
        ({"expert_rank": "half"}, InvalidRequest, "give 'auto', 'shared' or a positive integer"),
    ],
)
def test_what_selects_nothing_is_said_in_one_line(choice, error, says):
    """The error names the value and what there is."""
    with pytest.raises(error, match=says) as caught:
        make_composite({"language": 3, "vision": 2}).propose(**choice)
    assert "\n" not in caught.value.message


def test_a_preset_that_a_method_lacks_is_said():
    """Also where the method names no layers, or has no ranks to count."""
    scan = make_composite({"language": 3, "vision": 2})
    with pytest.raises(UnknownPreset):
        scan.propose("LORA", "al-linear", towers="vision")
    with pytest.raises(MethodDoesNotFit, match="counted for LORA alone"):
        scan.propose("VERA", rank=4)
    with pytest.raises(MethodDoesNotFit, match="nothing to select"):
        scan.propose("PROMPT_TUNING", towers="vision")


def test_reasons_say_what_is_selected_left_out_and_proved():
    """The selection, the blocks of each stack, other towers and roles, and the proof of the layers."""
    scan = make_composite({"language": 3, "vision": 2})
    proved = replace(scan, layers=tuple(replace(x, live=True if x.tower == "language" else None) for x in scan.layers))
    reasons = proved.propose("LORA", "attention", towers="language,vision", blocks="last 1").reasons
    assert "selected: preset 'attention', towers language, vision, blocks last 1" in reasons
    assert "blocks 2 of 3 in model.language_model.layers, from 0" in reasons
    assert "left alone: projector" in reasons
    assert "unproven: 2 layers of 4 (vision), which no proof has trained yet" in reasons
    others = "3 attention.output layers, 1 attention.qkv layer, 2 attention.query layers, 1 head layer"
    assert f"left out: {others}, 5 mlp.down layers, 5 mlp.gate layers" in reasons
    assert "proved live: 3 layers, each by a training step" in proved.propose(towers="language").reasons


def test_a_role_without_adapters_must_be_named_itself():
    """A pattern that fits a router leaves it alone."""
    layers = (
        make_layer("h.0.mlp.down_proj", "mlp.down", "main", "h.0"),
        make_layer("h.0.mlp.gate", "moe.router", "main", "h.0"),
    )
    scan = make_scan(layers)
    assert scan.propose(roles="m*").matched == 1
    assert scan.propose(roles="moe.router").target_modules == ("gate",)


def test_other_methods_are_narrowed_to_towers_and_blocks():
    """The second feed-forward layer stays the one scaled at its input."""
    proposal = make_composite({"language": 3, "vision": 2}).propose("IA3", towers="vision", blocks="0")
    assert proposal.target_modules == r"model\.visual\.blocks\.0\.attn\.qkv|model\.visual\.blocks\.0\.mlp\.down_proj"
    assert proposal.feedforward_modules == r"model\.visual\.blocks\.0\.mlp\.down_proj"
    assert proposal.trainable == 16


# --- the stacks that blocks are counted in ----------------------------------------------------------------------------


def place(path, role, *blocks):
    """Return a layer in nested blocks, the outermost first."""
    return replace(make_layer(path, role, "main", blocks[-1]), depth=len(blocks))


def test_blocks_of_stages_are_counted_through():
    """A stage holds one list of whole blocks; numbers above nine keep their order."""
    layers = [
        place(f"layers.{stage}.blocks.{block}.{leaf}", role, f"layers.{stage}", f"layers.{stage}.blocks.{block}")
        for stage, depth in enumerate((2, 2, 11))
        for block in range(depth)
        for leaf, role in (("attn.qkv", "attention.qkv"), ("mlp.fc1", "mlp.up"))
    ]
    positions = find_positions(layers)
    assert positions["layers.2.blocks.10.attn.qkv"].number == 14
    assert {(each.stack, each.depth) for each in positions.values()} == {("layers", 15)}


def test_sublayers_in_a_list_are_no_blocks():
    """Each member of the inner list is a part of a block."""
    layers = [
        place(
            f"encoder.block.{block}.layer.{at}.{leaf}",
            role,
            f"encoder.block.{block}",
            f"encoder.block.{block}.layer.{at}",
        )
        for block in range(6)
        for at, leaf, role in ((0, "q", "attention.query"), (1, "wi", "mlp.up"))
    ]
    positions = find_positions(layers)
    assert positions["encoder.block.5.layer.1.wi"].number == 5
    assert {each.depth for each in positions.values()} == {6}


def test_experts_in_a_list_are_no_blocks():
    """The attention beside them is the same block's."""
    layers = [
        *(place(f"layers.{block}.attn.q", "attention.query", f"layers.{block}") for block in range(3)),
        *(
            place(f"layers.{block}.experts.{each}.up", "expert.up", f"layers.{block}", f"layers.{block}.experts.{each}")
            for block in range(3)
            for each in range(8)
        ),
    ]
    positions = find_positions(layers)
    assert positions["layers.2.experts.7.up"] == positions["layers.2.attn.q"]
    assert positions["layers.2.attn.q"].depth == 3


# --- ranks ------------------------------------------------------------------------------------------------------------


def make_sparse(active=4):
    """Return the scan of a model with fused experts, of which some run for a token."""
    layers = [
        *(make_layer(f"layers.{block}.attn.q", "attention.query", "main", f"layers.{block}") for block in range(3)),
        *(
            replace(
                make_layer(f"layers.{block}.mlp.experts.up", "expert.up", "main", f"layers.{block}"),
                kind="expert_parameter",
                shape=(16, 8, 8),
            )
            for block in range(3)
        ),
    ]
    return make_scan(tuple(layers), prompt_facts=PromptFacts(active_experts=active, parameters=100_000))


def test_experts_get_the_rank_over_those_that_run_for_a_token():
    """The alpha keeps their scaling equal to that of the others."""
    proposal = make_sparse().propose("LORA", "all-linear", rank=16, expert_rank="auto")
    assert proposal.rank_pattern == {"up": 4}
    assert list(proposal.alpha_pattern.values()) == [2.0]
    assert proposal.trainable == 3 * (16 * 16 + 4 * 16 * 16)
    assert "experts at rank 4: 16 over the 4 that run for a token" in proposal.reasons


def test_the_rank_of_experts_is_at_least_one_and_unknown_numbers_are_said():
    """Nothing is divided by a number that nobody knows."""
    assert 1 in make_sparse(64).propose("LORA", "experts", expert_rank="auto").rank_pattern.values()
    unknown = make_sparse(None).propose("LORA", "experts", expert_rank="auto")
    assert unknown.rank_pattern is None
    assert "experts at rank 8: the number that run for a token is not known" in unknown.reasons


def test_a_rank_of_experts_where_there_are_none_is_said():
    """It changes nothing, and a reason says so."""
    proposal = make_sparse().propose("LORA", "attention", expert_rank=4)
    assert proposal.rank_pattern is None
    assert "expert_rank=4 has no effect: none of these layers is a routed expert" in proposal.reasons


def test_presets_keep_one_rank_by_default():
    """PEFT's arithmetic, unless another is asked for."""
    proposal = make_sparse().propose("LORA", "all-linear")
    assert (proposal.rank, proposal.rank_pattern, proposal.alpha_pattern) == (8, None, None)


@given(depths, st.integers(10, 200_000), st.sampled_from(["default", "attention", "mlp", "all-linear"]))
def test_a_budget_is_never_exceeded_and_used_to_nine_tenths(depths, budget, preset):
    """Counted by PEFT's rule for patterns; at most a step of one layer's rank is left out of it."""
    scan, per_layer = make_composite(depths), 16
    smallest = per_layer * scan.propose("LORA", preset).matched
    if preset == "default":  # which leaves the preset to the budget
        smallest = min(scan.propose("LORA", one).matched for one in PRESETS) * per_layer
    if budget < smallest:
        with pytest.raises(InvalidRequest, match=f"smallest adapter trains {smallest:,} parameters"):
            scan.propose("LORA", preset, budget=budget)
        return
    proposal = scan.propose("LORA", preset, budget=budget)
    patterns = proposal.rank_pattern or {}
    hits = find_hits(proposal.spec, scan.layers)
    ranks = [next((r for key, r in patterns.items() if matches(key, layer.path)), proposal.rank) for layer in hits]
    assert per_layer * sum(ranks) == proposal.trainable <= budget
    assert proposal.trainable >= min(0.9 * budget, budget - per_layer + 1)


def matches(key, path):
    """Return whether a key of ``rank_pattern`` matches a path, by PEFT's rule."""
    return get_pattern_key([key], path) == key and bool(re.match(rf"(.*\.)?({key})$", path))


def test_selections_parse_lists_and_texts_alike():
    """Case and spaces do not matter."""
    assert Selection.parse(towers="vision, language", roles=["MLP.*"]) == Selection.parse(
        towers=["vision", "language"], roles="mlp.*"
    )
