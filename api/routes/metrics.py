"""``GET /metrics``: counts for Prometheus."""

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

if TYPE_CHECKING:
    from ..metrics import Metrics

router = APIRouter(tags=["operations"])

EXAMPLE = (
    "# HELP loradar_registry_serial Writes that changed something.\n"
    "# TYPE loradar_registry_serial gauge\n"
    "loradar_registry_serial 1.0\n"
)


@router.get(
    "/metrics",
    summary="What is counted",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}},
            "description": "Prometheus's text format",
        }
    },
)
def get_metrics(request: Request) -> Response:
    """Return requests by route and status, their latency, the registry's serial and submissions by status."""
    metrics: Metrics = request.app.state.metrics
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
