"""The catalog of a library: one line for each architecture, resumable, and the same bytes every time.

Each architecture is scanned in a worker process of its own; the caller hands over the :class:`Runner` of these
processes, such as ``loradar.sandbox.Sandbox.run_each``.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from rich.console import Console
from rich.progress import track

from ..catalog.entries import CatalogEntry, CatalogHeader, catalog_lines
from ..domain.architectures import Architecture
from ..domain.scans import Scan
from ..errors import InvalidRequest, LoradarError
from ..schema import from_json, to_json
from . import sources
from .scanner import scan
from .variants import has_entry, list_variants

if TYPE_CHECKING:
    from ..domain.vocabulary import Library

T = TypeVar("T")

Summary = Callable[[Scan], CatalogEntry]
"""Makes the compact form of a scan."""


class How(NamedTuple):
    """How each architecture is scanned; see :func:`~loradar.discovery.scan`."""

    method: str = "auto"
    proved: bool = False


HOW = How()


class Runner(Protocol):
    """Run a picklable function on each name, in worker processes.

    It yields (name, result), or (name, reason) where a worker failed, as they complete.
    """

    def __call__(self, function: Callable[[str], T], names: Sequence[str], /) -> Iterator[tuple[str, T | str]]:
        """Run the function on each name."""


def scan_library(
    library: str,
    out: Path,
    run: Runner,
    *,
    how: How = HOW,
    compact: tuple[CatalogHeader, Summary] | None = None,
) -> tuple[int, int]:
    """Scan every architecture of ``library`` into ``out``, and continue an interrupted run.

    Args:
        library: A library that can be listed.
        out: The file: one line per architecture, sorted by name when it is complete.
        run: Runs the scans.
        how: How each architecture is scanned.
        compact: Write the compact form: a complete file is overwritten, and an incomplete one is ``out`` + ``.part``.

    Returns:
        The number of lines with a scan, and of those with the reason why there is none.

    Raises:
        UnknownLibrary: If the library cannot be listed.
        InvalidRequest: If ``out`` is not a catalog.
    """
    names = sources.list_names(library)
    journal = _open_journal(out, compact[0] if compact else None, how)
    missing = [name for name in names if name not in journal]
    task = partial(scan_line, library=library, how=how, summary=compact[1] if compact else None)
    for name, outcome in _track(run(task, missing), library, len(missing)) if missing else ():
        text, is_scan = (_dump_reason(library, name, outcome), False) if isinstance(outcome, str) else outcome
        journal.add(name, text, is_scan=is_scan)
    lines = journal.sorted_lines()
    if compact:
        lines = catalog_lines(compact[0], (from_json(CatalogEntry, json.loads(line)) for line in lines))
    new = out.with_name(out.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    new.replace(out)
    if compact:
        journal.path.unlink()
    return journal.counts


def _open_journal(out: Path, header: CatalogHeader | None, how: How) -> "Journal":
    """Open the journal of a catalog: the file itself, or a file beside a compact catalog."""
    if header is None:
        return Journal(out)
    if out.exists():
        with out.open("rb") as file:
            if not file.readline(1000).startswith(b'{"catalog":'):
                message = f"{out} is no compact catalog. Give a new file, or remove it."
                raise InvalidRequest(message, file=str(out))
    return Journal(out.with_name(out.name + ".part"), _dump(to_json(header) | how._asdict()))


def scan_line(name: str, *, library: str, how: How, summary: Summary | None) -> tuple[str, bool]:
    """Return the line of one architecture, and whether it holds a scan."""
    result = _scan_task(name, library=library, how=how)
    if isinstance(result, str):
        return _dump_reason(library, name, result), False
    return _dump(to_json(summary(result) if summary else result)), True


def scan_each(library: str, names: Sequence[str], run: Runner, *, how: How = HOW) -> Iterator[tuple[str, Scan | str]]:
    """Scan some architectures of a library, and yield each scan, or the reason why there is none."""
    if names:
        yield from _track(run(partial(_scan_task, library=library, how=how), names), library, len(names))


def _scan_task(name: str, *, library: str, how: How) -> Scan | str:
    try:
        return scan_named(library, name, how)
    except LoradarError as error:
        return error.message


def scan_named(library: str, name: str, how: How = HOW) -> Scan:
    """Scan an architecture under its name in the library, even if its configuration has another one.

    One that is proved, and that PEFT has entries for, comes with its variants.
    """
    result = scan(f"{library}:{name}", method=how.method, proved=how.proved)
    is_varied = how.proved and library == "transformers" and has_entry(name)
    variants = list_variants(name) if is_varied else ()
    return replace(result, architecture=replace(result.architecture, name=name), variants=variants)


def _track(outcomes: Iterator[T], library: str, total: int) -> Iterator[T]:
    """Yield outcomes and show the progress on standard error."""
    return iter(track(outcomes, f"scanning {library}", total, console=Console(stderr=True)))


def _dump_reason(library: str, name: str, reason: str) -> str:
    return _dump({"architecture": to_json(Architecture(cast("Library", library), name)), "unscanned": reason})


def _dump(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


# --- the journal of a run ---------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """The position of a line in the file, and whether it holds a scan."""

    offset: int
    length: int
    is_scan: bool


class Journal:
    """The lines written so far, in any order, those of an interrupted run included; they are read sorted by name.

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
