"""``/``, ``/healthz``, ``/readyz`` and ``/metrics``: find the resources, and watch the service."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Literal

from fastapi import APIRouter, Request
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.responses import JSONResponse, Response

from ...domain.submissions import SUBMISSION_STATUSES
from ...errors import DatabaseUnusable, LoradarError
from ...schema import Config, schema_config, to_json
from ...settings import READ_ONLY_VARIABLE
from ..dependencies import LazyRegistry
from ..single_flight import SingleFlight

if TYPE_CHECKING:
    from ...registry import StateWatch
    from ...registry.db.readiness import ReadyState
    from ..process.metrics import Metrics

PROBE_SECONDS = 2.0
"""Time for a database to answer a probe."""

READ_EVERY = 60.0
"""Seconds after which a probe reads every page of an unchanged file again."""

router = APIRouter(tags=["operations"])

LINKS = {
    "targets": "/v1/targets/{model_type}",
    "architectures": "/v1/architectures",
    "architecture": "/v1/architectures/{library}/{name}",
    "search": "/v1/search",
    "similar": "/v1/architectures/{library}/{name}/similar",
    "layers": "/v1/architectures/{library}/{name}/layers",
    "explanation": "/v1/architectures/{library}/{name}/explain",
    "history": "/v1/architectures/{library}/{name}/history",
    "usage": "/v1/usage/{library}/{name}",
    "compare": "/v1/compare",
    "audit": "/v1/audit",
    "placement": "/v1/placement",
    "batch": "/v1/targets:batch",
    "mappings": "/v1/mappings",
    "mapping": "/v1/mappings/{mapping_id}",
    "diff": "/v1/mappings/{mapping_id}/diff",
    "changes": "/v1/changes",
    "snapshot": "/v1/snapshot",
    "key": "/v1/snapshot/key",
    "submissions": "/v1/submissions",
    "preview": "/v1/submissions:preview",
    "submission": "/v1/submissions/{submission_id}",
    "reviews": "/v1/submissions/{submission_id}/reviews",
    "withdrawal": "/v1/submissions/{submission_id}/withdrawal",
    "yank": "/v1/mappings/{mapping_id}/yank",
    "restoration": "/v1/mappings/{mapping_id}/restoration",
    "scan": "/v1/scan",
    "kept_scan": "/v1/scan/{scan_id}",
    "doctor": "/v1/doctor",
    "check": "/v1/check",
    "tokens": "/v1/tokens",
    "me": "/v1/tokens/me",
    "revocation": "/v1/tokens/{token_id}/revocation",
    "metrics": "/metrics",
    "constants": "/v1/export/constants.py",
    "openapi": "/openapi.json",
    "health": "/healthz",
    "ready": "/readyz",
}

METRICS_EXAMPLE = (
    "# HELP loradar_registry_serial Writes that changed something.\n"
    "# TYPE loradar_registry_serial gauge\n"
    "loradar_registry_serial 1.0\n"
)


@dataclass(frozen=True, slots=True)
class Index:
    """The name and version of the service, and the paths of its resources."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (Index("loradar", "0.1.0", {"openapi": "/openapi.json"}),)
    )

    name: str
    version: str
    links: dict[str, str]


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the process."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (Health("ok", "0.1.0"),))

    status: str
    version: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of the registry."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (Readiness("ready", 1, "running", "read-write", None),)
    )

    status: str
    serial: int
    checks: str
    """`running`, or the reason why submissions wait for their checks."""
    mode: Literal["read-write", "read-only", "mirror"]
    """Whether it takes writes; a mirror only has those of its source."""
    expires: str | None
    """Time from which a mirror is outdated, because its source was not heard of for a week; null for others."""


class RegistryCollector(Collector):
    """Collect the registry's gauges when the metrics are read."""

    def __init__(self, lazy: LazyRegistry) -> None:
        self._lazy = lazy

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; if the registry cannot be read, only the one that reports it."""
        readable = GaugeMetricFamily("loradar_registry_readable", "Whether the registry can be read.")
        try:
            registry = self._lazy.get()
            serial, submissions = registry.serial(), registry.submissions.count()
            mirror = registry.mirror.state()
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
        if mirror:
            expires = datetime.fromisoformat(mirror.expires).timestamp()
            yield GaugeMetricFamily(
                "loradar_mirror_expires_timestamp_seconds", "Time from which a mirror is outdated.", value=expires
            )


class Probe:
    """Check the readiness of a registry; every page is read again after a change of the file, and every minute.

    Args:
        registry: The registry.
    """

    def __init__(self, registry: LazyRegistry) -> None:
        self._registry = registry
        self._watch: StateWatch | None = None
        self._read_at = -math.inf
        self._flight = SingleFlight(self._check, PROBE_SECONDS)

    async def result(self) -> "ReadyState":
        """Return the state of a registry that is ready.

        Raises:
            DatabaseUnusable: If it is not.
            TimeoutError: If its database does not answer.
        """
        return await self._flight.result()

    def _check(self) -> "ReadyState":
        registry, now = self._registry.get(), time.monotonic()
        self._watch = self._watch or registry.watch()
        is_thorough = not self._watch.is_unchanged() or now - self._read_at > READ_EVERY
        if is_thorough:
            self._watch.renew()
        state = registry.check_readiness(is_thorough=is_thorough)
        self._read_at = now if is_thorough else self._read_at
        return state


@router.get("/", summary="List the resources", responses={200: {"model": Index}})
def get_index(request: Request) -> JSONResponse:
    """Return the paths of the service's resources."""
    root = request.scope.get("root_path", "")
    links = {name: root + path for name, path in LINKS.items()}
    return JSONResponse(to_json(Index("loradar", request.app.version, links)))


@router.get("/healthz", summary="Check the process", responses={200: {"model": Health}})
async def get_health(request: Request) -> JSONResponse:
    """Return 200 if the process runs, in any state of the database."""
    # Async, so that it takes no thread of the pool: all may be waiting for the database.
    return JSONResponse(to_json(Health("ok", request.app.version)))


@router.get("/readyz", summary="Check the registry", responses={200: {"model": Readiness}})
async def get_readiness(request: Request) -> JSONResponse:
    """Return 200 if the registry can be read and, unless it is to be only read, written; else 503.

    With it come the state of the machine checks, and of a mirror.

    A database that does not answer within two seconds is not ready.
    """
    try:
        state = await request.app.state.probe.result()
    except TimeoutError:
        message = f"The registry database does not answer within {PROBE_SECONDS:g} s. Look at its server or disk."
        raise DatabaseUnusable(message, reason="it does not answer") from None
    missing = request.app.state.workers.missing
    checks = f"waiting: {missing.message}" if missing else "running"
    if state.mode == "read-only":
        checks = f"waiting: {READ_ONLY_VARIABLE} is set"
    return JSONResponse(to_json(Readiness("ready", state.serial, checks, state.mode, state.expires)))


@router.get(
    "/metrics",
    summary="Get metrics",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}, "example": METRICS_EXAMPLE}},
            "description": "Metrics in Prometheus' text format",
        }
    },
)
def get_metrics(request: Request) -> Response:
    """Return requests by route and status, latencies, writes and scans that wait, the serial, submissions by status."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.render(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
