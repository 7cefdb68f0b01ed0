"""The support matrix: as committed it is what the catalog says, and it reads whatever a catalog may say."""

import sys
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from packaged import packaged_catalogs

from loradar.catalog.entries import Catalog, CatalogEntry, CatalogHeader
from loradar.domain.architectures import Architecture
from loradar.domain.mappings import Verification
from loradar.domain.scans import Proposal
from loradar.domain.targets import Formula, TargetSpec

DOCS = Path(__file__).parent.parent / "docs/evidence"
MOST_BYTES = 10_000


@pytest.fixture(scope="module")
def matrix():
    """The script as a module; it finds its neighbour as it does when run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(DOCS.parent / "scripts"), *sys.path])
        yield import_module("support_matrix")


@pytest.fixture(scope="module")
def catalogs(matrix):
    """The catalogs in the order of the page."""
    found = {catalog.header.library: catalog for catalog in packaged_catalogs()}
    return [found[library] for library in matrix.LIBRARIES]


def test_the_page_is_what_the_catalog_says(matrix, catalogs):
    """Whoever changes the catalog runs `make matrix`."""
    assert (DOCS / "support-matrix.md").read_text("utf-8") == matrix.document(catalogs)
    assert (DOCS / "support-matrix.svg").read_text("utf-8") == matrix.picture(catalogs)


def test_the_script_writes_both_files(matrix, catalogs, tmp_path, monkeypatch):
    """As `make matrix` runs it."""
    monkeypatch.setattr(sys, "argv", ["support_matrix.py", "--out", str(tmp_path)])
    matrix.main()
    assert (tmp_path / "support-matrix.md").read_text("utf-8") == matrix.document(catalogs)
    assert (tmp_path / "support-matrix.svg").read_text("utf-8") == matrix.picture(catalogs)


def test_every_architecture_is_there_once(matrix, catalogs):
    """In the table of the site if it was scanned, else with the reason in the page, which stays readable."""
    page, lines = matrix.document(catalogs), [*matrix.list_architectures(catalogs)]
    assert len(page.encode()) <= MOST_BYTES
    listed = sorted((line["library"], line["name"]) for line in lines)
    scanned = [(c.header.library, e.architecture.name) for c in catalogs for e in c.entries if e.unscanned is None]
    assert listed == sorted(scanned)
    left = [e.architecture.name for c in catalogs for e in c.entries if e.unscanned is not None]
    assert all(f"- `{name}`: " in page for name in left)


def entry(name, status="live", layers=64, peft=None, methods=("LORA",)):
    """Return an entry whose default fared so."""
    spec, check = TargetSpec(("q",)), Verification(status, "1.0", {"q": {"linear": layers}}, 0.5)
    proposals = tuple(
        Proposal(
            peft_type=method,
            preset="default",
            **spec.values,
            matched=layers,
            formula=Formula(8, 0),
            reasons=("why",),
        )
        for method in methods
    )
    return CatalogEntry(
        Architecture("timm", name, "Net", "1.0", "sha256:0"),
        method="dataflow",
        towers={},
        proposals=proposals,
        checks=tuple(check for _ in proposals),
        peft=(("LORA", Verification(peft, "1.0", {}, 0.1)),) if peft else (),
    )


def catalog_of(library, *entries):
    """Return a catalog of these entries."""
    return Catalog(CatalogHeader(library, "1.0", "0.1.0", "0.21.2"), entries)


MIXED = (
    entry("a"),
    entry("b", "partial", peft="dead"),
    entry("c", "dead", methods=("IA3", "LORA")),
    entry("d", "unproven", 12),
    CatalogEntry(Architecture("timm", "e"), unscanned="It needs\na package | more."),
)


def test_every_outcome_is_stated(matrix):
    """In the line of its architecture, with the layers; what was not scanned is named with its reason."""
    catalogs = [catalog_of("transformers", *MIXED)]
    lines = {line["name"]: line for line in matrix.list_architectures(catalogs)}
    assert lines["a"]["presets"] == {"default": {"status": "live", "layers": 64}}
    assert (lines["b"]["presets"]["default"]["status"], lines["b"]["peft"]) == ("partial", "dead")
    assert (lines["c"]["methods"], lines["c"]["methods_key"]) == (("IA3", "LORA"), "B")
    assert lines["d"]["presets"]["default"] == {"status": "unproven", "layers": 12}
    text = matrix.document(catalogs)
    for line in (
        "- A: LORA\n- B: IA3, LORA\n",
        "- `e`: It needs a package | more.",
        "| `default` live | 1 (20.0%) |",
        "| PEFT has a LoRA entry | 1 (20.0%) |",
        "| PEFT's entry is dead | 1 (20.0%) |",
    ):
        assert line in text


def test_a_bar_is_as_long_as_its_share(matrix):
    """Widths of the parts, ours above PEFT's, and the share in words."""
    root = ET.fromstring(matrix.picture([catalog_of("timm", *MIXED[:4])]))  # noqa: S314 - ours
    name = "{http://www.w3.org/2000/svg}"
    bars = [one for one in root.iter(f"{name}rect") if one.get("height") == "22"]
    full = float(bars[0].get("width"))
    assert [float(one.get("width")) / full for one in bars] == pytest.approx([1, 0.25, 0.25, 0.5, 1, 0.25])
    texts = [one.text for one in root.iter(f"{name}text")]
    assert "25.0% live" in texts
    assert "none" in texts
