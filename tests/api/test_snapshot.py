"""``GET /v1/snapshot``: signed, kept, conditional, compressed; and many who ask at once."""

import gzip
import json
import threading
from pathlib import Path

import pytest
from patience import patience
from records_zoo import make_scan
from seeding import PEFT_ALONE, make_seeded, seeds_of
from shapes import documented

from loradar.api.routes import snapshot as snapshots
from loradar.api.routes.snapshot import Snapshots
from loradar.errors import Overloaded, SignatureInvalid
from loradar.registry import Registry
from loradar.snapshots import SnapshotKey, check_snapshot

PLAIN = {"Accept-Encoding": "identity"}


@pytest.fixture(scope="module", autouse=True)
def catalogs():
    """Seed the service's registry from PEFT's tables alone: a snapshot of the whole catalog takes seconds."""
    with seeds_of(PEFT_ALONE):
        yield


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A registry file seeded from them."""
    return make_seeded(tmp_path_factory.mktemp("seeded-by-peft") / "registry.sqlite3", PEFT_ALONE)


@pytest.fixture(scope="module")
def key(service):
    """The service's public key."""
    return documented(SnapshotKey, service.client.get("/v1/snapshot/key").json()).key


@pytest.fixture
def at_once(monkeypatch):
    """Let a snapshot be old as soon as anything changes."""
    monkeypatch.setattr(snapshots, "FRESH_SECONDS", 0)


@pytest.fixture
def change(service):
    """A function that changes the registry."""
    names = (f"changed{n}" for n in range(service.registry.serial(), 10**6))
    return lambda: service.registry.add_scan(make_scan(next(names))).serial


def lines(answer):
    """Return the lines of an answer, with their ends."""
    assert answer.status_code == 200, answer.text[:300]
    return answer.content.splitlines(keepends=True)


@pytest.mark.usefixtures("at_once")
def test_it_is_whole_and_signed(service, key):
    """As the key that is served says; a line changed on the way is noticed."""
    answer = service.client.get("/v1/snapshot", headers=PLAIN)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    info = check_snapshot(lines(answer), key)
    assert (info.serial, info.since) == (service.registry.serial(), None)
    assert info.architectures == service.registry.info().counts["architectures"]
    altered = [line.replace(b'"q_proj"', b'"k_proj"', 1) for line in lines(answer)]
    with pytest.raises(SignatureInvalid, match="Altered snapshot"):
        check_snapshot(altered, key)


