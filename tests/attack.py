"""A real service to attack: on a socket, with real tokens, its database and its log beside it.

``unharmed`` holds what every attack has to leave as it was: each row of each table, and a service that answers.
"""

import json
import logging
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from patience import patience, wait_until
from shapes import documented

from loradar.api import running
from loradar.api.workers import Checker
from loradar.domain.identities import TOKEN_ROLES
from loradar.domain.submissions import Checked, SubmissionEvidence
from loradar.domain.targets import Formula, TargetSpec
from loradar.error_body import ErrorBody
from loradar.registry import Registry
from loradar.settings import RequestLimits, Settings

UNLIMITED = RequestLimits(*[10**9] * 4)
NOTED = re.compile(r"rejected [^\s]{1,20} [ -~]{1,250}: [45]\d\d \w+; by [ -~]{1,80} from [0-9a-f.:/]+")
"""A line of the log: of printable ASCII, so that nothing in it can pass for another line."""

NO_TOKENS = ("last_used_at",)
"""What reading with a token changes."""


@dataclass(frozen=True)
class Answer:
    """What came back over a socket, byte for byte."""

    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes

    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Target:
    """A service under attack.

    Attributes:
        url: Where it listens.
        client: Asks it.
        database: Reads its tables.
        registry: The same, opened beside it.
        secrets: A token of each role, by the name of its owner, which is the role; and of ``other``, a contributor.
        log: What it logged.
        read: What the tables held at which version: reading them all for each attack would take long.
    """

    url: str
    client: httpx2.Client
    database: sqlite3.Connection
    registry: Registry
    secrets: dict[str, str]
    log: list[str]
    read: dict[str, Any] = field(default_factory=dict)

    def send(self, method: str, path: str, by: str | None = None, **how: Any) -> httpx2.Response:
        """Send a request, with somebody's token."""
        return self.client.request(method, path, headers={**self.token(by), **how.pop("headers", {})}, **how)

    def token(self, by: str | None) -> dict[str, str]:
        """Return the header that somebody's token goes by."""
        return {"Authorization": f"Bearer {self.secrets[by]}"} if by else {}

    def submit(self, body: Any, by: str | None = "contributor", **headers: str) -> httpx2.Response:
        """Send a submission."""
        return self.send("POST", "/v1/submissions", by, json=body, headers=headers)

    def raw(self, head: str, body: bytes = b"", by: str | None = None, timeout: float | None = None) -> Answer:
        """Send a request exactly as it is written here, and read until the service hangs up.

        Args:
            head: The request line and headers; line ends are added, with ``Host`` and ``Connection: close``.
            body: Sent as it is; whatever of it the service does not take is its own choice.
            by: Whose token to send.
            timeout: Seconds of silence to wait, unless as many as any test waits.
        """
        lines = [*head.split("\n"), "Host: service", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.token(by).items()]
        return self.bytes("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body, timeout)

    def bytes(self, sent: bytes, timeout: float | None = None) -> Answer:
        """Send bytes and return the answer, read until the service hangs up."""
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout or patience()) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may hang up before the end, having said why
                connection.sendall(sent)
            return parse(read_all(connection))

    def content(self) -> dict[str, list[Any]]:
        """Return every row of every table, but when tokens were used."""
        (version,) = self.database.execute("PRAGMA data_version").fetchone()
        if self.read.get("version") != version:
            names = [name for (name,) in self.database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            self.read.update(version=version, content={name: rows_of(self.database, name) for name in names})
        content: dict[str, list[Any]] = self.read["content"]
        return content

    @contextmanager
    def unharmed(self, lines: int = 1) -> Iterator[None]:
        """Check that what is done inside leaves every row as it was, so many lines in the log, and a service."""
        before = self.content()
        self.log.clear()
        yield
        assert self.content() == before
        wait_until(lambda: len(self.log) >= lines, f"line {lines} of the log")
        assert len(self.log) == lines, self.log
        for line in self.log:
            assert NOTED.fullmatch(line), line
            assert not any(secret in line for secret in self.secrets.values())
        assert self.send("GET", "/v1/targets/llama").json()["target_modules"] == ["q_proj", "v_proj"]

    def wait_for(self, number: int) -> dict[str, Any]:
        """Return a submission once its checks are through; what is waited for is read beside the service."""
        wait_until(lambda: self.registry.submissions.get(number).status != "checking", "the end of the checks")
        found: dict[str, Any] = self.send("GET", f"/v1/submissions/{number}").json()
        return found

    def settle(self, number: int, failure: str | None = None) -> None:
        """Let the checks of a submission come to an end."""
        spec = TargetSpec(target_modules=("q_proj",))
        found = (
            None if failure else SubmissionEvidence("names", builds=True, spec=spec, matched=2, formula=Formula(128, 0))
        )
        self.registry.submissions.record_check(number, Checked(found, failure))


def rows_of(connection: sqlite3.Connection, table: str) -> list[Any]:
    """Return the rows of a table without what reading changes."""
    told = connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - names of our own
    names = [column[0] for column in told.description]
    return [tuple(v for name, v in zip(names, row, strict=True) if name not in NO_TOKENS) for row in told]


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side hangs up."""
    parts = []
    with suppress(ConnectionResetError):  # it may hang up on a body it does not want
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def parse(received: bytes) -> Answer:
    """Split an answer into what it says."""
    head, _, content = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name.lower(), value) for name, _, value in (line.partition(": ") for line in lines))
    return Answer(int(first.split()[1]), headers, content)


def refused(answer: Any, *statuses: int) -> str:
    """Check that this is a refusal in the one shape, with one of these statuses, and return its code."""
    status = getattr(answer, "status", None) or answer.status_code
    assert status in statuses, (status, answer.json())
    assert list(answer.json()) == ["error"]
    body = documented(ErrorBody, answer.json()).error
    assert body.message
    assert "Traceback" not in body.message
    return body.code


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def attacked(folder: Path, limits: RequestLimits = UNLIMITED, *, checks: bool = False, **how: Any) -> Iterator[Target]:
    """Serve a registry of PEFT's tables alone while the context lasts.

    Args:
        folder: Where its database is made.
        limits: How often it may be asked.
        checks: Whether the machine checks run.
        how: Other settings.
    """
    database = folder / "registry.sqlite3"
    settings = Settings(folder, f"sqlite:///{database}", limits=limits, **how)
    log: list[str] = []
    logger, handler = logging.getLogger("loradar.api"), _Kept(log)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("list_catalogs", "list_older"):
            patch.setattr(f"loradar.registry.catalogs.{name}", list)
        if not checks:
            patch.setattr(Checker, "start", lambda _: None)
            patch.setattr(Checker, "stop", lambda _: None)
        logger.addHandler(handler)
        with (
            Registry.open(settings) as registry,
            running(settings) as url,
            httpx2.Client(base_url=url, timeout=patience()) as client,
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader,
        ):
            secrets = {role: registry.tokens.create(role, role)[1] for role in TOKEN_ROLES}
            secrets["other"] = registry.tokens.create("other", "contributor")[1]
            yield Target(url, client, reader, registry, secrets, log)
        logger.removeHandler(handler)
