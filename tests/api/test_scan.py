"""``POST /v1/scan``: what is sent is scanned beside the service, which nothing of it can hurt."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from patience import wait_until
from shapes import documented
from starlette.testclient import TestClient

from loradar.api import create_app, workers
from loradar.api.openapi import LAYERS_EXAMPLE
from loradar.api.routes import scan as route
from loradar.domain.scans import Scan
from loradar.sandbox.pool import Bounds, Sandbox
from loradar.settings import RequestLimits, Settings

UNLIMITED = RequestLimits(*[10**9] * 4)


@pytest.fixture(scope="module")
def client(seeded, tmp_path_factory):
    """One service with real workers; a scan stores nothing, so that its registry is not written to."""
    settings = Settings(tmp_path_factory.mktemp("scan"), f"sqlite:///{seeded}", limits=UNLIMITED, workers=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as opened:
        yield opened


def code_of(answer):
    """Return (status, code)."""
    return answer.status_code, answer.json()["error"]["code"]


def test_a_list_of_layers_gets_proposals(client):
    """By names and shapes alone, and nothing is said to be proved."""
    answer = client.post("/v1/scan", json={"layers": LAYERS_EXAMPLE, "name": "sent"})
    body = documented(Scan, answer.json())
    assert (answer.status_code, body.method, body.architecture.name) == (200, "names", "sent")
    default = next(one for one in body.proposals if (one.peft_type, one.preset) == ("LORA", "default"))
    assert default.target_modules == ("q_proj", "v_proj")
    assert {layer.live for layer in body.layers} == {None}


def test_a_configuration_gets_proposals(client):
    """Traced as any scan; what it says of code of its own is passed over."""
    config = {"model_type": "olmo2", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
    config |= {"num_attention_heads": 4, "vocab_size": 100, "auto_map": {"AutoModel": "evil.py--Evil"}}
    body = documented(Scan, client.post("/v1/scan", json={"config": config}).json())
    assert (body.method, body.architecture.class_name) == ("dataflow", "Olmo2ForCausalLM")
    assert {layer.path.split(".")[2] for layer in body.layers if ".q_proj" in layer.path} == {"0", "1"}


def test_a_reference_gets_proposals(client):
    """One that the installed library lists."""
    body = documented(Scan, client.post("/v1/scan", json={"reference": "timm:resnet18"}).json())
    assert body.architecture.library == "timm"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "invalid_request")),
        ([], (422, "invalid_request")),
        ({"layers": []}, (422, "invalid_request")),
        ({"layers": "q_proj"}, (422, "invalid_request")),
        ({"layers": [{"path": "a", "shape": [0]}]}, (422, "invalid_request")),
        ({"layers": [{"path": "а", "shape": [1]}]}, (422, "invalid_request")),  # noqa: RUF001 - Cyrillic
        ({"layers": LAYERS_EXAMPLE, "config": {}}, (422, "invalid_request")),
        ({"config": {"model_type": "nobody_knows"}}, (404, "unknown_architecture")),
        ({"config": {"model_type": "llama", "num_hidden_layers": 10**9}}, (422, None)),
        ({"reference": "transformers:lama"}, (404, "unknown_architecture")),
        ({"reference": "torch:os:system"}, (400, "invalid_reference")),
        ({"reference": "file:/etc/passwd"}, (400, "invalid_reference")),
        ({"reference": "file:../../etc/passwd"}, (400, "invalid_reference")),
        ({"reference": "hub:../../etc"}, (400, "invalid_reference")),
        ({"reference": "transformers:../../x"}, (404, "unknown_architecture")),
    ],
)
def test_what_cannot_be_scanned_is_refused(client, body, expected):
    """In the one shape, with the reason the worker gave."""
    status, code = code_of(client.post("/v1/scan", json=body))
    assert status == expected[0]
    assert expected[1] in (None, code)


@pytest.mark.parametrize("content", [b"{", b'{"config": {}, "config": {}}', b'{"config": {"a": NaN}}', b"[" * 10_000])
def test_what_is_no_json_is_refused(client, content):
    """By the worker, with the same words as elsewhere."""
    answer = client.post("/v1/scan", content=content, headers={"Content-Type": "application/json"})
    assert code_of(answer) == (422, "invalid_request")


@pytest.fixture
def tight(seeded_settings, monkeypatch):
    """A service whose one worker has half a GiB, and one place to wait."""

    def make(_bounds, waiting):
        return Sandbox(Bounds(1, memory=0.5), waiting=min(waiting, 1))

    monkeypatch.setattr(workers, "Sandbox", make)
    with TestClient(create_app(seeded_settings), raise_server_exceptions=False) as opened:
        yield opened


@pytest.mark.parametrize(
    ("task", "seconds", "said"), [("scan_never_ends", 1.0, "more than 1 s"), ("scan_dies", None, "was killed")]
)
def test_a_worker_that_fails_is_told(tight, monkeypatch, task, seconds, said):
    """503 with what became of it; the service goes on."""
    sandbox = tight.app.state.workers.scans
    sandbox.bounds = replace(sandbox.bounds, seconds=seconds or sandbox.bounds.seconds)
    monkeypatch.setattr(route, "SCAN", f"checks_zoo:{task}")
    answer = tight.post("/v1/scan", json={"reference": "x"})
    assert code_of(answer) == (503, "worker_failed")
    assert said in answer.json()["error"]["message"]
    assert tight.get("/v1/targets/llama").status_code == 200


def test_what_is_too_much_is_turned_away_and_lookups_go_on(tight, monkeypatch, tmp_path):
    """503 with ``Retry-After`` for scans beyond the places there are; lookups are answered while scans run."""
    monkeypatch.setattr(route, "SCAN", "checks_zoo:scan_waits")
    body = json.dumps({"reference": str(tmp_path / "go")})

    def scan(_):
        return tight.post("/v1/scan", content=body, headers={"Content-Type": "application/json"})

    with ThreadPoolExecutor(5) as pool:
        scans = [pool.submit(scan, n) for n in range(5)]
        try:
            wait_until(lambda: sum(one.done() for one in scans) >= 3, "the refusals")
            assert [tight.get("/v1/targets/llama").status_code for _ in range(20)] == [200] * 20
            turned_away = [one.result() for one in scans if one.done()]
        finally:
            (tmp_path / "go").touch()
    assert [code_of(answer) for answer in turned_away] == [(503, "overloaded")] * 3
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in turned_away)
    assert sorted(one.result().status_code for one in scans) == [200] * 2 + [503] * 3
