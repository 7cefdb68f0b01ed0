"""Serve the registry over REST, as JSON under ``/v1``, described at ``/openapi.json``, and as pages for browsers."""

from ..extras import require

require("server", "cryptography", "fastapi", "httptools", "jiter", "prometheus_client", "structlog", "uvicorn")

from .app import create_app
from .server import running, serve

__all__ = ["create_app", "running", "serve"]
