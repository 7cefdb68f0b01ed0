"""``loradar serve`` as an operator runs it: several processes, a proxy's prefix, few descriptors, logs, and its end."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx2
import psutil
import pytest
from patience import OVER_HTTP, patience, wait_until
from served import children_of
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.process import descriptors
from loradar.settings import Settings

SERVE = "import sys; from loradar.cli import main; main()"


@pytest.fixture(scope="module")
def folder(seeded, tmp_path_factory):
    """A folder whose registry is seeded, for services that only read."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "registry.sqlite3").symlink_to(seeded)
    return folder


@contextmanager
def serving(folder, *options, files=None, **environment):
    """Run ``loradar serve``, and yield its URL, the process and a function that ends it and returns its log."""
    own = {"LORADAR_HOME": str(folder), "LORADAR_WORKERS": "1", "HF_HUB_OFFLINE": "1", "LORADAR_DATABASE_URL": ""}
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", *options]
    with ExitStack() as stack:
        log = stack.enter_context(open(stack.enter_context(_file(folder)), "w+", encoding="utf-8"))  # noqa: PTH123 - a name
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            env=os.environ | own | environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))) if files else None,  # noqa: PLW1509
        )
        try:
            url = process.stdout.readline().split()[2]

            def end(number=signal.SIGTERM):
                process.send_signal(number)
                process.wait(patience())
                log.seek(0)
                return log.read()

            yield url, process, end
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@contextmanager
def _file(folder):
    name = Path(folder) / f"log-{time.monotonic_ns()}"
    yield name
    name.unlink()


def test_processes_share_a_port_and_their_counts(folder):
    """One that is killed is replaced; the metrics of all are added up; all end with the first."""
    with serving(folder, "--workers", "2") as (url, process, end), httpx2.Client(base_url=url) as client:
        for _ in range(8):
            with httpx2.Client(base_url=url) as other:
                assert other.get("/v1/targets/llama").status_code == 200

        def count():
            text = client.get("/metrics").text
            assert 'loradar_info{version="' in text
            counted = re.search(r'loradar_http_requests_total\{.*/v1/targets/.*status="200"\} ([0-9.]+)', text)
            return float(counted.group(1))

        # A request is counted when its response is sent, which its client may have before the process goes on.
        wait_until(lambda: count() == 8, "the count of the last request", OVER_HTTP)
        before = _serving_ones(process.pid)
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len({*_serving_ones(process.pid)} - {before[0]}) == 2, "another process")

        def answers():
            try:
                return httpx2.get(f"{url}/healthz").status_code == 200
            except httpx2.HTTPError:
                return False

        wait_until(answers, "an answer")
        children = children_of(process.pid)
        assert "ended with exit code -9, and is replaced" in end()
        wait_until(lambda: not any(map(_is_alive, children)), "the end of all")


def _serving_ones(pid):
    """Return the processes that serve, among all that a process started."""
    found = []
    for each in children_of(pid):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            found += [each] if "spawn_main" in " ".join(psutil.Process(each).cmdline()) else []
    return found


def test_no_process_outlives_its_supervisor(folder):
    """Though it was killed: nobody could stop them."""
    with serving(folder, "--workers", "2") as (_, process, _end):
        children = children_of(process.pid)
        process.kill()
        wait_until(lambda: not any(map(_is_alive, children)), "the end of all")


def _is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_idle_connections_beyond_the_descriptors_are_turned_away_and_logged_once(folder):
    """300 on 256 descriptors: those beyond get 503 or the end, and the log has one line of them."""
    with serving(folder, files=256) as (url, _, end), ExitStack() as stack:
        host, port = url.removeprefix("http://").split(":")
        idle = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(300)]
        request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        told = b""
        for one in idle[-40:]:
            one.settimeout(patience())
            try:
                one.sendall(request)
                told += one.recv(4096)
            except OSError:  # closed without an answer
                continue
        assert b"HTTP/1.1 200" not in told
        for one in idle:
            one.close()
        with httpx2.Client(base_url=url) as client:
            wait_until(lambda: _status(client, "/v1/targets/llama") == 200, "an answer")
            assert client.get("/metrics").text.count("loradar_connections_turned_away_total") >= 1
        log = end()
    lines = [line for line in log.splitlines() if "connections" in line or "descriptors" in line]
    assert len(lines) == 1, log
    assert len(log) < 2000


