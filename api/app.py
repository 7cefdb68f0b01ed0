"""Build the FastAPI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.routing import BaseRoute

from ..settings import Settings
from .dependencies import LazyRegistry
from .errors import ALWAYS, add_error_handlers
from .kept_scans import KeptScans
from .middleware import BodyLimitMiddleware, HeadMiddleware, Limiter, RateLimitMiddleware
from .negotiation import NegotiationMiddleware
from .openapi import TAGS, DescribedApp, operation_id
from .pages import FILES
from .pages import ROUTERS as PAGES
from .pages.rendering import error_page
from .process.metrics import Metrics
from .process.write_queue import POSTGRES_WRITERS, WriteQueue
from .request_context import RequestContext
from .routes import (
    architectures,
    check,
    doctor,
    export,
    history,
    mappings,
    operations,
    reports,
    scan,
    search,
    snapshot,
    submissions,
    targets,
    tokens,
    usage,
)
from .stored_responses import StoredResponses
from .workers import Checker, Workers

DESCRIPTION = "Which layers an adapter should go on, for every registered model architecture."

ROUTERS = (
    export.router,
    operations.router,
    targets.router,
    architectures.router,
    history.router,
    mappings.router,
    mappings.writes,
    submissions.router,
    scan.router,
    search.router,
    check.router,
    doctor.router,
    snapshot.router,
    tokens.router,
    usage.router,
    reports.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service for a registry, which the first request that needs it opens."""
    settings = settings or Settings.from_environment()
    app = DescribedApp(
        title="loradar",
        version=version("loradar"),
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,  # its page loads scripts from a third party
        redoc_url=None,
        openapi_tags=TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": settings.root_path or "/"}],
        root_path_in_servers=False,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # each request would look for a collector
    )
    app.state.settings = settings
    app.state.registry = LazyRegistry(settings)
    app.state.exports = export.Exports()
    app.state.snapshots = snapshot.Snapshots(settings)
    app.state.limiter = Limiter(settings.limits)
    app.state.kept_scans = KeptScans(settings.home / "scans")
    app.state.probe = operations.Probe(app.state.registry)
    app.state.metrics = Metrics(app.version, operations.RegistryCollector(app.state.registry))
    writers = 1 if settings.database_url.startswith("sqlite") else POSTGRES_WRITERS
    app.state.writes = WriteQueue(writers, app.state.metrics)
    app.state.error_page = error_page
    app.state.twins = {path: twin for router in PAGES for path, twin in router.twins.items()}
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(StoredResponses, registry=app.state.registry)
    app.add_middleware(RateLimitMiddleware, limiter=app.state.limiter)
    app.add_middleware(NegotiationMiddleware, twins=app.state.twins.items())
    app.add_middleware(RequestContext, root_path=settings.root_path, metrics=app.state.metrics)
    app.add_middleware(HeadMiddleware)
    add_error_handlers(app)
    app.router.routes.extend(_list_routes())
    return app


@cache
def _list_routes() -> list[BaseRoute]:
    """Return the routes of all routers: FastAPI derives the schemas of each once, not for every application anew."""
    every = APIRouter(responses=ALWAYS, generate_unique_id_function=operation_id)
    for router in (*FILES, *PAGES, *ROUTERS):
        every.include_router(router)
    return every.routes


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the checks beside the requests; stop the workers first, since they write to the registry."""
    app.state.workers = Workers(app.state.settings.workers)
    app.state.checker = Checker(app.state.registry.get, app.state.workers.checks, app.state.metrics.scanning)
    app.state.checker.start()
    try:
        yield
    finally:
        await run_in_threadpool(app.state.checker.stop)
        await run_in_threadpool(app.state.workers.close)
        app.state.snapshots.close()
        app.state.registry.close()
