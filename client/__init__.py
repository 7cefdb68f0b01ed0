"""client *requests*: it reads a service's registry over REST and contributes to it, as the registry does in process."""

from .async_client import AsyncClient
from .client import Client

__all__ = ["AsyncClient", "Client"]
