"""``loradar explain`` and ``loradar open``."""

import json

import pytest

from loradar.cli import explain as command


@pytest.mark.usefixtures("read_settings")
def test_a_layer_is_explained_in_rows(run):
    """What takes it together, and what leaves it out by the reason."""
    code, out, err = run("explain", "llama", "q_proj")
    assert (code, err) == (0, "")
    assert "model.layers.*.self_attn.q_proj\n  layer     linear in the language tower, 32 layers\n" in out
    assert "  taken by  default: q_proj (peft 0.21.2)\n" in out
    assert "            recommended, attention, all-linear, everything: q_proj (scanner 0.1.0)\n" in out
    assert "  left out  mlp: its targets are others" in out


@pytest.mark.usefixtures("read_settings")
def test_many_kinds_of_layers_have_a_row_each(run):
    """A module, such as a tower."""
    code, out, _ = run("explain", "llava", "vision_tower")
    assert code == 0
    assert "pre_layrnorm" in out
    assert "norm, 1 layer; no target: a norm has no matrix" in out
    assert out.count("\n") == 13


@pytest.mark.usefixtures("read_settings")
def test_json_has_every_choice(run):
    """Where people read them in groups."""
    found = json.loads(run("explain", "llama", "lm_head", "--json")[1])
    assert {choice["preset"] for choice in found["layers"][0]["choices"]} >= {"default", "everything"}
    code, out, _ = run("explain", "gpt_neox", "q_proj", "--json")
    assert code == 2
    assert json.loads(out)["error"]["details"]["near"] == ["query_key_value"]


def test_a_model_that_is_not_registered_is_scanned(run):
    """One's own class, with the evidence of the scan."""
    code, out, _ = run("explain", "torch:torch.nn:TransformerEncoderLayer?", "linear1")
    assert code == 2
    code, out, _ = run("explain", "llama", "--scan", "q_proj")
    assert code == 0
    assert "dataflow: reaches the query operand of attention" in out


def test_a_scan_here_and_a_service_contradict_each_other(run):
    """One of them explains."""
    code, _, err = run("explain", "llama", "q_proj", "--scan", "--url", "http://127.0.0.1:1")
    assert (code, err) == (2, "Error: --scan scans here, and --url asks a service: give one of them.\n")


@pytest.fixture
def opened(monkeypatch):
    """The addresses that were opened in a browser."""
    addresses = []
    monkeypatch.setattr(command.typer, "launch", addresses.append)
    return addresses


def test_the_page_of_a_service_is_opened(run, opened, monkeypatch):
    """Of the option, or of the setting; names are quoted."""
    code, out, _ = run("open", "Qwen/Qwen3-8B", "--url", "https://example.org/loradar/")
    assert (code, out) == (0, "https://example.org/loradar/architectures/transformers/qwen3\n")
    monkeypatch.setenv("LORADAR_URL", "http://127.0.0.1:8000")
    assert run("open", "timm:resnet50")[0] == 0
    assert opened == [
        "https://example.org/loradar/architectures/transformers/qwen3",
        "http://127.0.0.1:8000/architectures/timm/resnet50",
    ]
    assert run("open", "llama", "--no-browser")[1] == "http://127.0.0.1:8000/architectures/transformers/llama\n"
    assert len(opened) == 2


def test_without_a_service_one_is_started(run, opened, monkeypatch):
    """On a free port of this machine, until it is stopped."""
    monkeypatch.delenv("LORADAR_URL", raising=False)
    started = []

    def serve(_, host, port, announce):
        started.append((host, port))
        announce("http://127.0.0.1:4321")

    monkeypatch.setattr("loradar.api.serve", serve)
    code, out, _ = run("open", "llama", "--json")
    assert code == 0
    assert json.loads(out) == {"url": "http://127.0.0.1:4321/architectures/transformers/llama"}
    assert started == [("127.0.0.1", 0)]
    assert opened == ["http://127.0.0.1:4321/architectures/transformers/llama"]
