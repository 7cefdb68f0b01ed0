"""Read the configuration from environment variables: data locations and service limits.

No settings library: importing one takes 0.2 s, and a whole lookup takes 0.5 s.
"""

import os
import re
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
PRESET_VARIABLE = "LORADAR_PRESET"
URL_VARIABLE = "LORADAR_URL"
LOG_FORMAT_VARIABLE = "LORADAR_LOG_FORMAT"
LOG_LEVEL_VARIABLE = "LORADAR_LOG_LEVEL"
ROOT_PATH_VARIABLE = "LORADAR_ROOT_PATH"
READ_ONLY_VARIABLE = "LORADAR_READ_ONLY"

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")

_MOST_DIGITS = 9


def hub_endpoint() -> str:
    """Return the address of the hub, ``HF_ENDPOINT`` as huggingface_hub reads it."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Rate limits of a service, in requests per minute."""

    address: int = 600
    """Requests from one address (IPv6: one /64 network)."""
    token: int = 300
    """Requests with the tokens of one person."""
    failed: int = 10
    """Requests from one address with an invalid token; beyond it, its tokens are not checked at all."""
    scan: int = 10
    """Scans from one address."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse limits such as ``address=600,scan=10``; the others keep their defaults.

        Raises:
            InvalidRequest: Naming the invalid part.
        """
        limits = asdict(cls())
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, number = part.partition("=")
            if name not in limits or not _is_count(number):
                known = ", ".join(limits)
                message = f"Invalid limit {part!r} in {LIMITS_VARIABLE}: give NAME=REQUESTS-A-MINUTE; names: {known}."
                raise InvalidRequest(message, variable=LIMITS_VARIABLE, value=part)
            limits[name] = int(number)
        return cls(**limits)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process."""

    home: Path
    """Folder for loradar's files; ``LORADAR_HOME``, else the user's data folder."""
    database_url: str
    """SQLAlchemy URL of the registry; ``LORADAR_DATABASE_URL``, else an SQLite file in ``home``."""
    signing_key: str | None = field(default=None, repr=False)
    """Private Ed25519 key for snapshots, base64 of 32 bytes; ``LORADAR_SIGNING_KEY``, else a file in ``home``."""
    limits: RequestLimits = RequestLimits()
    """Rate limits of the service; ``LORADAR_LIMITS``."""
    workers: int = 2
    """Scans a service runs at once, besides one check; ``LORADAR_WORKERS``."""
    trusted_proxies: str = ""
    """Proxies whose ``X-Forwarded-For`` is trusted, as addresses or networks separated by commas;
    ``LORADAR_TRUSTED_PROXIES``, else none."""
    preset: str | None = None
    """Preset used where none is named; ``LORADAR_PRESET``, else ``default``."""
    log_format: str = "text"
    """Form of a service's log, ``text`` or ``json``; ``LORADAR_LOG_FORMAT``."""
    log_level: str = "warning"
    """Least level of a service's log; with ``info`` each request has a line; ``LORADAR_LOG_LEVEL``."""
    root_path: str = ""
    """Prefix of the paths under which a proxy serves the service, such as ``/loradar``; ``LORADAR_ROOT_PATH``."""
    url: str | None = None
    """URL of the service, or of static files, that lookups ask first; ``LORADAR_URL``, else none."""
    read_only: bool = False
    """Whether this process writes nothing to the registry; ``LORADAR_READ_ONLY``, 1 or 0."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings from environment variables; an empty one counts as unset.

        Raises:
            InvalidRequest: Naming an invalid variable and a valid value.
        """
        folder = environment.get(HOME_VARIABLE)
        if not folder:
            from platformdirs import user_data_dir  # noqa: PLC0415 - only needed here

            folder = user_data_dir("loradar", appauthor=False)
        home = Path(folder).expanduser().absolute()
        workers = environment.get(WORKERS_VARIABLE) or "2"
        if not _is_count(workers):
            message = f"Invalid {WORKERS_VARIABLE} {workers!r}: give the number of scans to run at once, such as 2."
            raise InvalidRequest(message, variable=WORKERS_VARIABLE, value=workers)
        return cls(
            home,
            environment.get(DATABASE_URL_VARIABLE) or f"sqlite:///{home / 'registry.sqlite3'}",
            environment.get(SIGNING_KEY_VARIABLE) or None,
            RequestLimits.parse(environment.get(LIMITS_VARIABLE, "")),
            int(workers),
            _parse_proxies(environment.get(PROXIES_VARIABLE, "")),
            environment.get(PRESET_VARIABLE, "").strip() or None,
            _choose(environment, LOG_FORMAT_VARIABLE, LOG_FORMATS, "text"),
            _choose(environment, LOG_LEVEL_VARIABLE, LOG_LEVELS, "warning"),
            parse_root_path(environment.get(ROOT_PATH_VARIABLE, ""), ROOT_PATH_VARIABLE),
            _parse_url(environment.get(URL_VARIABLE, "")),
            _choose(environment, READ_ONLY_VARIABLE, ("0", "1"), "0") == "1",
        )


def _choose(environment: Mapping[str, str], variable: str, known: tuple[str, ...], default: str) -> str:
    value = environment.get(variable, "").strip().lower() or default
    if value not in known:
        message = f"Invalid {variable} {value!r}: give one of {', '.join(known)}."
        raise InvalidRequest(message, variable=variable, value=value)
    return value


def parse_root_path(text: str, source: str) -> str:
    """Return the prefix of a proxy without a slash at its end; empty for none.

    Raises:
        InvalidRequest: Naming the source of an invalid one: an option or variable.
    """
    path = text.strip().rstrip("/")
    if not _ROOT_PATH.fullmatch(path) or path.startswith("/v1"):
        message = f"Invalid {source} {text!r}: give a path such as /loradar, which is none of the service's own."
        raise InvalidRequest(message, variable=source, value=text)
    return path


def _parse_url(text: str) -> str | None:
    """Return the URL of a service without a slash at its end, or ``None`` for none."""
    if not text.strip():
        return None
    from urllib.parse import urlsplit  # noqa: PLC0415 - most lookups have none

    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.username is not None or parts.query or parts.fragment:
        hidden = re.sub(r"//[^/]*@", "//***@", text)
        message = f"Invalid {URL_VARIABLE} {hidden!r}: give a URL such as https://registry.example/loradar."
        raise InvalidRequest(message, variable=URL_VARIABLE, value=hidden)
    return url


def _parse_proxies(text: str) -> str:
    """Return addresses and networks, joined by commas; a host name would never equal an address, so it is rejected."""
    if not text.strip():
        return ""
    from ipaddress import ip_network  # noqa: PLC0415 - a lookup has none

    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        try:
            ip_network("0.0.0.0/0" if part == "*" else part)
        except ValueError:
            message = f"Invalid proxy {part!r} in {PROXIES_VARIABLE}: give addresses or networks, such as 10.0.0.0/8."
            raise InvalidRequest(message, variable=PROXIES_VARIABLE, value=part) from None
    return ",".join(parts)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text) > 0
