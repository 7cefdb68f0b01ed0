"""The service as a process of its own, as ``loradar serve`` runs it, to be attacked from outside."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from attack import Target
from patience import patience

from loradar.domain.identities import TOKEN_ROLES
from loradar.registry import Registry
from loradar.settings import Settings

SCRIPT = """
from loradar.api import serve, workers
from loradar.api.routes import scan
from loradar.registry import catalogs
from loradar.settings import Settings
from patience import patience
workers.SECONDS = patience()
catalogs.list_catalogs = catalogs.list_older = list
{prelude}
serve(Settings.from_environment(), port=0, ready=lambda url: print(url, flush=True))
"""

LIGHT = """
from functools import partial
from hostile_tasks import TwoBounds
workers.MEMORY, workers.WAITING = 0.5, 4
workers.Sandbox = partial(TwoBounds, "loop", 0.5, preload=())
scan.SCAN, workers.CHECK = "hostile_tasks:scan", "hostile_tasks:check"
"""
"""Workers that start without torch, with little memory, and do to themselves what they are told: loops end soon."""

MANY = "address=1000000,token=1000000,failed=1000000,scan=1000000"


@contextmanager
def served(folder: Path, prelude: str = "", **environment: str) -> Iterator[tuple[Target, int]]:
    """Serve a registry of PEFT's tables alone from a process of its own, and yield it with the number of the process.

    Args:
        folder: Where its files are.
        prelude: What is run in it first.
        environment: What its environment has besides.
    """
    database = folder / "registry.sqlite3"
    settings = Settings(folder, f"sqlite:///{database}")
    own = {"LORADAR_HOME": str(folder), "LORADAR_LIMITS": MANY, "LORADAR_WORKERS": "1", "HF_HUB_OFFLINE": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("list_catalogs", "list_older"):
            patch.setattr(f"loradar.registry.catalogs.{name}", list)
        registry = Registry.open(settings)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", SCRIPT.format(prelude=prelude)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)} | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[str] = []
    reading = threading.Thread(target=_keep, args=(process, log))
    reading.start()
    try:
        url = process.stdout.readline().strip() if process.stdout else ""
        secrets = {role: registry.tokens.create(role, role)[1] for role in TOKEN_ROLES}
        with (
            registry,
            httpx2.Client(base_url=url, timeout=patience()) as client,
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader,
        ):
            yield Target(url, client, reader, registry, secrets, log), process.pid
    finally:
        process.terminate()
        process.wait(patience())
        reading.join(patience())
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def _keep(process: subprocess.Popen[str], log: list[str]) -> None:
    """Keep what the process says of rejected writes, without time, level and request."""
    lines = (
        line.partition(" WARNING loradar.api: ")[2].partition(" [request_id=")[0].rstrip()
        for line in process.stderr or ()
    )
    log.extend(line for line in lines if line.startswith("rejected"))


def memory_of(pid: int) -> int:
    """Return the memory a process holds, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) // 1024


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they did."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text("ascii").rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
        if parent == pid:
            found += [int(stat.parent.name), *children_of(int(stat.parent.name))]
    return found
