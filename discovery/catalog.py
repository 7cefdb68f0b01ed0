"""The catalog of a library: every architecture a line, scanned in worker processes, resumable, the same every time."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from rich.console import Console
from rich.progress import track

from ..catalog.entries import CatalogEntry, CatalogHeader, catalog_lines
from ..domain.architectures import Architecture
from ..domain.scans import Scan
from ..domain.schema import from_json, to_json
from ..errors import InvalidRequest, LoradarError
from ..sandbox.bounds import Bounds
from . import sources
from .journal import Journal
from .scanner import scan
from .workers import MOST_TASKS, work

if TYPE_CHECKING:
    from ..domain.vocabulary import Library

Summary = Callable[[Scan], CatalogEntry]
"""Makes the compact form of a scan."""


class How(NamedTuple):
    """How each architecture is scanned; see :func:`~loradar.discovery.scan`."""

    method: str = "auto"
    proved: bool = False


HOW = How()


def scan_library(
    library: str,
    out: Path,
    *,
    how: How = HOW,
    bounds: Bounds | None = None,
    compact: tuple[CatalogHeader, Summary] | None = None,
) -> tuple[int, int]:
    """Scan every architecture of ``library`` into ``out``, going on where an earlier run was interrupted.

    Args:
        library: One that can be listed.
        out: The file: one line per architecture, sorted by name once all are there.
        how: How each is scanned.
        bounds: How many workers, and what one architecture may take.
        compact: Write the compact form; a finished file is made anew, and an unfinished one is at ``out`` + ``.part``.

    Returns:
        How many lines hold a scan, and how many the reason why there is none.

    Raises:
        UnknownLibrary: If the library cannot be listed.
        InvalidRequest: If ``out`` holds something else.
    """
    names = sources.list_names(library)
    journal = _open_journal(out, compact, how)
    task = partial(scan_line, library=library, how=how, summary=compact[1] if compact else None)
    missing = [name for name in names if name not in journal]
    found = work(task, missing, library, bounds or Bounds(), _most_tasks(how)) if missing else iter(())
    for name, outcome in track(found, f"scanning {library}", len(missing), console=Console(stderr=True)):
        text, is_scan = (_unscanned_line(library, name, outcome), False) if isinstance(outcome, str) else outcome
        journal.add(name, text, is_scan=is_scan)
    _finish(journal, out, compact[0] if compact else None)
    return journal.counts


def _open_journal(out: Path, compact: tuple[CatalogHeader, Summary] | None, how: How) -> Journal:
    if compact is None:
        return Journal(out)
    if out.exists() and not _is_compact(out):
        message = f"{out} is no compact catalog. Give a new file, or remove it."
        raise InvalidRequest(message, file=str(out))
    return Journal(_part(out), _line(to_json(compact[0]) | how._asdict()))


def _part(out: Path) -> Path:
    return out.with_name(out.name + ".part")


def _is_compact(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline(1000).startswith(b'{"catalog":')


def scan_line(name: str, *, library: str, how: How, summary: Summary | None) -> tuple[str, bool]:
    """Return the line of one architecture, and whether it holds a scan."""
    try:
        found = scan_named(library, name, how)
    except LoradarError as error:
        return _unscanned_line(library, name, error.message), False
    return _line(to_json(summary(found) if summary else found)), True


def _most_tasks(how: How) -> int:
    return 1 if how.proved else MOST_TASKS


def scan_each(
    library: str, names: Sequence[str], *, how: How = HOW, bounds: Bounds | None = None
) -> Iterator[tuple[str, Scan | str]]:
    """Scan some architectures of a library in worker processes, and yield each scan, or why there is none.

    Args:
        library: One that can be listed.
        names: Which of its architectures.
        how: How each is scanned.
        bounds: How many workers, and what one architecture may take.
    """
    task = partial(_scan_task, library=library, how=how)
    found = work(task, names, library, bounds or Bounds(), _most_tasks(how)) if names else iter(())
    yield from track(found, f"scanning {library}", len(names), console=Console(stderr=True))


def _scan_task(name: str, *, library: str, how: How) -> Scan | str:
    try:
        return scan_named(library, name, how)
    except LoradarError as error:  # its message is told here: not every error of ours survives being pickled
        return error.message


def scan_named(library: str, name: str, how: How = HOW) -> Scan:
    """Scan an architecture under the name asked for: a configuration may call itself by another.

    Raises:
        LoradarError: As ``scan``.
    """
    found = scan(f"{library}:{name}", method=how.method, proved=how.proved)
    return replace(found, architecture=replace(found.architecture, name=name))


def _unscanned_line(library: str, name: str, reason: str) -> str:
    return _line({"architecture": to_json(Architecture(cast("Library", library), name)), "unscanned": reason})


def _line(data: dict[str, object]) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _finish(journal: Journal, out: Path, header: CatalogHeader | None) -> None:
    """Put the sorted lines in the place of the file, at once."""
    lines = journal.sorted_lines()
    new = out.with_name(out.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in (catalog_lines(header, _entries(lines)) if header else lines))
    new.replace(out)
    if header:
        _part(out).unlink()


def _entries(lines: Iterator[str]) -> Iterator[CatalogEntry]:
    return (from_json(CatalogEntry, json.loads(line)) for line in lines)
