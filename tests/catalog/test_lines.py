"""The compact form of the catalog: written and read, without anything lost."""

from dataclasses import replace

import pytest

from loradar.catalog.entries import CatalogEntry, CatalogHeader, catalog_lines, list_catalogs, read_catalog
from loradar.domain.architectures import Architecture, ModelPart, PromptFacts
from loradar.domain.layers import Coverage, Slot
from loradar.domain.mappings import Verification
from loradar.domain.scans import Proposal
from loradar.domain.targets import Formula, TargetSpec
from loradar.errors import InvalidRequest
from loradar.schema import from_json, to_json

HEADER = CatalogHeader("transformers", "5.23.0", "0.1.0", "0.21.2")


def entry(name="olmo2", layers=32, target="q_proj"):
    """Return an entry with one slot and two proposals that share a reason."""
    spec = TargetSpec(target_modules=(target,))
    covered = (Coverage("model.layers.*", layers // 2, layers, "language"),)
    hit = f"model.layers.*.{target} is attention.query ({layers} layers)"
    hits = {target: {"linear": layers}}
    check = Verification("unproven", "5.23.0", hits, 0.25)
    proposals = tuple(
        Proposal(
            peft_type="LORA",
            preset=preset,
            **spec.values,
            matched=layers,
            formula=Formula(layers, 0),
            coverage=covered,
            reached=0.25,
            reasons=(hit, why, "only layers in the blocks"),
        )
        for preset, why in (("default", "by convention"), ("attention", "every projection"))
    )
    return CatalogEntry(
        architecture=Architecture(
            "transformers", name, "Olmo2ForCausalLM", "5.23.0", "sha256:" + "0" * 64, "sha256:" + "1" * 64
        ),
        method="dataflow",
        towers={"language": ("model",), "vision": ()},
        slots=(Slot("language", "attention.query", "linear", f"model.layers.*.{target}", layers),),
        proposals=proposals,
        checks=(check, check),
        prompt_facts=PromptFacts(layers, 8),
        peft=(("LORA", replace(check, status="dead", counts={"w2": {}})), ("IA3", check)),
    )


UNSCANNED = CatalogEntry(Architecture("transformers", "none"), unscanned="It does not build.")


def write(path, *entries):
    """Write a catalog file and return it."""
    path.write_text("".join(line + "\n" for line in catalog_lines(HEADER, entries)), "utf-8")
    return path


def test_what_is_written_is_read(tmp_path):
    """Entries come back equal, with their counts and reasons, and so does why one is missing."""
    entries = (entry(), entry("olmo3", 64), UNSCANNED)
    catalog = read_catalog(write(tmp_path / "catalog.jsonl", *entries))
    assert catalog.header == HEADER
    assert catalog.entries == (entry(), entry("olmo3", 64), UNSCANNED)


def test_the_whole_form_comes_back_too():
    """What a worker hands over loses nothing either."""
    for one in (entry(), UNSCANNED):
        assert from_json(CatalogEntry, to_json(one)) == one


def test_a_structure_is_written_once():
    """Depth is an architecture's own; what it stands for is shared; another target is another structure."""
    lines = [*catalog_lines(HEADER, [entry(), entry("olmo3", 64), entry("other", target="k_proj")])]
    kinds = ["slots" if "slots" in line else "text" if "text" in line else "" for line in lines]
    assert kinds == ["", "slots", "text", "text", "text", "", "", "slots", ""]


def test_what_can_be_worked_out_is_not_written(tmp_path):
    """What a spec hits follows from the slots; where it does not, it is written, and comes back either way."""
    one = entry()
    odd = replace(one, checks=(one.checks[0], replace(one.checks[1], counts={"q_proj": {"linear": 7}}, reached=0.5)))
    assert not any('"hits":{"q_proj"' in line for line in catalog_lines(HEADER, [replace(one, peft=())]))
    assert any('"hits":{"q_proj":{"linear":7}}' in line for line in catalog_lines(HEADER, [odd]))
    assert read_catalog(write(tmp_path / "catalog.jsonl", odd)).entries == (odd,)


def test_blocks_left_alone_are_read_as_written(tmp_path):
    """The layers a spec matches follow from the blocks of the slots; no index is written."""
    one = entry()
    path = "model.layers.*.q_proj"
    slots = (
        Slot("language", "attention.query", "linear", path, 31, live=True, blocks=":-1"),
        Slot("language", "attention.query", "linear", path, 1, live=False, proof="dead", blocks="-1"),
    )
    spec = TargetSpec(("q_proj",), exclude_blocks=("layers.[-1 of 32].q_proj",))
    proposal = replace(one.proposals[0], **spec.values, matched=31)
    check = Verification("live", "5.23.0", {"q_proj": {"linear": 31}}, 0.25)
    apart = replace(one, slots=slots, proposals=(proposal,), checks=(check,), peft=())
    assert read_catalog(write(tmp_path / "catalog.jsonl", apart)).entries == (apart,)
    written = (tmp_path / "catalog.jsonl").read_text("utf-8")
    assert "layers.31" not in written
    assert '"hits"' not in written


def test_the_catalog_that_comes_along_is_sorted():
    """Every file is readable, and its names are sorted and unique."""
    files = list_catalogs()
    assert files
    for file in files:
        names = [one.architecture.name for one in read_catalog(file).entries]
        assert names == sorted(set(names))


@pytest.mark.parametrize(
    ("line", "number"),
    [("", 1), ('{"catalog":9}\n', 1), ("shopping list\n", 1), ("HEADER\n{}\n", 2), ('HEADER\n{"name":"x"}\n', 2)],
)
def test_what_is_no_catalog_is_named(tmp_path, line, number):
    """The message says which line of which file."""
    path = tmp_path / "catalog.jsonl"
    path.write_text(line.replace("HEADER", next(catalog_lines(HEADER, ()))))
    with pytest.raises(InvalidRequest, match=rf"Invalid catalog line {number} in .*catalog\.jsonl"):
        read_catalog(path)


def test_parts_are_written_where_there_are_any(tmp_path):
    """A line without them, as all were before, has none."""
    parts = (ModelPart("text", "opt", True, "language_model", "OPTForCausalLM", False), ModelPart("eye", "vit", False))  # noqa: FBT003
    file = write(tmp_path / "own.jsonl", replace(entry("blip-2"), parts=parts), entry("llama", target="k_proj"))
    assert [one.parts for one in read_catalog(file).entries] == [parts, ()]
    assert file.read_text("utf-8").count('"parts"') == 1
