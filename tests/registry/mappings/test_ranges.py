"""Scans under several library versions: ranges grow or are split, and lookups choose by version."""

import re
from dataclasses import replace

import pytest
from records_zoo import layer, make_scan, proposal, without_gaps

from loradar.catalog.layer_names import NameHistory
from loradar.domain.architectures import PromptFacts
from loradar.domain.layers import Slot
from loradar.domain.mappings import Source
from loradar.domain.versions import Versions
from loradar.errors import InvalidRequest, NotRegistered, VersionUnproven
from loradar.registry import Registry, sqlite_lookup
from loradar.registry.mappings import resolve
from loradar.schema import from_json, to_json
from loradar.settings import Settings

OLD, NEW = "4.57.1", "5.24.0"


def recall(monkeypatch, history):
    """Let every lookup find this history of layer names."""
    for module in (resolve, sqlite_lookup):
        monkeypatch.setattr(module, "find_history", lambda *_: history)


@pytest.fixture(autouse=True)
def no_history(monkeypatch):
    """The names here are made up: the packaged history does not hold for them."""
    recall(monkeypatch, None)


@pytest.fixture(params=["file", "postgres"])
def any_registry(request, tmp_path):
    """A registry of either kind."""
    if request.param == "file":
        yield request.getfixturevalue("registry")
        return
    with Registry.open(Settings(tmp_path, request.getfixturevalue("postgres_url"))) as opened:
        yield opened


def seen(version, *targets, name="olmo2", **parts):
    """Return a scan under a version whose layers have these names, and that proposes them."""
    layers = [layer(f"model.layers.{n}.self_attn.{target}") for n in range(2) for target in targets or ("q_proj",)]
    scan = make_scan(name, library_version=version, layers=layers, proposals=(proposal(*targets),))
    return replace(scan, **parts)


def ranges(registry, name="olmo2"):
    """Return targets and range of every revision of the scanner, oldest first."""
    revisions = registry.get_architecture("transformers", name).revisions
    own = [one for one in revisions if one.source.kind == "scanner"]
    return [(one.spec.target_modules[0], one.versions.since, one.versions.until) for one in own]


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD)])
def test_the_same_targets_extend_the_range(any_registry, order):
    """Whichever version is scanned first; one mapping holds for all that lies between."""
    first, second = (any_registry.add_scan(seen(version, "q_proj")) for version in order)
    assert len(first.added) == 1
    assert (second.added, second.unchanged, len(second.extended)) == ((), (), 1)
    assert second.extended[0].verification.library_version == order[1]
    assert ranges(any_registry) == [("q_proj", OLD, NEW)]
    assert without_gaps(any_registry.lookup("olmo2", library_version="5.0.0")).reasons == ("query and value by name",)
    again = any_registry.add_scan(seen(order[0], "q_proj"))
    assert (again.added, again.extended, again.serial) == ((), (), second.serial)


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD)])
def test_other_targets_get_a_range_of_their_own(any_registry, order):
    """Each version is answered with its own names; without a version, the newest is."""
    targets = {OLD: "query", NEW: "q_proj"}
    for version in order:
        any_registry.add_scan(seen(version, targets[version]))
    assert set(ranges(any_registry)) == {("query", OLD, OLD), ("q_proj", NEW, NEW)}
    for version in order:
        found = any_registry.lookup("olmo2", library_version=version)
        assert found.spec.target_modules == (targets[version],)
        assert (found.versions, found.verification.library_version) == (Versions(version, version), version)
    assert any_registry.lookup("olmo2").spec.target_modules == ("q_proj",)
    detail = any_registry.get_architecture("transformers", "olmo2")
    assert [one.spec.target_modules for one in detail.mappings] == [("q_proj",)]
    assert detail.architecture.library_version == NEW


