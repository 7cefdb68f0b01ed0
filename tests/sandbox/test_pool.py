"""The sandbox: whatever a process does, its caller gets an outcome or a reason, and goes on."""

import multiprocessing
import multiprocessing.util
import os
import signal
import subprocess
import sys
import threading
from ast import literal_eval
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path

import pytest
import sandbox_tasks as tasks
from hostile_tasks import TwoBounds
from patience import patience, wait_until

from loradar.errors import InvalidRequest, Overloaded, WorkerFailed
from loradar.sandbox.pool import Bounds, Sandbox, ignore_cancelled
from loradar.sandbox.process_isolation import clean_environment, clean_spawns


@pytest.fixture(scope="module")
def sandbox():
    """A sandbox with two workers and half a GiB."""
    with Sandbox(Bounds(workers=2, memory=0.5)) as started:
        started.warm()
        yield started


def test_a_function_runs_in_a_process_of_its_own(sandbox):
    """By itself or by its dotted name; every task in another process."""
    assert sandbox.run(tasks.add, 1, 2) == sandbox.run("sandbox_tasks:add", 1, 2) == 3
    assert len({sandbox.run(tasks.tell_process) for _ in range(3)}) == 3


def test_a_task_starts_with_the_libraries(sandbox):
    """The process it is forked from has imported them: no task pays for that."""
    assert sandbox.run(tasks.tell_libraries)


@pytest.mark.parametrize(
    ("task", "args", "reason", "says"),
    [
        (tasks.leave, (7,), "died", "ended with exit code 7"),
        (tasks.leave, (0,), "died", "ended with exit code 0"),
        (tasks.send_itself, (signal.SIGKILL,), "died", "was killed"),
        (tasks.fault, (), "died", "died of SIGSEGV"),
        (tasks.hoard, (), "out_of_memory", "more than 0.5 GiB"),
        (tasks.fail, (), "error", "KeyError: 0"),
        (tasks.give_back, (None,), "died", "exit code 1"),
        ("no_such_module:run", (), "error", "No module named 'no_such_module'"),
    ],
    ids=["exit", "exit zero", "kill", "fault", "hoard", "bug", "unpicklable", "no module"],
)
def test_what_goes_wrong_is_told(sandbox, task, args, reason, says):
    """In one sentence; and the next task is served."""
    with pytest.raises(WorkerFailed, match=says) as caught:
        sandbox.run(task, *args)
    assert caught.value.details["reason"] == reason
    assert "\n" not in caught.value.message
    assert sandbox.run(tasks.add, 1, 2) == 3


def test_a_task_that_never_ends_is_ended(sandbox, monkeypatch):
    """It ignores the polite request; and the next task is served."""
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "bounds", replace(sandbox.bounds, seconds=1.0))
        with pytest.raises(WorkerFailed, match="more than 1 s") as caught:
            sandbox.run(tasks.loop)
    assert caught.value.details["reason"] == "out_of_time"
    assert sandbox.run(tasks.add, 1, 2) == 3


@pytest.mark.parametrize("name", tasks.ERRORS)
def test_our_errors_come_out_as_themselves(sandbox, name):
    """Class, message and details survive the way."""
    expected = tasks.ERRORS[name]
    with pytest.raises(type(expected)) as caught:
        sandbox.run(tasks.refuse, name)
    assert type(caught.value) is type(expected)
    assert caught.value.to_dict() == expected.to_dict()


def test_what_is_printed_goes_nowhere(sandbox, capfd):
    """Ten megabytes are as nothing."""
    assert sandbox.run(tasks.chatter, 5_000) == 5_000
    assert capfd.readouterr() == ("", "")


def test_a_large_result_comes_through(sandbox):
    """More than any pipe holds."""
    assert len(sandbox.run(tasks.give_back, 20_000_000)) == 20_000_000


