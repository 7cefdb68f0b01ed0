"""Open a database as a registry: check whose it is, and create, migrate and seed it on first use."""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Literal

from sqlalchemy import Connection, inspect, select

from ...settings import DATABASE_URL_VARIABLE, READ_ONLY_VARIABLE
from . import HEAD, shipped, tables
from .audit_log import is_mirror
from .database import Database, first_use_transaction, masked, sqlite_file, unusable, use_write_ahead_log
from .schema_revision import VERSIONS, find_revision
from .time_limits import LOCAL_LIMITS, TimeLimits

QUIET_SECONDS = 1.0
"""How long creating or upgrading a registry, or waiting for it, may take before a line on standard error reports it."""

State = Literal["empty", "behind", "unseeded", "ready", "newer", "foreign"]
"""``unseeded``: never seeded, or not with the present seed; a mirror has what its source was seeded with."""

OUR_TABLES = frozenset({"architectures", "mappings", "serial"})
_MAGIC = b"SQLite format 3\x00"
"""Start of every SQLite file."""


@dataclass(frozen=True, slots=True)
class Seed:
    """The content a registry is seeded with.

    Attributes:
        digest: Digest of the content, as in table ``seeds``.
        add: Write the content within a transaction.
        is_packaged: Whether the packaged registry has the content.
    """

    digest: str
    add: Callable[[Connection], None]
    is_packaged: bool = True

    def find_shipped(self, file: Path | None) -> Path | None:
        """Return the packaged registry for a file that is not made yet; ``None`` if it cannot be taken."""
        return shipped.find_shipped(self.digest) if self.is_packaged and file and not file.exists() else None


def open_database(url: str, seed: Seed, limits: TimeLimits = LOCAL_LIMITS, *, is_read_only: bool = False) -> Database:
    """Open a registry database; create, migrate and seed it first as needed, unless nothing is to be written.

    Where there is no file yet, the packaged registry is read, and the file is made before the first write.

    Raises:
        DatabaseUnusable: If the database is corrupted, foreign, newer than this loradar or out of reach; it is left
            unchanged.
        MissingExtra: If the driver for PostgreSQL is not installed.
    """
    database = Database(url, limits, is_read_only=is_read_only)
    with ExitStack() as stack:
        stack.callback(database.close)
        file, is_ready = database.file, False
        if file and file.exists():
            _check_file(file)
            if not _has_journal(file):
                with database.read() as connection:
                    is_ready = _usable_state(url, connection, seed) == "ready"
        stand_in = seed.find_shipped(file)
        if stand_in:
            database.stand_in(stand_in, lambda: _prepare(database, seed))
        elif is_read_only:
            _require_readable(database, seed)
        elif not is_ready:
            _prepare(database, seed)
        stack.pop_all()
    return database


def _require_readable(database: Database, seed: Seed) -> None:
    """Raise ``DatabaseUnusable`` unless a database can be read as it is; an older seed will do."""
    with database.read() as connection:
        state = _usable_state(database.url, connection, seed)
    if state in ("empty", "behind"):
        reason = "it is empty" if state == "empty" else "its schema is of an older version of loradar"
        way_out = f"Open it once without {READ_ONLY_VARIABLE}, which only reads: loradar db info."
        raise unusable(database.url, reason, way_out)


def _prepare(database: Database, seed: Seed) -> None:
    """Create, migrate and seed a database as needed, in one transaction; a new file is a copy of the packaged registry.

    Of two processes at once, the second waits and finds the work done. The work of a killed process is undone by
    SQLite or the server, and the next process repeats it. A line on standard error reports work that takes longer
    than ``QUIET_SECONDS``.
    """
    url, engine, file = database.url, database.engine, database.file
    create_folder(url)
    notice = Timer(QUIET_SECONDS, _report, [url])
    notice.daemon = True
    try:
        if file:
            notice.start()  # before waiting for another process
            found = seed.find_shipped(file)
            if not file.exists() and not (found and shipped.copy_shipped(found, file)):
                create_private(file)
            if not file.stat().st_size:
                # Before the first row: a transaction without the log writes into the file as it goes, so that
                # readers have to wait, and a process killed meanwhile leaves pages without the first one.
                use_write_ahead_log(engine)
        with first_use_transaction(engine) as connection:
            state = _usable_state(url, connection, seed)
            if state != "ready" and not file:
                notice.start()
            if state in ("empty", "behind"):
                migrate(connection)
                state = _usable_state(url, connection, seed)
            if state != "ready":
                seed.add(connection)
        use_write_ahead_log(engine)
        if file:
            engine.dispose()  # its connection waits as long for any writer as for first use
    finally:
        notice.cancel()


