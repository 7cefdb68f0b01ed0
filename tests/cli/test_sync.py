"""``loradar snapshot load`` and ``sync``: mirrors, over connections that break off and from hosts that lie."""

import gzip
import http.server
import json
import os
import random
import socket
import threading
from contextlib import contextmanager, suppress

import pytest
from records_zoo import make_scan
from seeding import PEFT_ALONE, make_seeded, seeds_of

from loradar.api import running
from loradar.client import Client, download
from loradar.errors import ServiceUnreachable
from loradar.registry import Registry
from loradar.settings import HOME_VARIABLE, RequestLimits, Settings
from loradar.snapshots import Signer, write_snapshot

pytestmark = pytest.mark.first_use  # a mirror is not seeded, and so quickly made

POINTS = 20


@pytest.fixture(scope="module", autouse=True)
def catalogs():
    """Seed from PEFT's tables alone."""
    with seeds_of(PEFT_ALONE):
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A running service, its registry, its URL and its key."""
    folder = tmp_path_factory.mktemp("source")
    path = make_seeded(folder / "registry.sqlite3", PEFT_ALONE)
    settings = Settings(folder, f"sqlite:///{path}", limits=RequestLimits(*[10**9] * 4))
    with pytest.MonkeyPatch.context() as patch, Registry.open(settings) as registry, running(settings) as url:
        patch.setattr("loradar.api.routes.snapshot.FRESH_SECONDS", 0)
        registry.add_scan(make_scan())
        yield registry, url, Signer.of(settings).key


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The settings of a machine that is to be a mirror, whose commands run from here on."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "mirror"))
    return Settings.from_environment()


def export(registry):
    """Return the canonical export of a registry."""
    with registry.snapshot() as lines:
        return [*lines]


def assert_equal(settings, registry):
    """Compare a mirror with its source."""
    with Registry.open(settings) as opened:
        assert export(opened) == export(registry)
        assert opened.verify_log().faults == ()


def test_a_mirror_is_made_and_kept(run, source, mirror):
    """From nothing, then by what changed; the serial and the expiry are said."""
    registry, url, key = source
    code, out, err = run("sync", url, "--key", key)
    assert (code, out.splitlines()[0], err) == (0, "Loaded 44 architectures (all).", "")
    assert_equal(mirror, registry)
    before = registry.serial()
    registry.add_scan(make_scan("late"))
    code, out, _ = run("sync", url, "--key", key)
    assert out.startswith(
        f"Loaded 1 architectures (those changed after serial {before}).\nserial   {before} -> {before + 1}"
    )
    assert_equal(mirror, registry)
    assert run("sync", url, "--key", key)[1].startswith(f"Up to date at serial {before + 1}, as of ")
    assert run("lookup", "late")[0] == 0
    code, _, err = run("token", "create", "ada", "--role", "admin")
    assert (code, "mirrors another one and takes no 'token.create'" in err) == (2, True)


def test_a_file_is_loaded_and_a_second_time_not(run, source, mirror, tmp_path):
    """What a mirror without a network gets; an older one is rejected with code 1."""
    registry, _, key = source
    files = [tmp_path / name for name in ("older", "newer")]
    for file in files:
        with registry.snapshot() as lines:
            write_snapshot(file, lines, Signer.of(Settings(registry._database.file.parent, "sqlite://")))
    assert json.loads(run("snapshot", "load", str(files[1]), "--key", key, "--json")[1])["is_new"]
    assert run("snapshot", "load", str(files[1]), "--key", key)[1].startswith("Unchanged: this snapshot of serial")
    code, out, err = run("snapshot", "load", str(files[0]), "--key", key)
    assert (code, out, "was loaded already" in err) == (1, "", True)
    assert_equal(mirror, registry)
    assert run("snapshot", "load", str(tmp_path / "none"), "--key", key)[0] == 2
    assert "loradar snapshot --out FILE" in run("snapshot")[2]


class Cutting:
    """A server that passes on requests to another, and of all responses together only some bytes.

    Attributes:
        passed: Bytes that it passed on since it was allowed any.
    """

    def __init__(self, url: str) -> None:
        self._upstream = url.removeprefix("http://").split(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed, self._left = 0, 0
        threading.Thread(target=self._serve, daemon=True).start()

    def allow(self, count: int) -> None:
        """Pass on so many bytes, then end each connection."""
        self.passed, self._left = 0, count

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(self._upstream) as upstream:
                upstream.sendall(client.recv(65536).replace(b"keep-alive", b"close"))
                while self._left and (data := upstream.recv(min(4096, self._left))):
                    client.sendall(data)
                    self._left -= len(data)
                    self.passed += len(data)

    def close(self) -> None:
        """End."""
        self._listener.close()


def test_a_download_cut_off_anywhere_is_continued(source, tmp_path):
    """At random bytes, any number of times: the next attempt fetches the rest alone, and the file is the same."""
    cutting, out = Cutting(source[1]), tmp_path / "snapshot"
    cutting.allow(10**9)
    with Client(cutting.url) as client:
        shown = []
        client.fetch_snapshot(out, show=lambda *each: shown.append(each))
        assert shown[-1][0] == out.stat().st_size
        assert {total for _, total in shown} <= {None, out.stat().st_size}
    size, whole = cutting.passed, out.read_bytes()
    places = random.sample(range(size - 1), POINTS)
    resumed = 0
    for place in places:
        out.unlink()
        for count in (place, 1500, 10**9):
            cutting.allow(count)
            with Client(cutting.url) as client, suppress(ServiceUnreachable):
                client.fetch_snapshot(out)
        assert out.read_bytes() == whole
        assert [path.name for path in tmp_path.glob("snapshot*")] == ["snapshot"]
        resumed += cutting.passed < size - len(whole) // 100
        assert cutting.passed <= size + 200  # the headers of a part are longer
    cutting.close()
    assert resumed >= POINTS // 2


def test_a_mirror_whose_download_was_cut_off_ends_equal(run, source, mirror):
    """It stays as it is until then."""
    registry, url, key = source
    cutting = Cutting(url)
    command = ("sync", cutting.url, "--key", key, "--reset")  # everything each time
    cutting.allow(10**9)
    assert run(*command)[0] == 0
    with Registry.open(mirror) as opened:
        before = export(opened)
    registry.add_scan(make_scan(f"after{registry.serial()}"))
    cutting.allow(cutting.passed // 2)
    code, _, err = run(*command)
    assert (code, "No usable response" in err) == (2, True)
    with Registry.open(mirror) as opened:
        assert export(opened) == before
    cutting.allow(10**9)
    assert run(*command)[0] == 0
    cutting.close()
    assert_equal(mirror, registry)
    assert list((mirror.home / "sync").iterdir()) == []


def test_the_part_of_an_older_snapshot_is_not_continued(run, source, mirror):
    """The service has another one by now: it sends all of that."""
    registry, url, key = source
    cutting = Cutting(url)
    command = ("sync", cutting.url, "--key", key, "--reset")
    cutting.allow(2000)
    assert run(*command)[0] == 2
    (part,) = [path for path in (mirror.home / "sync").iterdir() if path.suffix != ".etag"]
    assert 0 < part.stat().st_size < 2000
    part.with_name(f"{part.name}.etag").write_text('"another"')
    cutting.allow(10**9)
    assert run(*command)[0] == 0
    cutting.close()
    assert_equal(mirror, registry)


@contextmanager
def lying(answer):
    """A server that answers every request by a function, and the paths it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers."""

        def do_GET(self):
            """Answer, as long as somebody reads."""
            asked.append(self.path)
            try:
                answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_):
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def send(handler, status, body=b"", **headers):
    """Send a response."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_other_host_is_asked(run, source, status):
    """A redirect is said, not followed: it could lead to a service that only this machine can reach."""
    with (
        lying(lambda handler: send(handler, 200, b"secret")) as (inner, asked),
        lying(lambda handler: send(handler, status, Location=f"{inner}/secret")) as (outer, _),
    ):
        code, _, err = run("sync", outer, "--key", source[2])
        assert (code, asked, f"redirects to '{inner}/secret'" in err) == (2, [], True)


