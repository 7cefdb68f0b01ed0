"""The journal of a catalog: JSON lines appended in any order, and read sorted by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidRequest


class _Line(NamedTuple):
    """The position of a line in the file, and whether it holds a scan."""

    offset: int
    length: int
    is_scan: bool


class Journal:
    """The lines written so far, those of an interrupted run included.

    Attributes:
        path: The file.

    Raises:
        InvalidRequest: If the file is not a journal; it is left unchanged.
    """

    def __init__(self, path: Path, heading: str | None = None) -> None:
        """Open a journal; with a heading, lines of an earlier run are kept only below the same heading."""
        self.path = path
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
        """The number of lines with a scan, and of those with the reason why there is none."""
        scans = sum(line.is_scan for line in self._lines.values())
        return scans, len(self._lines) - scans

    def add(self, name: str, text: str, *, is_scan: bool) -> None:
        """Append a line and flush it."""
        self._lines[name] = _Line(self._end, len(text.encode()), is_scan)
        self._write(text)

    def sorted_lines(self) -> Iterator[str]:
        """Yield the lines sorted by name, without the heading."""
        with self.path.open("rb") as file:
            for _, line in sorted(self._lines.items()):
                file.seek(line.offset)
                yield file.read(line.length).decode()

    def _write(self, text: str) -> None:
        data = text.encode() + b"\n"
        with self.path.open("ab") as file:
            file.write(data)
        self._end += len(data)

    def _recover(self, heading: str | None) -> None:
        """Read the complete lines of an earlier run, and remove a cut-off line, or those under another heading."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                if number > 1 or heading is None:
                    name, is_scan = self._parse(line, number)
                    self._lines[name] = _Line(self._end, len(line) - 1, is_scan)
                elif line.decode(errors="replace").rstrip("\n") != heading:
                    break
                self._end += len(line)
        with self.path.open("r+b") as file:
            file.truncate(self._end)

    def _parse(self, line: bytes, number: int) -> tuple[str, bool]:
        """Return the name of a line's architecture, and whether the line holds a scan."""
        try:
            data = json.loads(line)
            return data["architecture"]["name"], "unscanned" not in data
        except (ValueError, KeyError, TypeError):
            message = f"{self.path} line {number} is no catalog line. Give a new file, or remove it."
            raise InvalidRequest(message, file=str(self.path), line=number) from None
