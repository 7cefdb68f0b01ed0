"""``/compare``: two architectures, presets or revisions, with the layers that do the same in one row."""

import pytest

from loradar.api.pages.reports.compare_page import fold
from loradar.domain.layers import Slot
from loradar.domain.reports.side_by_side import SideBySide, SlotPair
from loradar.schema import from_json


def compare(client, **query):
    """Return the JSON twin."""
    response = client.get("/v1/compare", params=query)
    assert response.status_code == 200, response.text
    return from_json(SideBySide, response.json())


def rows_of(found):
    """Return (left path, right path, adapted layers, differences) by role; norms are left out."""
    return {
        pair.role: (
            pair.left and pair.left.pattern.rpartition(".")[2],
            pair.right and pair.right.pattern.rpartition(".")[2],
            (pair.left_adapted, pair.right_adapted),
            pair.differences,
        )
        for pair in found.pairs
        if pair.role != "norm"
    }


def test_two_architectures_are_paired_by_role(client, read):
    """A fused projection has no partner; what has one is in one row, whatever it is called."""
    found = compare(client, a="llama", b="gpt2")
    rows = rows_of(found)
    assert rows["attention.query"] == ("q_proj", None, (32, 0), ("missing", "target"))
    assert rows["attention.qkv"] == (None, "c_attn", (0, 12), ("missing", "target"))
    assert rows["attention.output"] == ("o_proj", "c_proj", (32, 12), ("name", "kind", "count", "size"))
    assert any("fuses query, key and value" in words for words in found.words)
    page = read("/compare?a=llama&b=gpt2")
    assert "fuses query, key and value into one projection" in page.text
    assert {"/architectures/transformers/llama", "/architectures/transformers/gpt2"} <= {
        own.get("href") for own in page.all("a")
    }


def test_two_presets_of_one_architecture_differ_in_targets_alone(client, read):
    """Every layer has its partner."""
    found = compare(client, a="llama", a_preset="default", b="llama", b_preset="mlp")
    assert {pair.differences for pair in found.pairs} == {(), ("target",)}
    (field,) = found.fields
    assert (field.both, field.left, field.right) == ((), ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj"))
    assert "Two mappings of llama" in read("/compare?a=llama&a_preset=default&b=llama&b_preset=mlp").text


def test_two_revisions_are_named_by_their_ids(client, read):
    """Of the registry's own and PEFT's."""
    own = client.get("/v1/architectures/transformers/mixtral").json()["revisions"]
    ids = [one["id"] for one in own if (one["peft_type"], one["preset"]) == ("IA3", "default")]
    assert len(ids) > 1
    found = compare(client, a=ids[0], b=ids[1][7:19])
    assert [found.left.id, found.right.id] == ids[:2]
    assert found.left.source.kind in read(f"/compare?a={ids[0]}&b={ids[1]}").text


def test_a_layer_at_one_index_is_counted_alone(client):
    """A norm beside a convolution, both numbered in one container: ``downsample.0`` matches the convolution alone."""
    found = compare(client, a="timm:resnet50", b="timm:resnet50")
    norms = [pair for pair in found.pairs if pair.role == "norm" and "downsample" in pair.left.pattern]
    assert norms
    assert {pair.left_adapted for pair in norms} == {0}


def test_the_same_twice_has_no_difference(client):
    """In no row, field or word; blocks of a kind that the preset leaves alone are counted in both."""
    found = compare(client, a="bamba", b="transformers:bamba")
    assert {pair.differences for pair in found.pairs} == {()}
    assert found.words == ()
    assert not any(field.left or field.right for field in found.fields)


def test_experts_named_by_numbers_are_one_row():
    """128 of them say no more than one; another number of layers does."""

    def pair(number, count=3):
        slot = Slot("language", "expert.up", "linear", f"layers.*.experts.expert_{number}.fc1", count, per_rank=9)
        return SlotPair("expert.up", "language", slot, None, count, 0, ("missing",))

    assert [row.times for row in fold([pair(n) for n in range(128)])] == [128]
    assert [row.times for row in fold([pair(1), pair(2), pair(3, count=4)])] == [2, 1]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("a=lama&b=gpt2", 404, "The left side was not found. "),
        ("a=llama&b=gpt22", 404, "The right side was not found. "),
        ("a=llama&b=llama&b_preset=most", 404, "The right side"),
        ("a=sha256:00000000&b=llama", 404, "The left side"),
        ("a=%3Cscript%3Ealert(1)%3C/script%3E&b=llama", 404, "<script>alert(1)</script>"),
    ],
)
def test_a_side_that_is_not_found_is_named_and_kept(read, query, status, said):
    """In its field, to be corrected; near names are links, and no command of the terminal is proposed."""
    page = read(f"/compare?{query}", status)
    assert "loradar lookup" not in page.text
    assert said in " ".join(page.text.split())
    assert "<script>alert" not in page.html
    (left,) = page.all("input", id="a")
    assert left["value"]
    if "lama" in query and status == 404 and "a=lama" in query:
        assert page.all("a", href="/compare?a=llama&b=gpt2&peft_type=LORA")


def test_without_both_sides_there_is_the_form(read, client):
    """Prefilled with what is known, as the link on an architecture's page has it."""
    page = read("/compare?a=llama")
    assert page.all("input", id="a", value="llama")
    assert not page.all("link", rel="alternate")
    assert client.get("/v1/compare?a=llama").status_code == 422
