"""What a notebook shows of a mapping and of a scan: the answer, as text that stays text."""

from dataclasses import replace

from records_zoo import make_scan

from loradar.domain.mappings import MAPPING_EXAMPLE, ArchitectureName


def test_a_mapping_shows_its_targets_and_their_source():
    """In a table without colours of its own."""
    html = MAPPING_EXAMPLE._repr_html_()
    assert "<caption>transformers:llama · LORA · default</caption>" in html
    assert ">q_proj, v_proj</td>" in html
    assert ">peft 0.21.2</td>" in html
    assert "color" not in html


def test_a_scan_shows_its_slots():
    """A row of each, without norms."""
    scan = make_scan("My.Net", library="torch")
    html = scan._repr_html_()
    assert html.count("<tr>") == 1 + sum(slot.role != "norm" for slot in scan.slots)
    assert all(slot.pattern in html for slot in scan.slots if slot.role != "norm")


def test_names_stay_text():
    """Whatever somebody registered."""
    name = ArchitectureName("torch", "<script>alert(1)</script>")
    html = replace(MAPPING_EXAMPLE, architecture=name, reasons=("<b>&",))._repr_html_()
    assert "<script>" not in html
    assert "&lt;b&gt;&amp;" in html
