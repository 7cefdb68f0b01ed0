"""Opens the environment's registry in processes that are killed on the way, then in two at once that are not.

Forked, since each would import for a second. Arguments: a case, and a registry of an older schema.
"""

import os
import shutil
import signal
import sys
from contextlib import nullcontext
from itertools import count
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from unittest import mock

from sqlalchemy import Engine, event

from loradar.registry import Registry
from loradar.settings import Settings

KILLS = 7
FEW_PAGES = "PRAGMA cache_size = 4"
"""Lets SQLite write into the file long before the commit, as it does with a seed of full size."""


def main() -> None:
    """Kill at moments spread over the work; then print what two processes at once look up."""
    case, older = sys.argv[1:]
    settings = Settings.from_environment()
    without_log = mock.patch("loradar.registry.db.prepare.use_write_ahead_log")
    with (
        mock.patch("loradar.registry.catalogs.list_catalogs", list),
        mock.patch("loradar.registry.catalogs.list_older", list),
        mock.patch("loradar.registry.db.shipped.find_shipped", return_value=None),
        without_log if case == "journal" else nullcontext(),
    ):
        for moment in moments(settings, older, case):
            clear(settings, older, case)
            assert status_of(start(moment)) == -signal.SIGKILL
            both = [start(), start()]
            assert [status_of(process) for process in both] == [0, 0], moment


def moments(settings: Settings, older: str, case: str) -> list[int]:
    """Return the numbers of the statements to be killed before: the first, the last, and some between."""
    clear(settings, older, case)
    statements: list[str] = []

    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    event.listen(Engine, "before_cursor_execute", note)
    Registry.open(settings).close()
    event.remove(Engine, "before_cursor_execute", note)
    return [1 + number * (len(statements) - 1) // (KILLS - 1) for number in range(KILLS)]


def clear(settings: Settings, older: str, case: str) -> None:
    """Leave the home as it is before first use, or with the older registry."""
    for path in settings.home.iterdir():
        path.unlink()
    if case == "upgrade":
        shutil.copy(older, settings.home / "registry.sqlite3")


def look_up(moment: int | None) -> None:
    """Open the registry and print a lookup, or be killed before a statement."""
    numbers = count(1)

    def step(*arguments: object) -> None:
        number = next(numbers)
        if number == 1:
            arguments[1].execute(FEW_PAGES)
        if number == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", step)
    with Registry.open() as registry:
        sys.stdout.write(f"{registry.lookup('llama').spec.target_modules} {registry.serial()}\n")


def start(moment: int | None = None) -> BaseProcess:
    """Start a process that looks up, or is killed before a statement."""
    process = get_context("fork").Process(target=look_up, args=(moment,))
    process.start()
    return process


def status_of(process: BaseProcess) -> int | None:
    """Wait for a process, and return its exit status; minus the signal that killed it."""
    process.join()
    return process.exitcode
