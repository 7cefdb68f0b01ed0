"""Files and folders of this machine that a text from outside may name."""

from pathlib import Path


def find_path(text: str) -> Path | None:
    """Return the file or folder that a text names, with or without ``file:``; ``None`` if it names none.

    A text may be no path at all: it is too long, holds a zero, or begins with the home of an unknown user.
    """
    try:
        path = Path(text.removeprefix("file:")).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def is_folder(text: str) -> bool:
    """Return whether a text names a folder of this machine."""
    path = find_path(text)
    return path is not None and path.is_dir()
