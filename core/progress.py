"""Show the progress of long work on standard error, with the time left; nothing is shown unless that is a terminal."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

Show = Callable[[int, int | None], None]
"""Show how much is done, and of how much, if that is known."""


def track(steps: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield steps, and show how many are done.

    Args:
        steps: The steps of the work.
        description: The work, in a word or two.
        total: Number of steps, if it is known.
    """
    with showing(description) as show:
        show(0, total)
        for done, step in enumerate(steps, 1):
            yield step
            show(done, total)


@contextmanager
def showing(description: str, *, is_bytes: bool = False, after: float = 0) -> Iterator[Callable[..., None]]:
    """Show a bar, and yield the function that brings it up to date; see ``Show``, a new description may follow.

    Args:
        description: The work, in a word or two.
        is_bytes: Whether bytes are counted.
        after: Seconds from which there is a bar, for work that is mostly done by then.
    """
    begun = monotonic()
    bars: list[Progress] = []
    with ExitStack() as stack:

        def show(done: int, total: int | None, description: str = description) -> None:
            if not bars and monotonic() - begun >= after:
                bars.append(stack.enter_context(_make_bar(is_bytes=is_bytes)))
                bars[0].add_task(description, total=None)
            for bar in bars:
                bar.update(bar.task_ids[0], completed=done, total=total, description=description)

        if not after:
            show(0, None)
        yield show


def _make_bar(*, is_bytes: bool) -> "Progress":
    """Return a bar that is off unless standard error is a terminal."""
    from rich.console import Console  # noqa: PLC0415 - shown by long work alone
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn())
    counter = DownloadColumn() if is_bytes else MofNCompleteColumn()
    ending = TimeRemainingColumn(elapsed_when_finished=True)
    return Progress(*columns, counter, ending, console=console, disable=not console.is_terminal)
