"""A scan or check that is asked for over REST hurts its own process alone: the service goes on, and says what was."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from attack import refused
from patience import wait_until
from served import LIGHT, children_of, memory_of, served

NUMBERS = count()
FATES = {
    "kill": "was killed",
    "fault": "died of SIGSEGV",
    "exit": "exit code 3",
    "loop": "more than 0.5 s",
    "hoard": "more than 0.5 GiB",
    "bug": "KeyError",
    "open": "Too many open files",
    "recurse": "RecursionError",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One service for all, as a process of its own: none of them can end it."""
    with served(tmp_path_factory.mktemp("isolation"), LIGHT) as (target, pid):
        yield target, pid


@pytest.fixture
def service(running):
    """The service; after each attack it is the same process, answers, and holds no more memory than before."""
    target, pid = running
    before = memory_of(pid)
    yield target
    assert target.send("GET", "/v1/targets/llama").json()["target_modules"] == ["q_proj", "v_proj"]
    assert target.send("GET", "/readyz").json()["checks"] == "running"
    assert memory_of(pid) - before < 150


def submit(service, deed):
    """Submit something whose check does this, and return its number."""
    body = {"name": f"model{next(NUMBERS)}", "target_modules": ["q_proj"], "rationale": deed}
    answer = service.submit(body)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def read(place):
    """Return the number of a process, once it is there."""
    wait_until(place.exists, "the number of the process")
    return int(place.read_text())


def scan(service, deed):
    """Ask for a scan that does this."""
    return service.send("POST", "/v1/scan", json={"do": deed})


@pytest.mark.parametrize("deed", FATES)
def test_a_scan_that_goes_wrong_is_told(service, deed):
    """503 with what became of the worker; nothing is stored, and the next scan is served."""
    with service.unharmed():
        answer = scan(service, deed)
        assert refused(answer, 503) == "worker_failed"
        assert FATES[deed] in answer.json()["error"]["message"]
    assert scan(service, "nothing").json() == {"did": "nothing"}


@pytest.mark.parametrize("deed", FATES)
def test_a_check_that_goes_wrong_is_a_failure(service, deed):
    """``failed``, with what became of the worker; the next check is done."""
    bad, good = submit(service, deed), submit(service, "nothing")
    failed = service.wait_for(bad)
    assert (failed["status"], failed["evidence"]) == ("failed", None)
    assert FATES[deed] in failed["reason"]
    assert service.wait_for(good)["status"] == "needs_review"


def test_a_worker_killed_from_outside_is_told(service, tmp_path):
    """As a system does that runs out of memory: the check fails, the scan is a 503."""
    number = submit(service, f"wait {tmp_path / 'check'}")
    os.kill(read(tmp_path / "check"), signal.SIGKILL)
    assert "was killed" in service.wait_for(number)["reason"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(scan, service, f"wait {tmp_path / 'scan'}")
        os.kill(read(tmp_path / "scan"), signal.SIGKILL)
        assert "was killed" in answer.result().json()["error"]["message"]


def test_every_process_beside_the_service_may_die(running, service, tmp_path):
    """The one they are forked from too: another is started."""
    number = submit(service, f"wait {tmp_path / 'check'}")
    read(tmp_path / "check")
    for pid in children_of(running[1]):
        os.kill(pid, signal.SIGKILL)
    assert service.wait_for(number)["status"] == "failed"
    assert service.wait_for(submit(service, "nothing"))["status"] == "needs_review"
    assert scan(service, "nothing").json() == {"did": "nothing"}


def test_what_a_worker_says_is_not_the_service_s(service):
    """Twenty megabytes on its standard output are nowhere to be read."""
    assert scan(service, "print").json() == {"did": "print"}
    assert service.wait_for(submit(service, "print"))["status"] == "needs_review"
    assert not [line for line in service.log if "xxx" in line or "yyy" in line]


def test_what_a_worker_refuses_is_refused(service):
    """Its errors come out as themselves."""
    with service.unharmed():
        assert refused(scan(service, "refuse"), 422) == "statement_refused"
    assert service.wait_for(submit(service, "refuse"))["reason"] == "It is refused. Send something else."


def test_forty_at_once_leave_lookups_alone(service, tmp_path):
    """Five have a place; the others are told when to come again, and lookups are answered before any scan ends."""
    go, first = tmp_path / "go", tmp_path / "first"
    with ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(scan, service, f"wait {first}")]
        worker = read(first)
        asked += [pool.submit(scan, service, deed) for deed in ["loop", "hoard", "kill", f"until {go}"] * 9]
        try:
            wait_until(lambda: sum(one.done() for one in asked) >= len(asked) - 5, "the refusals")
            assert [service.send("GET", "/v1/targets/llama").status_code for _ in range(40)] == [200] * 40
            turned_away = [one.result() for one in asked if one.done()]
        finally:
            go.touch()
            os.kill(worker, signal.SIGKILL)
    assert len(turned_away) == len(asked) - 5
    assert {refused(answer, 503) for answer in turned_away} == {"overloaded"}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 600 for answer in turned_away)
    rest = [one.result() for one in asked if one.result() not in turned_away]
    assert {refused(answer, 503) for answer in rest if answer.status_code != 200} == {"worker_failed"}


def test_twenty_submissions_are_checked_one_after_the_other(service):
    """Each of them once, whatever those before it did to their workers."""
    deeds = ["kill", "nothing", "exit", "nothing", "fault"] * 4
    numbers = [submit(service, deed) for deed in deeds]
    found = [service.wait_for(number)["status"] for number in numbers]
    assert found == ["needs_review" if deed == "nothing" else "failed" for deed in deeds]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_service_that_ends_leaves_no_worker_behind(tmp_path, signum):
    """However it ends; what was being checked waits for the next service."""
    with served(tmp_path, LIGHT) as (target, pid):
        number = submit(target, f"wait {tmp_path / 'check'}")
        worker = read(tmp_path / "check")
        started = children_of(pid)
        assert worker in started
        os.kill(pid, signum)
        wait_until(lambda: not any(map(is_there, started)), "the end of the workers")
        assert target.registry.submissions.get(number).status == "checking"


def is_there(pid):
    """Tell whether a process runs; one that ended may wait for somebody to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_worker_is_given_the_service_s_secrets(tmp_path):
    """No process beside the service has them in its environment."""
    secrets = {
        "LORADAR_SIGNING_KEY": "c2VjcmV0" * 5 + "c2U=",
        "HF_TOKEN": "hf_secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    with served(tmp_path, LIGHT, **secrets) as (target, pid):
        assert target.send("POST", "/v1/scan", json={"do": "nothing"}).status_code == 200
        beside = [Path(f"/proc/{one}/environ").read_bytes() for one in children_of(pid)]
        assert any(b"PATH=" in seen for seen in beside)
        assert not any(f"{name}=".encode() in seen for name in [*secrets, "LORADAR_HOME"] for seen in beside)
