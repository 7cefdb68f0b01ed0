"""A registry that an older loradar made: the seed is brought up to date, and what users stored is kept."""

from dataclasses import replace

import pytest
from records_zoo import VERSION, block_layers, make_scan, proposal

from loradar.catalog.entries import Catalog, CatalogHeader, catalog_lines, older_lines
from loradar.domain.layers import Slot
from loradar.domain.mappings import Verification
from loradar.domain.targets import Formula
from loradar.domain.versions import Rename, Versions
from loradar.registry import PeftConstants, Registry, catalog_entry
from loradar.registry.catalogs import seed_digest
from loradar.settings import Settings

OLD, NEW = "0.0.9", "0.1.0"
OLDER_LIBRARY, NEWER_LIBRARY = "4.57.1", "6.0.0"
LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"


@pytest.fixture(params=["file", "postgres"])
def place(request, tmp_path):
    """Settings for a registry of either kind."""
    url = f"sqlite:///{tmp_path}/r.sqlite3" if request.param == "file" else request.getfixturevalue("postgres_url")
    return Settings(tmp_path, url)


@pytest.fixture
def seed_from(tmp_path, monkeypatch):
    """Return a function that makes a catalog of these scans, by a version of loradar, the only one there is."""

    def give(*scans, loradar=NEW):
        path = tmp_path / "transformers.jsonl"
        lines = catalog_lines(CatalogHeader("transformers", VERSION, loradar, "0.21.2"), map(catalog_entry, scans))
        path.write_text("".join(line + "\n" for line in lines), "utf-8")
        monkeypatch.setattr("loradar.registry.catalogs.list_catalogs", lambda: [path])
        monkeypatch.setattr("loradar.registry.catalogs.list_older", list)

    return give


@pytest.fixture
def seed_older_from(tmp_path, monkeypatch):
    """Return a function that makes a file on an older version of these scans, compared with others, the only one."""

    def give(older, base, renames=None):
        path = tmp_path / "older.jsonl"
        old, new = (
            Catalog(CatalogHeader("transformers", version, NEW, "0.21.2"), tuple(map(catalog_entry, scans)))
            for version, scans in ((OLDER_LIBRARY, older), (VERSION, base))
        )
        path.write_text("".join(line + "\n" for line in older_lines(old, new, renames or {})), "utf-8")
        monkeypatch.setattr("loradar.registry.catalogs.list_older", lambda: [path])

    return give


def then(*proposals, name="olmo2"):
    """Return a scan under the older version of the library."""
    return make_scan(name, proposals=proposals, library_version=OLDER_LIBRARY)


def seed(place):
    """Open and close a registry, which seeds it."""
    Registry.open(place).close()


def live(scan):
    """Return a scan whose layers all got a gradient."""
    return replace(scan, layers=tuple(replace(layer, live=True) for layer in scan.layers))


def test_a_newer_seed_takes_the_place_of_the_older(place, seed_from):
    """Slots, sizes, reasons and verdicts are the new ones; the same targets are no new revision."""
    seed_from(make_scan(), loradar=OLD)
    seed(place)
    sized = replace(proposal("q_proj", "v_proj"), formula=Formula(32, 0), reasons=("traced",))
    slots = (Slot("language", "head", "linear", "lm_head", 1, live=True),)
    seed_from(live(replace(make_scan(proposals=(sized,)), slots=slots, proof="all of it")))
    with Registry.open(place) as registry:
        found = registry.lookup("olmo2")
        lacks = "no coverage: no repeated block is on record"
        assert (found.revision, found.per_rank, found.reasons) == (1, 32, ("traced", lacks))
        assert found.verification.status == "live"
        detail = registry.get_architecture("transformers", "olmo2")
        assert (detail.slots, detail.proof) == (slots, "all of it")
        assert registry.serial() == 2


def test_other_targets_are_the_next_revision(place, seed_from):
    """And an architecture the old seed did not know is added."""
    seed_from(make_scan(), loradar=OLD)
    seed(place)
    seed_from(make_scan(proposals=(proposal("k_proj"),)), make_scan("olmo3"))
    with Registry.open(place) as registry:
        found = registry.lookup("olmo2")
        assert (found.revision, found.spec.target_modules, found.source.version) == (2, ("k_proj",), NEW)
        assert registry.lookup("olmo3").revision == 1


def test_what_is_not_proposed_any_more_is_taken_back(place, seed_from):
    """A target found dead must not be looked up because an older seed had it."""
    both = (proposal("q_proj"), proposal("o_proj", preset="attention"))
    seed_from(make_scan(proposals=both), loradar=OLD)
    seed(place)
    seed_from(make_scan(proposals=both[:1]))
    with Registry.open(place) as registry:
        assert registry.lookup("olmo2").spec.target_modules == ("q_proj",)
        assert registry.find("olmo2", preset="attention") is None


def test_an_older_version_is_added_to_a_registry(place, seed_from, seed_older_from):
    """Ranges grow or are split, what only it has is added whole, and its renames are there; once."""
    now = make_scan(proposals=(proposal("q_proj"), proposal("up_proj", preset="mlp")))
    seed_from(now, loradar=OLD)
    seed(place)
    older = (then(proposal("q_proj"), proposal("down_proj", preset="mlp")), then(proposal("k_proj"), name="van"))
    seed_from(now)
    seed_older_from(older, (now,), {"olmo2": (Rename("a", "b", "why"),)})
    for _ in range(2):
        with Registry.open(place) as registry:
            assert registry.serial() == 2
            assert registry.lookup("olmo2").versions == Versions(OLDER_LIBRARY, VERSION)
            mlp = {v: registry.lookup("olmo2", preset="mlp", library_version=v) for v in (OLDER_LIBRARY, VERSION)}
            assert [one.spec.target_modules for one in mlp.values()] == [("down_proj",), ("up_proj",)]
            assert [one.verification.library_version for one in mlp.values()] == [*mlp]
            detail = registry.get_architecture("transformers", "olmo2")
            assert (detail.architecture.library_version, detail.slots) == (VERSION, now.slots)
            assert [way.rename for way in detail.renames] == [Rename("a", "b", "why")]
            gone = registry.get_architecture("transformers", "van")
            assert (gone.architecture.library_version, gone.slots) == (OLDER_LIBRARY, older[1].slots)


