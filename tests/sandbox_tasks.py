"""What a sandboxed process may do to itself: each must leave its caller as it was."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from patience import wait_until

from loradar.errors import HubFailed, InvalidStatement, KeyReused, UnknownArchitecture


def add(left, right):
    """Return a sum."""
    return left + right


def tell_process():
    """Return the number of the process."""
    return os.getpid()


def tell_surroundings():
    """Return the variables of the process, as Python and as the system have them, and its parent's; and its rights."""
    parents = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    own = Path("/proc/self/environ").read_bytes()
    rights = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    descriptors = {str(Path(f"/proc/self/fd/{number}").readlink()) for number in (0, 1, 2)}
    return dict(os.environ), own, parents, rights["NoNewPrivs"].strip(), rights["Umask"].strip(), descriptors


def tell_priorities():
    """Return the scheduling policy and the niceness of this process and of the server that forked it."""
    pids = os.getpid(), os.getppid()
    return [(os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)) for pid in pids]


def leave(code):
    """End the process without a word."""
    os._exit(code)


def send_itself(signum):
    """Die of a signal."""
    os.kill(os.getpid(), signum)
    time.sleep(60)


def fault():
    """Read an address nothing is at."""
    ctypes.string_at(0)


def loop():
    """Never return; a process that is asked to end does not either."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def wait_for(path):
    """Leave a file that holds the number of the process beside another, and return once that is there."""
    path.with_suffix(".started").write_text(str(os.getpid()))
    wait_until(path.exists, str(path))
    return path.name


def tell_libraries():
    """Return whether the process this one was forked from has torch loaded."""
    return "libtorch" in Path(f"/proc/{os.getppid()}/maps").read_text()


def hoard():
    """Allocate until nothing is left."""
    held = []
    while True:
        held.append(bytearray(1 << 24))


def chatter(lines):
    """Print a lot, also past Python."""
    for _ in range(lines):
        sys.stdout.write("x" * 1000 + "\n")
        os.write(2, b"y" * 1000)
    return lines


def fail():
    """Run into a bug."""
    return {}[0]


def give_back(value):
    """Return something large, or nothing that can be pickled."""
    return (lambda: None) if value is None else "z" * value


ERRORS = {
    "refused": InvalidStatement("No.", field="name"),
    "unknown": UnknownArchitecture("lama", ["llama"], "List them.", library="transformers"),
    "reused": KeyReused("Again?", key="k"),
    "hub": HubFailed("Away.", endpoint="there"),
}


def refuse(name):
    """Raise an error of ours."""
    raise ERRORS[name]


NAMED = {
    "add": lambda: add(1, 2),
    "loop": loop,
    "leave": lambda: leave(7),
    "hoard": hoard,
    "fail": fail,
    "refuse": lambda: refuse("refused"),
}


def run_named(name):
    """Run one of these tasks, by its name."""
    return NAMED[name]()
