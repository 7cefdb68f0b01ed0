"""Ranks and budgets from stored slots: exact for every architecture with experts, and equal to those of a scan."""

import re

import pytest

import loradar
from loradar.api import running
from loradar.catalog.entries import list_catalogs, list_make_ups, read_catalog
from loradar.cli import main
from loradar.client import Client
from loradar.domain.choosing.members import list_members
from loradar.domain.choosing.slot_hits import find_targets
from loradar.domain.presets import EXPERT
from loradar.domain.targets import find_hits
from loradar.errors import InvalidRequest, MethodDoesNotFit
from loradar.registry import Registry
from loradar.settings import Settings

UNCOUNTED = {
    "diffusers:NucleusMoEImageTransformer2DModel",  # experts choose their tokens
    "transformers:gptsan-japanese",  # one, in the code of the router
    "transformers:moshi",  # a matrix for each codebook
    "transformers:moshi_depth",
}
"""Architectures whose configuration does not tell how many experts run for a token."""


@pytest.fixture(scope="module")
def known(seeded):
    """The registry of the packaged catalog, which everybody reads."""
    with Registry.open(Settings(seeded.parent, f"sqlite:///{seeded}")) as opened:
        yield opened


def matched(mapping, slots):
    """Return the slots that a mapping matches."""
    return [slot for slot, hit in zip(slots, find_targets(mapping.spec, slots), strict=True) if hit is not None]


def rank_of(path, patterns, rank):
    """Return the rank of a layer by PEFT's rule (``get_pattern_key``, 0.21.2)."""
    return next((own for key, own in patterns.items() if re.match(rf"(.*\.)?({key})$", path)), rank)


def list_sparse(known):
    """Return (library, name, slots) of every architecture with routed experts."""
    found = []
    for library in ("transformers", "timm", "diffusers"):
        for summary in known.list_architectures(library):
            slots = known.list_slots(library, summary.architecture.name) if "scanner" in summary.sources else ()
            if any(slot.role in EXPERT for slot in slots):
                found.append((library, summary.architecture.name, slots))
    return found


def test_experts_are_ranked_by_those_that_run_in_every_architecture_that_has_them(known):
    """By patterns that PEFT matches with the experts alone, in every block, and with the exact number of parameters."""
    unranked, unsized, ranked = {}, set(), 0
    for library, name, slots in list_sparse(known):
        mapping = known.lookup(name, preset="recommended", library=library)
        own = matched(mapping, slots)
        if not any(slot.role in EXPERT for slot in own):
            continue
        if mapping.rank_pattern is None:
            unranked[f"{library}:{name}"] = mapping.reasons[-1]
            continue
        ranked += 1
        rank = max(1, 8 // mapping.prompt_facts.active_experts)
        for slot in own:
            for index in ("0", "1", "12"):
                path = slot.pattern.replace("*", index)
                assert rank_of(path, mapping.rank_pattern, 8) == (rank if slot.role in EXPERT else 8), (name, path)
        assert mapping.alpha_pattern == mapping.rank_pattern
        if mapping.formula is None:
            unsized.add(f"{library}:{name}")
            continue
        shared = known.lookup(name, preset="recommended", library=library, expert_rank="shared")
        experts = sum(slot.per_rank for slot in own if slot.role in EXPERT)
        assert mapping.formula.per_rank == shared.formula.per_rank - experts
        assert mapping.formula.fixed == shared.formula.fixed + rank * experts
        assert mapping.recommended.formula == mapping.formula
    assert ranked >= 90
    alone = {name for name, reason in unranked.items() if "8 over the 1 that run for a token" in reason}
    unknown = {name for name, reason in unranked.items() if "is not known" in reason}
    assert alone == {
        f"transformers:{name}" for name in ("hunyuan_v1_moe", "llama4", "llama4_text", "switch_transformers", "zaya")
    }
    shared = {name for name, reason in unranked.items() if "a scan tells them apart" in reason}
    assert shared == {"diffusers:HiDreamImageTransformer2DModel"}
    assert unranked.keys() == alone | unknown | shared
    assert unknown == UNCOUNTED
    assert not unsized


def test_other_presets_keep_the_common_rank(known):
    """As PEFT does, unless a rank is named."""
    assert known.lookup("qwen3_moe").rank_pattern is None
    assert known.lookup("qwen3_moe", preset="experts").rank_pattern is None
    assert known.lookup("qwen3_moe", preset="experts", expert_rank=2).rank_pattern == {
        "gate_up_proj": 2,
        "down_proj": 2,
    }
    assert known.lookup("qwen3_moe", preset="recommended", expert_rank="shared").rank_pattern is None
    assert known.lookup("llama", preset="recommended").rank_pattern is None


@pytest.mark.parametrize("name", ["mixtral", "jamba", "gpt_oss"])
def test_a_lookup_ranks_as_a_scan_of_the_model(known, name):
    """The same patterns, alphas, size and reason; also at another rank, and within a budget."""
    found = loradar.scan(name)
    for choice in ({"preset": "recommended"}, {"preset": "recommended", "rank": 16}, {"budget": "0.5%"}):
        stored, live = known.lookup(name, **choice), found.propose("LORA", **choice)
        for field in ("preset", "rank", "rank_pattern", "alpha_pattern", "formula", "trainable"):
            assert getattr(stored, field) == getattr(live, field), (choice, field)
        assert set(live.reasons) - set(stored.reasons) <= set(found.propose("LORA", live.preset).reasons)


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("llama", {"budget": 20_000_000}),
        ("bert", {"budget": "0.3%", "preset": "attention"}),
        ("t5", {"budget": "2M"}),
        ("vit", {"budget": 200_000}),
        ("qwen2_5_vl", {"budget": "0.1%", "towers": "vision"}),
        ("qwen3_moe", {"budget": "1%", "expert_rank": "auto"}),
        ("whisper", {"budget": "1%", "roles": "attention.*"}),
    ],
)
def test_a_budget_is_used_and_never_exceeded(known, name, choice):
    """At most a tenth is left, and the sizes of the slots add up to what is stated."""
    mapping = known.lookup(name, **choice)
    text = mapping.reasons[0]
    limit = int(re.match(r"budget of ([\d,]+): preset", text)[1].replace(",", ""))
    assert 0.9 * limit <= mapping.trainable <= limit
    own = matched(mapping, known.list_slots("transformers", name))
    ranks = [rank_of(slot.pattern.replace("*", "0"), mapping.rank_pattern or {}, mapping.rank) for slot in own]
    saved = known.lookup(name, preset="all-linear").formula.fixed
    assert mapping.trainable == saved + sum(slot.per_rank * r for slot, r in zip(own, ranks, strict=True))


