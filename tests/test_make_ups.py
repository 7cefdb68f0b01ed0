"""Make-ups of composite types: those that checkpoints have are scanned, proved and answered; others can be added."""

from importlib import metadata

import pytest

from loradar.catalog.entries import list_make_ups, read_catalog
from loradar.cli import main
from loradar.data import read_facts
from loradar.discovery import scan, scan_named
from loradar.discovery.catalog import How
from loradar.domain.architectures import name_make_up, split_make_up
from loradar.domain.targets import find_hits
from loradar.errors import ScanFailed
from loradar.registry import catalog_entry
from loradar.registry.peft_constants.constants_text import constants_python

STATED = {
    name_make_up(name, {part: kind for part, kind in one.items() if part != "checkpoint"})
    for name, make_ups in read_facts("make_ups.toml")["transformers"].items()
    for one in make_ups
}
PACKAGED = {entry.architecture.name: entry for file in list_make_ups() for entry in read_catalog(file).entries}
UNPROVEN = {"mask2former[backbone=resnet]"}
"""No inputs were found that run it whole, as for mask2former itself."""


def test_every_stated_make_up_is_scanned_and_proved():
    """In the version of the catalog, with parts of the types that its name states."""
    assert {*PACKAGED} == STATED
    for name, entry in PACKAGED.items():
        assert entry.architecture.library_version == metadata.version("transformers")
        types = {part.name: part.model_type for part in entry.parts}
        assert split_make_up(name)[1].items() <= types.items()
        statuses = {p.preset: check.status for p, check in zip(entry.proposals, entry.checks, strict=True)}
        assert (statuses["default"] == "live") != (name in UNPROVEN), name


def test_a_make_up_is_scanned_to_the_packaged_entry():
    """`make catalog` gives the same on another machine."""
    name = "encoder-decoder[decoder=gpt2]"
    assert catalog_entry(scan_named("transformers", name, How(proved=True))) == PACKAGED[name]


@pytest.mark.parametrize(
    ("name", "parts", "targets"),
    [
        ("blip-2", {"text": "t5"}, ("q", "v")),
        ("vision-encoder-decoder", {"encoder": "deit", "decoder": "trocr"}, ("q_proj", "v_proj")),
        ("vision-encoder-decoder", {"decoder": "gpt2"}, ("q_attn", "c_attn")),
    ],
)
def test_a_make_up_on_record_is_answered_as_proved(registry, name, parts, targets):
    """Under the name of the composite, with the make-up in words."""
    found = registry.lookup(name, parts=parts)
    assert (found.name, found.target_modules, found.verification.status) == (name, targets, "live")
    assert found.coverage
    assert found.formula
    words = ", ".join(f"{part.name} model {part.model_type}" for part in found.parts)
    assert f"holds for {words}" in found.reasons
    assert not [reason for reason in found.reasons if "default configuration" in reason]


def test_the_default_answer_is_that_of_the_default_make_up(registry):
    """A make-up is an architecture of its own: it replaces nothing."""
    assert registry.lookup("vision-encoder-decoder").target_modules == ("query", "value")
    assert registry.lookup("blip-2[text=t5]").target_modules == ("q", "v")


def test_a_composed_answer_names_the_command_that_proves_it(registry):
    """Until somebody scans that make-up."""
    found = registry.lookup("vision-encoder-decoder", parts={"decoder": "opt"})
    assert found.verification.status == "unproven"
    command = "loradar scan vision-encoder-decoder --part decoder=opt --prove --store"
    assert f"run it with: {command}" in found.verification.findings


def test_a_make_up_that_a_user_scans_is_answered_then(registry):
    """The name is the same in whichever order the parts are given."""
    made_up = scan("vision-text-dual-encoder[vision=clip_vision_model,text=electra]", method="names")
    assert made_up.architecture.name == "vision-text-dual-encoder[text=electra,vision=clip_vision_model]"
    registry.add_scan(made_up)
    parts = {"vision": "clip_vision_model", "text": "electra"}
    found = registry.lookup("vision-text-dual-encoder", parts=parts)
    hits = {layer.path for layer in find_hits(found.spec, made_up.layers)}
    assert hits == {layer.path for layer in find_hits(made_up.propose("LORA").spec, made_up.layers)}
    assert "holds for text model electra, vision model clip_vision_model" in found.reasons


@pytest.mark.usefixtures("read_settings")
def test_the_command_scans_a_make_up(capsys):
    """``--part`` as in a lookup."""
    with pytest.raises(SystemExit) as stopped:
        main(["scan", "llava", "--part", "text=qwen2", "--method", "names"])
    assert not stopped.value.code
    assert "transformers:llava[text=qwen2]" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "says"), [("blip-2[words=t5]", "text"), ("llama[text=t5]", "none")])
def test_an_unknown_part_is_named_with_those_that_there_are(name, says):
    """One line, as for a lookup."""
    with pytest.raises(ScanFailed, match=f"has no part '.*' of a free type. Those that it has: {says}"):
        scan(name, method="names")


def test_whole_libraries_take_no_part(capsys, tmp_path):
    """An option is honoured or rejected."""
    with pytest.raises(SystemExit) as stopped:
        main(["scan", "--all", "timm", "--out", str(tmp_path / "x"), "--part", "text=t5"])
    assert stopped.value.code == 2
    assert "--all takes --out" in capsys.readouterr().err


def test_make_ups_are_no_entries_of_peft_s_tables(registry):
    """A key there is a model type."""
    mappings = [m for m in registry.list_mappings("transformers") if m.name.startswith("encoder-decoder")]
    assert [mapping for mapping in mappings if "[" in mapping.name]
    written = constants_python(mappings, only_ours=True)
    assert '"encoder-decoder": [' in written
    assert "[text=" not in written
