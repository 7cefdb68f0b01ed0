"""Wait for the machine checks of submissions: run them for the local registry, poll a service."""

import time
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Self

import typer

from ...domain.submissions import Checked
from ...errors import LoradarError

if TYPE_CHECKING:
    from ...client import Client
    from ...domain.submissions import Submission
    from ...registry import LocalBackend
    from ...registry.contributions.submissions import Submissions
    from ...sandbox.pool import Sandbox

CHECK = "loradar.sandbox.tasks:check"
"""Named, not imported: it imports torch, in the worker."""

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 900.0
"""Longest wait for another process to finish the checks."""


class Checks:
    """The checks of submissions made to a backend; as a context manager it stops the worker it started."""

    def __init__(self, backend: "LocalBackend | Client") -> None:
        from ...client import Client

        self._backend = backend
        self._queue = None if isinstance(backend, Client) else backend.queue
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Load what local checks need, before a submission is stored that would wait for them.

        Raises:
            MissingExtra: If it is not installed.
        """
        if self._queue:
            _ = self._sandbox

    def wait(self, submission_id: int) -> "Submission":
        """Return a submission once it is checked, or as it is after ``PATIENCE_SECONDS``."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        is_announced = False
        while (submission := self._backend.submission(submission_id)).status == "checking":
            if time.monotonic() >= deadline:
                break
            if self._queue and self._check_next(self._queue):
                continue
            if not is_announced:
                typer.echo(f"Submission {submission_id} is being checked by the service.", err=True)
                is_announced = True
            time.sleep(POLL_SECONDS)
        return submission

    def _check_next(self, queue: "Submissions") -> bool:
        """Check the oldest waiting submission; return ``False`` if other processes have claimed all."""
        sandbox = self._sandbox  # before a submission is claimed
        claimed = queue.claim()
        if claimed is None:
            return False
        statement = claimed.statement
        typer.echo(f"Checking submission {claimed.id}, {statement.reference}, in a worker process ...", err=True)
        try:
            checked: Checked = sandbox.run(CHECK, statement, queue.registered(statement))
        except LoradarError as error:  # of the worker, or such as an architecture that cannot be built
            checked = Checked(None, error.message)
        queue.record_check(claimed.id, checked)
        return True

    @cached_property
    def _sandbox(self) -> "Sandbox":
        from ...sandbox.bounds import Bounds
        from ...sandbox.pool import Sandbox

        return self._stack.enter_context(Sandbox(Bounds(workers=1)))