def test_a_neighbour_is_not_disturbed():
    """A task beside one that loops, one that hoards and one that dies is served meanwhile."""
    with Sandbox(Bounds(workers=2, memory=0.5)) as sandbox:
        looping = sandbox.submit(tasks.loop)
        bad = [sandbox.submit(task, *args) for task, args in ((tasks.leave, (1,)), (tasks.hoard, ()))]
        good = [sandbox.submit(tasks.add, n, n) for n in range(5)]
        assert [future.result(patience()) for future in good] == [0, 2, 4, 6, 8]
        assert all(isinstance(future.exception(patience()), WorkerFailed) for future in bad)
        assert not looping.done()
    assert looping.exception(patience()).details["reason"] == "stopped"


def test_too_much_is_turned_away(tmp_path):
    """With the time after which to come again; what was taken is done."""
    with Sandbox(Bounds(workers=1), waiting=1) as small:
        taken = [small.submit(tasks.wait_for, tmp_path / "go") for _ in range(2)]
        with pytest.raises(Overloaded, match="2 scans and checks are at work") as caught:
            small.submit(tasks.add, 1, 2)
        assert caught.value.details["retry_after"] >= 1
        (tmp_path / "go").touch()
        assert [future.result(patience()) for future in taken] == ["go", "go"]
        assert small.run(tasks.add, 1, 2) == 3


def test_closing_ends_what_runs_and_drops_what_waits(tmp_path):
    """At once, and for good: what runs waits for a file that never comes."""
    closing = Sandbox(Bounds(workers=1))
    running, waiting = closing.submit(tasks.wait_for, tmp_path / "never"), closing.submit(tasks.add, 1, 2)
    wait_until((tmp_path / "never.started").exists, "the start of the task")
    closing.close()
    wait([running], patience())
    assert running.exception().details["reason"] == "stopped"
    assert waiting.cancelled()
    with pytest.raises(WorkerFailed, match="stopped"):
        closing.submit(tasks.add, 1, 2)


def test_what_comes_as_it_is_cancelled_is_passed_over():
    """No thread ends in a traceback; what is not cancelled is settled."""
    cancelled, waited_for = Future(), Future()
    assert cancelled.cancel()
    for future in (cancelled, waited_for):
        ignore_cancelled(future.set_result)(7)
    assert cancelled.cancelled()
    assert waited_for.result() == 7


def test_each_name_has_its_result_or_its_reason():
    """Each in a worker of its own; only what never ends has little time."""
    expected = {
        "add": 3,
        "loop": f"It was not scanned within {patience():g} s.",
        "leave": "Its worker ended with exit code 7 (a worker may take 0.5 GiB).",
        "hoard": "It takes more than 0.5 GiB.",
        "fail": "KeyError: 0",
        "refuse": "No.",
    }
    with TwoBounds("loop", 2.0, Bounds(workers=2, memory=0.5), waiting=0) as sandbox:
        assert dict(sandbox.run_each(tasks.run_named, [*expected])) == expected
        assert dict(sandbox.run_each(tasks.run_named, [])) == {}


@pytest.mark.parametrize("bound", ["workers", "seconds", "memory"])
def test_bounds_are_positive(bound):
    """Nothing can be done in no time."""
    with pytest.raises(InvalidRequest, match=f"with {bound} = 0"):
        Bounds(**{bound: 0})


