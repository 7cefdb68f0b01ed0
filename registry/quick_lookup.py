"""Look up one mapping in the user's registry, without SQLAlchemy where that is possible."""

import re
from contextlib import closing
from pathlib import Path

from ..domain.mappings import Mapping
from ..domain.vocabulary import PRESETS
from ..settings import Settings
from .db.encoding import MappingKey
from .sqlite_lookup import SqliteLookup

_FILE_URL = re.compile(r"sqlite(?:\+pysqlite)?:///(?!:memory:|file:)([^?%]+)")
"""URLs of plain SQLite files; SQLAlchemy parses all others."""


def lookup(
    name: str,
    peft_type: str = "LORA",
    preset: str = "default",
    library: str = "transformers",
    library_version: str | None = None,
) -> Mapping:
    """Look up the mapping of an architecture in the user's registry, which is created and seeded on first use.

    Raises:
        UnknownPeftType: If PEFT has no such method.
        UnknownPreset: If there is no such preset.
        NotRegistered: If nothing is registered; the message lists similar names and the scan command.
        DatabaseUnusable: If the registry's database cannot be used.
    """
    settings = Settings.from_environment()
    file = _FILE_URL.fullmatch(settings.database_url)
    if file and preset in PRESETS:
        with closing(SqliteLookup(Path(file[1]).absolute())) as fast:
            if fast.is_ready():
                mapping = fast.find(MappingKey(library, name, peft_type.upper(), preset), library_version)
                if mapping:
                    return mapping
    from .registry import Registry  # noqa: PLC0415 - SQLAlchemy, 0.3 s

    with Registry.open(settings) as registry:
        return registry.lookup(name, peft_type, preset, library, library_version)
