"""Show the progress of long work on standard error, with the time left; nothing is shown unless that is a terminal."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

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
def showing(description: str, *, is_bytes: bool = False) -> Iterator[Callable[..., None]]:
    """Show a bar, and yield the function that brings it up to date; see ``Show``, a new description may follow.

    Args:
        description: The work, in a word or two.
        is_bytes: Whether bytes are counted.
    """
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
    counter: ProgressColumn = DownloadColumn() if is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), counter)
    ending = TimeRemainingColumn(elapsed_when_finished=True)
    with Progress(*columns, ending, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=None)

        def show(done: int, total: int | None, description: str | None = None) -> None:
            progress.update(task, completed=done, total=total, description=description)

        yield show
