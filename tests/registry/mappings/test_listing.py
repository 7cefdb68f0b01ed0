"""Browsing: lists, filters, pages, details."""

import pytest
from records_zoo import make_scan, proposal, without_gaps

from loradar.domain.mappings import ArchitectureDetail, ArchitectureSummary
from loradar.errors import UnknownArchitecture
from loradar.schema import from_json, to_json


def names(summaries) -> list[str]:
    """Return the references of a list of architectures."""
    return [summary.architecture.reference for summary in summaries]


def test_architectures_known_only_from_peft_are_listed_sorted(registry):
    """Every name in PEFT's tables is there once, with what it has a mapping for."""
    found = registry.list_architectures()
    assert names(found) == sorted(names(found))
    assert len(found) == registry.info().counts["architectures"] > 40
    llava = next(summary for summary in found if summary.architecture.name == "llava")
    assert (llava.sources, llava.peft_types, llava.presets) == (("peft",), ("LN_TUNING",), ("default",))


def test_a_list_can_be_narrowed(registry):
    """By library, and by part of a name in any case; wildcards of SQL are plain characters."""
    registry.add_scan(make_scan("resnet_50", library="timm"))
    assert names(registry.list_architectures("timm")) == ["timm:resnet_50"]
    assert names(registry.list_architectures(q="GEMMA3")) == ["transformers:gemma3_text"]
    assert names(registry.list_architectures("timm", "t_5")) == ["timm:resnet_50"]
    assert registry.list_architectures(q="t%5") == ()
    assert registry.list_architectures("diffusers") == ()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_pages_cover_everything_once(registry, size):
    """Following the last name of each page gives the whole list, whatever the size, across libraries."""
    registry.add_scan(make_scan("a", library="timm"))
    registry.add_scan(make_scan("zz", library="diffusers"))
    found, after = [], None
    while page := registry.list_architectures(after=after, limit=size):
        assert len(page) <= size
        found += page
        after = (page[-1].architecture.library, page[-1].architecture.name)
    assert tuple(found) == registry.list_architectures()


def test_the_mappings_of_named_architectures_alone_are_listed(registry):
    """Those that the list of all has of these names, in its order."""
    every = registry.list_mappings("transformers")
    named = registry.list_mappings("transformers", names=("llama", "gpt2"))
    assert named == tuple(mapping for mapping in every if mapping.name in ("llama", "gpt2"))
    assert named


def test_details_recommend_one_mapping_per_question(registry):
    """The recommended ones are those lookups give; every revision is listed besides."""
    registry.add_scan(make_scan("llama", proposals=(proposal("q_proj"), proposal("up_proj", preset="mlp"))))
    detail = registry.get_architecture("transformers", "llama")
    questions = [(mapping.peft_type, mapping.preset) for mapping in detail.mappings]
    assert len(questions) == len(set(questions))
    for mapping in detail.mappings:
        assert mapping == without_gaps(registry.lookup("llama", mapping.peft_type, mapping.preset))
    assert {mapping.source.kind for mapping in detail.revisions} == {"peft", "scanner"}
    assert detail.slots == make_scan().slots
    assert detail.towers == {"language": ("model",)}


def test_an_unknown_architecture_is_named_with_near_ones(registry):
    """The message names the scan command unless the name is a slip, and says if its library has none."""
    with pytest.raises(UnknownArchitecture, match=r"'gpt3'. Closest: .*'gpt2'\.$"):
        registry.get_architecture("transformers", "gpt3")
    with pytest.raises(
        UnknownArchitecture, match=r"list transformers; what only a newer .*: loradar scan zzyzx --store$"
    ):
        registry.get_architecture("transformers", "zzyzx")
    with pytest.raises(UnknownArchitecture, match=r"Scan it with: loradar scan torch:mine:Model --store$"):
        registry.get_architecture("torch", "mine.Model")


def test_records_survive_their_json_form(registry):
    """What a client rebuilds is what the registry gave."""
    registry.add_scan(make_scan())
    detail = registry.get_architecture("transformers", "olmo2")
    assert from_json(ArchitectureDetail, to_json(detail)) == detail
    summary = registry.list_architectures(q="olmo2")[0]
    assert from_json(ArchitectureSummary, to_json(summary)) == summary


def test_info_counts_rows(registry):
    """And lists the sources; its JSON has every field."""
    registry.add_scan(make_scan())
    info = to_json(registry.info())
    assert info["counts"]["slots"] == 1
    assert [source["kind"] for source in info["sources"]] == ["peft", "scanner"]
    assert info["serial"] == 2
