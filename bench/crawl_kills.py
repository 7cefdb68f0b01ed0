"""Kill a crawl of many synthetic repos at random moments, and check that each is there once, within the rate.

python bench/crawl_kills.py [--repos 20000] [--kills 10] [--rate 300] [--concurrency 2] [--seed 1]

It takes about repos / rate * 2 seconds, and is run by hand; tests/crawl/test_interrupted.py is its short form.
"""

import argparse
import collections
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from crawl_hub import serving

COMMAND = """
import sys
import loradar.registry.catalogs as catalogs
from loradar.cli import main
catalogs.list_catalogs = catalogs.list_older = list  # loading them takes long, and is none of the crawl
main(sys.argv[1:])
"""
SHARES = {"encoder": 0.5, "single": 0.1, "adapter": 0.3, "pickled": 0.1}


def main() -> None:
    """Run the command, kill it with SIGKILL, run it again; the last run ends by itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repos", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)  # noqa: S311 - moments, not secrets
    kinds = {kind: int(options.repos * share) for kind, share in SHARES.items()}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hub").mkdir()
        os.environ["LORADAR_HOME"] = folder
        with serving(Path(folder) / "hub", kinds) as (url, list_requests):
            command = [sys.executable, "-c", COMMAND, "crawl", "--rate", str(options.rate)]
            command += ["--concurrency", str(options.concurrency)]
            subprocess.run([*command, "--limit", "1"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
            total = sum(kinds.values())
            moments = sorted(chance.uniform(0.02, 0.95) for _ in range(options.kills))
            started = time.monotonic()
            for moment in moments:
                process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - ours
                while _count(folder) < moment * total and process.poll() is None:
                    time.sleep(0.05)
                time.sleep(chance.uniform(0, 0.3))
                process.kill()
                process.wait()
                print(f"killed at {_count(folder)} of {total} repos", flush=True)
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)  # noqa: S603 - ours
            check(Path(folder), kinds, url, list_requests(), options)
            print(f"took {time.monotonic() - started:.0f} s")


def _count(folder: str) -> int:
    with sqlite3.connect(Path(folder) / "registry.sqlite3") as connection:
        return int(connection.execute("SELECT count(*) FROM crawled_repos").fetchone()[0])


def check(
    folder: Path, kinds: dict[str, int], url: str, requests: list[tuple[float, str]], options: argparse.Namespace
) -> None:
    """Check the repos that are stored, and the rate of the requests at the hub."""
    with sqlite3.connect(folder / "registry.sqlite3") as connection:
        rows = connection.execute("SELECT name, outcome FROM crawled_repos WHERE endpoint = ?", (url,)).fetchall()
    expected = {f"org/{kind}{number}" for kind, count in kinds.items() for number in range(count)}
    names = [name for name, _ in rows]
    if set(names) != expected or len(names) != len(expected):
        sys.exit(f"{len(names)} repos are stored, {len(expected & set(names))} of the {len(expected)} on the hub")
    print(f"each of {len(expected)} repos is stored once: {dict(collections.Counter(one for _, one in rows))}")
    read = collections.Counter("/".join(path.split()[1].split("/")[1:3]) for _, path in requests if "/resolve/" in path)
    twice = sum(count > 2 for count in read.values())  # noqa: PLR2004 - config.json and the header
    print(f"requests: {len(requests)}; repos at work when it was killed, and so read again: {twice}")
    times = sorted(time for time, _ in requests)
    worst = max(_worst(times, window) / (options.rate * window) for window in (1.0, 5.0, 30.0))
    print(f"most requests in a second: {_worst(times, 1.0)}; the worst window is {worst:.2f} of the rate")


def _worst(times: list[float], window: float) -> int:
    """Return the largest number of requests in any window of so many seconds."""
    first = best = 0
    for last, time_ in enumerate(times):
        while times[first] < time_ - window:
            first += 1
        best = max(best, last - first + 1)
    return best


if __name__ == "__main__":
    main()
