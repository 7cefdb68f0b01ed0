"""Provide the arguments of handlers: registry, parameters, the author and condition of a write; tag responses."""

from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Header, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.responses import JSONResponse, Response

from ..domain.changes import Revision
from ..domain.identities import Actor, TokenRole
from ..domain.submissions import Submission
from ..domain.vocabulary import Library
from ..errors import NotAllowed, NotAuthenticated
from ..registry import SERVICE_LIMITS, Key, Registry
from ..schema import to_json
from ..settings import Settings
from .negotiation import compress

if TYPE_CHECKING:
    from .middleware import Limiter

NAME_LENGTH = 255
NAME_PATTERN = r"^[^\s\x00-\x1f\x7f-\x9f]+$"
REFERENCE_PATTERN = r"^[^\s\x00-\x1f\x7f-\x9f]+( [^\s\x00-\x1f\x7f-\x9f]+)*$"
"""A name that may have single spaces in it: ``stable diffusion xl``."""
PLACE_PATTERN = r"^(transformers|timm|diffusers|torch):[^\s\x00-\x1f\x7f-\x9f]+"
"""Start of a pagination cursor: an architecture."""
LARGEST_NUMBER = 2**31 - 1
"""Largest id of a submission or token: what every database can compare."""

CACHE_CONTROL = "public, max-age=60"
"""A minute: new revisions are rare, and every response can be revalidated by its tag."""

RENDERED = "rendered"
"""Name in a request's state of the response that may be stored."""

TAG_PATTERN = r'^(\*|"v[1-9][0-9]{0,8}")$'


class LazyRegistry:
    """Open the registry on first use, so that a service whose database is away still answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._registry: Registry | None = None

    def get(self) -> Registry:
        """Return the open registry; the next request repeats an attempt that fails.

        Raises:
            DatabaseUnusable: If it cannot be opened.
        """
        with self._lock:
            self._registry = self._registry or Registry.open(self._settings, SERVICE_LIMITS)
            return self._registry

    def close(self) -> None:
        """Close the registry if it was opened."""
        with self._lock:
            if self._registry:
                self._registry.close()
            self._registry = None


def get_registry(request: Request) -> Registry:
    """Return the application's registry."""
    lazy: LazyRegistry = request.app.state.registry
    return lazy.get()


OpenRegistry = Annotated[Registry, Depends(get_registry)]

ReferencePath = Annotated[
    str,
    Path(
        max_length=NAME_LENGTH,
        pattern=REFERENCE_PATTERN,
        description="A reference in any spelling: a name, a class, a checkpoint, a nickname; `/` may stand in it",
        examples=["llama", "timm:resnet50", "Qwen/Qwen3-8B"],
    ),
]
Name = Annotated[
    str,
    Path(max_length=NAME_LENGTH, pattern=NAME_PATTERN, description="Name of the architecture", examples=["llama"]),
]
LibraryName = Annotated[Library, Path(description="Library the architecture belongs to", examples=["transformers"])]
AnyLibraryQuery = Annotated[
    Library | None, Query(description="Only architectures of this library; if not given, of all")
]
VersionQuery = Annotated[
    str | None,
    Query(
        max_length=64,
        pattern=NAME_PATTERN,
        description="Version of the library it is for; an unknown one resolves to the nearest, none to the newest",
        examples=["5.24.0"],
    ),
]

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

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        pattern=TAG_PATTERN,
        description="`ETag` of the version read: the write is rejected with 412 if it has changed since",
        examples=['"v2"'],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]([ -~]{0,253}[!-~])?$",
        max_length=255,
        description="Your name for this write: repeated with the same request, it gets the first response",
        examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    ),
]


def parse_version(if_match: IfMatch = None) -> int | None:
    """Return the version a write is based on; ``None`` for any version."""
    return None if if_match in (None, "*") else int(str(if_match)[2:-1])


async def make_key(request: Request, key: IdempotencyKey = None) -> Key | None:
    """Return the idempotency key with a digest of the request, so that it cannot be reused for another request."""
    if key is None:
        return None
    condition = request.headers.get("If-Match", "")
    content = f"{request.method}\n{request.url.path}\n{condition}\n".encode() + await request.body()
    return Key(key, "sha256:" + sha256(content).hexdigest())


Version = Annotated[int | None, Depends(parse_version)]
WriteKey = Annotated[Key | None, Depends(make_key)]

TAGGED: dict[str, Any] = {
    "headers": {"ETag": {"description": "Its version, for `If-Match`", "schema": {"type": "string"}, "example": '"v2"'}}
}
"""OpenAPI for the header of a response that has a version."""


def version_tag(version: int) -> str:
    """Return the ``ETag`` of a version."""
    return f'"v{version}"'


def versioned(record: Revision | Submission, status: int = HTTPStatus.OK, **headers: str) -> JSONResponse:
    """Return the response of a write: the record, tagged with its version."""
    return JSONResponse(
        to_json(record), status, {"ETag": version_tag(record.version), "Cache-Control": "no-store", **headers}
    )


def cached(request: Request, response: Response) -> Response:
    """Return a response, compressed if possible and tagged by its bytes, or 304 if ``If-None-Match`` names the tag.

    The response must depend on the registry and the request's path and query alone: it is stored, and sent again for
    as long as the registry stays as it is.
    """
    digest = sha256(bytes(response.body)).hexdigest()[:32]
    tag = f'"{digest}-gzip"' if compress(request.scope, response) else f'"{digest}"'
    answer = tagged(request, response, tag, CACHE_CONTROL)
    setattr(request.state, RENDERED, response)
    return answer


def tagged(request: Request, response: Response, tag: str, cache_control: str) -> Response:
    """Return a response with a tag, or 304 if ``If-None-Match`` names the tag."""
    headers = {"ETag": tag, "Cache-Control": cache_control}
    response.headers.update(headers)
    if names_tag(request.headers.get("If-None-Match", ""), tag):
        vary = {"Vary": response.headers["Vary"]} if "Vary" in response.headers else {}
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers | vary)
    return response


def names_tag(condition: str, tag: str) -> bool:
    """Return whether an ``If-None-Match`` header names a tag; weak comparison, as RFC 9110, 13.1.2 requires."""
    named = {part.strip().removeprefix("W/") for part in condition.split(",")}
    return tag in named or "*" in named
