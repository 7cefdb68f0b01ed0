"""api *serves*: the registry over REST, as JSON under ``/v1``, described at ``/openapi.json``."""

from ..extras import require

require("server", "cryptography", "fastapi", "httptools", "jiter", "prometheus_client", "structlog", "uvicorn")

from .app import create_app
from .server import running, serve

__all__ = ["create_app", "running", "serve"]
