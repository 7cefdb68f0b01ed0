"""Measure what a crawl costs: requests, bytes, CPU and storage for a repo of each kind, on a hub on loopback.

python bench/crawl.py [--json FILE]        prints counts and CPU for each repo; about a minute

The client's CPU is that of one process which reads one repo after the other and stores it, without the hub's, which is
the hub of the tests in a process of its own.
"""

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from crawl_hub import serving

KINDS = {"single": 150, "sharded": 150, "encoder": 150, "pipeline": 60, "adapter": 400, "pickled": 400}


def main() -> None:
    """Crawl each kind by its tag into one registry, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hub").mkdir()
        with serving(Path(folder) / "hub", KINDS):
            rows = measure(Path(folder))
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json:
        options.json.write_text(json.dumps({"repos": KINDS, "results": rows}, indent=2) + "\n")


def measure(folder: Path) -> list[dict[str, Any]]:
    """Return the figures of each kind."""
    import httpx2  # noqa: PLC0415 - the hub's address must be set before anything reads it

    from loradar.crawl import CrawlQuery, crawl  # noqa: PLC0415
    from loradar.registry import Registry  # noqa: PLC0415
    from loradar.sandbox.parallel import Workers  # noqa: PLC0415
    from loradar.settings import Settings  # noqa: PLC0415

    file, rows = folder / "registry.sqlite3", []
    with Registry.open(Settings(folder, f"sqlite:///{file}")) as registry, Workers("threads", 1) as workers:
        for kind, count in {"warm": 1, **KINDS}.items():
            size, started = _used(file), time.process_time()
            query = CrawlQuery(filters=("encoder" if kind == "warm" else kind,), limit=count)
            report = crawl(registry.crawls, query, workers, 1e6)
            cpu = time.process_time() - started
            if report.outcomes.total() + report.unchanged != count:
                sys.exit(f"the crawl is not complete: {report}")
            listing = httpx2.get(f"{os.environ['HF_ENDPOINT']}/api/models", params={"full": True, "filter": kind})
            done = report.outcomes.total()
            rows.append(
                {
                    "kind": kind,
                    "requests": round(report.requests / done, 2),
                    "bytes": round(report.transferred / done),
                    "listing_bytes": round(len(listing.content) / count),
                    "cpu_ms": round(1000 * cpu / done, 1),
                    "stored_bytes": round((_used(file) - size) / done),
                }
            )
    return rows[1:]


def _used(file: Path) -> int:
    """Return the bytes that the tables and indexes of crawls take in a registry."""
    with sqlite3.connect(file) as connection:
        query = "SELECT COALESCE(SUM(payload), 0) FROM dbstat WHERE name LIKE '%crawled%'"
        return int(connection.execute(query).fetchone()[0])


if __name__ == "__main__":
    main()
