"""Running the service for real, on loopback."""

import re
import signal
import socket
import subprocess
import sys

import pytest
from patience import patience

from loradar.api import running, serve
from loradar.api.server import Server, _listen, url_of
from loradar.client import Client
from loradar.errors import CannotServe, DatabaseUnusable, NotAuthenticated, ServiceUnreachable
from loradar.settings import Settings

SERVE = """
from loradar.api import serve
from loradar.settings import Settings
serve(Settings.from_environment(), port=0, ready=lambda url: print(url, flush=True))
"""


def test_it_answers_while_it_runs_and_not_after(seeded_settings):
    """A free port is picked; leaving the context closes it."""
    with running(seeded_settings) as url, Client(url) as client:
        assert client.targets("llama").name == "llama"
    with Client(url) as client, pytest.raises(ServiceUnreachable, match="loradar serve"):
        client.targets("qwen3")  # a response that the client has stored would be given again


@pytest.mark.usefixtures("seeded_settings")
def test_serving_tells_its_url_and_stops_at_an_interrupt():
    """What ``loradar serve --port 0`` does: the URL once it answers, a clean end at Ctrl-C."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    url = process.stdout.readline().strip()
    with Client(url, token="lrd_none") as client:  # noqa: S106 - nobody has it
        assert client.targets("llama").name == "llama"
        with pytest.raises(NotAuthenticated):
            client.withdraw(1, "no longer needed")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=patience())
    assert process.returncode == 0
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d [\d:]+ WARNING loradar\.api: rejected POST .* from 127\.0\.0\.1 \[request_id=[0-9a-f]+\]\n",
        err,
    )


@pytest.mark.usefixtures("seeded_settings")
def test_other_processes_of_the_user_cannot_read_a_service():
    """Its environment and memory hold keys: while it serves, Linux shows them to no other process of the same user."""
    script = SERVE.replace("print(url,", "print(CDLL(None).prctl(3),")  # PR_GET_DUMPABLE
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", f"from ctypes import CDLL\nprint(CDLL(None).prctl(3))\n{script}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    told = [process.stdout.readline().strip() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=patience())
    assert told == ["1", "0"]


def test_a_taken_port_is_refused(seeded_settings):
    """The message names the port and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotServe, match=f"port {port}.*port 0 picks a free one"):
            serve(seeded_settings, port=port)


def test_an_impossible_port_is_refused(seeded_settings):
    """No traceback for a number that is no port."""
    with pytest.raises(CannotServe, match="port 99999"):
        serve(seeded_settings, port=99999)


def test_an_unusable_registry_is_refused_before_listening(tmp_path):
    """``serve`` does not start a service that could answer nothing."""
    path = tmp_path / "registry.sqlite3"
    path.write_bytes(b"spoiled" * 1000)
    with pytest.raises(DatabaseUnusable, match="file is not a database"):
        serve(Settings(tmp_path, f"sqlite:///{path}"))


def test_a_server_that_does_not_start_says_so(seeded_settings, monkeypatch):
    """A start that fails ends the context with an error instead of waiting for ever."""

    async def fail(*_: object) -> None:
        """Start nothing."""

    monkeypatch.setattr(Server, "_serve", fail)
    with pytest.raises(CannotServe, match="did not start"), running(seeded_settings):
        pass


def test_an_answer_is_sent_at_once():
    """Its body does not wait until its head is received: that is 40 ms of each request on a kept connection."""
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_ipv6_url_has_brackets():
    """A port after a bare IPv6 address could not be told from it."""
    with socket.socket(socket.AF_INET6) as listener:
        assert url_of(listener) == "http://[::]:0"