def test_a_version_in_the_middle_splits_a_range(registry):
    """What was seen there holds there; on both sides the first mapping still does."""
    registry.add_scan(seen(OLD, "q_proj"))
    registry.add_scan(seen(NEW, "q_proj"))
    registry.add_scan(seen("5.0.0", "qkv"))
    found = [registry.lookup("olmo2", library_version=v).spec.target_modules for v in (OLD, "5.0.0", "5.0", NEW)]
    assert found == [("q_proj",), ("qkv",), ("qkv",), ("q_proj",)]


def test_no_range_reaches_over_a_version_that_says_otherwise(registry):
    """The way back to the first targets is a revision of its own."""
    for version, target in ((OLD, "q_proj"), ("5.0.0", "qkv"), (NEW, "q_proj")):
        registry.add_scan(seen(version, target))
    assert ranges(registry) == [("q_proj", OLD, OLD), ("qkv", "5.0.0", "5.0.0"), ("q_proj", NEW, NEW)]


def test_a_better_scan_of_one_version_leaves_the_other_alone(registry):
    """The latest revision counts where it was seen, and only there."""
    for version, target in ((OLD, "q_proj"), (NEW, "q_proj"), (NEW, "qkv")):
        registry.add_scan(seen(version, target))
    assert registry.lookup("olmo2", library_version=NEW).spec.target_modules == ("qkv",)
    assert registry.lookup("olmo2", library_version=OLD).spec.target_modules == ("q_proj",)


@pytest.mark.parametrize(
    ("asked", "target", "says"),
    [("6.1", "q_proj", "seen at 5.24.0, the nearest to 6.1"), ("4.0", "query", "seen at 4.57.1, the nearest to 4.0")],
)
def test_a_version_outside_of_those_seen_gets_the_nearest_and_says_so(registry, asked, target, says):
    """Beyond either end there is no other version it could have the names of."""
    registry.add_scan(seen(OLD, "query"))
    registry.add_scan(seen(NEW, "q_proj"))
    found = registry.lookup("olmo2", library_version=asked)
    assert (found.spec.target_modules, found.reasons[0]) == ((target,), says)


@pytest.mark.parametrize("asked", ["5.0.0", "4.60"])
def test_between_two_versions_with_other_names_none_is_given(any_registry, asked):
    """Whichever is nearer: the error has the names of both, for people and for programs."""
    any_registry.add_scan(seen(OLD, "query"))
    any_registry.add_scan(seen(NEW, "q_proj"))
    assert any_registry.find("olmo2", library_version=asked) is None
    says = f"at {asked} are not known: it has query at 4.57.1 and q_proj at"
    with pytest.raises(VersionUnproven, match=re.escape(says)) as error:
        any_registry.lookup("olmo2", library_version=asked)
    names = [(one["library_version"], one["target_modules"]) for one in error.value.details["seen"]]
    assert names == [(OLD, ["query"]), (NEW, ["q_proj"])]


@pytest.mark.parametrize(("asked", "target"), [("5.0.0", "query"), ("5.9.0", "q_proj"), ("5.6.0", None)])
def test_a_known_history_of_names_closes_the_gap(registry, monkeypatch, asked, target):
    """A release with the names of a scanned one has its mapping; one with other names has none."""
    releases = (OLD, "5.0.0", "5.5.0", "5.6.0", "5.9.0", NEW)
    history = NameHistory(releases, ((OLD, "a"), ("5.6.0", "b"), ("5.9.0", "c")))
    recall(monkeypatch, history)
    registry.add_scan(seen(OLD, "query"))
    registry.add_scan(seen(NEW, "q_proj"))
    if target is None:
        with pytest.raises(VersionUnproven):
            registry.lookup("olmo2", library_version=asked)
        return
    found = registry.lookup("olmo2", library_version=asked)
    near = {"query": OLD, "q_proj": NEW}[target]
    assert (found.spec.target_modules, found.verification.library_version) == ((target,), near)
    assert found.reasons[0] == f"seen at {near}; the layers have the same names at {asked}"


