"""What is written: revisions, scans, constants, serials."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from records_zoo import VERSION, block_layers, make_scan, proposal, without_gaps

from loradar.domain.layers import Slot
from loradar.errors import DatabaseUnusable, UnknownName
from loradar.registry import PeftConstants, Registry, load_constants, read_constants
from loradar.schema import to_json
from loradar.settings import Settings

LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"


def test_a_scan_is_found_by_a_lookup(any_registry):
    """What was stored comes back whole, with a verification nobody proved."""
    report = any_registry.add_scan(make_scan())
    found = without_gaps(any_registry.lookup("olmo2"))
    assert (report.added, report.unchanged, report.serial) == ((found,), (), 2)
    assert found.spec.target_modules == ("q_proj", "v_proj")
    assert (found.source.kind, found.revision, found.matched, found.trainable) == ("scanner", 1, 4, 128)
    assert found.reasons == ("query and value by name",)
    assert found.verification.status == "unproven"
    assert found.verification.counts == {"q_proj": {"linear": 2}, "v_proj": {"linear": 2}}


def test_blocks_left_alone_are_found_by_a_lookup(any_registry):
    """Named for the scanned depth, with the rule for any other; the rule alone is stored."""
    found = proposal("q_proj")
    spec = replace(found.spec, exclude_blocks=("layers.[-1 of 2].self_attn.q_proj",))
    any_registry.add_scan(make_scan(proposals=(replace(found, **spec.values, matched=1),)))
    mapping = any_registry.lookup("olmo2")
    assert mapping.exclude_modules == ("layers.1.self_attn.q_proj",)
    assert mapping.exclude_blocks == ("layers.[-1 of 2].self_attn.q_proj",)
    assert mapping.spec.exclude_modules is None
    assert mapping.verification.counts == {"q_proj": {"linear": 1}}


def test_the_same_scan_twice_changes_nothing(any_registry):
    """No revision, no serial."""
    first = any_registry.add_scan(make_scan())
    again = any_registry.add_scan(make_scan())
    assert (again.added, again.unchanged, again.serial) == ((), first.added, first.serial)
    assert any_registry.serial() == 2


def test_a_changed_spec_is_the_next_revision_and_so_is_the_way_back(registry):
    """A, B, A are revisions 1, 2, 3, each with an id of its own; the last one is looked up."""
    one, other = (proposal("q_proj", "v_proj"),), (proposal("q_proj"),)
    reports = [registry.add_scan(make_scan(proposals=which)) for which in (one, other, one)]
    added = [report.added[0] for report in reports]
    assert [mapping.revision for mapping in added] == [1, 2, 3]
    assert len({mapping.id for mapping in added}) == 3
    assert without_gaps(registry.lookup("olmo2")) == added[2]
    assert registry.get_architecture("transformers", "olmo2").revisions == tuple(added)


def test_changed_evidence_alone_is_no_revision(registry):
    """Other reasons and counts for the same targets add nothing."""
    registry.add_scan(make_scan())
    changed = replace(proposal("q_proj", "v_proj"), reasons=("traced",), matched=8)
    report = registry.add_scan(make_scan(proposals=(changed,)))
    assert (report.added, report.serial) == ((), 2)


def test_an_id_depends_on_what_a_mapping_says_and_on_nothing_else(registry, tmp_path):
    """Two registries give the same revision the same id, whatever else they hold."""
    registry.add_scan(make_scan("other"))
    here = registry.add_scan(make_scan()).added[0]
    with Registry.open(Settings(tmp_path, "sqlite://")) as elsewhere:
        there = elsewhere.add_scan(make_scan(library_version="4.0.0", fingerprint=None)).added[0]
    assert here.id == there.id
    assert here.id.startswith("sha256:")
    assert len(here.id) == 71


def test_a_new_build_of_an_architecture_replaces_its_facts(registry):
    """Class, version, fingerprint and slots are those of the latest scan; each change bumps the serial."""
    registry.add_scan(make_scan())
    slots = (Slot("language", "head", "linear", "lm_head", 1),)
    scan = replace(make_scan(library_version="6.0.0", class_name="New"), slots=slots, method="dataflow")
    assert registry.add_scan(scan).serial == 3
    detail = registry.get_architecture("transformers", "olmo2")
    assert detail.architecture == scan.architecture
    assert (detail.slots, detail.method, detail.towers) == (slots, "dataflow", scan.towers)


def test_a_scan_without_slots_or_proposals_is_stored(registry):
    """An architecture nothing is proposed for is still known."""
    report = registry.add_scan(replace(make_scan(proposals=()), slots=()))
    assert (report.added, report.serial) == ((), 2)
    assert registry.get_architecture("transformers", "olmo2").mappings == ()


def test_a_scan_checks_what_peft_says(registry):
    """PEFT's entries are verified against the scanned version; those that hit nothing are dead."""
    registry.add_scan(make_scan("llama", proposals=()))
    lora, ia3 = registry.lookup("llama"), registry.lookup("llama", "IA3")
    assert (lora.verification.status, lora.verification.library_version) == ("unproven", VERSION)
    assert ia3.verification.counts["down_proj"] == {"linear": 2}
    assert registry.lookup("llama", "LN_TUNING").verification.status == "partial"


