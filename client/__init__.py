"""Read a service's registry over REST, and contribute to it as to a local registry."""

from .async_client import AsyncClient
from .client import Client

__all__ = ["AsyncClient", "Client"]
