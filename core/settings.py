"""The one home of configuration: where loradar keeps its data.

Two variables of the environment, read by hand: a settings library takes 0.2 s to import, and a whole lookup has 0.5 s.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

DATABASE_URL_VARIABLE = "LORADAR_DATABASE_URL"
HOME_VARIABLE = "LORADAR_HOME"
SIGNING_KEY_VARIABLE = "LORADAR_SIGNING_KEY"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are kept.

    Attributes:
        home: Folder for loradar's own files; ``LORADAR_HOME``, else the user's data folder.
        database_url: SQLAlchemy URL of the registry; ``LORADAR_DATABASE_URL``, else an SQLite file in ``home``.
        signing_key: Private Ed25519 key for snapshots, base64 of 32 bytes; ``LORADAR_SIGNING_KEY``, else ``None``: a
            file in ``home``.
    """

    home: Path
    database_url: str
    signing_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from environment variables; an empty one counts as unset."""
        home = Path(environment.get(HOME_VARIABLE) or _user_data_folder()).expanduser().absolute()
        url = environment.get(DATABASE_URL_VARIABLE) or f"sqlite:///{home / 'registry.sqlite3'}"
        return cls(home, url, environment.get(SIGNING_KEY_VARIABLE) or None)


def _user_data_folder() -> str:
    from platformdirs import user_data_dir  # noqa: PLC0415 - only needed when LORADAR_HOME is unset

    return user_data_dir("loradar", appauthor=False)
