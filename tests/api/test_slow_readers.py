"""Clients that do not read what they asked for: they are not held for ever, and do not keep the service from ending."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from patience import wait_until
from seeding import PEFT_ALONE, make_seeded, seeds_of

from loradar.api import running
from loradar.api.process import slow_readers
from loradar.client import Client
from loradar.settings import RequestLimits, Settings

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")

MANY = 40
REQUEST = b"GET /v1/snapshot HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n"


@pytest.fixture
def settings(tmp_path):
    """The settings of a service whose snapshot is larger than what the kernel takes for a client that does not read."""
    with seeds_of(PEFT_ALONE):
        path = make_seeded(tmp_path / "registry.sqlite3", PEFT_ALONE)
        yield Settings(tmp_path, f"sqlite:///{path}", limits=RequestLimits(*[10**9] * 4))


def ask(address, request=REQUEST):
    """Ask for something large and read none of it."""
    asking = socket.socket()
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    asking.connect(address)
    asking.sendall(request)
    return asking


def address_of(url):
    """Return the host and port of a URL."""
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


def snapshots_open():
    """Return how many files of snapshots this process has open."""
    names = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum("loradar-snapshots-" in name for name in names)


def test_who_does_not_read_is_cut_off_and_who_reads_slowly_is_not(settings, monkeypatch, caplog, tmp_path):
    """Their connections end, and the files they kept open are closed; others are served meanwhile."""
    monkeypatch.setattr("loradar.api.routes.snapshot.CHUNK", 1 << 16)
    looks = []
    monkeypatch.setattr(slow_readers.SlowReaders, "watch", lambda self: _wait_for_looks(self, looks))
    monkeypatch.setattr(socket, "create_server", _with_small_buffers(socket.create_server))
    with running(settings) as url, Client(url) as client, ExitStack() as stack:
        (readers,) = wait_until(lambda: looks)
        whole = client.snapshot(tmp_path / "snapshot")
        unread = [stack.enter_context(ask(address_of(url))) for _ in range(MANY)]
        wait_until(lambda: snapshots_open() >= MANY, "responses that wait for their readers")
        slow = stack.enter_context(ask(address_of(url)))
        wait_until(lambda: snapshots_open() > MANY, "the response that is read slowly")
        connections = readers._connections
        own = slow.getsockname()
        (read,) = [c for c in list(connections) if c.transport.get_extra_info("peername") == own]
        for _ in range(3):
            drained = read.drained
            readers.end_stalled()
            while read.drained == drained:
                assert slow.recv(1 << 16), "the one that reads was cut off"
        wait_until(lambda: snapshots_open() <= 1, "the end of those that do not read")
        assert len([c for c in connections if c.transport.get_write_buffer_size()]) == 1
        assert f"ended {MANY} connections whose clients read nothing" in caplog.text
        assert client.snapshot(tmp_path / "snapshot") == whole
        for asking in unread:
            with pytest.raises(ConnectionError):  # noqa: PT012 - the bytes that were sent before come first
                while asking.recv(1 << 16):
                    pass
                raise ConnectionError


async def _wait_for_looks(readers, looks):
    """Give the test the watch, to look when it likes."""
    looks.append(readers)


def _with_small_buffers(create_server):
    """Return a function that makes listeners whose connections keep little in the kernel."""

    def create(*arguments, **options):
        listener = create_server(*arguments, **options)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return listener

    return create


def test_one_who_does_not_read_does_not_keep_the_service_from_ending(settings, monkeypatch):
    """Told to stop, as by SIGTERM, it waits a while for the rest to be read, and stops."""
    monkeypatch.setattr("loradar.api.server.GRACE_SECONDS", 1)
    monkeypatch.setattr(socket, "create_server", _with_small_buffers(socket.create_server))
    with running(settings) as url:
        asking = ask(address_of(url))
        wait_until(snapshots_open, "the response that waits for its reader")
    asking.close()
