"""Count requests for Prometheus; each process counts its own."""

from collections.abc import Iterator
from http import HTTPMethod
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..domain.submissions import SUBMISSION_STATUSES
from ..errors import LoradarError
from .dependencies import LazyRegistry

NO_ROUTE = "none"
"""Label of requests that match no route: their paths are arbitrary text, without end."""

OTHER_METHOD = "OTHER"
_METHODS = frozenset(HTTPMethod)


class Metrics:
    """The metrics of one application.

    Attributes:
        registry: prometheus-client's registry, of this application alone.
    """

    def __init__(self, version: str, lazy: LazyRegistry) -> None:
        self.registry = CollectorRegistry()
        Info("loradar", "The version that runs.", registry=self.registry).info({"version": version})
        self._requests = Counter(
            "loradar_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "loradar_http_request_duration_seconds",
            "Time to the end of a response.",
            ("method", "route"),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(_RegistryCollector(lazy))

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        label = method if method in _METHODS else OTHER_METHOD
        self._requests.labels(label, route, str(status)).inc()
        self._seconds.labels(label, route).observe(seconds)


class _RegistryCollector:
    """Collect the registry's gauges when the metrics are read."""

    def __init__(self, lazy: LazyRegistry) -> None:
        self._lazy = lazy

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; if the registry cannot be read, only the one that reports it."""
        readable = GaugeMetricFamily("loradar_registry_readable", "Whether the registry can be read.")
        try:
            registry = self._lazy.get()
            serial, submissions = registry.serial(), registry.count_submissions()
        except LoradarError:
            readable.add_metric((), 0)
            yield readable
            return
        readable.add_metric((), 1)
        yield readable
        yield GaugeMetricFamily("loradar_registry_serial", "Writes that changed something.", value=serial)
        by_status = GaugeMetricFamily("loradar_submissions", "Submissions by status.", labels=("status",))
        for status in SUBMISSION_STATUSES:
            by_status.add_metric((status,), submissions.get(status, 0))
        yield by_status


class MetricsMiddleware:
    """Count each request under the template of its route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it; one that fails without a response counts as 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", None) or NO_ROUTE
            self._metrics.count(scope["method"], route, status, perf_counter() - started)