def create_private(file: Path) -> None:
    """Create an empty file that its owner alone can read: a registry holds digests of tokens, and rationales."""
    with suppress(FileExistsError):  # another process was first
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _report(url: str) -> None:
    print(  # noqa: T201 - a command's own output goes to standard output
        f"Preparing the registry in {sqlite_file(url) or masked(url)} (first use of this version of loradar) ...",
        file=sys.stderr,
        flush=True,
    )


def create_folder(url: str) -> None:
    """Create the folder of an SQLite file.

    Raises:
        DatabaseUnusable: If the folder cannot be created, or no file can be created in it.
    """
    path = sqlite_file(url)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(url, f"its folder cannot be made ({error.strerror})") from error
    if not path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
        way_out = f"Make the folder writable, or set {DATABASE_URL_VARIABLE} to another database."
        raise unusable(url, "its folder is not writable", way_out)


def migrate(connection: Connection) -> None:
    """Bring the schema to the newest revision within the connection's transaction."""
    from alembic import command  # noqa: PLC0415 - 0.4 s that only a migration needs
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "loradar.migrations:")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _check_file(file: Path) -> None:
    """Raise an error unless a file is empty or an SQLite database, before SQLite overwrites it for being short."""
    start = _start_of(file)
    # A transaction without write-ahead log writes the first page last: while it fills a file, and after it was
    # cut short, the file begins with zeros.
    if start in (b"", _MAGIC) or (start == bytes(len(_MAGIC)) and _has_journal(file)):
        return
    # The transaction may have ended between the two checks.
    if _start_of(file) not in (b"", _MAGIC):
        raise unusable(f"sqlite:///{file}", "file is not a database")


def _start_of(file: Path) -> bytes:
    try:
        with file.open("rb") as content:
            return content.read(len(_MAGIC))
    except OSError as error:
        raise unusable(f"sqlite:///{file}", error.strerror or str(error)) from error


def _has_journal(file: Path) -> bool:
    """Return whether a transaction without write-ahead log is in progress or was cut short.

    SQLite undoes one that was cut short when the file is next opened for writing.
    """
    try:
        return Path(f"{file.resolve()}-journal").stat().st_size > 0
    except OSError:
        return False


def _usable_state(url: str, connection: Connection, seed: Seed) -> State:
    """Return the state of a database that is empty or a registry this version can use.

    Raises:
        DatabaseUnusable: If it belongs to another program or to a newer version.
    """
    names = frozenset(inspect(connection).get_table_names())
    state = _state_of(connection, names, seed)
    if state == "foreign":
        some = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")  # noqa: PLR2004 - enough to recognise
        raise unusable(url, f"it is not a loradar registry (its tables: {some})")
    if state == "newer":
        reason = f"its schema is at revision {find_revision(connection)}; this version of loradar knows up to {HEAD}"
        raise unusable(url, reason, f"Upgrade loradar, or set {DATABASE_URL_VARIABLE} to another database.")
    return state


def _state_of(connection: Connection, names: frozenset[str], seed: Seed) -> State:
    revision = find_revision(connection) if VERSIONS.name in names else None
    if revision is None:
        return "foreign" if names - {VERSIONS.name} else "empty"
    if not names >= OUR_TABLES or not revision.isdecimal():
        return "foreign"
    if int(revision) != int(HEAD):
        return "newer" if int(revision) > int(HEAD) else "behind"
    digest = tables.seeds.c.digest
    is_seeded = connection.execute(select(digest).where(digest == seed.digest)).first() is not None
    return "ready" if is_seeded or is_mirror(connection) else "unseeded"