def test_names_known_to_be_others_are_not_answered_beyond_the_scans(registry, monkeypatch):
    """A version older than the only scan, at which the layers were called otherwise."""
    history = NameHistory((OLD, NEW), ((OLD, "a"), (NEW, "b")))
    recall(monkeypatch, history)
    registry.add_scan(seen(NEW, "q_proj"))
    assert registry.lookup("olmo2", library_version="6.0").spec.target_modules == ("q_proj",)
    with pytest.raises(VersionUnproven, match=r"it has q_proj at 5\.24\.0"):
        registry.lookup("olmo2", library_version=OLD)


def test_a_mapping_found_dead_at_a_version_is_not_answered_there(any_registry):
    """An audit under a version that no scan proposed it for; where it is live it stays."""
    any_registry.add_scan(seen(NEW, "q_proj"))
    (mapping,) = any_registry.list_mappings("transformers", "scanner", "5.0.0")
    there = seen("5.0.0", "query")
    any_registry.audit([mapping], [("olmo2", replace(there, proposals=()))], {"olmo2"})
    assert any_registry.find("olmo2", library_version="5.0.0") is None
    with pytest.raises(NotRegistered, match=r"is dead on transformers 5\.0\.0: q_proj matches nothing. Scan it with"):
        any_registry.lookup("olmo2", library_version="5.0.0")
    assert any_registry.lookup("olmo2").spec.target_modules == ("q_proj",)
    any_registry.add_scan(there)
    assert any_registry.lookup("olmo2", library_version="5.0.0").spec.target_modules == ("query",)


def test_every_method_of_a_family_is_answered_by_version(any_registry):
    """LOHA shares LORA's targets, at each version those of that version."""
    for version, target in ((OLD, "query"), (NEW, "q_proj")):
        any_registry.add_scan(seen(version, target))
    for version, target in ((OLD, "query"), (NEW, "q_proj"), (None, "q_proj")):
        found = any_registry.lookup("olmo2", "LOHA", library_version=version)
        assert (found.peft_type, found.spec.target_modules) == ("LOHA", (target,))
        assert found.versions == Versions(version or NEW, version or NEW)
    early = any_registry.lookup("olmo2", "LOHA", library_version="4.0")
    assert early.reasons[:2] == ("seen at 4.57.1, the nearest to 4.0", "LOHA shares LORA's targets")


def test_facts_in_place_of_targets_have_no_range(registry):
    """They are the architecture's, from its newest scan, whatever its layers were called."""
    facts = PromptFacts(2, 4, 16, 2, 8)
    for version, target in ((OLD, "query"), (NEW, "q_proj")):
        registry.add_scan(seen(version, target, prompt_facts=facts))
    found = registry.lookup("olmo2", "CARTRIDGE", library_version=OLD)
    assert (found.prompt_facts, found.versions) == (facts, None)


def test_what_a_version_did_not_propose_is_not_taken_from_another(registry):
    """Its names were not seen there, though the version was scanned."""
    registry.add_scan(seen(OLD, "q_proj"))
    registry.add_scan(seen(NEW, proposals=(proposal("q_proj"), proposal("up_proj", preset="mlp"))))
    with pytest.raises(VersionUnproven, match=r"names of transformers:olmo2 at 4\.57\.1 are not known"):
        registry.lookup("olmo2", preset="mlp", library_version=OLD)
    assert without_gaps(registry.lookup("olmo2", library_version=OLD)).reasons == ("query and value by name",)


def test_mappings_are_listed_as_they_stand_at_a_version(registry):
    """An audit under the older version checks what is given there."""
    for version, target in ((OLD, "query"), (NEW, "q_proj")):
        registry.add_scan(seen(version, target))
    for version, target in ((OLD, "query"), (NEW, "q_proj"), (None, "q_proj")):
        listed = registry.list_mappings("transformers", "scanner", version)
        assert [(one.spec.target_modules, one.verification.library_version) for one in listed] == [
            ((target,), version or NEW)
        ]


def test_a_word_is_no_version(registry):
    """Unless it is one that was seen, only what pip understands can be compared."""
    registry.add_scan(seen(NEW, "q_proj"))
    with pytest.raises(InvalidRequest, match="Invalid library version 'latest'"):
        registry.lookup("olmo2", library_version="latest")


