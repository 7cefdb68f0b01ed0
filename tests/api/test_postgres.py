"""Several processes of a service on one PostgreSQL: what one takes in another checks, reviews and serves."""

import shutil

import pytest
from patience import OVER_HTTP, wait_until
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api import workers as checks
from loradar.registry import Registry
from loradar.settings import Settings

SENT = 6


@pytest.fixture
def settings(postgres_url, tmp_path):
    """The settings of a service over PostgreSQL."""
    yield Settings(tmp_path / "home", postgres_url)
    shutil.rmtree(tmp_path / "home", ignore_errors=True)


def test_two_services_share_one_database(settings, monkeypatch, tmp_path):
    """Each submission is checked by one of them; a version read of one holds at the other."""
    monkeypatch.setattr(checks, "CHECK", "checks_zoo:notes")
    monkeypatch.setattr(checks, "PAUSE", 0.05)
    with Registry.open(settings) as registry:
        roles = {"ada": "contributor", "grace": "reviewer"}
        said = {
            name: {"Authorization": f"Bearer {registry.tokens.create(name, role)[1]}"} for name, role in roles.items()
        }
    with TestClient(create_app(settings)) as one, TestClient(create_app(settings)) as two:
        places = []
        for number in range(SENT):
            body = {"name": f"m{number}", "target_modules": ["q_proj"], "rationale": str(tmp_path)}
            answer = (one, two)[number % 2].post("/v1/submissions", json=body, headers=said["ada"])
            places.append(answer.headers["Location"])
        wait_until(
            lambda: all(one.get(place).json()["status"] != "checking" for place in places),
            "the end of the checks",
            OVER_HTTP * SENT,
        )
        noted = sorted(path.name.partition("-")[0] for path in tmp_path.glob("m*-*"))
        assert noted == [f"m{number}" for number in range(SENT)]
        ruling, tag = {"decision": "approve", "comment": "Good."}, {"If-Match": two.get(places[0]).headers["ETag"]}
        first, second = (
            client.post(f"{places[0]}/reviews", json=ruling, headers=said["grace"] | tag) for client in (one, two)
        )
        assert (first.status_code, second.status_code) == (200, 412)
        assert two.get("/v1/targets/m0").json()["id"] == first.json()["mapping_id"]
