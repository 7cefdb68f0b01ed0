"""What workers are told to do to themselves, in the place of a scan or a check: the word is in the request."""

import json
import os
import signal
import time
from pathlib import Path

import sandbox_tasks as tasks

from loradar.domain.submissions import Checked, Evidence, Statement
from loradar.errors import StatementRefused


def recurse():
    """Go deeper than any stack."""
    return recurse()


def refuse():
    """Refuse, as a worker does that finds something wrong."""
    message = "It is refused. Send something else."
    raise StatementRefused(message)


DEEDS = {
    "nothing": lambda: None,
    "kill": lambda: tasks.send_itself(signal.SIGKILL),
    "fault": tasks.fault,
    "exit": lambda: tasks.leave(3),
    "loop": tasks.loop,
    "hoard": tasks.hoard,
    "bug": tasks.fail,
    "print": lambda: tasks.chatter(20_000),
    "open": lambda: [os.open(os.devnull, os.O_RDONLY) for _ in range(1_000_000)],
    "recurse": recurse,
    "refuse": refuse,
}
"""By their words; ``wait PATH`` tells the number of its process there, and waits to be killed."""


def do(word: str) -> None:
    """Do what the word says."""
    if word.startswith("wait "):
        place = Path(word.removeprefix("wait "))
        place.with_suffix(".new").write_text(str(os.getpid()))
        place.with_suffix(".new").rename(place)
        time.sleep(1000)
    DEEDS[word]()


def scan(body: bytes) -> bytes:
    """Stand for the scan of what a request sends."""
    word = json.loads(body)["do"]
    do(word)
    return json.dumps({"did": word}).encode()


def check(statement: Statement, _registered: tuple) -> Checked:
    """Stand for the check of a submission."""
    do(statement.rationale or "nothing")
    return Checked(Evidence("names", builds=True, spec=statement.spec, matched=2, per_rank=8, fixed=0))
