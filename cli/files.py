"""Files that commands write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidRequest


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line that a file cannot be written, and why.

    Raises:
        InvalidRequest: Naming it.
    """
    try:
        yield
    except OSError as error:
        message = f"{str(path)!r} cannot be written: {error.strerror}. Choose another place."
        raise InvalidRequest(message, path=str(path)) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file.

    Raises:
        InvalidRequest: If it cannot be written.
    """
    with writing(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
