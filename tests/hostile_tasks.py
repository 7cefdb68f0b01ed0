"""What workers are told to do to themselves, in the place of a scan or a check: the word is in the request."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import sandbox_tasks as tasks
from patience import wait_until

from loradar.domain.submissions import Checked, Statement, SubmissionEvidence
from loradar.domain.targets import Formula
from loradar.errors import InvalidStatement
from loradar.sandbox.pool import Sandbox


class TwoBounds(Sandbox):
    """A sandbox that gives what is known to last a small bound of time, and everything else its usual one.

    Args:
        marker: A word in the arguments of what is known to last.
        brief: Its bound, in seconds.
        how: What a sandbox takes.
    """

    def __init__(self, marker: str, brief: float, *how: Any, **named: Any) -> None:
        super().__init__(*how, **named)
        self._marker, self._brief = marker, brief

    def _call(self, function: Any, args: tuple[Any, ...], seconds: float) -> Any:
        return super()._call(function, args, self._brief if self._marker in repr(args) else seconds)


def recurse():
    """Go deeper than any stack."""
    return recurse()


def refuse():
    """Refuse, as a worker does that finds something wrong."""
    message = "It is refused. Send something else."
    raise InvalidStatement(message)


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
"""By their words; ``wait PATH`` leaves the number of its process there, and waits to be killed.

``until PATH`` ends once that is there.
"""


def do(word: str) -> None:
    """Do what the word says."""
    if word.startswith("wait "):
        place = Path(word.removeprefix("wait "))
        place.with_suffix(".new").write_text(str(os.getpid()))
        place.with_suffix(".new").rename(place)
        while True:
            time.sleep(1)
    if word.startswith("until "):
        wait_until(Path(word.removeprefix("until ")).exists, word)
        return
    DEEDS[word]()


def scan(body: bytes) -> bytes:
    """Stand for the scan of what a request sends."""
    word = json.loads(body)["do"]
    do(word)
    return json.dumps({"did": word}).encode()


def check(statement: Statement, _registered: tuple) -> Checked:
    """Stand for the check of a submission."""
    do(statement.rationale or "nothing")
    return Checked(SubmissionEvidence("names", builds=True, spec=statement.spec, matched=2, formula=Formula(8, 0)))
