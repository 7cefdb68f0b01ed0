"""Lookup: precedence, and why nothing was found."""

import pytest
from records_zoo import layer, make_scan, proposal, without_gaps

from loradar.domain.architectures import ArchitectureName
from loradar.domain.mappings import Mapping, Source, Verification
from loradar.errors import NotRegistered, UnknownPeftType, UnknownPreset
from loradar.registry.mappings.precedence import best, latest_revisions


def mapping(kind, status=None, revision=1, name="llama"):
    """Return a mapping from a kind of source, with a verdict."""
    verification = Verification(status, "5.0", {}, 0.5) if status else None
    identity = f"{kind}-{revision}"
    return Mapping(
        architecture=ArchitectureName("transformers", name),
        peft_type="LORA",
        preset="default",
        id=identity,
        source=Source(kind, "1"),
        revision=revision,
        verification=verification,
    )


@pytest.mark.parametrize(
    ("candidates", "winner"),
    [
        ([("scanner", None), ("peft", None), ("community", None)], "community"),
        ([("scanner", "live"), ("peft", "unproven")], "peft"),
        ([("scanner", "unproven"), ("peft", "dead")], "scanner"),
        ([("scanner", None), ("community", "partial")], "scanner"),
        ([("scanner", "dead"), ("peft", "partial"), ("community", "dead")], "peft"),
        ([("scanner", "dead"), ("peft", "dead")], "peft"),
        ([("scanner", "partial"), ("community", "partial")], "community"),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_precedence(candidates, winner, is_reversed):
    """Community, PEFT, scanner; but dead loses to partial and partial to everything else, whoever says it."""
    ordered = candidates[::-1] if is_reversed else candidates
    assert best(mapping(*one) for one in ordered).source.kind == winner


def test_nothing_is_best_of_nothing():
    """No candidates, no mapping."""
    assert best([]) is None


def test_only_the_latest_revision_of_a_source_stands():
    """An older revision does not come back because the latest one is dead."""
    old, new = mapping("scanner", "live", 1), mapping("scanner", "dead", 2)
    assert latest_revisions([new, old]) == [new]


def test_the_scanner_answers_where_peft_is_dead(registry):
    """A registered entry that hits nothing on the version asked for gives way, and only for that version."""
    layers = [layer("bert.encoder.layer.0.attention.self.query"), layer("bert.encoder.layer.0.attention.self.value")]
    registry.add_scan(make_scan("bert", proposals=(proposal("q_proj", "v_proj"),)))
    registry.add_scan(make_scan("bert", proposals=(proposal("query"),), layers=layers, library_version="4.0.0"))
    assert registry.lookup("bert").source.kind == "scanner"
    assert registry.lookup("bert", library_version="4.0").source.kind == "peft"


def test_peft_answers_where_it_is_not_worse(registry):
    """The scanner's own proposal comes second."""
    registry.add_scan(make_scan("llama", proposals=(proposal("q_proj"),)))
    assert registry.lookup("llama").source.kind == "peft"


def test_peft_types_are_known_in_any_case(registry):
    """``ia3`` is ``IA3``."""
    assert registry.lookup("llama", "ia3") == registry.lookup("llama", "IA3")


def test_a_miss_names_near_names_and_a_command(registry):
    """The message says what to do, the details carry it for programs."""
    with pytest.raises(NotRegistered, match=r"Closest: 'llama'\. Try: loradar lookup llama") as caught:
        registry.lookup("lama")
    assert "llama" in caught.value.near
    assert caught.value.details["command"] == "loradar lookup llama"
    assert (caught.value.details["library"], caught.value.details["has"]) == ("transformers", {})
    assert registry.find("lama") is None


def test_a_miss_of_another_library_names_its_reference(registry):
    """One that has the name is pointed at."""
    with pytest.raises(
        NotRegistered, match=r"of timm is called 'llama'\. Closest: 'llama'\. Try: loradar lookup llama"
    ):
        registry.lookup("llama", library="timm")


def test_a_miss_says_which_presets_there_are(registry):
    """Known for the PEFT type, but not for the preset; or not for the PEFT type."""
    registry.add_scan(make_scan(proposals=(proposal("q_proj"), proposal("up_proj", preset="mlp"))))
    with pytest.raises(NotRegistered, match="It has one for LORA: 'default', 'mlp'"):
        registry.lookup("olmo2", preset="attention")
    with pytest.raises(NotRegistered, match="It has one for preset 'default': LORA; for preset 'mlp': LORA") as caught:
        registry.lookup("olmo2", "IA3")
    assert caught.value.details["has"] == {"LORA": ["default", "mlp"]}


@pytest.mark.parametrize("method", ["lookup", "find"])
def test_unknown_words_are_refused(registry, method):
    """A preset or PEFT type nobody knows is a mistake, not a miss; near ones are listed."""
    ask = getattr(registry, method)
    with pytest.raises(UnknownPreset, match=r"Unknown preset 'defualt'. Closest: 'default'"):
        ask("llama", preset="defualt")
    with pytest.raises(UnknownPeftType, match=r"Unknown PEFT type 'LORRA'. Closest: 'LORA'"):
        ask("llama", "LORRA")


def test_a_structure_is_found_by_its_fingerprint(registry):
    """Whatever the architecture is called; an unknown structure has none."""
    scan = make_scan()
    registry.add_scan(scan)
    assert registry.find_by_fingerprint(scan.architecture.fingerprint) == without_gaps(registry.lookup("olmo2"))
    assert registry.find_by_fingerprint(scan.architecture.fingerprint, "IA3") is None
    assert registry.find_by_fingerprint("sha256:ff") is None


def test_of_two_architectures_with_one_structure_the_better_mapping_answers(registry):
    """Precedence holds across names; llama's entry is PEFT's."""
    scan = make_scan("llama")
    registry.add_scan(make_scan("a_copy"))
    registry.add_scan(scan)
    assert registry.find_by_fingerprint(scan.architecture.fingerprint).name == "llama"
    with pytest.raises(UnknownPreset, match="Unknown preset"):
        registry.find_by_fingerprint("sha256:ff", preset="none")
