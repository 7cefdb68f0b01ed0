"""The unit of work of a crawl: a few repos, read in a worker at its share of the rate. It imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..domain.crawls.crawled import CrawledRepo
from .hub_listing import ListedRepo
from .polite import Pace, paced
from .repo_reading import read_repo

ATTEMPTS = 4
"""Times that a repo is read while the hub is throttling or does not answer."""

LONGEST_PAUSE = 600.0
"""Seconds of a pause that a worker waits for; a crawl that should pause for longer ends, and goes on another time."""

PASSING = ("throttled", "unreachable")
"""Outcomes that another attempt may change."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A few repos to read.

    Attributes:
        endpoint: Address of the hub.
        interval: Seconds from one request to the next.
        repos: The repos.
        owner: The process that it is read for; ``None`` if that is on another machine.
    """

    endpoint: str
    interval: float
    repos: Sequence[ListedRepo]
    owner: int | None = None


def read_unit(unit: Unit) -> list[CrawledRepo]:
    """Read the repos of a unit.

    Raises:
        Abandoned: If the process that it works for has died.
    """
    pace = Pace(unit.interval, unit.owner)
    found = []
    with paced(pace):
        for repo in unit.repos:
            before = pace.requests
            result = _read_patiently(repo, unit.endpoint, pace)
            found.append(replace(result, requests=pace.requests - before))
    return found


def _read_patiently(repo: ListedRepo, endpoint: str, pace: Pace) -> CrawledRepo:
    for attempt in range(1, ATTEMPTS):
        result = read_repo(repo, endpoint)
        if result.outcome not in PASSING or pace.paused > LONGEST_PAUSE:
            return result
        if not pace.paused:
            pace.pause(2.0**attempt / 2)
    return read_repo(repo, endpoint)
