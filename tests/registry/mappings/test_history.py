"""The feed of changes, and the history of an architecture: who, when, why."""

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from hashlib import sha256

import pytest
from records_zoo import make_scan, proposal

from loradar.domain.changes import Revision
from loradar.domain.identities import Actor
from loradar.errors import UnknownArchitecture, UnknownMapping
from loradar.registry.db.encoding import to_time
from loradar.schema import from_json, to_json

BOB = Actor("bob", "reviewer")


def test_the_feed_tells_who_did_what_and_when(any_registry):
    """Serial by serial, from beyond the one asked for, each with the digest of the one before."""
    mapping = any_registry.add_scan(make_scan()).added[0]
    any_registry.backend(BOB).yank(mapping.id, "misses v_proj")
    seed, scan, yank = any_registry.list_changes()
    assert [(c.serial, c.actor, c.action) for c in (seed, scan, yank)] == [
        (1, "loradar", "seed"),
        (2, "local", "scan.store"),
        (3, "bob", "mapping.yank"),
    ]
    assert yank.details["reason"] == "misses v_proj"
    assert f"mapping:{mapping.id}" in yank.details["subjects"]
    assert (scan.previous, yank.previous) == (seed.digest, scan.digest)
    assert any_registry.list_changes(2) == (yank,)
    assert any_registry.list_changes(1, 1) == (scan,)
    assert any_registry.list_changes(3) == ()


def test_a_mirror_computes_the_chain_again(any_registry):
    """From what the feed shows, by the rule of docs/service/mirrors.md, with nothing of ours."""
    any_registry.add_scan(make_scan("naïve"))
    changes = [to_json(change) for change in any_registry.list_changes()]
    assert changes[0]["previous"] == "sha256:" + 64 * "0"
    for change in changes:
        digest = change.pop("digest")
        told = json.dumps(change["details"], sort_keys=True, separators=(",", ":"))
        text = json.dumps(change | {"details": told}, sort_keys=True, separators=(",", ":"))
        assert digest == f"sha256:{sha256(text.encode()).hexdigest()}"


def test_what_tokens_are_about_is_withheld(any_registry):
    """Everybody reads the feed; whose token it is concerns nobody, but its digest stays for the chain."""
    any_registry.tokens.create("grace", "admin")
    change = any_registry.list_changes(1)[0]
    assert (change.action, change.details) == ("token.create", {"withheld": True})
    assert "grace" not in str(change)
    assert any_registry.verify_log().head == change.digest


def test_a_history_has_every_revision_with_its_story(any_registry):
    """Yanked ones too, each with what brought it and what was done to it since."""
    for which in ((proposal("q_proj", "v_proj"),), (proposal("q_proj"),)):
        any_registry.add_scan(make_scan(proposals=which))
    first, second = any_registry.list_history("transformers", "olmo2")
    assert [r.mapping.revision for r in (first, second)] == [1, 2]
    assert ([c.serial for c in first.changes], [c.serial for c in second.changes]) == ([2], [3])
    any_registry.backend(BOB).yank(second.mapping.id, "too few")
    any_registry.backend(BOB).restore(second.mapping.id, "after all")
    again = any_registry.list_history("transformers", "olmo2")
    assert again[0] == first
    assert (again[1].yanked_at, again[1].yank_reason, again[1].version) == (None, None, 3)
    assert [(c.actor, c.details.get("reason")) for c in again[1].changes] == [
        ("local", None),
        ("bob", "too few"),
        ("bob", "after all"),
    ]
    assert again[1] == any_registry.get_revision(second.mapping.id)
    assert from_json(Revision, to_json(again[1])) == again[1]


def test_a_revision_of_the_seed_tells_of_the_seed(any_registry):
    """A write of very many names none of them; what brought a revision is known by its serial."""
    told = [revision.changes for revision in any_registry.list_history("transformers", "llama")]
    assert told
    assert all([change.action for change in changes] == ["seed"] for changes in told)


def test_a_yanked_revision_says_since_when(any_registry):
    """Times are ISO 8601 in UTC, whatever form the database has them in."""
    mapping = any_registry.add_scan(make_scan()).added[0]
    any_registry.backend(BOB).yank(mapping.id, "wrong")
    (revision,) = any_registry.list_history("transformers", "olmo2")
    assert revision.yank_reason == "wrong"
    times = [revision.created_at, revision.yanked_at, revision.changes[-1].at]
    assert all(len(time) == len("2026-11-26T02:28:00.999696Z") and time.endswith("Z") for time in times)
    assert times == sorted(times)


def test_an_architecture_nobody_knows_has_no_history(any_registry):
    """One without mappings has an empty one."""
    any_registry.add_scan(replace(make_scan(proposals=())))
    assert any_registry.list_history("transformers", "olmo2") == ()
    with pytest.raises(UnknownArchitecture, match=r"Unknown architecture 'olmo3'\. Closest: 'olmo2'"):
        any_registry.list_history("transformers", "olmo3")
    with pytest.raises(UnknownMapping, match="sha256:0"):
        any_registry.get_revision("sha256:" + "0" * 64)


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (None, None),
        (datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006Z"),  # noqa: DTZ001 - SQLite's
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:00:00.000000Z"),
    ],
)
def test_times_have_one_form(stored, told):
    """SQLite returns times without a zone, PostgreSQL in the zone of its session."""
    assert to_time(stored) == told