def test_the_caller_stays_light():
    """A process that serves runs tasks full of torch, and never imports it."""
    code = (
        "import sys\nfrom loradar.sandbox.pool import Bounds, Sandbox\n"
        "if __name__ == '__main__':\n"
        "    with Sandbox(Bounds(workers=1)) as sandbox:\n"
        "        names = sandbox.run('loradar.discovery:list_architectures', 'transformers')\n"
        "    print('llama' in names, 'torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.stdout == "True False False\n", done.stderr


SECRETS = {
    "LORADAR_SIGNING_KEY": "c2VjcmV0",
    "LORADAR_TOKEN": "lrd_secret",
    "LORADAR_DATABASE_URL": "postgresql://loradar:secret@db/loradar",
    "HF_TOKEN": "hf_secret",
    "HUGGING_FACE_HUB_TOKEN": "hf_secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "GOOGLE_APPLICATION_CREDENTIALS": "/secret.json",
    "AZURE_CLIENT_SECRET": "secret",
    "PGPASSWORD": "secret",
    "SOMETHING_ELSE": "secret",
}

TELL = """
from multiprocessing import resource_tracker
from pathlib import Path
import os
import sandbox_tasks
from loradar.sandbox.pool import Bounds, Sandbox
if __name__ == "__main__":
    before = dict(os.environ)
    with Sandbox(Bounds(workers=1), preload=()) as sandbox:
        told = sandbox.run(sandbox_tasks.tell_surroundings)
    tracker = Path(f"/proc/{resource_tracker._resource_tracker._pid}/environ").read_bytes()
    assert dict(os.environ) == before
    print(repr((*told, tracker)))
"""


@pytest.fixture(scope="module")
def surroundings():
    """What a worker sees whose caller has secrets in its environment."""
    given = {"HF_ENDPOINT": "http://hub", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join((str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")))
    environment = os.environ | SECRETS | given | {"PYTHONPATH": paths}
    command = [sys.executable, "-c", TELL]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr
    return literal_eval(done.stdout)


def test_no_secret_of_the_caller_reaches_a_worker(surroundings):
    """Neither by Python nor by ``/proc``: its own, its fork server's, and the resource tracker's."""
    variables, own, server, *_, tracker = surroundings
    assert not SECRETS.keys() & variables.keys()
    for seen in (own, server, tracker, repr(variables).encode()):
        assert b"ecret" not in seen
        assert not any(name.encode() in seen for name in SECRETS)


def test_a_worker_has_the_variables_it_needs(surroundings):
    """Paths, the hub, languages and threads; the account of this machine is not used implicitly."""
    variables, own, *_ = surroundings
    wanted = {"HF_ENDPOINT": "http://hub", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    wanted["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"  # noqa: S105 - a switch
    assert wanted.items() <= variables.items()
    assert b"HF_ENDPOINT=http://hub" in own


def test_a_worker_gains_no_privileges(surroundings):
    """No setuid program raises it; its files are its own; its standard streams lead nowhere."""
    *_, no_new_privileges, umask, streams, _tracker = surroundings
    assert (no_new_privileges, umask, streams) == ("1", "0077", {os.devnull})


def test_other_threads_start_processes_as_before(monkeypatch):
    """The clean environment is for the thread that starts workers."""
    monkeypatch.setenv("LORADAR_TOKEN", "lrd_secret")
    command = [sys.executable, "-c", "import os, sys; sys.exit('LORADAR_TOKEN' in os.environ)"]
    codes = {}

    def start(key):
        number = multiprocessing.util.spawnv_passfds(os.fsencode(sys.executable), command, [])
        codes[key] = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])

    with clean_spawns():
        start("inside")
        thread = threading.Thread(target=start, args=("other thread",))
        thread.start()
        thread.join()
    start("after")
    assert codes == {"inside": 0, "other thread": 1, "after": 1}


@pytest.mark.parametrize("name", ["HF_TOKEN_PATH", "LORADAR_HOME", "XLC_ALL", "path", "AWS_REGION", "LD_PRELOAD"])
def test_a_variable_that_is_not_listed_is_left_out(name):
    """The list is of what is allowed."""
    assert name not in clean_environment({name: "x", "PATH": "/bin"})


TELL_PRIORITIES = """
import os
import sandbox_tasks
from loradar.sandbox.pool import Bounds, Sandbox
if __name__ == "__main__":
    with Sandbox(Bounds(workers=1), preload=(), nice={nice}) as sandbox:
        own, servers = sandbox.run(sandbox_tasks.tell_priorities)
    expected = os.SCHED_BATCH if {nice} else os.SCHED_OTHER, os.nice(0) + {nice}
    print(own == servers == expected, own, servers)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux alone has such a policy")
@pytest.mark.parametrize("nice", [0, 3])
def test_workers_and_their_server_give_way(nice):
    """To their caller, if they are nicer: in shares, and at once; a new server as its first sandbox does."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", TELL_PRIORITIES.format(nice=nice)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.stdout.startswith("True"), done.stdout + done.stderr
