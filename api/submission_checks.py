"""The machine checks of submissions, one after the other, in a thread of the service and a worker process of it.

The thread claims what nobody works on, also what a process left that died: the claim is atomic, so that several
processes on one database never do one twice. Without the ``scan`` extra nothing is claimed: the submissions wait for a
process that has it, and ``/readyz`` says so.
"""

import logging
from collections.abc import Callable
from threading import Event, Thread

from ..domain.mappings import Mapping
from ..domain.submissions import Checked, Submission
from ..errors import DatabaseUnusable, LoradarError
from ..registry import Registry
from ..sandbox.pool import Sandbox

LOGGER = logging.getLogger("loradar.api")

PAUSE = 5.0
"""Seconds between two looks for what other processes took in, or left."""

CHECK = "loradar.sandbox.statement_checks:check"
"""Named, not imported: it imports torch, in the worker."""


class Checker:
    """Checks submissions while it runs.

    Args:
        get_registry: Opens the registry; asked again while it cannot.
        sandbox: Where the checks run; it is closed with the checker.
    """

    def __init__(self, get_registry: Callable[[], Registry], sandbox: Sandbox | None) -> None:
        self._get_registry = get_registry
        self._sandbox = sandbox
        self._stopping, self._woken = Event(), Event()
        self._thread = Thread(target=self._work, name="loradar-checks", daemon=True)

    def start(self) -> None:
        """Begin, if the checks can run here."""
        if self._sandbox:
            self._thread.start()

    def wake(self) -> None:
        """Look for something to check now."""
        self._woken.set()

    def stop(self) -> None:
        """End the worker and the thread; what was being checked stays to be checked."""
        self._stopping.set()
        self._woken.set()
        if self._sandbox:
            self._sandbox.close()
            self._thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            if not self._try_one():
                self._woken.wait(PAUSE)
                self._woken.clear()

    def _try_one(self) -> bool:
        """Check one submission, and tell whether to go on at once; whatever happens, the thread goes on."""
        try:
            return self._check_one(self._get_registry())
        except DatabaseUnusable as error:  # requests are told, too; it may come back
            LOGGER.warning("checks wait: %s", error.message)
        except Exception:  # the edge of the thread; what was claimed is claimed again, a few times
            LOGGER.exception("a check failed")
        return False

    def _check_one(self, registry: Registry) -> bool:
        """Check one submission; tell whether there was one."""
        submission = registry.submissions.claim()
        if submission is None:
            return False
        registered = registry.submissions.registered(submission.statement)
        checked = self._check(submission, registered)
        if checked:
            registry.submissions.settle(submission.id, checked)
        return True

    def _check(self, submission: Submission, registered: tuple[Mapping, ...]) -> Checked | None:
        """Return what came of the checks; ``None`` if they were cut short and are to be done again."""
        if self._sandbox is None:
            return None
        try:
            checked: Checked = self._sandbox.run(CHECK, submission.statement, registered)
        except LoradarError as error:  # of the worker, or such as an architecture that cannot be built: a reason
            return None if self._stopping.is_set() else Checked(None, error.message)
        return checked
