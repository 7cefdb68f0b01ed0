"""The application factory; nothing is built at import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from ..settings import Settings
from .bodies import BodyLimit
from .checks import Checker
from .deps import LazyRegistry
from .errors import add_error_handlers
from .guard import Guard
from .limits import Limiter
from .openapi import TAGS, describe, operation_id
from .refusals import ALWAYS
from .routes import architectures, health, index, revisions, scan, submissions, targets, tokens
from .workers import Workers

DESCRIPTION = "Which layers an adapter should go on, for every model architecture somebody registered."

ROUTERS = (
    index.router,
    health.router,
    targets.router,
    architectures.router,
    submissions.router,
    revisions.router,
    scan.router,
    tokens.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service for a registry, which is opened by the first request that needs it."""
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
    app.state.limiter = Limiter(settings.limits)
    app.add_middleware(BodyLimit, longer=scan.LONGER)
    app.add_middleware(Guard, limiter=app.state.limiter)
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    describe(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the checks beside the requests; at the end, the workers go first, for they write to the registry."""
    app.state.workers = Workers(app.state.settings.workers)
    app.state.checker = Checker(app.state.registry.get, app.state.workers.checks)
    app.state.checker.start()
    try:
        yield
    finally:
        await run_in_threadpool(app.state.workers.close)
        await run_in_threadpool(app.state.checker.stop)
        app.state.registry.close()
