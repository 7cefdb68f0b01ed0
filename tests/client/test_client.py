"""The REST client, against a real service on loopback and against what is none."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from records_zoo import VERSION, make_scan

from loradar.api import running
from loradar.client import Client
from loradar.client import client as client_module
from loradar.errors import (
    InvalidRequest,
    LoradarError,
    NotRegistered,
    ServiceUnreachable,
    UnknownArchitecture,
    UnknownPeftType,
    UnknownPreset,
)
from loradar.received_errors import to_error


@pytest.fixture
def client(seeded_settings):
    """A client of a running service."""
    with running(seeded_settings) as url, Client(url + "/") as opened:
        yield opened


@pytest.fixture
def answering():
    """Serve one fixed body to every request; yields a function that takes it and returns the URL."""
    servers = []

    def start(status: int, body: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            """Answers everything alike."""

            def do_GET(self) -> None:
                """Send the body."""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_mapping_comes_back_as_the_registry_gives_it(client, registry):
    """The same record over REST as in process, verification included."""
    registry.add_scan(make_scan("llama"))
    assert client.targets("llama") == registry.lookup("llama")
    assert client.targets("llama", "IA3", library_version=VERSION) == registry.lookup("llama", "IA3")


def test_the_nearest_come_back_as_the_registry_gives_them(client, registry):
    """With their differences; the limit is passed on."""
    assert client.explain("timm", "resnet50", "fc").layers[0].saved
    assert client.search("Wqkv", 3) == registry.browsing.search("Wqkv", 3)
    assert client.similar("timm", "resnet50", 3) == registry.list_similar("timm", "resnet50", 3)
    with pytest.raises(NotRegistered, match="transformers:chatglm was never scanned"):
        client.similar("transformers", "chatglm")


def test_architectures_are_fetched_page_by_page(client, registry, monkeypatch):
    """All of them, whatever the size of a page; filters are passed on."""
    monkeypatch.setattr(client_module, "PAGE", 97)
    assert client.architectures() == registry.list_architectures()
    assert client.architectures("transformers", "LLA") == registry.list_architectures("transformers", "LLA")
    assert client.architectures("torch") == ()


def test_an_architecture_comes_back_whole(client, registry):
    """Also one whose name has to be quoted in a URL."""
    registry.add_scan(make_scan("package.module:Net#1", library="torch"))
    assert client.architecture("torch", "package.module:Net#1") == registry.get_architecture(
        "torch", "package.module:Net#1"
    )


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (("lama",), NotRegistered),
        (("llama", "LORRA"), UnknownPeftType),
        (("llama", "LORA", "defualt"), UnknownPreset),
        (("llama", "LORA", "default", "keras"), InvalidRequest),
    ],
)
def test_errors_are_those_of_the_registry(client, registry, question, expected):
    """Class, message and values are the same as in process."""
    with pytest.raises(expected, match=r".") as remote:
        client.targets(*question)
    assert type(remote.value) is expected
    if expected is not InvalidRequest:
        with pytest.raises(expected, match=r".") as local:
            registry.lookup(*question)
        assert str(remote.value) == str(local.value)
        assert remote.value.to_dict() == local.value.to_dict()
        assert remote.value.near == local.value.near


def test_an_unknown_architecture_has_near_names(client):
    """The client's error carries them as an attribute."""
    with pytest.raises(UnknownArchitecture, match="gpt3") as caught:
        client.architecture("transformers", "gpt3")
    assert "gpt2" in caught.value.near


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://", "ftp://127.0.0.1/", "http://127.0.0.1:x"])
def test_no_answer_names_the_url_and_the_way_out(url):
    """Nobody there, or an URL that is none."""
    with Client(url, timeout=5) as client, pytest.raises(ServiceUnreachable, match="loradar serve") as caught:
        client.targets("llama")
    assert caught.value.details["url"] == url.rstrip("/")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello</html>"),
        (200, b"{}"),
        (200, b"[]"),
        (200, b"null"),
        (200, b"\xff\xfe"),
        (404, b"not here"),
        (404, b'{"detail": "Not Found"}'),
        (502, b'{"error": "bad gateway"}'),
        (404, b'{"error": {"code": "not_registered", "message": "x", "details": {}}}'),
    ],
)
def test_what_is_no_loradar_service_is_said_to_be_none(answering, status, body):
    """Another service's answers are not taken for ours."""
    with (
        Client(answering(status, body)) as client,
        pytest.raises(ServiceUnreachable, match="the response is not from a loradar service"),
    ):
        client.targets("llama")


def test_an_unknown_code_is_still_an_error_of_ours():
    """A newer service may have codes this client has no class for."""
    error = to_error({"error": {"code": "from_the_future", "message": "Wait.", "details": {"a": 1}}})
    assert (type(error), str(error), error.details) == (LoradarError, "Wait.", {"a": 1})


def test_the_client_needs_neither_torch_nor_sqlalchemy():
    """Only what the base installs, and of that only what it uses."""
    code = "import sys, loradar.client; print([n for n in ('torch', 'sqlalchemy', 'fastapi') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"
