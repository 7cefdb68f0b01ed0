"""Who asks: a bearer token makes an actor, and a handler says which role it takes."""

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


def authenticate(request: Request, registry: OpenRegistry, given: Credentials) -> Actor:
    """Return whose token came with a request.

    Raises:
        NotAuthenticated: If there is none, or one that does not work.
        TooManyRequests: If too many from the same address did not work, or its owner asks too often.
    """
    state = request.state
    known: Actor | None = getattr(state, "actor", None)
    if known:  # by ``require_actor``, before the body was read
        return known
    if given is None:
        message = "This needs a token. Send 'Authorization: Bearer lrd_...'; an admin makes one: loradar token create."
        raise NotAuthenticated(message)
    limiter: Limiter = request.app.state.limiter
    limiter.require_left("failed", state.address, state.met)
    try:
        actor = registry.tokens.authenticate(given.credentials)
    except NotAuthenticated:
        limiter.take("failed", state.address, state.met)
        raise
    state.actor = actor
    limiter.take("token", actor.name, state.met)
    return actor


Anybody = Annotated[Actor, Depends(authenticate)]


async def require_actor(request: Request) -> None:
    """Authenticate whoever sends a request, before anything is done for its body.

    Raises:
        LoradarError: As ``authenticate``.
    """
    given = await bearer(request)

    def ask() -> None:
        authenticate(request, get_registry(request), given)

    await run_in_threadpool(ask)


def needs_actor(dependant: Dependant) -> bool:
    """Tell whether a handler depends on who asks."""
    return dependant.call is authenticate or any(map(needs_actor, dependant.dependencies))


def _needs(role: TokenRole) -> Callable[[Actor], Actor]:
    def check(actor: Anybody) -> Actor:
        if not actor.may(role):
            message = f"This needs the role {role!r}; the token of {actor.name!r} has {actor.role!r}. Ask an admin."
            raise NotAllowed(message, needs=role, role=actor.role)
        return actor

    return check


Contributor = Annotated[Actor, Depends(_needs("contributor"))]
Reviewer = Annotated[Actor, Depends(_needs("reviewer"))]
Admin = Annotated[Actor, Depends(_needs("admin"))]
