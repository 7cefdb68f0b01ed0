"""``GET /metrics``: what Prometheus reads, and that nobody's text becomes a label."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.settings import Settings


@pytest.fixture
def measured(service):
    """A function that returns the value of each sample, by name and labels."""

    def measure(client=service.client):
        answer = client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = text_string_to_metric_families(answer.text)
        return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}

    return measure


def test_requests_are_counted_by_route_and_status(service, measured):
    """Under the template of the route, with the time they took."""
    route = "/v1/targets/{model_type}"
    before = measured()
    for name in ("llama", "bert", "lama"):
        service.client.get(f"/v1/targets/{name}")
    after = measured()

    def more(*sample):
        return after.get(sample, 0) - before.get(sample, 0)

    assert more("loradar_http_requests_total", *sorted(("GET", route, "200"))) == 2
    assert more("loradar_http_requests_total", *sorted(("GET", route, "404"))) == 1
    assert more("loradar_http_request_duration_seconds_count", *sorted(("GET", route))) == 3


def test_the_registry_is_measured(service, measured):
    """Serial, and submissions by every status there is."""
    found = measured()
    assert found["loradar_registry_readable",] == 1
    assert found["loradar_registry_serial",] == service.registry.serial()
    assert found["loradar_submissions", "checking"] == 0
    assert sum(name == "loradar_submissions" for name, *_ in found) == 7


def test_nobody_s_text_becomes_a_label(service, measured):
    """Paths and methods without end are counted as one."""
    for n in range(20):
        service.client.get(f"/made/up/{n}")
        service.client.request(f"MADE{n}", "/healthz")
        service.client.get(f"/v1/targets/made-up-{n}")
    text = service.client.get("/metrics").text
    assert not re.search(r"made.up|MADE", text)
    assert measured()["loradar_http_requests_total", "404", "GET", "none"] >= 20
    routes = {label for name, *labels in measured() if name == "loradar_http_requests_total" for label in labels}
    known = set(service.client.get("/openapi.json").json()["paths"]) | {"/openapi.json", "none"}
    assert {label for label in routes if label.startswith("/")} <= known


def test_a_failure_inside_is_counted(service, measured, monkeypatch):
    """As the 500 it is."""

    def fail(*_: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr(type(service.registry), "list_changes", fail)
    service.client.get("/v1/changes")
    assert measured()["loradar_http_requests_total", "/v1/changes", "500", "GET"] == 1


def test_a_database_away_is_told(tmp_path, measured):
    """The service goes on counting."""
    path = tmp_path / "registry.sqlite3"
    path.write_bytes(b"spoiled" * 1000)
    with TestClient(create_app(Settings(tmp_path, f"sqlite:///{path}"))) as client:
        found = measured(client)
    assert found["loradar_registry_readable",] == 0
    assert ("loradar_registry_serial",) not in found


def test_each_application_counts_for_itself(service, measured, tmp_path):
    """Nothing is global."""
    service.client.get("/v1/targets/llama")
    with TestClient(create_app(Settings(tmp_path, service.registry.url))) as client:
        assert not any("/v1/targets/{model_type}" in sample for sample in measured(client))