@pytest.mark.parametrize(
    ("reference", "choice"),
    [
        ("transformers:llama", {"budget": "0.01%"}),
        ("transformers:t5", {"budget": "0.2%", "blocks": "last 2"}),
        ("transformers:bamba", {"blocks": "last 8", "preset": "recommended"}),
        ("timm:resnet18", {"budget": "10%"}),
        ("timm:regnety_004", {"budget": "15%"}),
        ("timm:nfnet_f0", {"budget": "6%"}),
    ],
)
def test_single_blocks_and_convolutions_are_counted_as_on_a_model(known, reference, choice):
    """The same layers, ranks, size and coverage; groups of convolutions divide their ranks."""
    library, _, name = reference.partition(":")
    stored, scanned = known.lookup(name, library=library, **choice), loradar.scan(reference)
    live = scanned.propose("LORA", **choice)
    layers = find_hits(live.spec, scanned.layers)
    assert find_hits(stored.spec, scanned.layers) == layers
    ranks = {x.path: rank_of(x.path, stored.rank_pattern or {}, stored.rank) for x in layers}
    assert ranks == {x.path: rank_of(x.path, live.rank_pattern or {}, live.rank) for x in layers}
    assert all(ranks[x.path] % x.groups == 0 for x in layers)
    assert (stored.formula, stored.trainable, stored.matched) == (live.formula, live.trainable, live.matched)
    assert sum(each.hit for each in stored.coverage) == sum(each.hit for each in live.coverage)
    assert {each.tower for each in stored.coverage} == {each.tower for each in live.coverage}


def test_every_scan_of_the_catalog_holds_its_layers_one_by_one():
    """As many as each slot counts, in paths of their own."""
    for file in (*list_catalogs(), *list_make_ups()):
        for entry in read_catalog(file).entries:
            layers = [layer.path for slot in entry.slots for layer, _ in list_members(slot)]
            assert len({*layers}) == sum(slot.count for slot in entry.slots), entry.architecture.reference


@pytest.mark.parametrize(
    ("name", "choice", "error", "says"),
    [
        ("llama", {"budget": 100}, InvalidRequest, "its smallest adapter trains 524,288 parameters"),
        ("llama", {"budget": "lots"}, InvalidRequest, "is no number of parameters"),
        ("llama", {"budget": "200%"}, InvalidRequest, "more than the"),
        ("llama", {"budget": "1%", "peft_type": "OFT"}, MethodDoesNotFit, "counted for LORA alone"),
        ("llama", {"expert_rank": "many"}, InvalidRequest, "give 'auto', 'shared' or a positive integer"),
    ],
)
def test_what_cannot_be_counted_is_said(known, name, choice, error, says):
    """In one line, with the way out."""
    with pytest.raises(error, match=says) as caught:
        known.lookup(name, **choice)
    assert "\n" not in caught.value.message


def test_service_client_and_command_answer_alike(known, seeded_settings, capsys):
    """Ranks of experts and a budget, by each way."""
    for choice in ({"preset": "recommended"}, {"budget": "0.5%", "expert_rank": "auto"}):
        expected = known.lookup("qwen3_moe", **choice)
        assert expected.rank_pattern
        with running(seeded_settings) as url, Client(url) as client:
            assert client.targets("qwen3_moe", **choice) == expected
            (answer,) = client.targets_of_many([{"model_type": "qwen3_moe", **choice}])
            assert answer == expected
        options = [f"--{name.replace('_', '-')}={value}" for name, value in choice.items()]
        with pytest.raises(SystemExit):
            main(["lookup", "qwen3_moe", *options])
        shown = capsys.readouterr().out
        assert all(f"{key}: {rank}" in shown for key, rank in expected.rank_pattern.items())


@pytest.mark.parametrize("name", ["AllegroTransformer3DModel", "AnyFlowTransformer3DModel"])
def test_layers_named_by_an_index_are_not_recommended_besides(known, name):
    """``net.2`` is in the preset, although the first layer of its slot in a list would not be."""
    mapping = known.lookup(name, preset="mlp", library="diffusers")
    assert "net" in str(mapping.target_modules)
    assert "attention.query" in mapping.recommended.text
    assert "mlp.down" not in mapping.recommended.text
