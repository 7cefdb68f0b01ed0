"""The sandbox: whatever a process does, its caller gets an outcome or a reason, and goes on."""

import signal
import subprocess
import sys
import time
from concurrent.futures import Future, wait

import pytest
import sandbox_tasks as tasks

from loradar.errors import InvalidRequest, Overloaded, WorkerFailed
from loradar.sandbox.bounds import Bounds
from loradar.sandbox.pool import Sandbox, _unless_settled

SECONDS = 3.0


@pytest.fixture(scope="module")
def sandbox():
    """A sandbox with two workers, half a GiB and a few seconds."""
    with Sandbox(Bounds(workers=2, seconds=SECONDS, memory=0.5)) as started:
        started.warm()
        yield started


def test_a_function_runs_in_a_process_of_its_own(sandbox):
    """By itself or by its dotted name; every task in another process."""
    assert sandbox.run(tasks.add, 1, 2) == sandbox.run("sandbox_tasks:add", 1, 2) == 3
    assert len({sandbox.run(tasks.tell_process) for _ in range(3)}) == 3


def test_a_task_starts_quickly(sandbox):
    """The libraries are there already: no task pays for their import."""
    sandbox.run(tasks.add, 1, 2)
    start = time.monotonic()
    sandbox.run("loradar.discovery:list_architectures", "transformers")
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize(
    ("task", "args", "reason", "says"),
    [
        (tasks.leave, (7,), "died", "ended with exit code 7"),
        (tasks.leave, (0,), "died", "ended with exit code 0"),
        (tasks.send_itself, (signal.SIGKILL,), "died", "was killed"),
        (tasks.fault, (), "died", "died of SIGSEGV"),
        (tasks.loop, (), "out_of_time", "more than 3 s"),
        (tasks.hoard, (), "out_of_memory", "more than 0.5 GiB"),
        (tasks.fail, (), "error", "KeyError: 0"),
        (tasks.give_back, (None,), "died", "exit code 1"),
        ("no_such_module:run", (), "error", "No module named 'no_such_module'"),
    ],
    ids=["exit", "exit zero", "kill", "fault", "loop", "hoard", "bug", "unpicklable", "no module"],
)
def test_what_goes_wrong_is_told(sandbox, task, args, reason, says):
    """In one sentence; and the next task is served."""
    with pytest.raises(WorkerFailed, match=says) as caught:
        sandbox.run(task, *args)
    assert caught.value.details["reason"] == reason
    assert "\n" not in caught.value.message
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


def test_a_neighbour_is_not_disturbed(sandbox):
    """A task beside one that loops, one that hoards and one that dies is served meanwhile."""
    bad = [sandbox.submit(task, *args) for task, args in ((tasks.loop, ()), (tasks.leave, (1,)), (tasks.hoard, ()))]
    good = [sandbox.submit(tasks.add, n, n) for n in range(5)]
    assert [future.result(60) for future in good] == [0, 2, 4, 6, 8]
    assert all(isinstance(future.exception(60), WorkerFailed) for future in bad)


def test_too_much_is_turned_away():
    """With the time after which to come again; what was taken is done."""
    with Sandbox(Bounds(workers=1, seconds=60), waiting=1) as small:
        taken = [small.submit(tasks.wait, 0.5), small.submit(tasks.wait, 0.1)]
        with pytest.raises(Overloaded, match="2 scans and checks are at work") as caught:
            small.submit(tasks.add, 1, 2)
        assert caught.value.details["retry_after"] >= 1
        assert [future.result(60) for future in taken] == [0.5, 0.1]
        assert small.run(tasks.add, 1, 2) == 3


def test_closing_ends_what_runs_and_drops_what_waits():
    """At once, and for good."""
    closing = Sandbox(Bounds(workers=1, seconds=60))
    closing.warm()
    running, waiting = closing.submit(tasks.wait, 50), closing.submit(tasks.add, 1, 2)
    time.sleep(0.5)
    start = time.monotonic()
    closing.close()
    assert time.monotonic() - start < 20
    wait([running], 5)
    assert isinstance(running.exception(), WorkerFailed)
    assert waiting.cancelled()
    with pytest.raises(WorkerFailed, match="stopped"):
        closing.submit(tasks.add, 1, 2)


def test_what_comes_as_it_is_cancelled_is_passed_over():
    """No thread ends in a traceback; what is not cancelled is settled."""
    cancelled, waited_for = Future(), Future()
    assert cancelled.cancel()
    for future in (cancelled, waited_for):
        _unless_settled(future.set_result)(7)
    assert cancelled.cancelled()
    assert waited_for.result() == 7


def test_bounds_are_positive():
    """Nothing can be done in no time."""
    with pytest.raises(InvalidRequest, match="seconds = 0"):
        Bounds(seconds=0)


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
