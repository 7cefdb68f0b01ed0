"""Waits until the machine checks of a submission are through: does them where the registry is, or asks the service."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Self

from ...domain.submissions import Checked
from ...errors import LoradarError
from .backend import Desk, LocalDesk

if TYPE_CHECKING:
    from ...domain.submissions import Submission
    from ...registry import Registry
    from ...sandbox.pool import Sandbox

CHECK = "loradar.sandbox.statement_checks:check"
"""Named, not imported: it imports torch, in the worker."""

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 900.0
"""How long is waited for whoever does the checks."""

Tell = Callable[[str], None]
"""Takes a line about what is going on."""


class Checks:
    """The checks of what was brought to a desk; as a context it ends the workers it started."""

    def __init__(self, desk: Desk, tell: Tell) -> None:
        self._desk = desk
        self._tell = tell
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Have what local checks need, before anything is brought in that would wait for them.

        Raises:
            MissingExtra: If it is not installed.
        """
        if isinstance(self._desk, LocalDesk):
            _ = self._sandbox

    def wait(self, submission_id: int) -> "Submission":
        """Return a submission once it is checked, or as it is if that takes too long."""
        ends = time.monotonic() + PATIENCE_SECONDS
        told = False
        while (found := self._desk.submission(submission_id)).status == "checking" and time.monotonic() < ends:
            if isinstance(self._desk, LocalDesk) and self._work_on_next(self._desk.registry):
                continue
            if not told:
                self._tell(f"Submission {submission_id} is being checked by the service.")
                told = True
            time.sleep(POLL_SECONDS)
        return found

    def _work_on_next(self, registry: "Registry") -> bool:
        """Check the oldest submission that waits; ``False`` if somebody else has what there is."""
        sandbox = self._sandbox  # before anything is claimed
        claimed = registry.submissions.claim()
        if claimed is None:
            return False
        self._tell(f"Checking submission {claimed.id}, {claimed.statement.reference}, in a worker process ...")
        registry.submissions.settle(claimed.id, _check(sandbox, registry, claimed))
        return True

    @cached_property
    def _sandbox(self) -> "Sandbox":
        from ...sandbox.bounds import Bounds
        from ...sandbox.pool import Sandbox

        return self._stack.enter_context(Sandbox(Bounds(workers=1)))


def _check(sandbox: "Sandbox", registry: "Registry", claimed: "Submission") -> Checked:
    """Return what came of the checks; why they could not be done is their outcome, too."""
    statement = claimed.statement
    try:
        checked: Checked = sandbox.run(CHECK, statement, registry.submissions.registered(statement))
    except LoradarError as error:  # of the worker, or such as an architecture that cannot be built
        return Checked(None, error.message)
    return checked
