"""``/scan``: what nobody registered, on the page of an architecture; what cannot be scanned, in words, and kept."""

import gzip
import json
import re
from dataclasses import replace

import pytest
import torch
from in_process import InProcess
from safetensors.torch import save
from starlette.testclient import TestClient

from loradar.api import create_app, kept_scans
from loradar.api.pages import scan as pages
from loradar.api.pages.scan import find_known
from loradar.api.workers import Workers
from loradar.domain.mappings import ArchitectureDetail
from loradar.errors import InvalidReference, NotRegistered
from loradar.registry import Registry
from loradar.schema import from_json
from loradar.settings import RequestLimits

CONFIG = {"model_type": "olmo2", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
SMALL = json.dumps({**CONFIG, "intermediate_size": 96, "vocab_size": 100})
MARKUP = '"><script>alert(1)</script>'
BROWSER = {"Accept": "text/html"}


@pytest.fixture
def client(read_settings, monkeypatch, tmp_path):
    """A service whose workers are this process."""
    monkeypatch.setattr(Workers, "get_scans", lambda _: InProcess())
    settings = replace(read_settings, home=tmp_path, limits=RequestLimits(*[10**9] * 4))
    with TestClient(create_app(settings), raise_server_exceptions=False, follow_redirects=False) as opened:
        yield opened


def send(client, files=(), **fields):
    """Send the form as a browser does."""
    parts = [("file", (name, content)) for name, content in files]
    parts += [(name, (None, value)) for name, value in fields.items()]
    return client.post("/scan", files=parts, headers=BROWSER)


def header_of(*names):
    """Return the header of a file with square matrices of these names."""
    content = save({name: torch.zeros(4, 4) for name in names})
    return content[: 8 + int.from_bytes(content[:8], "little")]


def test_a_configuration_leads_to_the_page_of_its_architecture(client, read):
    """With chips, costs and snippets, as one that is registered; its sizes are those that were sent."""
    response = send(client, text=SMALL)
    assert response.status_code == 303, response.text
    address = response.headers["Location"]
    page = read(address)
    assert '["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]' in page.text
    assert page.all("a", href="/architectures/transformers/olmo2")
    detail = from_json(ArchitectureDetail, client.get(page.all("link", rel="alternate")[0]["href"]).json())
    assert {slot.count for slot in detail.slots if slot.pattern.endswith("q_proj")} == {2}
    assert '["q_proj", "v_proj"]' in read(f"{address}?preset=default").text
    assert all(
        own["href"].startswith(address) for own in page.all("a", **{"class": "chip"}) if "preset=" in own["href"]
    )
    assert "ETag" not in client.get(address, headers=BROWSER).headers


def test_a_scan_without_targets_has_a_page(client, read):
    """It was a 404 that proposed to scan it; programs get its layers."""
    address = send(client, text='{"_class_name": "AutoencoderKLCosmos"}').headers["Location"]
    page = read(address)
    assert "It has no target modules" in page.text
    assert page.all("a", href="/architectures/diffusers/AutoencoderKLCosmos")
    assert client.get(f"/v1{address}").json()["mappings"] == []


def test_headers_of_an_unknown_model_can_be_submitted(client, read):
    """With its layers, because nothing here can build it; the names are text."""
    blocks = [
        f"net.layers.{n}.attn.{name}.weight" for n in range(2) for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    ]
    address = send(client, [("mine.safetensors", header_of(*blocks))]).headers["Location"]
    page = read(address)
    fields = {own["name"]: own["value"] for own in page.all("input", type="hidden")}
    assert fields["library"] == "torch"
    assert "net.layers.0.attn.q_proj 4x4" in fields["layers"].splitlines()
    (form,) = page.all("form", method="post")
    assert form["action"] == "/submissions/preview"


def test_markup_in_what_is_sent_stays_text(client, read):
    """In the names of layers and files, in the text, and in the reference."""
    odd = f"net.layers.{{}}.{MARKUP.replace('.', '')}.q_proj.weight"
    address = send(client, [("x", header_of(*(odd.format(n) for n in range(2))))]).headers["Location"]
    assert "<script>alert" not in read(address).html
    for response in (
        send(client, text=MARKUP),
        send(client, reference=MARKUP),
        send(client, [(f"{MARKUP}.json", b"{")]),
        client.get("/scan", params={"reference": MARKUP}, headers=BROWSER),
    ):
        assert "<script>alert" not in response.text
        assert "&#34;&gt;" in response.text or "script&gt;.json" in response.text


@pytest.mark.parametrize(
    ("files", "fields", "status", "said"),
    [
        ((), {}, 422, "nothing to scan"),
        ((), {"text": '{"model_type": "olmo2",}'}, 422, "line 1"),
        ((), {"text": '{"model_type": "olmo22"}'}, 404, "olmo22"),
        ((), {"text": SMALL, "reference": "a/b"}, 422, "may be two models"),
        ([("a.json", gzip.compress(b"{}"))], {}, 422, "compressed (gzip)"),
        ([("model.bin", b"PK\x03\x04")], {}, 422, "zip archive"),
        ([("i.json", b'{"weight_map": {"a.weight": "m.safetensors"}}')], {}, 422, "names without shapes"),
        ((), {"reference": "lama"}, 404, "lama"),
        ((), {"reference": "file:/etc/passwd"}, 404, "file:/etc/passwd"),
    ],
)
def test_what_cannot_be_scanned_is_said_and_kept(client, files, fields, status, said):
    """On the page of the form, with the text and the names of the files."""
    response = send(client, files, **fields) if files or fields else send(client, text="")
    assert (response.status_code, said in response.text) == (status, True), response.text
    assert 'role="alert"' in response.text
    kept = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", response.text, re.DOTALL)[1]
    assert json.dumps(kept) == json.dumps(fields.get("text", "").replace('"', "&#34;"))
    assert all(name in response.text for name, _ in files)


def test_a_registered_architecture_is_not_scanned(client, monkeypatch):
    """Its page is where the form leads, in any spelling of which there is no doubt."""
    monkeypatch.setattr(Workers, "get_scans", None)
    for reference in ("llama", "Qwen/Qwen3-8B", "https://huggingface.co/Qwen/Qwen3-8B"):
        response = send(client, reference=reference)
        assert (response.status_code, response.headers["Location"][:29]) == (
            303,
            "/architectures/transformers/l"[:29],
        ) or (response.headers["Location"] == "/architectures/transformers/qwen3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("someone/their-own-model", "hub:someone/their-own-model"),
        ("https://huggingface.co/someone/their-own-model", "hub:someone/their-own-model"),
        ("hub:someone/their-own-model@main", "hub:someone/their-own-model@main"),
        ("hub:Qwen/Qwen3-8B", "hub:Qwen/Qwen3-8B"),
    ],
)
def test_a_repository_is_read_from_the_hub(read_settings, text, expected):
    """One that is not known for certain, or whose own files are asked for."""
    with Registry.open(read_settings) as registry:
        assert find_known(registry, text) == (None, expected)


