"""Count and time the requests of a process, for Prometheus; several processes of one service are added up."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPMethod

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import InfoMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ...errors import LoradarError
from .supervisor import METRICS_VARIABLE

NO_ROUTE = "none"
"""Label of requests that match no route: their paths are arbitrary text, without end."""

OTHER_METHOD = "OTHER"
_METHODS = frozenset(HTTPMethod)

SCAN_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 120)
"""Upper bounds in seconds; the last is the limit of a scan."""


class _Version(Collector):
    """The version that runs, as a collector: counts of several processes cannot hold text."""

    def __init__(self, version: str) -> None:
        self._version = version

    def collect(self) -> Iterator[InfoMetricFamily]:
        """Yield it."""
        yield InfoMetricFamily("loradar", "The version that runs.", value={"version": self._version})


class Metrics:
    """The metrics of one application.

    Args:
        version: Version of loradar.
        collectors: Collect further metrics when they are read.

    Attributes:
        writes_waiting: Writes in the queue.
        turned_away: Connections beyond the limit.
    """

    def __init__(self, version: str, *collectors: Collector) -> None:
        own = self._own = CollectorRegistry()
        self._collectors = (_Version(version), *collectors)
        self._is_shared = METRICS_VARIABLE in os.environ
        if not self._is_shared:  # those of one process would pass for those of all
            ProcessCollector(registry=own)
            for collector in self._collectors:
                own.register(collector)
        self._requests = Counter(
            "loradar_http_requests", "Requests answered.", ("method", "route", "status"), registry=own
        )
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._seconds = Histogram(
            "loradar_http_request_duration_seconds", "Time to the end of a response.", ("method", "route"), registry=own
        )
        self.writes_waiting = Gauge(
            "loradar_writes_waiting", "Writes that wait for their turn.", multiprocess_mode="livesum", registry=own
        )
        self._scans_open = Gauge(
            "loradar_scans_open", "Scans and checks at work or waiting.", multiprocess_mode="livesum", registry=own
        )
        self._scan_seconds = Histogram(
            "loradar_scan_duration_seconds",
            "Time of scans and checks, waiting included; the outcome is ok or the code of an error.",
            ("task", "outcome"),
            buckets=SCAN_BUCKETS,
            registry=own,
        )
        self.turned_away = Counter(
            "loradar_connections_turned_away", "Connections beyond the limit of file descriptors.", registry=own
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = method if method in _METHODS else OTHER_METHOD, route, status
        children = self._children.get(key)
        if children is None:
            counter, histogram = self._requests.labels(*key[:2], str(status)), self._seconds.labels(*key[:2])
            children = self._children[key] = counter, histogram
        children[0].inc()
        children[1].observe(seconds)

    @contextmanager
    def scanning(self, task: str) -> Iterator[None]:
        """Time a scan or a check, and count its outcome."""
        start, outcome = time.perf_counter(), "ok"
        self._scans_open.inc()
        try:
            yield
        except LoradarError as error:
            outcome = error.code
            raise
        finally:
            self._scans_open.dec()
            self._scan_seconds.labels(task, outcome).observe(time.perf_counter() - start)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format, of all processes of the service."""
        if not self._is_shared:
            return generate_latest(self._own)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        for collector in self._collectors:
            registry.register(collector)
        return generate_latest(registry)
