"""The REST client for asyncio and trio.

Each call is one of ``Client`` in a worker thread, so that what is stored, repeated and raised is the same by
construction: the store on disk is read in a thread in any case, and a response takes longer than a thread to start.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial, wraps
from itertools import islice
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from anyio import CapacityLimiter, to_thread

from .client import PAGE, Client

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    """Return a method of ``Client`` as one that is awaited."""

    @wraps(method)
    async def call(self: "AsyncClient", /, *arguments: P.args, **options: P.kwargs) -> T:
        return await self.run(partial(method, self.client, *arguments, **options))

    return call


def _iterated(
    method: Callable[Concatenate[Client, P], Iterator[T]],
) -> Callable[Concatenate["AsyncClient", P], AsyncIterator[T]]:
    """Return a method of ``Client`` that yields as one for ``async for``; a thread takes a page at once."""

    @wraps(method)
    async def iterate(self: "AsyncClient", /, *arguments: P.args, **options: P.kwargs) -> AsyncIterator[T]:
        items = method(self.client, *arguments, **options)
        while page := await self.run(lambda: [*islice(items, PAGE)]):
            for item in page:
                yield item

    return iterate


class AsyncClient:
    """A connection to a loradar service, with the methods of ``Client``; also an async context manager.

    A call that is cancelled is abandoned: a write may have been done, and can be repeated under its ``key``.

    Args:
        url: URL of the service, or of static files.
        token: Token for writes; reads need none.
        timeout: Seconds to wait for a response.
        store: As in ``Client``.
        revalidate: As in ``Client``.
        concurrency: Calls at once; further ones wait.

    Attributes:
        client: The client that sends the requests.
    """

    def __init__(  # noqa: PLR0913 - those of Client
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        store: Path | bool = True,
        revalidate: bool = True,
        concurrency: int = 32,
    ) -> None:
        self.client = Client(url, token=token, timeout=timeout, store=store, revalidate=revalidate)
        self._limiter = CapacityLimiter(concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await to_thread.run_sync(self.client.close)

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of a function in a worker thread."""
        return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._limiter)

    targets = _awaited(Client.targets)
    targets_of_many = _awaited(Client.targets_of_many)
    check = _awaited(Client.check)
    doctor = _awaited(Client.doctor)
    architectures = _awaited(Client.architectures)
    architecture = _awaited(Client.architecture)
    explain = _awaited(Client.explain)
    search = _awaited(Client.search)
    similar = _awaited(Client.similar)
    layers = _awaited(Client.layers)
    history = _awaited(Client.history)
    usage = _awaited(Client.usage)
    mappings = _iterated(Client.mappings)
    revision = _awaited(Client.revision)
    diff = _awaited(Client.diff)
    changes = _iterated(Client.changes)
    snapshot_key = _awaited(Client.snapshot_key)
    snapshot = _awaited(Client.snapshot)
    fetch_snapshot = _awaited(Client.fetch_snapshot)
    whoami = _awaited(Client.whoami)
    submit = _awaited(Client.submit)
    submission = _awaited(Client.submission)
    submissions = _awaited(Client.submissions)
    review = _awaited(Client.review)
    withdraw = _awaited(Client.withdraw)
    yank = _awaited(Client.yank)
    restore = _awaited(Client.restore)
    create_token = _awaited(Client.create_token)
    tokens = _awaited(Client.tokens)
    revoke_token = _awaited(Client.revoke_token)
