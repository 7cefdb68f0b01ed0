"""The list of mappings: filters, and pages that neither repeat nor lose anything."""

import pytest
from records_zoo import block_layers, make_scan, proposal

from loradar.domain.identities import LOCAL
from loradar.errors import InvalidRequest
from loradar.registry import mapping_place


def every(registry, limit: int, **wanted):
    """Return all mappings, page by page."""
    found, after = [], None
    while page := registry.find_mappings(**wanted, after=after, limit=limit):
        assert len(page) <= limit
        found += page
        after = mapping_place(page[-1])
    return found


def test_pages_follow_each_other_without_a_gap(any_registry):
    """Whatever their size; all of them together are what is in use."""
    any_registry.add_scan(make_scan("package.module:Net/odd name", library="torch"))
    whole = every(any_registry, 1000)
    assert len(whole) == any_registry.info().counts["mappings"]
    assert every(any_registry, 7) == whole
    places = [mapping_place(mapping) for mapping in whole]
    assert len(set(places)) == len(places)
    assert "torch:package.module:Net/odd name/LORA/default/scanner/1" in places


def test_the_order_is_that_of_what_they_answer(any_registry):
    """By architecture, PEFT type, preset, source and revision."""
    any_registry.add_scan(make_scan("llama", proposals=(proposal("q_proj"), proposal("up_proj", preset="mlp"))))
    found = any_registry.find_mappings(q="llama", peft_type="lora")
    told = [(m.name, m.preset, m.source.kind) for m in found if m.name == "llama"]
    assert told == [("llama", "default", "peft"), ("llama", "default", "scanner"), ("llama", "mlp", "scanner")]


def test_filters_narrow_the_list(any_registry):
    """Each alone, and together."""
    any_registry.add_scan(make_scan("My%Net", library="timm", proposals=(proposal("q_proj"),)))
    layers = [layer for layer in block_layers() if "v_proj" not in layer.path]
    any_registry.add_scan(make_scan("llama", proposals=(), layers=layers))
    assert [m.name for m in any_registry.find_mappings(source="scanner")] == ["My%Net"]
    assert [m.name for m in any_registry.find_mappings(library="timm")] == ["My%Net"]
    assert [m.name for m in any_registry.find_mappings(q="Y%n")] == ["My%Net"]
    assert {m.peft_type for m in any_registry.find_mappings(peft_type="IA3", limit=9)} == {"IA3"}
    partial = any_registry.find_mappings(status="partial", limit=999)
    assert {m.name for m in partial} == {"llama"}
    assert {m.verification.status for m in partial} == {"partial"}
    assert any_registry.find_mappings(status="partial", source="scanner") == ()
    assert any_registry.find_mappings(q="_") != any_registry.find_mappings(q="%")


def test_what_is_yanked_is_not_in_use(any_registry):
    """It is in the history alone."""
    mapping = any_registry.add_scan(make_scan()).added[0]
    assert any_registry.find_mappings(q="olmo2") == (mapping,)
    any_registry.backend(LOCAL).yank(mapping.id, "wrong")
    assert any_registry.find_mappings(q="olmo2") == ()


NO_PLACES = (
    "",
    "x",
    "llama/LORA/default/peft/1",
    "transformers:llama/LORA/default/peft",
    "a:b/c/d/e/-1",
    "a:b/c/d/e/\u0663",
    "a:b/c/d/e/9999999999",
)


@pytest.mark.parametrize("after", NO_PLACES)
def test_a_place_that_is_none_is_refused(registry, after):
    """With the way out; a number the database could not hold is no revision."""
    with pytest.raises(InvalidRequest, match="Give the 'next' of a page"):
        registry.find_mappings(after=after)
