"""The application as a whole: health, errors in one shape, OpenAPI, nothing built at import."""

import subprocess
import sys

import pytest
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.schemas import ErrorBody, HealthBody, IndexBody, ReadyBody
from loradar.registry import Registry
from loradar.settings import Settings


def test_health_and_readiness(client):
    """Both are well with a seeded registry."""
    assert HealthBody.model_validate(client.get("/healthz").json()).status == "ok"
    assert ReadyBody.model_validate(client.get("/readyz").json()).serial == 1


def test_the_index_links_to_what_there_is(client):
    """Links without a name in them lead somewhere: to an answer, to a token, or to where one may send something."""
    body = IndexBody.model_validate(client.get("/").json())
    for path in body.links.values():
        if "{" not in path:
            assert client.get(path).status_code in (200, 401, 405), path
    paths = set(client.get("/openapi.json").json()["paths"])
    assert set(body.links.values()) == paths - {"/"} | {"/openapi.json"}


def test_a_database_away_is_not_ready_but_healthy(tmp_path):
    """The process runs and says what is wrong; it recovers when the database does."""
    path = tmp_path / "registry.sqlite3"
    path.write_bytes(b"spoiled" * 1000)
    with TestClient(create_app(Settings(tmp_path, f"sqlite:///{path}"))) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unusable")
        assert client.get("/v1/targets/llama").status_code == 503
        path.unlink()
        assert client.get("/readyz").status_code == 200


def test_the_registry_is_closed_at_the_end(seeded_settings):
    """Stopping the application closes what it opened, and it may be started again."""
    app = create_app(seeded_settings)
    for _ in range(2):
        with TestClient(app) as client:
            client.get("/readyz")
            assert app.state.registry._registry is not None
        assert app.state.registry._registry is None


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1/submissions/", "/v1/targets/a/b", "//v1/submissions"])
def test_routes_that_are_not_there_have_the_one_shape(client, path):
    """The framework's own errors look like ours."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert ErrorBody.model_validate(answer.json()).error.code == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/architectures", "GET"),
        ("DELETE", "/v1/targets/llama", "GET"),
        ("PUT", "/v1/submissions", "GET, POST"),
        ("GET", "/v1/scan", "POST"),
        ("TRACE", "/v1/tokens", "GET, POST"),
    ],
)
def test_a_method_that_is_not_there_is_told_which_are(client, method, path, allowed):
    """All of the path's, whichever routes they are of."""
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert ErrorBody.model_validate(answer.json()).error.code == "method_not_allowed"


def test_a_failure_inside_shows_nothing_of_it(client, monkeypatch):
    """500 in the one shape; neither the exception nor a path reaches the client."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret cause")

    monkeypatch.setattr(Registry, "lookup", fail)
    answer = client.get("/v1/targets/llama")
    assert answer.status_code == 500
    assert ErrorBody.model_validate(answer.json()).error.code == "internal_error"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_nothing_is_built_at_import():
    """Importing the package opens no registry and imports neither torch nor SQLAlchemy."""
    code = "import sys, loradar.api; print([n for n in ('torch', 'sqlalchemy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"


def test_settings_default_to_the_environment(seeded_settings):
    """``create_app()`` serves the registry ``loradar lookup`` would use."""
    with TestClient(create_app()) as client:
        assert client.get("/readyz").json()["serial"] == 1
    assert seeded_settings == Settings.from_environment()