def test_it_is_compressed_for_who_takes_that(service, key):
    """The same lines; each form has a tag of its own."""
    plain = service.client.get("/v1/snapshot", headers=PLAIN)
    packed = service.client.get("/v1/snapshot", headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 10
    assert packed.content == plain.content
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert plain.headers["ETag"] != packed.headers["ETag"]
    refused = service.client.get("/v1/snapshot", headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in refused.headers
    assert check_snapshot(lines(packed), key)


@pytest.mark.usefixtures("at_once")
def test_a_client_that_has_it_gets_304_until_something_changes(service, change):
    """Either form's tag will do."""
    tags = [service.client.get("/v1/snapshot", headers=h).headers["ETag"] for h in (PLAIN, {})]
    for tag in tags:
        again = service.client.get("/v1/snapshot", headers={"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    change()
    for tag in tags:
        assert service.client.get("/v1/snapshot", headers={"If-None-Match": tag}).status_code == 200


def test_a_fresh_one_is_served_though_there_are_changes(service, change):
    """They are in the feed; each snapshot costs seconds."""
    before = service.client.get("/v1/snapshot").headers["ETag"]
    change()
    assert service.client.get("/v1/snapshot").headers["ETag"] == before


@pytest.mark.usefixtures("at_once")
def test_an_unchanged_registry_is_signed_anew_in_time(service, key, monkeypatch):
    """What a mirror fetches is never close to its end."""
    monkeypatch.setattr(snapshots, "RENEW_SECONDS", 0)
    old, new = (check_snapshot(lines(service.client.get("/v1/snapshot", headers=PLAIN)), key) for _ in range(2))
    assert old.issued < new.issued
    assert old.digest == new.digest


def test_what_was_touched_since_is_little(service, key, change):
    """A mirror that keeps up fetches just that; nothing is left on the disk of it."""
    since = service.registry.serial()
    change()
    answer = service.client.get("/v1/snapshot", params={"since": since}, headers=PLAIN)
    info = check_snapshot(lines(answer), key)
    assert (info.since, info.serial, info.architectures) == (since, since + 1, 1)
    assert answer.headers["Cache-Control"] == "no-store"
    logged, changed = map(json.loads, lines(answer)[1:-1])
    assert logged["change"]["serial"] == since + 1
    assert changed["architecture"]["name"].startswith("changed")
    kept = service.client.app.state.snapshots
    assert len(list(Path(kept._folder.name).iterdir())) <= 2


@pytest.mark.usefixtures("at_once")
def test_what_a_seed_touched_is_everything(service, key):
    """The one that is kept is served."""
    whole = check_snapshot(lines(service.client.get("/v1/snapshot")), key)
    assert check_snapshot(lines(service.client.get("/v1/snapshot?since=0")), key) == whole


@pytest.mark.parametrize("since", ["-1", "x", "99999999999"])
def test_a_serial_that_is_none_is_refused(service, since):
    """422 in the one shape."""
    answer = service.client.get("/v1/snapshot", params={"since": since})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


class Slow:
    """A registry whose snapshots take until they are let go."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.started, self.go = threading.Event(), threading.Event()
        self.made = 0

    def __getattr__(self, name):
        return getattr(self._registry, name)

    def snapshot(self, since=None):
        """Wait, then make one."""
        self.made += 1
        self.started.set()
        assert self.go.wait(patience())
        return self._registry.snapshot(since)


@pytest.fixture
def kept(service):
    """A keeper of its own, and a registry that is slow."""
    keeper = Snapshots(service.client.app.state.settings)
    yield keeper, Slow(service.registry)
    keeper.close()


def together(count, work):
    """Start threads that work, and return them with their results."""
    results = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def test_many_who_ask_at_once_get_one(kept):
    """It is made once."""
    keeper, slow = kept
    threads, results = together(4, lambda: keeper.get(slow))
    assert slow.started.wait(patience())
    slow.go.set()
    for thread in threads:
        thread.join(patience())
    assert (len(set(results)), len(results), slow.made) == (1, 4, 1)


def test_too_many_who_wait_are_told_to_come_again(kept, monkeypatch):
    """Threads are for others too: few wait, and not for long."""
    monkeypatch.setattr(snapshots, "WAIT_SECONDS", 0.05)
    keeper, slow = kept
    threads, _ = together(1, lambda: keeper.get(slow))
    assert slow.started.wait(patience())
    with pytest.raises(Overloaded, match="try again") as caught:
        keeper.get(slow)
    assert caught.value.details["retry_after"] == 60
    monkeypatch.setattr(snapshots, "WAIT_SECONDS", patience())
    for _ in range(snapshots.MAX_WAITING):
        keeper._room.acquire()
    with pytest.raises(Overloaded, match="try again"):
        keeper.make_since(slow, slow.serial())
    for _ in range(snapshots.MAX_WAITING):
        keeper._room.release()
    slow.go.set()
    threads[0].join(patience())


@pytest.mark.usefixtures("at_once")
def test_while_a_newer_one_is_made_the_old_one_is_served(kept, change):
    """Nobody waits for what is only a little newer."""
    keeper, slow = kept
    slow.go.set()
    old = keeper.get(slow)
    slow.go.clear()
    slow.started.clear()
    change()
    threads, results = together(1, lambda: keeper.get(slow))
    assert slow.started.wait(patience())
    assert keeper.get(slow) == old
    slow.go.set()
    threads[0].join(patience())
    assert results[0].state > old.state
    with keeper.open(old) as file:
        assert gzip.decompress(file.read())


def test_one_that_fails_leaves_nothing(kept, monkeypatch):
    """The next one starts anew."""
    keeper, slow = kept
    slow.go.set()

    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "signed_lines", fail)
        with pytest.raises(RuntimeError, match="disk full"):
            keeper.get(slow)
    assert list(Path(keeper._folder.name).iterdir()) == []
    assert keeper.get(slow).path.exists()