@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host", "host", "unix:/run/socket", ""])
def test_no_other_protocol_is_spoken(run, url):
    """HTTP alone."""
    code, _, err = run("sync", url, "--key", "key")
    assert (code, "give that of a loradar service" in err) == (2, True)


@pytest.mark.usefixtures("mirror")
def test_a_response_without_end_is_cut_off(run, source, monkeypatch):
    """As it is sent, and packed: nothing of it is kept."""
    monkeypatch.setattr(download, "LARGEST", 1 << 20)
    monkeypatch.setattr("loradar.snapshots.LARGEST_SNAPSHOT", 1 << 20)

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 16))

    with lying(endless) as (url, _):
        assert "sends more than 1 MiB" in run("sync", url, "--key", source[2])[2]
    bomb = gzip.compress(b"{}\n" * (1 << 20))
    with lying(lambda handler: send(handler, 200, bomb, Content_Encoding="gzip")) as (url, _):
        assert "larger than any snapshot" in run("sync", url, "--key", source[2])[2]


@pytest.mark.usefixtures("mirror")
def test_an_error_of_the_service_is_said(run, source):
    """As for every other command; a page of something else too."""
    body = json.dumps({"error": {"code": "overloaded", "message": "Try again.", "details": {}}}).encode()
    with lying(lambda handler: send(handler, 503, body)) as (url, _):
        assert run("sync", url, "--key", source[2])[2] == "Error: Try again.\n"
    with lying(lambda handler: send(handler, 404, b"<html>")) as (url, _):
        assert "not from a loradar service" in run("sync", url, "--key", source[2])[2]
    with lying(lambda handler: send(handler, 200, b"<html>")) as (url, _):
        code, _, err = run("sync", url, "--key", source[2])
        assert (code, "Incomplete snapshot" in err) == (1, True)


def test_two_at_once_do_not_write_one_file(run, source, mirror):
    """The second says so; it need not wait."""
    fcntl = pytest.importorskip("fcntl")
    folder = mirror.home / "sync"
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    code, _, err = run("sync", source[1], "--key", source[2])
    os.close(descriptor)
    assert (code, "Another loradar sync is running" in err) == (2, True)
