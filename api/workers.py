"""The worker processes of the service: some for the scans that requests ask for, one for the checks of submissions."""

from ..errors import MissingExtra
from ..extras import require
from ..sandbox.bounds import Bounds
from ..sandbox.pool import Sandbox

NEEDED = ("torch", "transformers", "pebble")

SECONDS = 120.0
"""For one scan or check: what is larger is for `loradar scan`."""

MEMORY = 4.0
"""GiB for one scan or check."""

WAITING = 4
"""Scans that may wait for a worker. Each holds a thread of the service, which has 40: lookups keep the most of them."""


class Workers:
    """Where scans and checks run; kept apart, so that neither waits for the other.

    Attributes:
        missing: What is not installed, so that neither can run; ``None`` if both can.
        scans: For the scans of requests.
        checks: For the checks of submissions.
    """

    def __init__(self, at_once: int) -> None:
        self.missing: MissingExtra | None = None
        self.scans: Sandbox | None = None
        self.checks: Sandbox | None = None
        try:
            require("scan", *NEEDED)
        except MissingExtra as missing:
            self.missing = missing
            return
        self.scans = Sandbox(Bounds(at_once, SECONDS, MEMORY), waiting=WAITING)
        self.checks = Sandbox(Bounds(1, SECONDS, MEMORY), waiting=WAITING)

    def get_scans(self) -> Sandbox:
        """Return where scans run.

        Raises:
            MissingExtra: If they cannot run here.
        """
        if self.scans is None:
            raise self.missing or MissingExtra(NEEDED[0], "scan")
        return self.scans

    def close(self) -> None:
        """End every worker."""
        for sandbox in (self.scans, self.checks):
            if sandbox:
                sandbox.close()
