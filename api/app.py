"""Build the FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from ..settings import Settings
from .dependencies import LazyRegistry
from .error_responses import ALWAYS
from .errors import add_error_handlers
from .json_bodies import BodyLimitMiddleware
from .metrics import Metrics, MetricsMiddleware
from .openapi import TAGS, describe, operation_id
from .rate_limits import Limiter, RateLimitMiddleware
from .routes import (
    architectures,
    export,
    history,
    mappings,
    operations,
    revisions,
    scan,
    snapshot,
    submissions,
    targets,
    tokens,
)
from .snapshot_files import Snapshots
from .workers import Checker, Workers

DESCRIPTION = "Which layers an adapter should go on, for every registered model architecture."

RESOURCES = (
    export,
    operations,
    targets,
    architectures,
    history,
    mappings,
    revisions,
    submissions,
    scan,
    snapshot,
    tokens,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service for a registry, which the first request that needs it opens."""
    settings = settings or Settings.from_environment()
    app = FastAPI(
        title="loradar",
        version=version("loradar"),
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,  # its page loads scripts from a third party
        redoc_url=None,
        responses=ALWAYS,
        openapi_tags=TAGS,
        generate_unique_id_function=operation_id,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.registry = LazyRegistry(settings)
    app.state.exports = export.Exports()
    app.state.snapshots = Snapshots(settings)
    app.state.limiter = Limiter(settings.limits)
    app.state.metrics = Metrics(app.version, app.state.registry)
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(RateLimitMiddleware, limiter=app.state.limiter)
    app.add_middleware(MetricsMiddleware, metrics=app.state.metrics)
    add_error_handlers(app)
    for resource in RESOURCES:
        app.include_router(resource.router)
    describe(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the checks beside the requests; stop the workers first, since they write to the registry."""
    app.state.workers = Workers(app.state.settings.workers)
    app.state.checker = Checker(app.state.registry.get, app.state.workers.checks)
    app.state.checker.start()
    try:
        yield
    finally:
        await run_in_threadpool(app.state.checker.stop)
        await run_in_threadpool(app.state.workers.close)
        app.state.snapshots.close()
        app.state.registry.close()
