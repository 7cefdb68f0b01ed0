"""Scans of architectures by reference, made once for all workers of a run of the tests."""

import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loradar import discovery
from loradar.domain.scans import Scan

_FOLDER: list[Path] = []


def share_scans(basetemp: Path) -> None:
    """Keep the scans of a run in its temporary folder."""
    folder = shared_folder(basetemp) / "scans"
    folder.mkdir(exist_ok=True)
    _FOLDER[:] = [folder]


def shared_folder(basetemp: Path) -> Path:
    """Return the temporary folder of a run; those of its workers are in it."""
    return basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp


def scan(subject: Any, *args: Any, **options: Any) -> Scan:
    """Scan a subject; that of a reference with a method at most is made once, and never changed."""
    if isinstance(subject, str) and not args and options.keys() <= {"method"}:
        return _scan_once(subject, options.get("method", "auto"))
    return discovery.scan(subject, *args, **options)


@cache
def _scan_once(reference: str, method: str) -> Scan:
    file = _FOLDER[0] / quote(f"{reference} by {method}", safe="")
    if file.exists():
        found: Scan = pickle.loads(file.read_bytes())  # noqa: S301 - written by another worker of this run
        return found
    found = discovery.scan(reference, method=method)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    unfinished.write_bytes(pickle.dumps(found))
    unfinished.rename(file)
    return found
