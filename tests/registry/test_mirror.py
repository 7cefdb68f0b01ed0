"""Snapshots: one state of the whole registry, and what a mirror makes of one and of what changed since."""

import json
import threading

from records_zoo import VERSION, block_layers, make_scan, proposal

from loradar.domain.identities import LOCAL
from loradar.registry import Registry
from loradar.registry.mirror import snapshot_writing
from loradar.schema import to_json


def take(registry: Registry, since: int | None = None) -> list[dict]:
    """Return the lines of a snapshot, without those of changes."""
    with registry.snapshot(since) as lines:
        return [line for line in map(json.loads, lines) if "change" not in line]


def named(lines: list[dict]) -> dict[str, dict]:
    """Return the architectures of a snapshot by reference."""
    return {f"{a['library']}:{a['name']}": line for line in lines[1:] for a in [line["architecture"]]}


def test_a_snapshot_has_everything(any_registry):
    """Architectures, slots, every revision ever with every verification, and the state it is of."""
    for version in (VERSION, "6.0.0"):
        any_registry.add_scan(make_scan(library_version=version))
    mapping = any_registry.lookup("olmo2")
    any_registry.backend(LOCAL).yank(mapping.id, "wrong")
    head, *_ = lines = take(any_registry)
    last = any_registry.list_changes(3)[0]
    assert (head["serial"], head["head"], head["since"]) == (4, last.digest, None)
    found = named(lines)
    counts = any_registry.info().counts
    assert len(found) == counts["architectures"]
    assert sum(len(line["revisions"]) for line in found.values()) == counts["mappings"]
    checks = [check for line in found.values() for revision in line["revisions"] for check in revision["verifications"]]
    assert len(checks) == counts["verifications"]
    assert sum(len(line["slots"]) for line in found.values()) == counts["slots"]
    one = found["transformers:olmo2"]
    detail = any_registry.get_architecture("transformers", "olmo2")
    assert one["architecture"] == to_json(detail.architecture)
    assert one["slots"] == [to_json(slot) for slot in detail.slots]
    assert one["towers"] == {"language": ["model"]}
    (revision,) = one["revisions"]
    spec = to_json(mapping.spec)
    del spec["exclude_blocks"]  # stored where it is set
    assert (revision["id"], revision["spec"], revision["yank_reason"]) == (mapping.id, spec, "wrong")
    assert (revision["version"], revision["formula"]) == (2, {"per_rank": 16, "fixed": 0})
    assert [check["library_version"] for check in revision["verifications"]] == [VERSION, "6.0.0"]
    assert revision["versions"] == {"since": VERSION, "until": "6.0.0"}


def test_renames_come_along(registry):
    """What layers were called in another version."""
    registry.add_scan(make_scan())
    layers = block_layers()
    moved = make_scan(library_version="6.0.0", layers=layers)
    slots = tuple(type(s)(s.tower, s.role, s.kind, s.pattern.replace("layers", "blocks"), s.count) for s in moved.slots)
    registry.add_scan(type(moved)(**{**{f: getattr(moved, f) for f in moved.__slots__}, "slots": slots}))
    stored = registry.get_architecture("transformers", "olmo2").renames
    assert stored
    assert named(take(registry))["transformers:olmo2"]["renames"] == [to_json(rename) for rename in stored]


def test_the_same_registry_gives_the_same_bytes(registry, monkeypatch):
    """Whatever the size of what is read at once: a mirror may compare digests."""
    with registry.snapshot() as lines:
        whole = [*lines]
    monkeypatch.setattr(snapshot_writing, "PAGE", 3)
    with registry.snapshot() as lines:
        assert [*lines] == whole


def test_a_mirror_keeps_up(any_registry):
    """Lines of what was touched since, put in the place of its own, make the registry's newest snapshot."""
    any_registry.add_scan(make_scan("early"))
    mirror, serial = take(any_registry), any_registry.serial()
    untouched = named(mirror)["transformers:early"]
    steps = (
        lambda: any_registry.add_scan(make_scan("late")),
        lambda: any_registry.add_scan(make_scan("late", proposals=(proposal("q_proj"),))),
        lambda: any_registry.add_scan(make_scan("llama", proposals=())),  # verifies what PEFT states
        lambda: any_registry.backend(LOCAL).yank(any_registry.lookup("late").id, "wrong"),
        lambda: any_registry.tokens.create("grace", "admin"),
    )
    kept = named(mirror)
    for step, touched in zip(steps, ("late", "late", "llama", "late", None), strict=True):
        step()
        head, *lines = take(any_registry, serial)
        assert (head["since"], head["serial"]) == (serial, serial + 1)
        assert [line["architecture"]["name"] for line in lines] == ([touched] if touched else [])
        kept |= named([head, *lines])
        serial = head["serial"]
    assert kept == named(take(any_registry))
    assert kept["transformers:early"] == untouched
    assert [change.serial for change in any_registry.list_changes(serial)] == []


def test_an_audit_is_among_what_changed(registry):
    """It names nothing in the log, and its verifications carry its serial."""
    serial = registry.serial()
    layers = block_layers()
    registry.audit(registry.list_mappings("transformers"), [("llama", make_scan("llama", layers=layers))], ["llama"])
    head, *lines = take(registry, serial)
    assert (head["since"], [line["architecture"]["name"] for line in lines]) == (serial, ["llama"])


def test_a_seed_touches_everything(any_registry):
    """It does not say what: all of it comes, and the header says so."""
    assert not any_registry.mirror.can_tell_since(0)
    assert any_registry.mirror.can_tell_since(1)
    assert take(any_registry, 0) == take(any_registry)
    assert len(take(any_registry, 1)) == 1


def test_a_serial_from_the_future_gets_everything(any_registry):
    """The registry was put back to an older state: nobody can tell what a mirror has that is not so any more."""
    assert not any_registry.mirror.can_tell_since(2)
    assert take(any_registry, 2) == take(any_registry)


def test_a_write_meanwhile_is_in_the_next_one(request, tmp_path):
    """A snapshot is of one state, though it is read page by page; nobody waits for it."""
    from loradar.settings import Settings  # noqa: PLC0415 - for this test alone

    home = request.getfixturevalue("registry")
    with Registry.open(Settings(tmp_path, request.getfixturevalue("postgres_url"))) as other:
        for one in (home, other):
            with one.snapshot() as lines:
                first = json.loads(next(lines))
                writer = threading.Thread(target=one.add_scan, args=(make_scan("meanwhile"),))
                writer.start()
                writer.join(30)
                assert not writer.is_alive()
                assert one.serial() == first["serial"] + 1
                names = [line["architecture"]["name"] for line in map(json.loads, lines) if "architecture" in line]
            assert "meanwhile" not in names
            assert "transformers:meanwhile" in named(take(one))
