"""Open the backend that contributions go to: the local registry, or a service."""

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...domain.identities import LOCAL
from ...errors import NotAuthenticated
from ..options import TOKEN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...client import Client
    from ...registry import LocalBackend


@contextmanager
def open_backend(url: str | None, secret: str | None, *, needs_token: bool = True) -> "Iterator[LocalBackend | Client]":
    """Yield the service at ``url``, or the local registry, which its owner may read and administer without a token.

    Raises:
        NotAuthenticated: If a token is needed and not given, or invalid.
    """
    if needs_token and not secret:
        way_out = "Create one with: loradar token create NAME --role ROLE"
        if url:
            way_out = f"Ask the operator of {url} for one"
        message = f"This needs a token. {way_out}; then set {TOKEN_VARIABLE} to it."
        raise NotAuthenticated(message, variable=TOKEN_VARIABLE)
    if url:
        from ...client import Client

        with Client(url, token=secret or None) as client:
            yield client
    else:
        from ...registry import Registry

        with Registry.open() as registry:
            yield registry.backend(registry.tokens.authenticate(str(secret)) if needs_token else LOCAL)