def _status(client, path):
    try:
        return client.get(path).status_code
    except httpx2.HTTPError:
        return None


def test_a_connection_beyond_the_limit_is_told_to_come_again(seeded_settings, monkeypatch):
    """503 with the time, in the one shape; the next one is served when there is room."""
    from loradar.api import running  # noqa: PLC0415 - the rest needs no server in this process

    monkeypatch.setattr(descriptors, "raise_limit", lambda: 4)  # one connection
    with running(seeded_settings) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as first:
            first.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 200 " in first.recv(4096)
            answer = httpx2.get(f"{url}/healthz")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        wait_until(lambda: httpx2.get(f"{url}/healthz").status_code == 200, "room")


@pytest.mark.parametrize("stripped", [True, False])
def test_a_proxy_s_prefix(service, stripped):
    """Whether the proxy takes it from the path or not, links have it."""
    settings = Settings(service.registry._database.file.parent, service.registry.url, root_path="/loradar")
    with TestClient(create_app(settings)) as client:
        before = "" if stripped else "/loradar"
        index = client.get(f"{before}/", headers={"Accept": "application/json"}).json()
        assert index["links"]["targets"] == "/loradar/v1/targets/{model_type}"
        assert client.get(f"{before}/v1/targets/llama").json()["target_modules"] == ["q_proj", "v_proj"]
        assert client.get(f"{before}/readyz").headers.get("RateLimit") is None
        assert client.get(f"{before}/openapi.json").json()["servers"] == [{"url": "/loradar"}]
        body = {"name": f"prefixed{stripped}", "target_modules": ["q_proj"]}
        headers = service.as_("contributor")
        answer = client.post(f"{before}/v1/submissions", json=body, headers=headers)
        assert answer.headers["Location"] == f"/loradar/v1/submissions/{answer.json()['id']}"
        assert client.get(f"{before}/nowhere").status_code == 404
    with TestClient(create_app(Settings(settings.home, settings.database_url))) as client:
        assert client.get("/loradar/healthz").status_code == 404


def test_the_log_in_json_names_requests(folder):
    """One object a line, with the id of the request, which the response has and the client may choose."""
    with serving(folder, LORADAR_LOG_FORMAT="json", LORADAR_LOG_LEVEL="info") as (url, _, end):
        given = httpx2.get(f"{url}/v1/targets/llama", headers={"X-Request-Id": "given-by-a-proxy"})
        made = httpx2.post(f"{url}/v1/submissions", json={})
        forged = httpx2.get(f"{url}/healthz", headers={"X-Request-Id": 'x" y=z aaaaaaa'})
        log = end()
    entries = [json.loads(line) for line in log.splitlines()]
    by_id = {entry["request_id"]: entry for entry in entries if entry["logger"] == "loradar.requests"}
    assert given.headers["X-Request-Id"] == "given-by-a-proxy"
    found = by_id["given-by-a-proxy"]
    assert (found["method"], found["status"], found["route"]) == ("GET", 200, "/v1/targets/{model_type}")
    assert re.fullmatch("[0-9a-f]{16}", forged.headers["X-Request-Id"])
    rejected = next(entry for entry in entries if entry["logger"] == "loradar.api")
    assert rejected["request_id"] == made.headers["X-Request-Id"]
    assert rejected["level"] == "warning"
    assert rejected["event"].startswith("rejected POST /v1/submissions: 401")


def test_a_log_that_cannot_be_written_stops_nothing(folder):
    """As on a full disk: the service answers, and ends as it is told."""
    own = os.environ | {"LORADAR_HOME": str(folder), "LORADAR_LOG_LEVEL": "info", "LORADAR_DATABASE_URL": ""}
    with open("/dev/full", "w", encoding="ascii") as full:  # noqa: PTH123 - a device
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", SERVE, "serve", "--port", "0"],
            env=own,
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
        )
        try:
            url = process.stdout.readline().split()[2]
            process.stdout.close()
            assert {httpx2.get(f"{url}/v1/targets/llama").status_code for _ in range(3)} == {200}
            assert httpx2.post(f"{url}/v1/submissions", json={}).status_code == 401
            process.send_signal(signal.SIGTERM)
            process.wait(patience())
        finally:
            process.kill()
            process.wait()
