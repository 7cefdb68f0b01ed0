"""Run scans in worker processes, and the machine checks of submissions in a background thread with its own worker."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import Event, Thread
from typing import Any

from ..domain.submissions import Checked
from ..errors import DatabaseUnusable, LoradarError, MissingExtra
from ..extras import require
from ..registry import Registry
from ..sandbox import Bounds, Sandbox

LOGGER = logging.getLogger("loradar.api")

NEEDED = ("torch", "transformers", "pebble")

SECONDS = 120.0
"""Time for one scan or check: larger ones are for ``loradar scan``."""

MEMORY = 4.0
"""GiB for one scan or check."""

WAITING = 4
"""Scans that may wait for a worker. Each holds a thread of the service, which has 40; lookups keep most of them."""

PAUSE = 5.0
"""Seconds between two looks for submissions that other processes added, or left unchecked."""

CHECK = "loradar.sandbox.tasks:check"
"""Named, not imported: it imports torch, in the worker."""


class Workers:
    """The worker processes of the service: scans and checks are kept apart, so that neither waits for the other.

    Attributes:
        missing: The missing extra, if neither can run here.
        scans: Workers for scan requests.
        checks: The worker for checks of submissions.
    """

    def __init__(self, at_once: int) -> None:
        self.missing: MissingExtra | None = None
        self.scans: Sandbox | None = None
        self.checks: Sandbox | None = None
        try:
            require("scan", *NEEDED)
        except MissingExtra as missing:
            self.missing = missing
            return
        self.scans = Sandbox(Bounds(at_once, SECONDS, MEMORY), waiting=WAITING)
        self.checks = Sandbox(Bounds(1, SECONDS, MEMORY), waiting=WAITING)

    def get_scans(self) -> Sandbox:
        """Return the workers for scan requests.

        Raises:
            MissingExtra: If scans cannot run here.
        """
        if self.scans is None:
            raise self.missing or MissingExtra(NEEDED[0], "scan")
        return self.scans

    def close(self) -> None:
        """Stop every worker."""
        for sandbox in (self.scans, self.checks):
            if sandbox:
                sandbox.close()


class Checker:
    """Check submissions in a background thread.

    The thread claims submissions that no process is checking, including those left by a process that died. A claim is
    atomic, so several processes on one database never check one twice. Without the ``scan`` extra nothing is claimed:
    submissions wait for a process that has it, and ``/readyz`` reports it.

    Args:
        get_registry: Opens the registry; called again after a failure.
        sandbox: The worker the checks run in; closed with the checker.
        timed: Times a task in its context.
    """

    def __init__(
        self,
        get_registry: Callable[[], Registry],
        sandbox: Sandbox | None,
        timed: Callable[[str], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._get_registry, self._timed = get_registry, timed
        self._sandbox = sandbox
        self._stopping, self._woken = Event(), Event()
        self._thread = Thread(target=self._run, name="loradar-checks", daemon=True)

    def start(self) -> None:
        """Start the thread, if checks can run here."""
        if self._sandbox:
            self._thread.start()

    def wake(self) -> None:
        """Look for a submission to check now."""
        self._woken.set()

    def stop(self) -> None:
        """Stop the worker and the thread; a submission being checked stays to be checked."""
        self._stopping.set()
        self._woken.set()
        if self._sandbox:
            self._sandbox.close()
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            has_checked = False
            try:
                has_checked = self._check_next(self._get_registry())
            except DatabaseUnusable as error:  # requests get the same error; the database may come back
                LOGGER.warning("checks wait for the database: %s", error.message)
            except Exception:  # the thread must survive; a claimed submission is claimed again, a few times
                LOGGER.exception("a check failed")
            if not has_checked:
                self._woken.wait(PAUSE)
                self._woken.clear()

    def _check_next(self, registry: Registry) -> bool:
        """Check the next submission; return whether there was one."""
        submission = registry.submissions.claim()
        if submission is None or self._sandbox is None:
            return False
        registered = registry.submissions.registered(submission.statement)
        try:
            with self._timed("check"), registry.submissions.keep(submission):
                checked: Checked = self._sandbox.run(CHECK, submission.statement, registered)
        except LoradarError as error:  # of the worker, or such as an architecture that cannot be built
            if self._stopping.is_set():  # the check was cut short and is to be repeated
                registry.submissions.release(submission)
                return True
            checked = Checked(None, error.message)
        registry.submissions.record_check(submission.id, checked)
        return True
