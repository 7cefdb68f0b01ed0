"""Know who reads a page by a session cookie, and accept forms from our own pages alone."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, HTTPException, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse, Response

from ....domain.identities import Actor
from ....errors import InvalidRequest, LoradarError, NotAllowed, NotAuthenticated
from ....registry import Key, Registry
from ....registry.contributions.tokens import SESSION
from ....validation.text import describe_problem
from ...dependencies import OpenRegistry
from ..rendering import join_link

if TYPE_CHECKING:
    from ...middleware import Limiter

COOKIE, SECURE_COOKIE = "loradar", "__Host-loradar"
"""Names of the cookie; a browser takes the second from the host itself alone, and over https alone."""

FORM = "application/x-www-form-urlencoded"
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field
MOST_FIELDS = 32

LONGEST_SECRET = 128

Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class Visitor:
    """A person at a browser, signed in or not.

    Attributes:
        actor: The person, if signed in.
        secret: Secret of the session, or of a browser in which nobody is signed in; empty if it has none.
    """

    actor: Actor | None = None
    secret: str = field(default="", repr=False)

    @property
    def form_token(self) -> str:
        """The proof that a form comes from a page that was sent to this browser."""
        return hmac.new(self.secret.encode(), b"form", sha256).hexdigest() if self.secret else ""


def see_visitor(request: Request, registry: OpenRegistry) -> Visitor:
    """Return who sent a request; a session that is over counts as none."""
    cookies = request.cookies
    # Over https the other one is not ours: any site of the same domain may have set it.
    secret = cookies.get(SECURE_COOKIE) or ("" if request.url.scheme == "https" else cookies.get(COOKIE, ""))
    if not secret or len(secret) > LONGEST_SECRET:
        return Visitor()
    try:
        actor = registry.tokens.authenticate_session(secret)
    except NotAuthenticated:
        return Visitor(None, secret)
    request.state.actor = actor
    return Visitor(actor, secret)


SeenVisitor = Annotated[Visitor, Depends(see_visitor)]


@dataclass(frozen=True)
class Visit:
    """A request of a visitor, with the registry it is about."""

    request: Request
    registry: Registry
    visitor: Visitor

    @property
    def actor(self) -> Actor:
        """The person who is signed in.

        Raises:
            NotAuthenticated: If nobody is.
        """
        if self.visitor.actor is None:
            message = "You are signed out. Sign in, then send the form again."
            raise NotAuthenticated(message)
        return self.visitor.actor

    def key_of(self, fields: Mapping[str, str]) -> Key | None:
        """Return the idempotency key of a form: sent twice, as by a double click, it is done once."""
        key = fields.get("key", "")
        is_ours = re.fullmatch("[0-9a-f]{32}", key)
        return Key.of(f"page-{key}", {"path": self.request.url.path, **fields}) if is_ours else None

    def note(self, problem: LoradarError) -> None:
        """Name the problem of a form in the log, since the page of the form is the response."""
        self.request.state.code = problem.code


def _make_visit(request: Request, registry: OpenRegistry, visitor: SeenVisitor) -> Visit:
    return Visit(request, registry, visitor)


Visiting = Annotated[Visit, Depends(_make_visit)]


def give_cookie(request: Request, response: Response, secret: str) -> None:
    """Set the cookie: no script reads it, and no form of another site sends it."""
    # A browser states it itself, where a proxy's headers are not trusted.
    secure = request.url.scheme == "https" or request.headers.get("Origin", "").startswith("https://")
    response.set_cookie(
        SECURE_COOKIE if secure else COOKIE,
        secret,
        max_age=int(SESSION.total_seconds()),
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def take_cookies(request: Request, response: Response) -> None:
    """Delete the cookies of a browser."""
    for name in {COOKIE, SECURE_COOKIE} & request.cookies.keys():
        response.delete_cookie(name, secure=name == SECURE_COOKIE, httponly=True, samesite="lax")


def make_visitor(visitor: Visitor) -> Visitor:
    """Return a visitor with a secret, a new one if there is none: a form needs one before anyone signs in."""
    return visitor if visitor.secret else Visitor(None, token_urlsafe(32))


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form that one of our pages sent.

    Raises:
        NotAllowed: If it comes from a page of another site.
        HTTPException: 415, if it is no form of ours.
        InvalidRequest: If a field is repeated, or there are too many.
    """
    origin = request.headers.get("Origin")
    # The host alone: behind a proxy whose headers are not trusted, the scheme is not known.
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        message = f"This form was sent from {origin[:100]}, which is another site. Open it here, and send it again."
        raise NotAllowed(message)
    given = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if given != FORM:
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Unsupported Content-Type {given[:100]!r}: send {FORM}."
        )
    try:
        pairs = parse_qsl(
            (await request.body()).decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"
        )
    except ValueError:
        message = (
            f"The form is not readable: it has at most {MOST_FIELDS} fields in UTF-8. Open it here, and send it again."
        )
        raise InvalidRequest(message) from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        message = "A field of the form is repeated. Open it here, and send it again."
        raise InvalidRequest(message)
    return {name: value.replace("\r\n", "\n") for name, value in fields.items()}


Fields = Annotated[Mapping[str, str], Depends(read_form)]


def check_form(request: Request, visitor: SeenVisitor, fields: Fields) -> Mapping[str, str]:
    """Return the fields of a form that a page sent to this browser holds.

    Raises:
        NotAllowed: If its token is that of another browser or session.
        TooManyRequests: If the person sent too many.
    """
    sent = fields.get(FORM_TOKEN, "")
    if not visitor.secret or not hmac.compare_digest(sent.encode(), visitor.form_token.encode()):
        message = "This form is of another session: you signed in or out since. Open it again, and send it."
        raise NotAllowed(message)
    if visitor.actor:
        limiter: Limiter = request.app.state.limiter
        limiter.take("token", visitor.actor.name, request.state.limits_applied)
    return fields


CheckedFields = Annotated[Mapping[str, str], Depends(check_form)]


def sign_in(request: Request, registry: Registry, secret: str) -> tuple[Actor, str]:
    """Return a token's owner and the secret of a new session; wrong tokens count as they do over REST.

    Raises:
        NotAuthenticated: If the token is invalid.
        TooManyRequests: If the address sent too many invalid ones.
    """
    limiter, state = request.app.state.limiter, request.state
    limiter.require_left("failed", state.address, state.limits_applied)
    try:
        return registry.tokens.sign_in(secret)
    except NotAuthenticated:
        limiter.take("failed", state.address, state.limits_applied)
        raise


def parse_fields(form: type[Form], fields: Mapping[str, str], *names: str) -> Form:
    """Return fields of a form, validated as the body of the request of the same meaning.

    Raises:
        InvalidRequest: Naming the first bad field.
    """
    try:
        return form.model_validate({name: fields.get(name, "") for name in names})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        message = f"{field.capitalize()}: {describe_problem(first)}."
        raise InvalidRequest(message, field=field) from None


def go_to(request: Request, *path: object) -> Response:
    """Return the redirection to a page, after a form."""
    link = join_link(str(request.scope.get("root_path", "")), *path)
    return RedirectResponse(link, HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})