def test_each_version_is_verified_by_itself(registry):
    """A version asked for is answered with its own verdict, none with the newest, an unknown one with the nearest."""
    layers = [layer for layer in block_layers() if "v_proj" not in layer.path]
    registry.add_scan(make_scan("llama", proposals=()))
    registry.add_scan(make_scan("llama", proposals=(), layers=layers, library_version="6.0.0"))
    assert registry.lookup("llama", library_version=VERSION).verification.status == "unproven"
    assert registry.lookup("llama").verification.status == "partial"
    assert registry.lookup("llama", library_version="1.0").verification.library_version == VERSION
    assert registry.lookup("llama", library_version="7.0").verification.library_version == "6.0.0"


def test_a_second_scan_of_a_version_corrects_its_verification(registry):
    """The outcome of the latest check stands; the same outcome is no change."""
    registry.add_scan(make_scan("llama", proposals=()))
    layers = [layer for layer in block_layers() if "v_proj" not in layer.path]
    for _ in range(2):
        report = registry.add_scan(make_scan("llama", proposals=(), layers=layers))
    assert report.serial == 3
    assert registry.lookup("llama", library_version=VERSION).verification.status == "partial"
    assert registry.info().counts["verifications"] == 35


def test_a_proof_is_not_undone_by_reading_names(registry, home):
    """What a gradient proved stays live when a static check finds nothing against it, and not when it does."""
    registry.add_scan(make_scan("llama", proposals=()))
    with closing(sqlite3.connect(home / "registry.sqlite3")) as connection, connection:
        connection.execute("UPDATE verifications SET status = 'live'")
    registry.add_scan(make_scan("llama", proposals=()))
    assert registry.lookup("llama").verification.status == "live"
    registry.add_scan(make_scan("llama", proposals=(), layers=block_layers()[:1]))
    assert registry.lookup("llama").verification.status == "partial"


def test_a_class_without_a_version_is_stored_unverified(registry):
    """A user's own class has no library version a verdict could hold for."""
    report = registry.add_scan(make_scan("pkg.Net", library="torch", library_version=None))
    assert report.added[0].verification is None
    assert registry.lookup("pkg.Net", library="torch").verification is None


def test_a_yanked_mapping_does_not_come_back(registry, home):
    """What was yanked is neither looked up nor revived by the scan that says it again."""
    registry.add_scan(make_scan())
    with closing(sqlite3.connect(home / "registry.sqlite3")) as connection, connection:
        connection.execute("UPDATE mappings SET yanked_at = '2026-01-01', yank_reason = 'wrong' WHERE matched = 4")
    assert registry.find("olmo2") is None
    assert registry.add_scan(make_scan()).added == ()
    assert registry.find("olmo2") is None


