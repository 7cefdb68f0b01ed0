"""Measure the latency of lookups over HTTP while other clients request scans, against an idle service.

    python bench/service.py [--seconds S] [--rounds N] [--json FILE]

A service in its own process, with the catalog's registry and two scan workers, gets one lookup after the other over
one connection. Alternating arms: no other clients; eight other clients that request scans of a llama without pause;
eight other clients that request scans no worker can finish (2,048 layers of 4,096 experts), each of which is stopped
after ten seconds. Each round gives a ratio per percentile; the median and the range are reported.

Then requests per second over eight connections, for whole responses and for responses the client has already
(``ETag``). The clients share the machine with the service and its workers, so the figures are a lower bound.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

SERVE = """
from loradar.api import serve, workers
from loradar.settings import Settings
workers.SECONDS = 10.0
serve(Settings.from_environment(), port=0, ready=lambda url: print(url, flush=True))
"""
NO_LIMITS = ",".join(f"{name}=999999999" for name in ("address", "token", "failed", "scan"))
OTHERS = 8
PERCENTILES = (50, 95, 99)
LOOKUP = b"GET /v1/targets/llama HTTP/1.1\r\nHost: a\r\n%s\r\n"
LLAMA = {"model_type": "llama"}
ENDLESS = {"model_type": "mixtral", "num_hidden_layers": 2048, "num_local_experts": 4096}


class Response(NamedTuple):
    """The status, headers and content of a response."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A minimal HTTP client on one persistent connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    def send(self, request: bytes) -> Response:
        """Send a request and return the response."""
        self._socket.sendall(request)
        while b"\r\n\r\n" not in self._left:
            self._read()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", "0"))
        while len(self._left) < length:
            self._read()
        body, self._left = self._left[:length], self._left[length:]
        return Response(int(first.split()[1]), headers, body)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _read(self) -> None:
        part = self._socket.recv(1 << 20)
        if not part:
            raise SystemExit("The service closed the connection.")
        self._left += part


@contextmanager
def serving() -> Iterator[int]:
    """Serve the catalog's registry, and yield the port."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"LORADAR_HOME": home, "LORADAR_LIMITS": NO_LIMITS, "LORADAR_WORKERS": "2"}
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", SERVE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert process.stdout is not None  # noqa: S101 - stdout is a pipe
            yield int(process.stdout.readline().rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def others(port: int, config: dict[str, Any] | None) -> Iterator[dict[int, int]]:
    """Run other clients that request scans, and yield the number of responses by status."""
    over, counts = threading.Event(), dict[int, int]()
    threads = [threading.Thread(target=_request_scans, args=(port, config, over, counts)) for _ in range(OTHERS)]
    for thread in threads if config else []:
        thread.start()
    try:
        time.sleep(1.0)
        yield counts
    finally:
        over.set()
        for thread in threads if config else []:
            thread.join()


def _request_scans(port: int, config: dict[str, Any], over: threading.Event, counts: dict[int, int]) -> None:
    body = json.dumps({"config": config}).encode()
    head = f"POST /v1/scan HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = Connection(port)
    while not over.is_set():
        status, headers, _ = connection.send(head.encode() + body)
        counts[status] = counts.get(status, 0) + 1
        over.wait(1.0 if "retry-after" in headers else 0)
    connection.close()


def time_lookups(port: int, config: dict[str, Any] | None, seconds: float) -> tuple[list[float], dict[int, int]]:
    """Return the seconds of each lookup, and the statuses of the other clients' scans."""
    took, connection = [], Connection(port)
    with others(port, config) as counts:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.perf_counter()
            if connection.send(LOOKUP % b"").status != 200:  # noqa: PLR2004 - HTTP
                raise SystemExit("A lookup failed.")
            took.append(time.perf_counter() - start)
            time.sleep(0.002)
        ended = dict(counts)
    connection.close()
    return took, ended


def percentile(times: list[float], percent: int) -> float:
    """Return a percentile in milliseconds."""
    return 1000 * statistics.quantiles(times, n=100)[percent - 1]


ARMS: dict[str, dict[str, Any] | None] = {"idle": None, "scans": LLAMA, "endless scans": ENDLESS}


def measure_latency(port: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Return a line per arm and percentile: its median, and the ratio to idle per round."""
    found: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    ended: dict[str, dict[int, int]] = {arm: {} for arm in ARMS}
    for _ in range(rounds):
        for arm, config in ARMS.items():
            took, counts = time_lookups(port, config, seconds)
            found[arm].append([percentile(took, percent) for percent in PERCENTILES])
            ended[arm] = {status: ended[arm].get(status, 0) + counts.get(status, 0) for status in ended[arm] | counts}
    lines = []
    for arm, figures in found.items():
        for place, percent in enumerate(PERCENTILES):
            ratios = [own[place] / idle[place] for own, idle in zip(figures, found["idle"], strict=True)]
            lines.append(
                {
                    "arm": arm,
                    "percentile": percent,
                    "ms": round(statistics.median(own[place] for own in figures), 2),
                    "ratio": round(statistics.median(ratios), 2),
                    "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
                    "scans": {str(status): number for status, number in sorted(ended[arm].items())},
                }
            )
    return lines


def per_second(port: int, request: bytes, status: int, seconds: float) -> float:
    """Return the requests per second with an expected status, over several connections."""
    counts, end = [0] * OTHERS, time.monotonic() + seconds

    def repeat(number: int) -> None:
        connection = Connection(port)
        while time.monotonic() < end:
            if connection.send(request).status != status:
                return
            counts[number] += 1
        connection.close()

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(OTHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def measure_rate(port: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return requests per second with and without ``If-None-Match``."""
    connection = Connection(port)
    tag = connection.send(LOOKUP % b"").headers["etag"]
    connection.close()
    requests: dict[str, Callable[[], float]] = {
        "whole": lambda: per_second(port, LOOKUP % b"", 200, seconds),
        "known": lambda: per_second(port, LOOKUP % f"If-None-Match: {tag}\r\n".encode(), 304, seconds),
    }
    rates: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, run in requests.items():
            rates[name].append(run())
    ratios = [known / whole for known, whole in zip(rates["known"], rates["whole"], strict=True)]
    medians = {f"{name}_per_s": round(statistics.median(each)) for name, each in rates.items()}
    return medians | {"ratio": round(statistics.median(ratios), 2), "connections": OTHERS}


def main() -> None:
    """Measure, print the tables, and write them to the file of ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of each arm in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with serving() as port:
        time_lookups(port, LLAMA, 20)  # fill caches, and import the workers' libraries
        rate = measure_rate(port, options.rounds, options.seconds / 3)
        lines = measure_latency(port, options.rounds, options.seconds)
    print(f"{'lookups while':<16}{'percentile':>10}{'ms':>9}{'to idle':>9}   {'range':<16}scans, by status")
    for line in lines:
        low, high = line["ratio_range"]
        print(
            f"{line['arm']:<16}{line['percentile']:>10}{line['ms']:>9.2f}{line['ratio']:>9.2f}"
            f"   {f'{low} to {high}':<16}{line['scans'] or ''}"
        )
    print(f"requests per second: {rate['whole_per_s']} whole, {rate['known_per_s']} known already: {rate['ratio']}")
    if options.json:
        report = {"cores": os.cpu_count(), "rounds": options.rounds, "seconds": options.seconds}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report | {"latency": lines, "rate": rate}, indent=2) + "\n")


if __name__ == "__main__":
    main()
