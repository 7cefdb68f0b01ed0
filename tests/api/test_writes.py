"""Writes wait for their turn, and nobody waits for them."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from patience import patience, wait_until

from loradar.api import dependencies
from loradar.api.process import write_queue
from loradar.registry.db.time_limits import TimeLimits

WRITERS = 45


def submit(service, number):
    """Send a submission of its own."""
    body = {"name": f"waiting{number}", "target_modules": ["q_proj"], "layers": [{"path": "a.q_proj", "shape": [4, 4]}]}
    return service.post("/v1/submissions", {"library": "torch", "peft_type": "LORA", "preset": "default", **body})


@pytest.fixture
def locked(service, monkeypatch):
    """Hold the lock of the service's database, whose writers are patient."""
    patient = TimeLimits(busy=patience(), query=patience())
    monkeypatch.setattr(service.client.app.state.registry.get()._database, "limits", patient)
    monkeypatch.setattr(write_queue, "WAIT_SECONDS", patience())
    service.client.get("/v1/tokens/me", headers=service.as_("contributor"))  # whose use is stored now, not below
    with closing(sqlite3.connect(service.registry._database.file, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
        other.rollback()


def test_reads_do_not_wait_for_writers(service, locked):
    """More writers than the service has threads wait for another program; then all have written, in order."""
    queue = service.client.app.state.writes
    with ThreadPoolExecutor(WRITERS) as pool:
        answers = []
        for number in range(WRITERS):
            answers.append(pool.submit(submit, service, number))
            wait_until(lambda number=number: queue._slots.locked() and queue.waiting == number, "a write in the queue")
        for path in ("/v1/targets/gpt2", "/readyz", "/v1/architectures", "/v1/submissions"):
            assert service.client.get(path).status_code == 200
        locked.rollback()
        answers = [answer.result(patience()) for answer in answers]
    assert {answer.status_code for answer in answers} == {202}
    numbers = [answer.json()["id"] for answer in answers]
    assert numbers == sorted(numbers)


def test_a_write_beyond_the_queue_is_rejected(service, locked, monkeypatch):
    """At once, with the time to come again."""
    monkeypatch.setattr(write_queue, "WAITING", 2)
    queue = service.client.app.state.writes
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(submit, service, WRITERS + number) for number in range(3)]
        wait_until(lambda: queue._slots.locked() and queue.waiting == 2, "two writes in the queue")
        answer = submit(service, 2 * WRITERS)
        locked.rollback()
        assert {each.result(patience()).status_code for each in waiting} == {202}
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "overloaded")
    assert int(answer.headers["Retry-After"]) == error["details"]["retry_after"] >= 1


def test_a_database_that_others_keep_is_busy(service, locked, monkeypatch):
    """503 with the time to come again, and the queue goes on."""
    monkeypatch.setattr(service.client.app.state.registry.get()._database, "limits", TimeLimits(busy=0.05))
    answer = submit(service, 3 * WRITERS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_busy")
    assert int(answer.headers["Retry-After"]) >= 1
    locked.rollback()
    monkeypatch.setattr(write_queue, "WAIT_SECONDS", patience())
    assert submit(service, 3 * WRITERS).status_code == 202


def test_a_turn_that_does_not_come_is_given_up(service, locked, monkeypatch):
    """The next one is served."""
    monkeypatch.setattr(write_queue, "WAIT_SECONDS", 0.01)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(submit, service, 4 * WRITERS)
        wait_until(service.client.app.state.writes._slots.locked, "the first write")
        answer = submit(service, 5 * WRITERS)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        locked.rollback()
        assert first.result(patience()).status_code == 202
    assert submit(service, 5 * WRITERS).status_code == 202


def test_a_service_is_less_patient_than_a_command(service):
    """Whoever waits there occupies a thread."""
    limits = service.client.app.state.registry.get()._database.limits
    assert limits == dependencies.SERVICE_LIMITS
    assert limits.busy < service.registry._database.limits.busy
