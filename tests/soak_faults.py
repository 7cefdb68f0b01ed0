"""Real faults under a service with writers: nothing lost, nothing twice, a true ``/readyz``, and recovery by itself.

The second part of ``make soak``. Where this user may mount a disk of its own, that is filled up; else this fault is
left out, and named. Each fault waits for acknowledged writes before and after it.
"""

import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
from patience import patience, wait_until
from soak import Soak

from loradar.settings import Settings

WRITERS = 4
FILE = "registry.sqlite3"
LOCKED = 20.0
HOLD = 5.0
"""Seconds for which a fault lasts."""


@dataclass(frozen=True)
class Fault:
    """What befalls the service, how it ends, whether it is ready and looks up meanwhile, and for how long it lasts."""

    name: str
    begin: Callable[[], object]
    end: Callable[[], object]
    is_ready: bool
    is_answering: bool = True
    seconds: float = HOLD


@contextmanager
def own_disk() -> Iterator[tuple[Path, bool]]:
    """Yield an empty folder, and whether it is a small disk of its own."""
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", "size=110m", "tmpfs", name]
        mount = shutil.which("mount")
        is_own = bool(mount) and subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603
        try:
            yield Path(name), is_own
        finally:
            if is_own:
                subprocess.run(["umount", "--lazy", name], check=True)  # noqa: S603, S607 - as mount


def list_faults(soak: Soak, disk: Path, *, is_own: bool) -> list[Fault]:
    """Return the faults of an SQLite file."""
    ballast, away = disk / "ballast", disk / "away"
    locks: list[sqlite3.Connection] = []

    def fill() -> None:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass

    def lock() -> None:
        locks.append(sqlite3.connect(disk / FILE, isolation_level=None, timeout=patience()))
        locks[0].execute("BEGIN IMMEDIATE")

    def unlock() -> None:
        locks.pop().close()

    def move(source: Path, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for path in source.glob(f"{FILE}*"):
            path.rename(target / path.name)

    full = [Fault("disk full", fill, ballast.unlink, is_ready=False)] if is_own else []
    return [
        *full,
        Fault("file locked", lock, unlock, is_ready=True, seconds=LOCKED),
        Fault("file away", lambda: move(disk, away), lambda: move(away, disk), is_ready=False, is_answering=False),
        Fault("output closed", soak.process.stdout.close, lambda: None, is_ready=True),
    ]


def suffer(soak: Soak, fault: Fault, client: httpx2.Client) -> str:
    """Let a fault befall the service, check what it answers meanwhile, and wait for its recovery; return a line."""

    def is_ready() -> bool:
        return client.get(f"{soak.url}/readyz").status_code == 200

    def await_writes(number: int = 2 * WRITERS) -> None:
        wanted = len(soak.outcome.took) + number
        wait_until(lambda: len(soak.outcome.took) >= wanted, f"writes around {fault.name!r}")

    await_writes()
    fault.begin()
    wait_until(lambda: is_ready() == fault.is_ready, f"the right /readyz during {fault.name!r}")
    end, slowest, before = time.monotonic() + fault.seconds, 0.0, len(soak.outcome.took)
    while time.monotonic() < end:
        assert is_ready() == fault.is_ready, fault.name
        start = time.perf_counter()
        status = client.get(f"{soak.url}/v1/targets/llama").status_code
        slowest = max(slowest, time.perf_counter() - start)
        assert status == (200 if fault.is_answering else 503), fault.name
        time.sleep(0.2)
    meanwhile, over = len(soak.outcome.took) - before, time.monotonic()
    fault.end()
    wait_until(is_ready, f"/readyz after {fault.name!r}")
    await_writes()
    back = time.monotonic() - over
    return f"{fault.name}: {meanwhile} writes meanwhile, slowest lookup {slowest:.2f} s, writing {back:.1f} s after it"


def main() -> None:
    """Run every fault, and print a line for each."""
    with own_disk() as (disk, is_own), httpx2.Client(timeout=patience()) as client:
        soak = Soak(Settings(disk, f"sqlite:///{disk}/{FILE}"), WRITERS)
        soak.start()
        threads = [threading.Thread(target=soak.write, args=(n,), daemon=True) for n in range(WRITERS)]
        try:
            for thread in threads:
                thread.start()
            for fault in list_faults(soak, disk, is_own=is_own):
                print(suffer(soak, fault, client), flush=True)  # noqa: T201 - a script
            soak.over.set()
            for thread in threads:
                thread.join(patience())
        finally:
            soak.over.set()
            soak.process.send_signal(signal.SIGTERM)
            soak.process.wait(patience())
        soak.check()
    print(f"{len(soak.outcome.took)} writes, none lost, none twice")  # noqa: T201
    if not is_own:
        print("Not tried: a full disk, since this user cannot mount one.")  # noqa: T201


if __name__ == "__main__":
    main()