def test_a_failed_write_leaves_nothing_behind(registry, monkeypatch):
    """A write is one transaction."""

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr("loradar.registry.store.put_verification", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        registry.add_scan(make_scan())
    assert registry.serial() == 1
    assert registry.find("olmo2") is None


def test_a_write_to_a_spoiled_file_is_refused(registry, home):
    """The driver's error becomes ours."""
    (home / "registry.sqlite3").write_bytes(b"spoiled" * 1000)
    with pytest.raises(DatabaseUnusable, match=r"file is not a database|disk image is malformed"):
        registry.add_scan(make_scan())


def test_the_seed_again_changes_nothing(any_registry):
    """The tables a registry starts with are all there already."""
    report = any_registry.add_constants(load_constants())
    assert (report.added, report.serial) == ((), 1)
    assert len(report.unchanged) == any_registry.info().counts["mappings"]


def test_a_newer_peft_adds_only_what_changed(registry):
    """An entry that differs is a new revision with the new version as its source; the others keep theirs."""
    newer = PeftConstants("0.99.0", {LORA: {"llama": ["q_proj"], "gpt2": ["c_attn"]}}, {"SIZE": 3})
    report = registry.add_constants(newer)
    assert [(m.name, m.revision, m.source.version) for m in report.added] == [("llama", 2, "0.99.0")]
    assert [(m.name, m.revision, m.source.version) for m in report.unchanged] == [("gpt2", 1, "0.21.2")]
    assert registry.lookup("llama").spec.target_modules == ("q_proj",)


def test_a_conditional_entry_says_so(registry, tmp_path):
    """A mapping PEFT makes only under a condition carries the condition as its reason."""
    path = tmp_path / "constants.py"
    path.write_text(f"{LORA} = {{}}\nif is_new:\n    {LORA}['brand_new'] = ['q_proj']\n")
    registry.add_constants(read_constants(path, "9.9"))
    assert registry.lookup("brand_new").reasons == (
        "PEFT sets it only if is_new",
        "no size, coverage or verification: no scan of transformers:brand_new is on record",
    )


def test_a_raw_constant_carries_its_source(any_registry):
    """Constants that are no mappings are kept as they are, conditions included."""
    heads = any_registry.constant("SEQ_CLS_HEAD_NAMES")
    assert (heads.value, to_json(heads.source)) == (["score", "classifier"], {"kind": "peft", "version": "0.21.2"})
    postprocess = any_registry.constant("TRANSFORMERS_MODELS_TO_PREFIX_TUNING_POSTPROCESS_MAPPING", "0.21.2")
    assert {entry["key"] for entry in to_json(postprocess)["conditional"]} == {"gpt_bigcode", "bloom"}


def test_the_newest_constants_answer_first(registry):
    """Without a version the last one stored is meant; a version never stored has none."""
    registry.add_constants(PeftConstants("0.99.0", {}, {"SEQ_CLS_HEAD_NAMES": ["head"]}))
    registry.add_constants(PeftConstants("0.99.0", {}, {"SEQ_CLS_HEAD_NAMES": ["head", "top"]}))
    assert registry.constant("SEQ_CLS_HEAD_NAMES").value == ["head", "top"]
    assert registry.constant("SEQ_CLS_HEAD_NAMES", "0.21.2").value == ["score", "classifier"]
    with pytest.raises(UnknownName, match="Closest: 'SEQ_CLS_HEAD_NAMES'"):
        registry.constant("SEQ_CLS_HEADS_NAMES")


def test_a_regex_stays_a_string(registry):
    """PEFT's gemma4 entry is a regex, not a list of letters."""
    assert registry.lookup("gemma4").spec.target_modules == r".*language_model\..*\.(q_proj|v_proj)"


def test_ia3_carries_its_feedforward_modules(registry):
    """They come from a table of their own; an empty list is not the same as none."""
    assert registry.lookup("bert", "IA3").spec.feedforward_modules == ("output.dense",)
    assert registry.lookup("mt5", "IA3").spec.feedforward_modules == ()
    assert registry.lookup("bert").spec.feedforward_modules is None


def test_every_target_table_became_mappings(registry):
    """Every entry of every table of targets can be looked up under its PEFT type."""
    constants = load_constants()
    tables = [name for name in constants.tables if name.endswith("_TARGET_MODULES_MAPPING")]
    assert registry.info().counts["mappings"] == sum(len(constants.tables[name]) for name in tables)


def test_a_scan_without_proof_changes_nothing_where_there_is_one(registry):
    """It knows less; of another structure, or another version, it is news."""
    proved = replace(make_scan(), proof="1/8 of its widths: forward, backward")
    registry.add_scan(proved)
    bare = replace(proved, proof=None, proposals=(proposal("k_proj"),))
    report = registry.add_scan(bare)
    assert report.added == ()
    assert {mapping.spec for mapping in report.unchanged} == {stated.spec for stated in proved.proposals}
    other = replace(bare, architecture=replace(bare.architecture, fingerprint="sha256:other"))
    assert registry.add_scan(other).added
