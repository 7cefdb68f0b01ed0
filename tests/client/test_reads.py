"""What the client reads beside lookups, from a real service."""

from dataclasses import replace

import pytest
from records_zoo import make_scan, proposal

from loradar.api import running
from loradar.client import Client
from loradar.client import client as client_reads
from loradar.domain.architectures import ModelPart
from loradar.domain.identities import LOCAL
from loradar.errors import (
    InvalidRequest,
    NotRegistered,
    ServiceUnreachable,
    SignatureInvalid,
    UnknownArchitecture,
    UnknownName,
)
from loradar.registry import Registry
from loradar.settings import Settings
from loradar.snapshots import Signer, check_snapshot


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A client of a running service with a registry of a few scans, and that registry."""
    folder = tmp_path_factory.mktemp("service")
    settings = Settings(folder, f"sqlite:///{folder / 'registry.sqlite3'}")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("list_catalogs", "list_older"):
            patch.setattr(f"loradar.registry.catalogs.{name}", list)
        with Registry.open(settings) as registry, running(settings) as url, Client(url) as client:
            specs = (proposal("q_proj", "v_proj"), proposal("q_proj", preset="attention"))
            registry.add_scan(make_scan(proposals=specs))
            yield client, registry


def test_many_questions_are_answered_in_parts(service, monkeypatch):
    """Any number of them: mappings, and the errors a lookup would have raised."""
    monkeypatch.setattr(client_reads, "BATCH", 2)
    client, registry = service
    asked = [{"model_type": "llama"}, {"model_type": "lama"}, {"model_type": "bert", "peft_type": "IA3"}]
    one, two, three = client.targets_of_many(asked)
    assert (one, three) == (registry.lookup("llama"), registry.lookup("bert", "IA3"))
    assert isinstance(two, NotRegistered)
    assert "llama" in two.near
    assert client.targets_of_many([]) == ()


def test_mappings_come_page_by_page(service, monkeypatch):
    """All of them, whatever the size of a page; filters are passed on."""
    monkeypatch.setattr(client_reads, "PAGE", 7)
    client, registry = service
    assert tuple(client.mappings()) == registry.find_mappings(limit=9999)
    narrow = {"source": "scanner", "peft_type": "LORA", "q": "olmo", "library": "transformers", "status": "unproven"}
    assert tuple(client.mappings(**narrow)) == registry.find_mappings(source="scanner", q="olmo")
    with pytest.raises(InvalidRequest, match="status"):
        next(client.mappings(status="good"))


def test_changes_histories_slots_and_differences_are_the_registry_s(service, monkeypatch):
    """The same records as in process."""
    client, registry = service
    one, other = registry.find_mappings(source="scanner", q="olmo")
    registry.backend(LOCAL).yank(one.id, "wrong")
    registry.backend(LOCAL).restore(one.id, "right")
    monkeypatch.setattr(client_reads, "PAGE", 2)
    assert tuple(client.changes()) == registry.list_changes()
    assert tuple(client.changes(3)) == registry.list_changes(3)
    assert client.history("transformers", "olmo2") == registry.list_history("transformers", "olmo2")
    assert client.layers("transformers", "olmo2") == registry.list_slots("transformers", "olmo2")
    assert client.revision(one.id[7:15]) == registry.get_revision(one.id)
    assert client.diff(one.id, other.id) == registry.compare(one.id, other.id)
    with pytest.raises(UnknownArchitecture, match="olmo3"):
        client.history("transformers", "olmo3")


def test_a_snapshot_is_verified_before_it_is_there(service, tmp_path):
    """With the key that is given, or the service's own; one that is not as it was signed leaves no file."""
    client, registry = service
    out = tmp_path / "snapshot.jsonl"
    info = client.snapshot(out)
    assert info.architectures == registry.info().counts["architectures"]
    with out.open("rb") as file:
        assert check_snapshot(file, client.snapshot_key()) == info
    out.unlink()
    stranger = Signer.of(Settings(tmp_path / "stranger", "sqlite://"))
    with pytest.raises(SignatureInvalid, match="signed with another key"):
        client.snapshot(out, stranger.key)
    assert [path.name for path in tmp_path.iterdir()] == ["stranger"]


def test_what_was_touched_since_is_a_snapshot_too(service, tmp_path):
    """Signed like a whole one."""
    client, registry = service
    since = registry.serial()
    registry.add_scan(make_scan("touched"))
    info = client.snapshot(tmp_path / "later.jsonl", since=since)
    assert (info.since, info.architectures) == (since, 1)


def test_a_part_is_not_taken_for_the_whole(service, tmp_path, monkeypatch):
    """Whoever is between could send a snapshot of later changes alone, which is signed as well."""
    client, registry = service
    since, download = registry.serial(), client._download
    registry.add_scan(make_scan("later"))
    monkeypatch.setattr(client, "_download", lambda path, out, *_, **__: download(path, out, since=since))
    for asked, wanted in ((None, "the whole registry"), (since - 1, f"those after {since - 1}")):
        with pytest.raises(SignatureInvalid, match=f"after serial {since} instead of {wanted}"):
            client.snapshot(tmp_path / "part.jsonl", since=asked)
    assert not [*tmp_path.glob("none*")]


def test_a_service_that_refuses_or_is_away_is_said_so(service, tmp_path):
    """As for every other call."""
    client, _ = service
    with pytest.raises(InvalidRequest, match="since"):
        client.snapshot(tmp_path / "none.jsonl", since=-1)
    with Client("http://127.0.0.1:9", timeout=5) as nobody, pytest.raises(ServiceUnreachable, match="loradar serve"):
        nobody.snapshot(tmp_path / "none.jsonl", "key")
    assert not [*tmp_path.glob("none*")]


def test_the_parts_of_a_composite_reach_the_service(service):
    """As one parameter each; the answer is the registry's."""
    client, registry = service
    parts = (ModelPart("text", "llama", True, "model"), ModelPart("vision", "vit", False))  # noqa: FBT003
    registry.add_scan(replace(make_scan("seer"), parts=parts))
    assert client.targets("seer", parts={"text": "llama"}) == registry.lookup("seer")
    with pytest.raises(UnknownName, match="Closest: 'text'"):
        client.targets("seer", parts={"txt": "t5"})
