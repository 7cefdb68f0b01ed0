"""Back up an SQLite registry, restore it and check it, while services use it.

Copies are made by SQLite's online backup: one state of the file with its write-ahead log, without keeping writers out.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...errors import Conflict, DatabaseUnusable, InvalidRequest
from .database import busy, sqlite_file, unusable
from .database_check import check_database
from .prepare import Seed, create_folder, create_private, open_database

LOCKED_SECONDS = 30.0
"""How long restoring waits for other writers."""

_TOOLS = (
    "pg_dump --format=custom --file FILE, then pg_restore --clean --if-exists --single-transaction --dbname NAME FILE"
)


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a registry.

    Attributes:
        file: Where it is.
        size: Its bytes.
        serial: Serial of the registry in it.
        kept: Where the content before is, if there was any.
    """

    file: Path
    size: int
    serial: int
    kept: Path | None = None


def back_up(url: str, out: Path, *, is_forced: bool = False) -> Copy:
    """Copy the registry to a new file, which appears once it is complete and checked.

    Args:
        url: SQLAlchemy URL of the registry.
        out: The file, readable by its owner alone.
        is_forced: Whether to replace a file that is there.

    Raises:
        InvalidRequest: If the registry is no SQLite file, or ``out`` is the registry itself.
        Conflict: If ``out`` is there.
        DatabaseUnusable: If the registry is not there, or damaged.
        OSError: If ``out`` cannot be written.
    """
    file = _file_of(url)
    if not file.exists():
        raise unusable(url, "it is not there", "Nothing was backed up.")
    if out.exists() and out.samefile(file):
        raise InvalidRequest(f"{out} is the registry itself: give another file.", file=str(out))
    if out.exists() and not is_forced:
        raise Conflict(f"{out} is there already: give another file, or --force to replace it.", file=str(out))
    with _temporary(out) as part:
        _copy(file, part)
        serial = _require_sound(part, url)
        _sync(part)
        part.replace(out)
    return Copy(out, out.stat().st_size, serial)


def restore(url: str, file: Path, *, is_forced: bool = False) -> Copy:
    """Put the content of a backup in the place of the registry's, in one transaction; running services go on with it.

    Args:
        url: SQLAlchemy URL of the registry.
        file: The backup, which is checked, and upgraded to the present schema on the way.
        is_forced: Whether to replace a registry that is there; a copy of it is kept beside it.

    Raises:
        InvalidRequest: If the registry is to be no SQLite file.
        Conflict: If there is a registry, and ``is_forced`` is not set.
        DatabaseUnusable: If the backup is damaged, no registry, or of a newer loradar; or if the registry is locked.
        OSError: If a file cannot be written.
    """
    target = _file_of(url)
    if target.exists() and target.stat().st_size and not is_forced:
        way_out = "Give --force to replace it; a copy is kept beside it."
        raise Conflict(f"{target} is there already. {way_out}", file=str(target))
    create_folder(url)
    with _temporary(target) as part:
        _copy(file, part)
        place = f"sqlite:///{part}"
        open_database(place, Seed("", lambda _: None)).close()
        serial = _require_sound(part, f"sqlite:///{file}")
        kept = _keep(target) if target.exists() else None
        if target.exists():
            _copy(part, target)
        else:
            with closing(sqlite3.connect(part)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            _sync(part)
            part.replace(target)
    return Copy(target, target.stat().st_size, serial, kept)


def _file_of(url: str) -> Path:
    file = sqlite_file(url)
    if file is None:
        raise InvalidRequest(f"Only SQLite files are backed up here. PostgreSQL has its own tools: {_TOOLS}.")
    return file


@contextmanager
def _temporary(out: Path) -> Iterator[Path]:
    """Give a private file beside another one, which is removed at the end unless it was moved away."""
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    create_private(part)
    try:
        yield part
    finally:
        for name in (part.name, f"{part.name}-wal", f"{part.name}-shm", f"{part.name}-journal"):
            part.with_name(name).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Copy all pages in one step: one state. A target with content keeps its mode, and gets all of it or nothing."""
    end = time.monotonic() + LOCKED_SECONDS

    def check_time(status: int, *_: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > end:
            raise busy(f"Other programs have kept {target} for {LOCKED_SECONDS:g} s")

    is_new = not target.stat().st_size
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as read,
            closing(sqlite3.connect(target, timeout=LOCKED_SECONDS)) as written,
        ):
            read.backup(written, progress=check_time)
            if is_new:  # one file that can be read from anywhere, also where no log can be written
                written.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise unusable(f"sqlite:///{source}", f"it cannot be copied to {target} ({error})", "Look at both.") from error


def _require_sound(copy: Path, url: str) -> int:
    """Return the serial of a copy.

    Raises:
        DatabaseUnusable: If a check of it fails; names the original.
    """
    report = check_database(f"sqlite:///{copy}")
    if report.faults:
        raise unusable(url, "; ".join(report.faults), "Restore a sound backup: loradar db check finds one.")
    return report.serial


def _keep(target: Path) -> Path:
    """Copy the content of a registry to a file beside it; one that is damaged is moved there with its log."""
    is_sound = target.stat().st_size > 0  # of one that was emptied, services still have the log
    kept = target.with_name(f"{target.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z")
    create_private(kept)
    try:
        _copy(target, kept)
        with closing(sqlite3.connect(kept)) as connection:
            is_sound = is_sound and connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except (DatabaseUnusable, sqlite3.Error):
        is_sound = False
    if not is_sound:
        # The log first: it must never be taken for that of the file which comes in its place.
        for end in ("-wal", "-shm", "-journal", ""):
            with suppress(FileNotFoundError):
                target.with_name(target.name + end).replace(kept.with_name(kept.name + end))
    return kept


def _sync(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("rb") as content:
        os.fsync(content.fileno())
