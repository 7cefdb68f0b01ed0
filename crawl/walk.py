"""The walk over a hub: list, leave out what is known, read the rest in workers, and store each unit as it completes.

A kill at any moment loses the units at work and nothing else: a unit is stored in one transaction, and a repo counts as
visited once it is stored with its commit.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from ..domain.crawls.crawled import TRANSIENT, CrawledRepo
from ..errors import HubFailed, InvalidRequest
from ..extras import require
from .hub_listing import CrawlQuery, ListedRepo, list_pages
from .polite import Pace
from .units import PASSING, Unit, read_unit

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from ..registry import Crawls
    from ..sandbox.parallel import Workers

REPOS_IN_A_UNIT = 8
MOST_FAILURES = 24
"""Repos in a row that the hub may fail to give; then the walk ends, since the hub is away."""


@dataclass
class CrawlReport:
    """The progress of a crawl.

    Attributes:
        endpoint: Address of the hub.
        listed: Repos in the listing.
        left_out: Of these, private ones and those with an impossible name.
        unchanged: Of these, those visited before at the same commit.
        outcomes: Repos that were read, by what they are or why they could not be read.
        structures: Structures that no crawl had met before.
        requests: Requests for files.
        transferred: Bytes of files.
        seconds: Duration.
    """

    endpoint: str
    listed: int = 0
    left_out: int = 0
    unchanged: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    structures: int = 0
    requests: int = 0
    transferred: int = 0
    seconds: float = 0.0

    def add(self, repos: Sequence[CrawledRepo], structures: int) -> None:
        """Count repos that were stored, and the structures that were new."""
        self.outcomes.update(repo.outcome for repo in repos)
        self.structures += structures
        self.requests += sum(repo.requests for repo in repos)
        self.transferred += sum(repo.transferred for repo in repos)


def crawl(
    crawls: "Crawls",
    query: CrawlQuery,
    workers: "Workers",
    rate: float,
    on_progress: Callable[[CrawlReport], None] = lambda _: None,
) -> CrawlReport:
    """Visit the repos of the hub at ``HF_ENDPOINT`` that are new, or have a new commit, since the last crawl.

    Args:
        crawls: Where what is found is stored.
        query: Which repos.
        workers: The workers that read them.
        rate: Requests per second of all workers together.
        on_progress: Called after every unit.

    Raises:
        InvalidRequest: If the rate is not above 0.
        HubFailed: If the hub does not give the listing, or fails to give many repos in a row; what was found is kept.
        MissingExtra: If huggingface_hub is not installed.
    """
    if not 0 < rate < float("inf"):
        raise InvalidRequest(f"Cannot send {rate:g} requests per second. Give more than 0.", rate=rate)
    api, started = _open_hub(), time.monotonic()
    report, failures = CrawlReport(api.endpoint), 0
    for page, left_out in list_pages(api, query, Pace(1 / rate)):
        due = list_due(crawls, api.endpoint, page, retry=query.retry)
        report.listed += len(page) + left_out
        report.left_out += left_out
        report.unchanged += len(page) - len(due)
        on_progress(report)
        for repos in _read_all(workers, api.endpoint, due, workers.count / rate):
            report.add(repos, crawls.add(api.endpoint, repos))
            report.seconds = time.monotonic() - started
            on_progress(report)
            failed = [repo for repo in repos if repo.outcome in PASSING]
            failures = failures + len(failed) if len(failed) == len(repos) else 0
            if failures >= MOST_FAILURES:
                message = f"{failures} repos in a row could not be read. The last: {failed[-1].message} "
                message += "What was found is stored; run the same command later to go on."
                raise HubFailed(message, endpoint=api.endpoint)
    report.seconds = time.monotonic() - started
    return report


def _open_hub() -> "HfApi":
    require("scan", "huggingface_hub")
    from huggingface_hub import HfApi, constants  # noqa: PLC0415 - an extra

    api = HfApi()
    if constants.HF_HUB_OFFLINE:
        message = f"{api.endpoint} cannot be crawled, because HF_HUB_OFFLINE is set. Unset it once."
        raise HubFailed(message, endpoint=api.endpoint)
    return api


def list_due(crawls: "Crawls", endpoint: str, page: Sequence[ListedRepo], *, retry: bool) -> list[ListedRepo]:
    """Return the repos of a page to read: those not visited at this commit, or without a lasting outcome."""
    visited = crawls.list_visited(endpoint, [repo.name for repo in page])
    again = {name for name, (_, outcome) in visited.items() if outcome in TRANSIENT or (retry and outcome not in READ)}
    known = {name: commit for name, (commit, _) in visited.items() if commit and name not in again}
    unique = {repo.name: repo for repo in page}
    return [repo for repo in unique.values() if known.get(repo.name) is None or known[repo.name] != repo.commit]


READ = ("model", "adapter")
"""Outcomes of repos that were read."""


def _read_all(
    workers: "Workers", endpoint: str, repos: Sequence[ListedRepo], interval: float
) -> Iterator[list[CrawledRepo]]:
    """Yield the results of units as they complete; of a unit that workers died of, each repo is tried alone."""
    owner = os.getpid() if workers.are_local else None
    rest = iter(repos)
    parts = iter(lambda: [*islice(rest, REPOS_IN_A_UNIT)], [])
    lost: list[ListedRepo] = []
    for unit, results in workers.run_each(read_unit, [Unit(endpoint, interval, part, owner) for part in parts]):
        if results is None:
            lost += unit.repos
        else:
            yield results
    for unit, results in workers.run_each(read_unit, [Unit(endpoint, interval, [repo], owner) for repo in lost]):
        yield results or [CrawledRepo(one.name, one.commit, one.modified, "worker_lost") for one in unit.repos]
