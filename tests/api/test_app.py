"""The application as a whole: health, errors in one shape, OpenAPI, nothing built at import."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx2
import pytest
from patience import patience
from seeding import PEFT_ALONE, make_seeded, seeds_of
from shapes import documented
from starlette.testclient import TestClient

from loradar.api import create_app, running
from loradar.api.dependencies import LazyRegistry
from loradar.api.routes.operations import Health, Index, Readiness
from loradar.error_body import ErrorBody
from loradar.errors import DatabaseUnusable
from loradar.registry import Registry
from loradar.settings import Settings

THREADS = 40
"""Of the pool that answers what is no coroutine."""


@pytest.fixture(scope="module", autouse=True)
def catalogs():
    """Seed from PEFT's tables alone."""
    with seeds_of(PEFT_ALONE):
        yield


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A registry file seeded from them: its snapshot is made in a moment."""
    return make_seeded(tmp_path_factory.mktemp("seeded-by-peft") / "registry.sqlite3", PEFT_ALONE)


def test_health_and_readiness(client):
    """Both are well with a seeded registry."""
    assert documented(Health, client.get("/healthz").json()).status == "ok"
    assert documented(Readiness, client.get("/readyz").json()).serial == 1


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/v1/targets/llama", "/v1/targets/none-such", "/v1/snapshot", "/nowhere"]
)
def test_head_is_get_without_the_content(client, path):
    """The same status and headers, errors too; where there is no GET, there is no HEAD."""
    got, asked = client.get(path), client.head(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    changing = {"ratelimit", "date", "x-request-id"}
    assert {k: v for k, v in asked.headers.items() if k not in changing} == {
        k: v for k, v in got.headers.items() if k not in changing
    }
    assert client.head("/v1/check").status_code == 405


def test_the_index_links_to_what_there_is(client):
    """Links without a name in them lead somewhere: to an answer, a token, a query, or where one may send something."""
    body = documented(Index, client.get("/").json())
    for path in body.links.values():
        if "{" not in path:
            assert client.get(path).status_code in (200, 401, 405, 422), path  # 422: what it needs is in the query
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


def test_a_file_that_was_moved_away_is_not_read_on(client, seeded_settings, registry, caplog):
    """Nobody is told where it was but the log; nothing is put in its place; what is put back is read."""
    path, away = (seeded_settings.home / name for name in ("registry.sqlite3", "away.sqlite3"))
    token = {"Authorization": f"Bearer {registry.tokens.create('ada', 'contributor')[1]}"}
    assert client.get("/readyz").json()["serial"] == 2
    registry.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"VACUUM INTO '{away}'")
    for file in seeded_settings.home.glob("registry.sqlite3*"):
        file.unlink()
    for asked in ("/readyz", "/v1/targets/llama", "/v1/tokens/me"):
        answer = client.get(asked, headers=token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unusable")
        assert str(seeded_settings.home) not in answer.text
    assert "loradar_registry_readable 0.0" in client.get("/metrics").text
    assert client.get("/healthz").status_code == 200
    assert f"{path}' cannot be used: it is not there any more" in caplog.text
    with pytest.raises(DatabaseUnusable, match=r"not there any more.*Put it back"):
        registry.tokens.create("bob", "contributor")
    assert not path.exists()
    away.rename(path)
    assert client.get("/v1/tokens/me", headers=token).json()["name"] == "ada"
    assert client.get("/readyz").json()["serial"] == 2


def test_it_is_healthy_though_everybody_waits(settings, monkeypatch):
    """A database that does not answer takes every thread; that the process runs is told without one."""
    answering, asked = threading.Event(), threading.Semaphore(0)

    def wait(_):
        asked.release()
        answering.wait(patience())
        message = "It does not answer."
        raise DatabaseUnusable(message)

    monkeypatch.setattr(LazyRegistry, "get", wait)
    with running(settings) as url, ThreadPoolExecutor(THREADS + 10) as pool:
        waiting = [pool.submit(httpx2.get, f"{url}/v1/targets/x", timeout=patience()) for _ in range(THREADS + 10)]
        for _ in range(THREADS):
            assert asked.acquire(timeout=patience())
        try:
            assert httpx2.get(f"{url}/healthz", timeout=patience()).status_code == 200
            probe = httpx2.get(f"{url}/readyz", timeout=patience())
            assert (probe.status_code, probe.json()["error"]["code"]) == (503, "database_unusable")
        finally:
            answering.set()
        assert {one.result().status_code for one in waiting} == {503}


def test_the_registry_is_closed_at_the_end(seeded_settings):
    """Stopping the application closes what it opened, and it may be started again."""
    app = create_app(seeded_settings)
    for _ in range(2):
        with TestClient(app) as client:
            client.get("/readyz")
            assert app.state.registry._registry is not None
        assert app.state.registry._registry is None


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1/submissions/", "/v1/mappings/a/b", "/%2Fv1/submissions"])
def test_routes_that_are_not_there_have_the_one_shape(client, path):
    """The framework's own errors look like ours."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert documented(ErrorBody, answer.json()).error.code == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/architectures", "GET"),
        ("DELETE", "/v1/targets/llama", "GET"),
        ("PUT", "/v1/submissions", "GET, POST"),
        ("GET", "/v1/check", "POST"),
        ("TRACE", "/v1/tokens", "GET, POST"),
    ],
)
def test_a_method_that_is_not_there_is_told_which_are(client, method, path, allowed):
    """All of the path's, whichever routes they are of."""
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert documented(ErrorBody, answer.json()).error.code == "method_not_allowed"


def test_a_failure_inside_shows_nothing_of_it(client, monkeypatch):
    """500 in the one shape; neither the exception nor a path reaches the client."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret cause")

    monkeypatch.setattr(Registry, "lookup", fail)
    answer = client.get("/v1/targets/llama")
    assert answer.status_code == 500
    assert documented(ErrorBody, answer.json()).error.code == "internal_error"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_nothing_is_built_at_import(tmp_path):
    """Importing the package opens no registry and imports neither torch nor Alembic."""
    code = "import os, sys, loradar.api; print([n for n in ('torch', 'alembic') if n in sys.modules], os.listdir('.'))"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "[] []"  # the home of the test, in this folder, has no registry


def test_settings_default_to_the_environment(seeded_settings):
    """``create_app()`` serves the registry ``loradar lookup`` would use."""
    with TestClient(create_app()) as client:
        assert client.get("/readyz").json()["serial"] == 1
    assert seeded_settings == Settings.from_environment()
