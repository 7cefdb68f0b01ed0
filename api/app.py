"""The application factory; nothing is built at import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from ..settings import Settings
from .deps import LazyRegistry
from .errors import add_error_handlers
from .metrics import CountRequests, Metrics
from .routes import architectures, batch, health, history, index, mappings, metrics, snapshot, targets
from .schemas import ERROR_RESPONSES
from .snapshots import Snapshots

DESCRIPTION = "Which layers an adapter should go on, for every model architecture somebody registered."


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the service for a registry, which is opened by the first request that needs it."""
    app = FastAPI(
        title="loradar",
        version=version("loradar"),
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,  # its page loads scripts from a third party
        redoc_url=None,
        responses=ERROR_RESPONSES,
    )
    settings = settings or Settings.from_environment()
    app.state.registry = LazyRegistry(settings)
    app.state.snapshots = Snapshots(settings)
    app.state.metrics = Metrics(app.version, app.state.registry)
    app.add_middleware(CountRequests, metrics=app.state.metrics)
    add_error_handlers(app)
    for part in (index, health, targets, batch, architectures, history, mappings, snapshot, metrics):
        app.include_router(part.router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.snapshots.close()
    app.state.registry.close()
