"""What a notebook shows of a mapping and of a scan: the answer, as text that stays text, and as a picture."""

from dataclasses import replace

import pytest
from matplotlib.colors import to_hex
from records_zoo import block_layers, make_scan

from loradar.domain.layers import Layer, stack_layers
from loradar.domain.mappings import MAPPING_EXAMPLE, ArchitectureName
from loradar.errors import MissingExtra
from loradar.notebook import COLOURS, MOST_ROWS, UNTOUCHED


def test_a_mapping_shows_its_targets_and_their_source():
    """In a table without colours of its own."""
    html = MAPPING_EXAMPLE._repr_html_()
    assert ">transformers:llama · LORA · default</caption>" in html
    assert ">q_proj, v_proj</td>" in html
    assert ">peft 0.21.2</td>" in html
    assert "color" not in html


def test_a_scan_shows_its_slots():
    """A row of each, without norms."""
    scan = make_scan("My.Net", library="torch")
    html = scan._repr_html_()
    assert html.count("<tr>") == 1 + sum(slot.role != "norm" for slot in scan.slots)
    assert all(slot.pattern in html for slot in scan.slots if slot.role != "norm")


def test_many_rows_are_folded():
    """None is lost."""
    reasons = tuple(f"expert {number}" for number in range(MOST_ROWS))
    seen, _, folded = replace(MAPPING_EXAMPLE, reasons=reasons)._repr_html_().partition("<details><summary>")
    assert (seen + folded).count(">expert ") == MOST_ROWS
    assert seen.count("<tr>") == MOST_ROWS
    assert folded.startswith(f"{folded.count('<tr>')} more rows</summary>")


def test_names_stay_text():
    """Whatever somebody registered."""
    name = ArchitectureName("torch", "<script>alert(1)</script>")
    html = replace(MAPPING_EXAMPLE, architecture=name, reasons=("<b>&",))._repr_html_()
    assert "<script>" not in html
    assert "&lt;b&gt;&amp;" in html


def test_a_picture_shows_the_adapted_layers_of_each_block():
    """In the colour of their role; a row for each kind of layer."""
    seen = [layer("vision.patch", "vision"), layer("vision.blocks.0.fc", "vision", "vision.blocks.0")]
    language = [replace(each, tower="language", block=find_block(each.path)) for each in block_layers()]
    scan = make_scan(layers=[*language, *seen])
    figure = scan.plot()
    assert figure.get_suptitle() == "transformers:olmo2 · LORA default · 4 layers adapted"
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "language · model.layers.*: 2 of 2 blocks"
    assert titles[1:] == ["language · outside blocks", "vision · outside blocks", "vision · vision.blocks.*"]
    blocks = figure.axes[0]
    rows = [text.get_text() for text in blocks.get_yticklabels()]
    drawn = {}
    for bar in blocks.patches:
        if bar.get_height():
            drawn[rows[round(bar.get_y() + 0.4)], round(bar.get_x() + 0.43)] = to_hex(bar.get_facecolor())
    queries = next(row for row in rows if "q_proj" in row)
    assert queries == "self_attn.q_proj  (attention.query)"
    assert drawn[queries, 0] == drawn[queries, 1] == COLOURS["attention"]
    assert drawn[next(row for row in rows if "o_proj" in row), 1] == UNTOUCHED


def test_a_row_of_several_layers_has_their_share():
    """Such as experts; norms are left out until they are adapted."""
    experts = [layer(f"net.{n}.experts.{each}", "language", f"net.{n}") for n in (0, 1) for each in range(4)]
    norms = [replace(layer("net.0.norm", "language", "net.0"), kind="norm", role="norm")]
    rows = stack_layers([*experts, *norms], {"net.0.experts.1"})
    assert rows == {"language · net.*": {("other", "experts.*"): {0: 0.25, 1: 0.0}}}
    assert stack_layers(norms, {"net.0.norm"}) == {"language · net.*": {("norm", "norm"): {0: 1.0}}}


def test_a_picture_without_matplotlib_names_the_extra(monkeypatch):
    """In one line."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'loradar\[plot\]'"):
        make_scan().plot()


def layer(path, tower, block=None):
    """Return a linear layer."""
    return Layer(path=path, kind="linear", class_name="Linear", shape=(4, 4), role="other", tower=tower, block=block)


def find_block(path):
    """Return the block of the decoder that holds a layer."""
    return ".".join(path.split(".")[:3]) if path.startswith("model.layers.") else None
