"""What a check may turn into: each is run in a worker by its dotted name, in the place of the real one."""

import json
import os
import time
from pathlib import Path

from patience import wait_until

from loradar.domain.submissions import Checked, Statement, SubmissionEvidence
from loradar.domain.targets import Formula
from loradar.errors import InvalidStatement


def passes(statement: Statement, registered: tuple) -> Checked:
    """Find nothing wrong."""
    spec = statement.spec
    return Checked(
        SubmissionEvidence("names", builds=True, spec=spec, matched=2 + len(registered), formula=Formula(8, 0))
    )


def refuses(statement: Statement, _registered: tuple) -> Checked:
    """Refuse as the real check does."""
    message = f"{statement.name} cannot be what it says. Say something else."
    raise InvalidStatement(message)


def dies(_statement: Statement, _registered: tuple) -> Checked:
    """End the process without a word."""
    os._exit(7)


def allocates(_statement: Statement, _registered: tuple) -> Checked:
    """Take memory without end."""
    taken = []
    while True:
        taken.append(bytearray(1 << 28))


def never_ends(_statement: Statement, _registered: tuple) -> Checked:
    """Keep a processor busy for ever."""
    while True:
        pass


def begins(statement: Statement, _registered: tuple) -> Checked:
    """Leave the number of its process in the folder that the rationale names, and never end."""
    place = Path(statement.rationale) / "began"
    place.with_suffix(".new").write_text(str(os.getpid()))
    place.with_suffix(".new").rename(place)
    while True:
        time.sleep(1)


def prints(statement: Statement, registered: tuple) -> Checked:
    """Write to wherever it can before it passes."""
    for stream in (1, 2):
        os.write(stream, b"noise\n" * 1000)
    return passes(statement, registered)


def notes(statement: Statement, registered: tuple) -> Checked:
    """Leave a file for each time it runs, in the folder that the rationale names."""
    folder = Path(statement.rationale)
    (folder / f"{statement.name}-{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(0.05)
    return passes(statement, registered)


def scan_never_ends(_body: bytes) -> bytes:
    """Stand for a scan that never ends."""
    while True:
        time.sleep(1)


def scan_waits(body: bytes) -> bytes:
    """Stand for a scan that lasts until a file is there, which the reference names."""
    wait_until(Path(json.loads(body)["reference"]).exists, "the file")
    return b"{}"


def scan_dies(_body: bytes) -> bytes:
    """Stand for a scan whose process is killed."""
    os.kill(os.getpid(), 9)
    return b""
