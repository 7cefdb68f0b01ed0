"""The form of snapshots: whatever is changed in one, it is no longer what was signed."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loradar.errors import SignatureInvalid
from loradar.schema import from_json, to_json
from loradar.settings import Settings
from loradar.snapshots import Signer, SnapshotInfo, canonical_line, check_snapshot, signed_lines, write_snapshot

HEAD = {"format": 2, "loradar": "0.1.0", "serial": 3, "head": "sha256:1", "since": None}
LINES = [canonical_line(line) for line in (HEAD, {"architecture": {"name": "llama"}}, {"architecture": {"name": "é"}})]


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    """Somebody who signs."""
    return Signer.of(Settings(tmp_path_factory.mktemp("signer"), "sqlite://"))


@pytest.fixture(scope="module")
def signed(signer):
    """The lines of a signed snapshot."""
    return [*signed_lines(LINES, signer)]


def test_a_snapshot_says_what_it_is_of(signed, signer):
    """Serial, head and how many architectures, all of it signed."""
    info = check_snapshot(signed, signer.key)
    assert (info.serial, info.head, info.since, info.architectures) == (3, "sha256:1", None, 2)
    assert from_json(SnapshotInfo, to_json(info)) == info
    assert json.loads(signed[-1])["signed"] == to_json(info)
    assert all(line.isascii() for line in signed)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_counts(signed, signer, data):
    """One that is changed, left out or added anywhere but in spaces of the last line's JSON."""
    whole = b"".join(signed)
    place = data.draw(st.integers(0, len(whole) - 2))
    kind = data.draw(st.sampled_from(["change", "drop", "add"]))
    here, other = whole[place : place + 1], bytes([whole[place] ^ 1])
    altered = whole[:place] + {"change": other, "drop": b"", "add": other + here}[kind] + whole[place + 1 :]
    try:
        found = check_snapshot(altered.splitlines(keepends=True), signer.key)
    except SignatureInvalid:
        return
    assert found == check_snapshot(signed, signer.key)
    assert b"".join(altered.splitlines(keepends=True)[:-1]) == b"".join(signed[:-1])


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[:1] + lines[-1:],
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        lambda lines: [*lines, lines[1]],
        lambda lines: [*lines, b"{}\n"],
        lambda lines: [*lines[:-1], b"null\n"],
        lambda lines: [*lines[:-1], b'{"signed": {}, "signature": ""}\n'],
        lambda lines: [*lines[:-1], b"[" * 100_000],
        lambda _: [],
        lambda _: [b"\xff\n"],
    ],
)
def test_what_is_cut_off_swapped_or_added_is_noticed(signed, signer, change):
    """By line."""
    with pytest.raises(SignatureInvalid, match=r"snapshot|signature|key"):
        check_snapshot(change(signed), signer.key)


def test_a_signature_of_somebody_else_does_not_do(signed, tmp_path):
    """The key is the one thing a mirror has to know."""
    other = Signer.of(Settings(tmp_path, "sqlite://"))
    with pytest.raises(SignatureInvalid, match="signed with another key"):
        check_snapshot(signed, other.key)


def test_a_file_is_there_once_it_is_whole(tmp_path, signer):
    """A failure leaves what was there before, and nothing beside it."""
    out = tmp_path / "snapshot.jsonl"
    info = write_snapshot(out, LINES, signer)
    with out.open("rb") as file:
        assert check_snapshot(file, signer.key) == info
    before = out.read_bytes()

    def lines():
        yield LINES[0]
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_snapshot(out, lines(), signer)
    assert (out.read_bytes(), list(tmp_path.iterdir())) == (before, [out])
