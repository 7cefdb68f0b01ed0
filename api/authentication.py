"""Authenticate requests by bearer token, and check the role a handler requires."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ..domain.identities import Actor, TokenRole
from ..errors import NotAllowed, NotAuthenticated
from .dependencies import OpenRegistry, get_registry

if TYPE_CHECKING:
    from .rate_limits import Limiter

bearer = HTTPBearer(
    bearerFormat="lrd_...",
    scheme_name="token",
    description="A token with a role: contributor, reviewer or admin. `loradar token create` makes one.",
    auto_error=False,
)

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def authenticate(request: Request, registry: OpenRegistry, credentials: Credentials) -> Actor:
    """Return the owner of a request's token.

    Raises:
        NotAuthenticated: If there is no token, or an invalid one.
        TooManyRequests: If the address sent too many invalid tokens, or the owner too many requests.
    """
    state = request.state
    known: Actor | None = getattr(state, "actor", None)
    if known:  # by ``require_actor``, before the body was read
        return known
    if credentials is None:
        message = "This needs a token: send 'Authorization: Bearer lrd_...'; an admin makes one: loradar token create."
        raise NotAuthenticated(message)
    limiter: Limiter = request.app.state.limiter
    limiter.require_left("failed", state.address, state.limits_applied)
    try:
        actor = registry.tokens.authenticate(credentials.credentials)
    except NotAuthenticated:
        limiter.take("failed", state.address, state.limits_applied)
        raise
    state.actor = actor
    limiter.take("token", actor.name, state.limits_applied)
    return actor


Anybody = Annotated[Actor, Depends(authenticate)]


async def require_actor(request: Request) -> None:
    """Authenticate a request before its body is read.

    Raises:
        LoradarError: As ``authenticate``.
    """
    credentials = await bearer(request)
    await run_in_threadpool(lambda: authenticate(request, get_registry(request), credentials))


def needs_actor(dependant: Dependant) -> bool:
    """Return whether a handler depends on an authenticated actor."""
    return dependant.call is authenticate or any(map(needs_actor, dependant.dependencies))


def _require_role(role: TokenRole) -> Callable[[Actor], Actor]:
    def check(actor: Anybody) -> Actor:
        if not actor.may(role):
            message = f"This needs the role {role!r}; the token of {actor.name!r} has {actor.role!r}. Ask an admin."
            raise NotAllowed(message, needs=role, role=actor.role)
        return actor

    return check


Contributor = Annotated[Actor, Depends(_require_role("contributor"))]
Reviewer = Annotated[Actor, Depends(_require_role("reviewer"))]
Admin = Annotated[Actor, Depends(_require_role("admin"))]