@pytest.mark.parametrize(("text", "error"), [("hub:../x", InvalidReference), ("nobodyknowsthis", NotRegistered)])
def test_what_names_nothing_is_rejected(read_settings, text, error):
    """Before a worker is asked."""
    with Registry.open(read_settings) as registry, pytest.raises(error):
        find_known(registry, text)


def test_the_model_of_a_repository_stands_in_the_snippets(client, read, monkeypatch):
    """By its id."""

    class Fetched(InProcess):
        def run(self, function, sent):
            assert sent == {"reference": "hub:someone/theirs"}
            return super().run(function, {"files": {"config.json": SMALL.encode()}})

    monkeypatch.setattr(Workers, "get_scans", lambda _: Fetched())
    address = send(client, reference="someone/theirs").headers["Location"]
    assert address.endswith("?model=someone%2Ftheirs")
    assert 'from_pretrained("someone/theirs")' in read(address).text


def test_a_scan_is_gone_after_its_time(client, read, monkeypatch):
    """Which is said, with the way out; an id that is none leads nowhere."""
    address = send(client, text=SMALL).headers["Location"]
    monkeypatch.setattr(kept_scans, "SECONDS", -1.0)
    assert "not here any more" in read(address, 404).text
    for odd in ("x", "..%2F..%2Fetc", "A" * 22):
        assert read(f"/scan/{odd}", 404).text


def test_the_oldest_scans_make_room(tmp_path, monkeypatch):
    """In number and in bytes; a part of a file that a killed process left goes too."""
    kept = kept_scans.KeptScans(tmp_path)
    monkeypatch.setattr(kept_scans, "MOST_FILES", 3)
    ids = [kept.keep(b"x") for _ in range(5)]
    assert len(list(tmp_path.iterdir())) == 3
    assert kept.get(ids[-1]) == b"x"
    monkeypatch.setattr(kept_scans, "MOST_BYTES", 10)
    last = kept.keep(b"y" * 10)
    assert [path.stem for path in tmp_path.iterdir()] == [last]
    assert (tmp_path / f"{last}.scan").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_said(client, tmp_path):
    """With the route that stores nothing."""
    (tmp_path / "scans").write_text("a file", "utf-8")
    response = send(client, text=SMALL)
    assert (response.status_code, "POST /v1/scan" in response.text) == (503, True)


def test_the_form_is_the_same_without_a_script(read):
    """Every control has a label, and the form says what the service takes."""
    page = read("/scan?reference=org/repo")
    assert page.all("input", id="reference", value="org/repo")
    labelled = {own["for"] for own in page.all("label")}
    assert {"text", "file", "reference"} <= labelled
    (form,) = page.all("form", method="post")
    assert (form["action"], form["enctype"]) == ("/scan", "multipart/form-data")
    assert pages.MOST_FILES == 64
    assert "up to 64, 16 MiB together" in page.text
