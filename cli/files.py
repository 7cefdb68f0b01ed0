"""Write the files that commands produce."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidRequest


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report in one line that a file cannot be written.

    Raises:
        InvalidRequest: With the path and the reason.
    """
    try:
        yield
    except OSError as error:
        message = f"{str(path)!r} cannot be written: {error.strerror}. Choose another path."
        raise InvalidRequest(message, path=str(path)) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file.

    Raises:
        InvalidRequest: If it cannot be written.
    """
    with writing(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
