"""Measure what a second worker of Dask brings to a crawl, on a hub on loopback that answers as late as a network.

python bench/crawl_cluster.py [--repos 150] [--delay 0.1] [--rounds 3]     prints repos per second and the ratio

Both arms run in every round, so they share the load of the machine; each worker is a process with one thread.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from crawl_hub import serving


def main() -> None:
    """Crawl the same repos with one worker and with two, each time into a new registry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repos", type=int, default=150)
    parser.add_argument("--delay", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hub").mkdir()
        with serving(Path(folder) / "hub", {"encoder": options.repos}, options.delay):
            ratios = measure(Path(folder), options)
    print(f"two workers to one: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def measure(folder: Path, options: argparse.Namespace) -> list[float]:
    """Return the ratio of the speeds in each round."""
    from distributed import LocalCluster  # noqa: PLC0415 - the hub's address must be set before anything reads it

    from loradar.crawl import CrawlQuery, crawl  # noqa: PLC0415
    from loradar.registry import Registry, catalogs  # noqa: PLC0415
    from loradar.sandbox.parallel import Workers  # noqa: PLC0415
    from loradar.settings import Settings  # noqa: PLC0415

    catalogs.list_catalogs = catalogs.list_older = list  # loading them is none of the crawl

    def run(number: int, name: str, address: str) -> float:
        url = f"sqlite:///{folder}/{name}.sqlite3"
        with Registry.open(Settings(folder, url)) as registry, Workers("dask", number, address) as workers:
            report = crawl(registry.crawls, CrawlQuery(), workers, 1e6)
        if report.outcomes != {"model": options.repos}:
            sys.exit(f"the crawl is not complete: {report}")
        print(f"{number} workers: {options.repos / report.seconds:.1f} repos/s", flush=True)
        return options.repos / report.seconds

    settings = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": ":0"}
    ratios = []
    with LocalCluster(**settings, silence_logs=50) as cluster:
        run(2, "warm", cluster.scheduler_address)
        for each in range(options.rounds):
            # With one unit in flight at a time one worker is at work.
            speeds = [run(number, f"{each}-{number}", cluster.scheduler_address) for number in (1, 2)]
            ratios.append(speeds[1] / speeds[0])
    return ratios


if __name__ == "__main__":
    main()
