"""The registry's entry for an architecture, read once per state of the registry's file."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..domain.architectures import Architecture
from ..domain.mappings import ArchitectureDetail, Mapping
from ..errors import UnknownArchitecture
from ..registry import Registry, sqlite_file
from ..settings import Settings

_State = tuple[tuple[int, ...], ...]
"""Identity, size and time of last change of an SQLite file and of its write-ahead log."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A mapping of the registry and its architecture."""

    mapping: Mapping
    architecture: ArchitectureDetail


def find_entry(architecture: Architecture, peft_type: str, preset: str) -> Entry | None:
    """Return the registry's entry for an architecture by its name, or ``None``.

    Raises:
        DatabaseUnusable: If the registry cannot be read.
        UnknownPeftType: If PEFT has no such method.
        UnknownPreset: If there is no such preset.
    """
    settings = Settings.from_environment()
    state = _read_state(sqlite_file(settings.database_url))
    query = (architecture.library, architecture.name, architecture.library_version, peft_type, preset)
    return _cached(settings, state, *query) if state else _find(settings, *query)


@lru_cache(maxsize=64)
def _cached(  # noqa: PLR0913, PLR0917 - the key of the cache
    settings: Settings, state: _State, library: str, name: str, version: str | None, peft_type: str, preset: str
) -> Entry | None:
    del state
    return _find(settings, library, name, version, peft_type, preset)


def _find(  # noqa: PLR0913, PLR0917 - as above
    settings: Settings, library: str, name: str, version: str | None, peft_type: str, preset: str
) -> Entry | None:
    with Registry.open(settings) as registry:
        mapping = registry.find(name, peft_type, preset, library, version)
        if mapping is None:
            return None
        try:
            return Entry(mapping, registry.get_architecture(library, name))
        except UnknownArchitecture:  # removed in between
            return None


def _read_state(file: Path | None) -> _State | None:
    """Return the state of a registry's file; ``None`` if there is no file yet, or a server holds the registry."""
    if file is None:
        return None
    states = []
    for each in (file, file.with_name(f"{file.name}-wal")):
        with suppress(OSError):
            status = each.stat()
            states.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(states) or None
