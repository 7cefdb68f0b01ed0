"""The catalog of a library: one line for each architecture, resumable, and the same bytes every time.

Each architecture is scanned in a worker process of its own; the caller hands over the :class:`Runner` of these
processes, such as ``loradar.sandbox.Sandbox.run_each``.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from ..catalog.entries import Catalog, CatalogEntry, CatalogHeader, as_of, catalog_lines
from ..domain.architectures import Architecture
from ..domain.scans import Scan, Variant
from ..errors import InvalidRequest, LoradarError
from ..progress import track
from ..schema import from_json, to_json
from . import sources
from .fingerprint import digest_with
from .scanner import scan_built
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


class Compact(NamedTuple):
    """The compact form of a catalog, and the one it starts from.

    Attributes:
        header: The versions it is made from.
        summary: Makes the entry of a scan.
        base: The compact catalog of a version of the library, made by this loradar; an architecture that it has with
            the same digest is carried over with its proof.
        accept: Called with the complete new file before it replaces the old one; if it fails, the run can go on.
    """

    header: CatalogHeader
    summary: Summary
    base: Catalog | None = None
    accept: Callable[[Path], None] = lambda _: None

    @property
    def is_renewal(self) -> bool:
        """Whether the base is of the same versions."""
        return self.base is not None and self.base.header == self.header

    def list_known(self, names: Collection[str]) -> dict[str, CatalogEntry]:
        """Return the entries of the base that may hold for the version of the header, as such, by name.

        Without a digest, an entry is only known to hold for the version it was made for, and only if it is proved:
        one that ran out of time is tried again.
        """
        known: dict[str, CatalogEntry] = {}
        for entry in self.base.entries if self.base else ():
            is_proved = all(check.status != "unproven" for check in entry.checks)
            if entry.architecture.name in names and (entry.digest or (self.is_renewal and is_proved)):
                known[entry.architecture.name] = as_of(entry, self.header.library_version)
        return known

    def is_settled(self, entry: CatalogEntry) -> bool:
        """Return whether an entry of the base holds without another look."""
        return self.is_renewal and (entry.digest or entry.unscanned) is not None


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
    compact: Compact | None = None,
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
    journal = _open_journal(out, compact, how)
    known = compact.list_known(names) if compact else {}
    for entry in filter(compact.is_settled, known.values()) if compact else ():
        _carry_over(journal, entry)
    missing = [name for name in names if name not in journal]
    digests = {name: entry.digest for name, entry in known.items()}
    task = partial(scan_line, library=library, how=how, summary=compact and compact.summary, digests=digests)
    for name, outcome in track(run(task, missing), f"scanning {library}", len(missing)) if missing else ():
        if isinstance(outcome, Unchanged):
            _carry_over(journal, replace(known[name], digest=outcome.digest))
        else:
            text, is_scan = (_dump_reason(library, name, outcome), False) if isinstance(outcome, str) else outcome
            journal.add(name, text, is_scan=is_scan)
    _write(out, journal, compact)
    return journal.counts


def _write(out: Path, journal: "Journal", compact: Compact | None) -> None:
    """Write a complete catalog; until then, and if it is not accepted, the old file and the journal stay."""
    lines = journal.sorted_lines()
    if compact:
        lines = catalog_lines(compact.header, (from_json(CatalogEntry, json.loads(line)) for line in lines))
    new = out.with_name(out.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    if compact:
        compact.accept(new)
    new.replace(out)
    if compact:
        journal.path.unlink()


class Unchanged(NamedTuple):
    """The outcome of an architecture that is built and run as the base has it."""

    digest: str | None


def _carry_over(journal: "Journal", entry: CatalogEntry) -> None:
    if entry.architecture.name not in journal:
        journal.add(entry.architecture.name, _dump(to_json(entry)), is_scan=entry.unscanned is None)


def _open_journal(out: Path, compact: Compact | None, how: How) -> "Journal":
    """Open the journal of a catalog: the file itself, or a file beside a compact catalog."""
    if compact is None:
        return Journal(out)
    if out.exists():
        with out.open("rb") as file:
            if not file.readline(1000).startswith(b'{"catalog":'):
                message = f"{out} is no compact catalog. Give a new file, or remove it."
                raise InvalidRequest(message, file=str(out))
    base = {"base": compact.base.header.library_version} if compact.base else {}
    return Journal(out.with_name(out.name + ".part"), _dump(to_json(compact.header) | how._asdict() | base))


def scan_line(
    name: str, *, library: str, how: How, summary: Summary | None, digests: Mapping[str, str | None]
) -> tuple[str, bool] | Unchanged:
    """Return the line of one architecture, and whether it holds a scan, unless it is unchanged.

    ``digests`` are those of the architectures that may be; ``None`` for one that is, and only lacks its digest.
    """
    if name in digests:
        digest = find_digest(library, name, how.method)
        if digests[name] in (None, digest):
            return Unchanged(digest)
    result = _scan_task(name, library=library, how=how)
    if isinstance(result, str):
        return _dump_reason(library, name, result), False
    return _dump(to_json(summary(result) if summary else result)), True


def scan_each(library: str, names: Sequence[str], run: Runner, *, how: How = HOW) -> Iterator[tuple[str, Scan | str]]:
    """Scan some architectures of a library, and yield each scan, or the reason why there is none."""
    if names:
        outcomes = run(partial(_scan_task, library=library, how=how), names)
        yield from track(outcomes, f"scanning {library}", len(names))


def _scan_task(name: str, *, library: str, how: How) -> Scan | str:
    try:
        return scan_named(library, name, how)
    except LoradarError as error:
        return error.message


def scan_named(library: str, name: str, how: How = HOW) -> Scan:
    """Scan an architecture under its name in the library, even if its configuration has another one.

    One that is proved, and that PEFT has entries for, comes with its variants.
    """
    result = scan_built(f"{library}:{name}", method=how.method, proved=how.proved)
    variants = _list_variants(library, name) if how.proved else ()
    architecture = replace(result.architecture, name=name)
    digest = digest_with(result.digest, variants)
    return replace(result, architecture=architecture, variants=variants, digest=digest)


def find_digest(library: str, name: str, method: str) -> str | None:
    """Return the digest that a proved scan of an architecture would have; ``None`` if it is not traced whole."""
    try:
        digest = scan_built(f"{library}:{name}", method=method).digest
    except LoradarError:
        return None
    return digest_with(digest, _list_variants(library, name)) if digest else None


def _list_variants(library: str, name: str) -> tuple[Variant, ...]:
    return list_variants(name) if library == "transformers" and has_entry(name) else ()


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
            return data["architecture"]["name"], data.get("unscanned") is None
        except (ValueError, KeyError, TypeError):
            message = f"{self.path} line {number} is no catalog line. Give a new file, or remove it."
            raise InvalidRequest(message, file=str(self.path), line=number) from None