def test_a_newer_seed_brings_an_older_version_up_to_date(place, seed_from, seed_older_from):
    """What only the older version proposes stays, what neither does goes; renames are put in place of the known."""
    now, attention = make_scan(), proposal("o_proj", preset="attention")
    seed_from(now, loradar=OLD)
    seed_older_from(
        (then(*now.proposals, attention, proposal("w2", preset="mlp")),), (now,), {"olmo2": (Rename("a", "b", ""),)}
    )
    seed(place)
    sized = replace(now.proposals[0], formula=Formula(32, 0))
    seed_from(make_scan(proposals=(sized,)))
    seed_older_from((then(*now.proposals, attention),), (now,), {"olmo2": (Rename("a", "c", ""),)})
    with Registry.open(place) as registry:
        assert registry.lookup("olmo2", preset="attention").versions == Versions(OLDER_LIBRARY, OLDER_LIBRARY)
        assert registry.find("olmo2", preset="mlp") is None
        found = registry.lookup("olmo2")
        assert (found.per_rank, found.revision) == (32, 1), "its size is that of the newest scan"
        assert found.versions == Versions(OLDER_LIBRARY, VERSION)
        assert [way.rename.new for way in registry.get_architecture("transformers", "olmo2").renames] == ["c"]


def test_the_same_seed_is_loaded_once(place, seed_from):
    """Opening again changes nothing, and neither does a seed of an older loradar afterwards."""
    seed_from(make_scan(), loradar=NEW)
    seed(place)
    with Registry.open(place) as registry:
        assert registry.serial() == 1


def test_an_older_loradar_does_not_undo_a_newer_one(place, seed_from, monkeypatch):
    """Two environments may share one registry."""
    seed_from(make_scan(proposals=(proposal("k_proj"),)))
    monkeypatch.setattr("loradar.registry.seed.metadata.version", lambda _: NEW)
    seed(place)
    seed_from(make_scan(), loradar=OLD)
    monkeypatch.setattr("loradar.registry.seed.metadata.version", lambda _: OLD)
    with Registry.open(place) as registry:
        assert registry.lookup("olmo2").spec.target_modules == ("k_proj",)
    with Registry.open(place) as registry:
        assert registry.serial() == 2, "that it was seen is remembered; nothing is asked a third time"


def test_a_scan_of_a_newer_library_is_kept(place, seed_from):
    """Who scanned transformers 6 does not get the catalog of 5 back."""
    seed_from(make_scan(), loradar=OLD)
    with Registry.open(place) as registry:
        registry.add_scan(make_scan(proposals=(proposal("k_proj"),), library_version=NEWER_LIBRARY))
    seed_from(make_scan(proposals=(proposal("o_proj"),)))
    with Registry.open(place) as registry:
        assert registry.lookup("olmo2").spec.target_modules == ("k_proj",)
        assert registry.get_architecture("transformers", "olmo2").architecture.library_version == NEWER_LIBRARY


def test_a_gradient_seen_by_the_user_stands(place, seed_from):
    """A seed that could not prove a mapping does not take the proof away."""
    seed_from(make_scan(), loradar=OLD)
    with Registry.open(place) as registry:
        registry.add_scan(live(make_scan()))
    seed_from(make_scan(), make_scan("olmo3"))
    with Registry.open(place) as registry:
        assert registry.lookup("olmo2").verification.status == "live"


def test_tables_of_a_newer_peft_are_kept(place, seed_from):
    """What ``constants import`` stored is no older than ours."""
    seed_from(make_scan("llama"), loradar=OLD)
    with Registry.open(place) as registry:
        registry.add_constants(PeftConstants("99.0", {LORA: {"llama": ["o_proj"]}}, {}))
    seed_from(make_scan("llama"), make_scan("olmo3"))
    with Registry.open(place) as registry:
        assert registry.lookup("llama").spec.target_modules == ("o_proj",)


def test_peft_s_entries_are_checked_anew(place, seed_from):
    """A verdict of the old seed at the same library version gives way."""
    seed_from(make_scan("gpt2"), loradar=OLD)
    with Registry.open(place) as registry:
        stated = {(m.name, m.peft_type): m for m in registry.list_mappings("transformers", "peft")}
        entry = stated["gpt2", "LORA"]
        assert entry.verification.findings == ("c_attn matches nothing",)
    names = [replace(one, path=one.path.replace("q_proj", "c_attn")) for one in block_layers()]
    seed_from(live(make_scan("gpt2", layers=names, proposals=(proposal("c_attn"),))))
    with Registry.open(place) as registry:
        assert registry.lookup("gpt2").verification == Verification(
            "live", VERSION, {"c_attn": {"linear": 2}}, round(1 / 7, 6)
        )


def test_the_digest_tells_seeds_apart(seed_from, seed_older_from):
    """By a catalog's header, its size and its lines; those of files on older versions as well."""
    digests = set()
    for scans, loradar in (((make_scan(),), OLD), ((make_scan(),), NEW), ((make_scan("olmo3"),), NEW), ((), NEW)):
        seed_from(*scans, loradar=loradar)
        digests.add(seed_digest())
    seed_older_from((then(proposal("q_proj")),), ())
    digests.add(seed_digest())
    assert len(digests) == 5
