"""The one home of configuration: where loradar keeps its data, and how much of it a service lets anybody ask for.

A few variables of the environment, read by hand: a settings library takes 0.2 s to import, a whole lookup has 0.5 s.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from .errors import InvalidRequest

DATABASE_URL_VARIABLE = "LORADAR_DATABASE_URL"
HOME_VARIABLE = "LORADAR_HOME"
SIGNING_KEY_VARIABLE = "LORADAR_SIGNING_KEY"
LIMITS_VARIABLE = "LORADAR_LIMITS"
WORKERS_VARIABLE = "LORADAR_WORKERS"
PROXIES_VARIABLE = "LORADAR_TRUSTED_PROXIES"

_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How often a service may be asked, in requests a minute.

    Attributes:
        address: From one address (IPv6: one /64 network), whatever it asks for.
        token: With one person's tokens.
        failed: From one address with a token that does not work; beyond it, no token of that address is looked at.
        scan: Scans from one address.
    """

    address: int = 600
    token: int = 300
    failed: int = 10
    scan: int = 10

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read limits such as ``address=600,scan=10``; those left out keep what they are.

        Raises:
            InvalidRequest: Naming what is no limit.
        """
        limits = asdict(cls())
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, number = part.partition("=")
            if name not in limits or not _is_count(number):
                known = ", ".join(limits)
                message = f"{LIMITS_VARIABLE} has {part!r}. Give NAME=REQUESTS-A-MINUTE; names: {known}."
                raise InvalidRequest(message, variable=LIMITS_VARIABLE, value=part)
            limits[name] = int(number)
        return cls(**limits)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are kept.

    Attributes:
        home: Folder for loradar's own files; ``LORADAR_HOME``, else the user's data folder.
        database_url: SQLAlchemy URL of the registry; ``LORADAR_DATABASE_URL``, else an SQLite file in ``home``.
        signing_key: Private Ed25519 key for snapshots, base64 of 32 bytes; ``LORADAR_SIGNING_KEY``, else ``None``: a
            file in ``home``.
        limits: How often a service may be asked; ``LORADAR_LIMITS``.
        workers: Scans a service runs at once, besides one check; ``LORADAR_WORKERS``.
        trusted_proxies: Addresses or networks of proxies whose ``X-Forwarded-For`` is believed, separated by commas;
            ``LORADAR_TRUSTED_PROXIES``, else nobody's.
    """

    home: Path
    database_url: str
    signing_key: str | None = field(default=None, repr=False)
    limits: RequestLimits = RequestLimits()
    workers: int = 2
    trusted_proxies: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from environment variables; an empty one counts as unset.

        Raises:
            InvalidRequest: Naming a variable that cannot be read, and what would do.
        """
        home = Path(environment.get(HOME_VARIABLE) or _user_data_folder()).expanduser().absolute()
        return cls(
            home,
            environment.get(DATABASE_URL_VARIABLE) or f"sqlite:///{home / 'registry.sqlite3'}",
            environment.get(SIGNING_KEY_VARIABLE) or None,
            RequestLimits.parse(environment.get(LIMITS_VARIABLE, "")),
            _workers(environment.get(WORKERS_VARIABLE) or "2"),
            environment.get(PROXIES_VARIABLE, "").strip(),
        )


def _workers(given: str) -> int:
    if not _is_count(given):
        message = f"{WORKERS_VARIABLE} is {given!r}. Give the number of scans a service may run at once, such as 2."
        raise InvalidRequest(message, variable=WORKERS_VARIABLE, value=given)
    return int(given)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) > 0


def _user_data_folder() -> str:
    from platformdirs import user_data_dir  # noqa: PLC0415 - only needed when LORADAR_HOME is unset

    return user_data_dir("loradar", appauthor=False)
