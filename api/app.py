"""The application factory; nothing is built at import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from ..settings import Settings
from .deps import LazyRegistry
from .errors import add_error_handlers
from .exports import Exports
from .routes import architectures, export, health, index, targets
from .schemas import ERROR_RESPONSES

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
    app.state.registry = LazyRegistry(settings or Settings.from_environment())
    app.state.exports = Exports()
    add_error_handlers(app)
    for router in (index.router, health.router, targets.router, architectures.router, export.router):
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.registry.close()
