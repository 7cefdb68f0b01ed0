"""The checks in the background: each submission once, whatever becomes of the worker, and nothing else is affected."""

import logging
from dataclasses import replace

import pytest
from patience import patience, wait_until
from starlette.testclient import TestClient

from loradar.api import create_app, workers
from loradar.api.workers import LOGGER, Checker
from loradar.domain.identities import Actor
from loradar.domain.submissions import Statement
from loradar.domain.targets import TargetSpec
from loradar.errors import DatabaseUnusable, MissingExtra
from loradar.registry import Registry
from loradar.sandbox.pool import Bounds, Sandbox

ADA = Actor("ada", "contributor")


def submit(registry, name, rationale=None):
    """Submit something."""
    spec = TargetSpec(target_modules=("q_proj",))
    return registry.submissions.add(
        Statement("transformers", name, "LORA", "default", **spec.stored, rationale=rationale), ADA
    )


def wait_for(registry, submission):
    """Return the submission once its checks are through."""
    wait_until(lambda: registry.submissions.get(submission.id).status != "checking", "the end of the checks")
    return registry.submissions.get(submission.id)


@pytest.fixture
def checking(registry, monkeypatch):
    """Run a checker whose check is one of the zoo's, in light workers."""
    running = []

    def start(check, *, seconds=None, memory=0.5):
        monkeypatch.setattr(workers, "CHECK", f"checks_zoo:{check}")
        monkeypatch.setattr(workers, "PAUSE", 0.05)
        checker = Checker(lambda: registry, Sandbox(Bounds(1, seconds or patience(), memory)))
        checker.start()
        running.append(checker)
        return checker

    yield start
    for checker in running:
        checker.stop()


def test_what_is_submitted_is_checked(registry, checking):
    """What was there before, and what comes later, oldest first; evidence and all that is on record reach the check."""
    before = submit(registry, "llama")
    checker = checking("passes")
    assert wait_for(registry, before).evidence.matched > 2
    later = submit(registry, "nobody_knows")
    checker.wake()
    found = wait_for(registry, later)
    assert (found.status, found.evidence.matched) == ("needs_review", 2)


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("refuses", "cannot be what it says. Say something else."),
        ("dies", "exit code 7"),
        ("allocates", "more than 0.5 GiB"),
        ("never_ends", "more than 1 s"),
    ],
)
def test_what_goes_wrong_is_a_reason(registry, checking, check, reason):
    """``failed``, saying why; the next one is checked as if nothing had happened."""
    checker = checking(check, seconds=1.0 if check == "never_ends" else None)
    failed = wait_for(registry, submit(registry, "bad"))
    assert failed.status == "failed"
    assert reason in failed.reason
    workers.CHECK = "checks_zoo:passes"
    checker._sandbox.bounds = replace(checker._sandbox.bounds, seconds=patience())
    good = submit(registry, "good")
    checker.wake()
    assert wait_for(registry, good).status == "needs_review"


def test_what_a_worker_prints_goes_nowhere(registry, checking, capfd):
    """The service's own output stays its own."""
    checking("prints")
    wait_for(registry, submit(registry, "loud"))
    assert capfd.readouterr() == ("", "")


def test_several_checkers_do_nothing_twice(registry, checking, tmp_path):
    """As several processes of a service on one database: each submission is checked by one of them."""
    made = [submit(registry, f"m{number}", str(tmp_path)) for number in range(8)]
    for _ in range(3):
        checking("notes")
    assert {wait_for(registry, one).status for one in made} == {"needs_review"}
    noted = sorted(path.name.partition("-")[0] for path in tmp_path.glob("m*"))
    assert noted == [f"m{number}" for number in range(8)]


def test_stopping_leaves_what_is_not_done(registry, checking, tmp_path):
    """A service that stops has not found anything out: the submission is still to be checked, by whoever comes next."""
    checker = checking("begins")
    made = submit(registry, "stopped", str(tmp_path))
    checker.wake()
    wait_until((tmp_path / "began").exists, "the check")
    checker.stop()
    assert registry.submissions.get(made.id).status == "checking"


def test_a_database_away_is_waited_for(registry, monkeypatch, caplog):
    """The thread outlives it, says so, and goes on when it is back; it outlives what nobody thought of, too."""
    monkeypatch.setattr(workers, "CHECK", "checks_zoo:passes")
    monkeypatch.setattr(workers, "PAUSE", 0.05)
    made, errors = submit(registry, "late"), [DatabaseUnusable("It is away. Wait."), RuntimeError("odd")]

    def get():
        if errors:
            raise errors.pop()
        return registry

    checker = Checker(get, Sandbox(Bounds(1, memory=0.5)))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        checker.start()
        assert wait_for(registry, made).status == "needs_review"
        checker.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "a check failed",
        "checks wait for the database: It is away. Wait.",
    ]


def test_without_the_extra_submissions_wait(seeded_settings, monkeypatch):
    """They are taken in for a process that has it; ``/readyz`` says so, and a scan cannot be had."""

    def refuse(extra, *packages):
        if extra == "scan":
            raise MissingExtra(packages[0], extra)

    monkeypatch.setattr(workers, "require", refuse)
    with Registry.open(seeded_settings) as registry:
        secret = registry.tokens.create("ada", "contributor")[1]
        with TestClient(create_app(seeded_settings)) as client:
            said = {"Authorization": f"Bearer {secret}"}
            made = client.post("/v1/submissions", json={"llama": ["q_proj"]}, headers=said)
            assert made.status_code == 202
            assert (
                client.get("/readyz").json()["checks"].startswith("waiting: 'torch' is not installed. Install it with")
            )
            answer = client.post("/v1/scan", json={"reference": "transformers:llama"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (501, "missing_extra")
        assert registry.submissions.get(made.json()["id"]).status == "checking"


def test_the_service_checks_by_itself(seeded_settings, monkeypatch):
    """From the request to the evidence, with the thread that the application starts and stops."""
    monkeypatch.setattr(workers, "CHECK", "checks_zoo:passes")
    monkeypatch.setattr(workers, "Sandbox", lambda bounds, waiting: Sandbox(bounds, waiting=waiting))
    with Registry.open(seeded_settings) as registry:
        secret = registry.tokens.create("ada", "contributor")[1]
        with TestClient(create_app(seeded_settings)) as client:
            assert client.get("/readyz").json()["checks"] == "running"
            body = {"name": "olmo2", "target_modules": ["q_proj"]}
            made = client.post("/v1/submissions", json=body, headers={"Authorization": f"Bearer {secret}"}).json()
            wait_for(registry, registry.submissions.get(made["id"]))
            assert client.get(f"/v1/submissions/{made['id']}").json()["evidence"]["spec"]["target_modules"] == [
                "q_proj"
            ]
