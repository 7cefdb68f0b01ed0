"""api *serves*: the registry over REST, as JSON under ``/v1``, described at ``/openapi.json``."""

from importlib.util import find_spec

from ..errors import MissingExtra

for _package in ("fastapi", "uvicorn"):
    if find_spec(_package) is None:
        raise MissingExtra(_package, "server")

from .app import create_app  # noqa: E402 - only once it can work
from .server import running, serve  # noqa: E402

__all__ = ["create_app", "running", "serve"]