def test_facts_are_those_of_the_newest_version(any_registry):
    """An older version scanned later changes neither slots nor class, and leaves what things were called."""
    then, now = (Slot("language", "attention.query", "linear", f"layers.*.{leaf}", 2) for leaf in ("query", "q_proj"))
    any_registry.add_scan(seen(NEW, "q_proj", slots=(now,)))
    any_registry.add_scan(seen(OLD, "query", slots=(then,)))
    detail = any_registry.get_architecture("transformers", "olmo2")
    assert (detail.architecture.library_version, detail.slots) == (NEW, (now,))
    (way,) = detail.renames
    assert (way.from_version, way.to_version) == (OLD, NEW)
    assert (way.rename.old, way.rename.new) == (then.pattern, now.pattern)
    assert from_json(type(detail), to_json(detail)) == detail
    assert any_registry.add_scan(seen(OLD, "query", slots=(then,))).serial == any_registry.serial()


def vit(version, query, value):
    """Return a scan of a vit of two layers, which proposes nothing, under a version that has these names."""
    where = "vit.encoder.layer.0.attention"
    layers = [layer(f"{where}.{query}", tower="vision"), layer(f"{where}.{value}", tower="vision")]
    roles = zip(("attention.query", "attention.value"), layers, strict=True)
    slots = tuple(Slot("vision", role, "linear", one.path.replace(".0.", ".*."), 1) for role, one in roles)
    return replace(make_scan("vit", layers=layers, proposals=(), library_version=version), slots=slots)


def test_a_stale_entry_is_said_in_today_s_names(any_registry):
    """PEFT names vit's query and value for FROD: right under 4.57, and translated where they are called otherwise."""
    any_registry.add_scan(vit(NEW, "q_proj", "v_proj"))
    assert any_registry.find("vit", "FROD") is None
    any_registry.add_scan(vit(OLD, "attention.query", "attention.value"))
    found = any_registry.lookup("vit", "FROD", library_version=NEW)
    assert (found.spec.target_modules, found.verification) == (("q_proj", "v_proj"), None)
    assert found.source == Source("peft", "0.21.2")
    assert found.reasons[0] == "stated in the names of transformers 4.57.1: query, value -> q_proj, v_proj"
    assert without_gaps(found) in any_registry.get_architecture("transformers", "vit").mappings
    then = any_registry.lookup("vit", "FROD", library_version=OLD)
    assert (then.spec.target_modules, then.verification.status) == (("query", "value"), "unproven")


def test_names_are_followed_over_several_versions(registry):
    """What was renamed twice is found by both steps."""
    for version, names in ((OLD, ("query", "value")), ("5.0.0", ("q", "v")), (NEW, ("q_proj", "v_proj"))):
        registry.add_scan(vit(version, *names))
    assert registry.lookup("vit", "FROD").spec.target_modules == ("q_proj", "v_proj")


def test_an_entry_that_translates_in_part_stays_as_it_is(registry):
    """A target whose layer is gone has no name today."""
    registry.add_scan(vit(OLD, "attention.query", "attention.value"))
    now = vit(NEW, "q_proj", "fused")
    registry.add_scan(replace(now, slots=now.slots[:1]))
    with pytest.raises(NotRegistered, match=r"from peft 0\.21\.2 is dead on transformers 5\.24\.0"):
        registry.lookup("vit", "FROD")


def test_a_name_that_would_hit_more_is_told_apart(registry):
    """A translation hits what was stated and nothing else: here another layer of the same name stands outside."""
    registry.add_scan(vit(OLD, "attention.query", "attention.value"))
    now = vit(NEW, "inner.q_proj", "inner.v_proj")
    other = Slot("vision", "other", "linear", "pooler.q_proj", 1)
    registry.add_scan(replace(now, slots=(*now.slots, other)))
    assert registry.lookup("vit", "FROD").spec.target_modules == ("inner.q_proj", "v_proj")
