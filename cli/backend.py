"""The local registry, or the service that ``--url`` names: read, contribute, and wait for machine checks."""

import time
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Self, TypeVar

import typer

from ..domain.identities import LOCAL
from ..domain.submissions import Checked
from ..errors import LoradarError, NotAuthenticated
from .options import TOKEN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..client import Client
    from ..domain.submissions import Submission
    from ..registry import LocalBackend, Registry
    from ..registry.contributions.submissions import Submissions
    from ..sandbox.pool import Sandbox

T = TypeVar("T")

CHECK = "loradar.sandbox.tasks:check"
"""Named, not imported: it imports torch, in the worker."""

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 900.0
"""Longest wait for another process to finish the checks."""


def read(url: str | None, from_service: "Callable[[Client], T]", from_registry: "Callable[[Registry], T]") -> T:
    """Return the result of a function on the service at ``url``, or without one, on the local registry."""
    if url:
        from ..client import Client

        with Client(url) as client:
            return from_service(client)
    from ..registry import Registry

    with Registry.open() as registry:
        return from_registry(registry)


@contextmanager
def open_backend(url: str | None, secret: str | None, *, needs_token: bool = True) -> "Iterator[LocalBackend | Client]":
    """Yield the service at ``url``, or the local registry, which its owner may read and administer without a token.

    Raises:
        NotAuthenticated: If a token is needed and not given, or invalid.
    """
    if needs_token and not secret:
        way_out = "Create one with: loradar token create NAME --role ROLE"
        if url:
            way_out = f"Ask the operator of {url} for one"
        message = f"This needs a token. {way_out}; then set {TOKEN_VARIABLE} to it."
        raise NotAuthenticated(message, variable=TOKEN_VARIABLE)
    if url:
        from ..client import Client

        with Client(url, token=secret or None) as client:
            yield client
    else:
        from ..registry import Registry

        with Registry.open() as registry:
            yield registry.backend(registry.tokens.authenticate(str(secret)) if needs_token else LOCAL)


class Checks:
    """The checks of submissions made to a backend; as a context manager it stops the worker it started."""

    def __init__(self, backend: "LocalBackend | Client") -> None:
        from ..client import Client

        self._backend = backend
        self._queue = None if isinstance(backend, Client) else backend.queue
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepare(self) -> None:
        """Load the libraries of local checks, before a submission is stored that would wait for them.

        Raises:
            MissingExtra: If one is not installed.
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
            with queue.keep(claimed):
                checked: Checked = sandbox.run(CHECK, statement, queue.registered(statement))
        except LoradarError as error:  # of the worker, or such as an architecture that cannot be built
            checked = Checked(None, error.message)
        queue.record_check(claimed.id, checked)
        return True

    @cached_property
    def _sandbox(self) -> "Sandbox":
        from ..sandbox.pool import Bounds, Sandbox

        return self._stack.enter_context(Sandbox(Bounds(workers=1)))
