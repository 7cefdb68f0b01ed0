"""A file that grows by one JSON line per architecture, in any order, and is sorted by name at the end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidRequest


class _Line(NamedTuple):
    """Where a line stands, and whether it holds a scan."""

    offset: int
    length: int
    is_scan: bool


class Journal:
    """The lines written so far, those of an earlier run that was interrupted included.

    Raises:
        InvalidRequest: If the file holds something else; it is left as it is.
    """

    def __init__(self, path: Path, heading: str | None = None) -> None:
        """Open a journal; with a heading, lines of an earlier run count only below the same one."""
        self._path = path
        self._lines: dict[str, _Line] = {}
        self._end = 0
        if path.exists():
            self._recover(heading)
        if heading is not None and not self._end:
            self._write(heading)

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    @property
    def counts(self) -> tuple[int, int]:
        """How many lines hold a scan, and how many the reason why there is none."""
        scans = sum(line.is_scan for line in self._lines.values())
        return scans, len(self._lines) - scans

    def add(self, name: str, text: str, *, is_scan: bool) -> None:
        """Append a line; it is on the disk when this returns."""
        self._lines[name] = _Line(self._end, len(text.encode()), is_scan)
        self._write(text)

    def sorted_lines(self) -> Iterator[str]:
        """Yield the lines sorted by name, the heading left out."""
        with self._path.open("rb") as file:
            for _, line in sorted(self._lines.items()):
                file.seek(line.offset)
                yield file.read(line.length).decode()

    def _write(self, text: str) -> None:
        data = text.encode() + b"\n"
        with self._path.open("ab") as file:
            file.write(data)
        self._end += len(data)

    def _recover(self, heading: str | None) -> None:
        """Find the complete lines of an earlier run; one cut off in the middle, or another run's, is removed."""
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                if number > 1 or heading is None:
                    self._read(line, number)
                elif line.decode(errors="replace").rstrip("\n") != heading:
                    break
                self._end += len(line)
        with self._path.open("r+b") as file:
            file.truncate(self._end)

    def _read(self, line: bytes, number: int) -> None:
        try:
            data = json.loads(line)
            name, is_scan = data["architecture"]["name"], "unscanned" not in data
        except (ValueError, KeyError, TypeError):
            message = f"{self._path} line {number} is no catalog line. Give a new file, or remove it."
            raise InvalidRequest(message, file=str(self._path), line=number) from None
        self._lines[name] = _Line(self._end, len(line) - 1, is_scan)
