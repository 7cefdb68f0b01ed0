"""Measure lookups over HTTP against a bare Starlette route that returns the same bytes under the same server settings.

    python bench/reads.py [--seconds S] [--rounds N] [--connections N] [--names N] [--json FILE]

Both servers have one process, on a core of its own where there are two; the clients have the other. Each round runs
every arm, so that all meet the same load. Reported are the median ratios of requests per second, for whole responses
and for those the client has already (304), and of the 99th percentile of the time to a response; and the memory that
the service has resident afterwards.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from service import NO_LIMITS, Connection

from loradar.registry import Registry
from loradar.settings import Settings

SERVE = """
import os, sys
if (os.cpu_count() or 1) > 1: os.sched_setaffinity(0, {0})
from loradar.api import serve
from loradar.settings import Settings
serve(Settings.from_environment(), port=0, ready=lambda url: print(url, flush=True))
"""
BARE = """
import json, os, sys
if (os.cpu_count() or 1) > 1: os.sched_setaffinity(0, {0})
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from loradar.api import server
from loradar.api.process.metrics import Metrics
from loradar.settings import Settings
bodies = {path: (body.encode(), headers) for path, (body, headers) in json.load(open(sys.argv[1])).items()}
async def answer(request):
    body, headers = bodies[request.url.path]
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers)
app = Starlette(routes=[Route("/v1/targets/{name:path}", answer)])
app.state.metrics = Metrics("bare")
server.create_app = lambda _: app
server.serve(Settings.from_environment(), port=0, ready=lambda url: print(url, flush=True))
"""
ARMS = ("service", "bare", "service 304", "bare 304")


@contextmanager
def serving(home: str, code: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """Run a server in a process of its own; yield its port and the id of the process."""
    environment = os.environ | {"LORADAR_HOME": home, "LORADAR_LIMITS": NO_LIMITS, "LORADAR_WORKERS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    try:
        assert process.stdout is not None  # noqa: S101 - stdout is a pipe
        yield int(process.stdout.readline().rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait(60)


class Client(asyncio.Protocol):
    """One connection that sends one request after the other."""

    def __init__(self, requests: list[bytes], first: int, took: list[float]) -> None:
        self.requests, self.next, self.took = requests, first, took
        self.left = b""
        self.started = 0.0

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Send the next request."""
        self.next = (self.next + 1) % len(self.requests)
        self.started = time.perf_counter()
        self.transport.write(self.requests[self.next])

    def data_received(self, data: bytes) -> None:
        """Read a response to its end, and send the next request."""
        self.left += data
        head, end, rest = self.left.partition(b"\r\n\r\n")
        if not end:
            return
        place = head.lower().find(b"content-length: ")
        length = int(head[place + 16 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(rest) >= length:
            self.took.append(time.perf_counter() - self.started)
            self.left = b""
            self.send()


async def load(port: int, requests: list[bytes], connections: int, seconds: float) -> list[float]:
    """Send requests over several connections, and return the seconds that each took."""
    loop, took = asyncio.get_running_loop(), list[float]()
    clients = [
        await loop.create_connection(lambda n=n: Client(requests, 17 * n, took), "127.0.0.1", port)
        for n in range(connections)
    ]
    await asyncio.sleep(seconds)
    for transport, _ in clients:
        transport.abort()
    return took


def main() -> None:
    """Measure, print the ratios, and write them to the file of ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of each arm in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--names", type=int, default=500)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        with Registry.open(Settings(Path(home), f"sqlite:///{home}/registry.sqlite3")) as registry:
            names = [each.architecture.name for each in registry.list_architectures("transformers")]
        port, pid = stack.enter_context(serving(home, SERVE))
        whole, known, bodies, connection = [], [], {}, Connection(port)
        for name in names:
            path = f"/v1/targets/{name}"
            request = f"GET {path} HTTP/1.1\r\nHost: a\r\n%s\r\n".encode()
            response = connection.send(request % b"")
            if response.status == 200 and len(whole) < options.names:  # noqa: PLR2004 - HTTP
                whole.append(request % b"")
                known.append(request % b"If-None-Match: %s\r\n" % response.headers["etag"].encode())
                bodies[path] = (response.body.decode(), response.headers)
        for request in whole:
            connection.send(request)
        file = Path(home) / "bodies.json"
        kept = ("content-type", "etag", "cache-control")
        file.write_text(json.dumps({p: (b, {k: h[k] for k in kept}) for p, (b, h) in bodies.items()}))
        bare, _ = stack.enter_context(serving(home, BARE, str(file)))
        arms = dict(zip(ARMS, ((port, whole), (bare, whole), (port, known), (bare, known)), strict=True))
        rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
        late: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for _ in range(options.rounds):
            for arm, (to, requests) in arms.items():
                took = asyncio.run(load(to, requests, options.connections, options.seconds))
                rates[arm].append(len(took) / options.seconds)
                late[arm].append(statistics.quantiles(took, n=100)[98])
        resident = psutil.Process(pid).memory_info().rss / 2**20
    report: dict[str, Any] = {"cores": os.cpu_count(), "names": len(whole), "resident_mib": round(resident)}
    late = {arm: [1000 * seconds for seconds in each] for arm, each in late.items()}
    for name, figures, digits in (("per_s", rates, 0), ("p99_ms", late, 1)):
        for ours, theirs in (ARMS[:2], ARMS[2:]):
            ratios = [own / other for own, other in zip(figures[ours], figures[theirs], strict=True)]
            row = {arm: round(statistics.median(figures[arm]), digits) for arm in (ours, theirs)}
            row |= {"ratio": round(statistics.median(ratios), 2), "range": [round(f(ratios), 2) for f in (min, max)]}
            report[f"{name}, {ours}"] = row
            print(f"{name:<8}{ours:<12}{row}", flush=True)
    print(f"resident: {report['resident_mib']} MiB, {len(whole)} names")
    if options.json:
        with suppress(FileExistsError):
            options.json.parent.mkdir(parents=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
