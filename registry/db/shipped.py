"""Find the packaged registry, which answers until the user's own is made, and make that as a copy of it.

Imports no SQLAlchemy, since ``sqlite_lookup`` does without.
"""

import os
import sqlite3
import time
from contextlib import closing, suppress
from importlib import resources
from pathlib import Path
from tempfile import NamedTemporaryFile

from ...progress import showing
from . import HEAD

PACKAGED = resources.files("loradar.data") / "registry.sqlite3"
"""The packaged registry; ``make_shipped`` makes it with the wheel and with an editable installation."""

_ABANDONED = 3600.0
"""Age in seconds of an unfinished copy whose process is certainly gone."""

_IS_OF_SEED = "SELECT 1 FROM alembic_version, seeds WHERE version_num = :head AND digest = :digest"


def find_shipped(digest: str) -> Path | None:
    """Return the packaged registry; ``None`` if there is none, or one of other packaged files than those of a digest.

    So a source tree whose catalog is newer than its packaged registry is never answered from the old one.
    """
    if not isinstance(PACKAGED, Path) or not PACKAGED.is_file():
        return None
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri_of(PACKAGED), uri=True)) as connection:
        return PACKAGED if is_of_seed(connection, digest) else None
    return None


def uri_of(file: Path) -> str:
    """Return the URI by which SQLite reads an immutable file, also in a read-only folder."""
    return f"{file.absolute().as_uri()}?mode=ro&immutable=1"


def is_of_seed(connection: sqlite3.Connection, digest: str) -> bool:
    """Return whether a database is a registry of this schema, seeded from the files of a digest."""
    return connection.execute(_IS_OF_SEED, {"head": HEAD, "digest": digest}).fetchone() is not None


def copy_shipped(shipped: Path, file: Path) -> bool:
    """Make a registry file as a copy of the packaged one; return whether it is there now.

    The file appears whole or not at all, whenever the process is killed, and never in the place of another's: of
    several processes one is first, and the others find its file. ``False`` where the file system has no hard links.
    """
    for abandoned in file.parent.glob(f".{file.name}.*.part"):
        with suppress(OSError):
            if time.time() - abandoned.stat().st_mtime > _ABANDONED:
                abandoned.unlink()
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", suffix=".part") as part:  # of mode 0600
        size = shipped.stat().st_size
        with shipped.open("rb") as source, showing("copying the registry", is_bytes=True, after=1) as show:
            while chunk := source.read(1 << 20):
                part.write(chunk)
                show(part.tell(), size)
        part.flush()
        os.fsync(part.fileno())
        with suppress(OSError):
            os.link(part.name, file)
    return file.exists()
