"""Static files of a registry: what they hold, and lookups through a file server that knows nothing of loradar."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

import loradar
from loradar.api import running
from loradar.cli import main
from loradar.client import Client
from loradar.errors import InvalidRequest, NotRegistered, UnknownArchitecture
from loradar.registry import Registry, write_static
from loradar.settings import Settings

WANTED = ("transformers:llama", "timm:resnet50", "transformers:qwen3")


class QuietHandler(SimpleHTTPRequestHandler):
    """Python's file server, without its log."""

    def log_message(self, *_):
        """Stay quiet."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, seeded):
    """An export of three architectures."""
    out = tmp_path_factory.mktemp("static")
    with Registry.open(Settings(out, f"sqlite:///{seeded}")) as registry:
        assert [*write_static(registry, out, WANTED)] == [(reference, 3) for reference in sorted(WANTED)]
    return out


@pytest.fixture
def url(folder):
    """The URL of a file server with the export."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(url):
    """A client of the static files."""
    with Client(url) as opened:
        yield opened


def test_the_files_are_what_the_service_sends(folder, read_settings):
    """Byte for byte, at the same paths."""
    files = [
        file for top in ("targets", "architectures") for file in (folder / "v1" / top).rglob("*") if file.is_file()
    ]
    assert len(files) == 9
    with running(read_settings) as service, httpx2.Client(base_url=service) as http:
        for file in files:
            assert http.get(f"/{file.relative_to(folder)}").content == file.read_bytes(), file


@pytest.mark.usefixtures("read_settings")
@pytest.mark.parametrize(
    "query",
    [
        ("llama",),
        ("llama", "IA3"),
        ("llama", "LOHA"),
        ("llama", "LORA", "recommended"),
        ("LlamaForCausalLM", "LORA", "mlp"),
        ("Qwen/Qwen3-8B", "LORA", "recommended"),
        ("resnet50",),
        ("resnet50", "LORA", "all-linear", "timm"),
        ("llama", "LORA", "default", None, "5.24.0"),
    ],
)
def test_a_lookup_is_that_of_the_registry(client, query):
    """In any spelling, with any method and preset: a file server ignores the query, and the client notices."""
    assert client.targets(*query) == loradar.lookup(*query)


@pytest.mark.parametrize(
    ("query", "choice", "error", "words"),
    [
        (("lama",), {}, NotRegistered, "Closest: 'transformers:llama'"),
        (("bert",), {}, NotRegistered, "no architecture 'bert'"),
        (("llama", "LORRA"), {}, NotRegistered, "They have: LORA/default, "),
        (("llama",), {"rank": 4}, InvalidRequest, "cannot answer rank"),
        (("llama",), {"parts": {"text": "t5"}}, InvalidRequest, "cannot answer part"),
        (("llama",), {"library_version": "4.0"}, InvalidRequest, "library_version '4.0'"),
    ],
)
def test_what_static_files_cannot_answer_is_an_error(client, query, choice, error, words):
    """Never the answer to another question."""
    with pytest.raises(error, match=words):
        client.targets(*query, **choice)


def test_an_architecture_is_read(read_settings, client):
    """As from a service."""
    with Registry.open(read_settings) as registry:
        assert client.architecture("timm", "resnet50") == registry.get_architecture("timm", "resnet50")


def test_an_export_takes_the_place_of_an_earlier_one_alone(tmp_path, capsys, read_settings):
    """Never of other files; the command says what it wrote."""
    with pytest.raises(SystemExit, match="0"):
        main(["export", "static", str(tmp_path / "out"), "llama", "--no-architectures"])
    assert "1 architectures in 4 files" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["export", "static", str(tmp_path / "out"), "gpt2", "--json"])
    assert json.loads(capsys.readouterr().out)["files"] == 5
    assert not (tmp_path / "out" / "v1" / "targets" / "llama").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    with Registry.open(read_settings) as registry:
        with pytest.raises(InvalidRequest, match="not empty"):
            [*write_static(registry, tmp_path / "mine")]
        with pytest.raises(UnknownArchitecture, match="nothing_like_it"):
            [*write_static(registry, tmp_path / "new", ("nothing_like_it",))]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes"]
    assert not (tmp_path / "new").exists()
