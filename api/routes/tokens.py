"""``/v1/tokens``: create, list and revoke tokens."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import JSONResponse

from ...domain.identities import Actor, NewToken, Token, TokenList
from ...schema import to_json
from ..dependencies import LARGEST_NUMBER, Admin, Anybody, OpenRegistry
from ..errors import WRITES, error_responses
from ..requests import StrictRoute, TokenRequest

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], route_class=StrictRoute)

TokenId = Annotated[int, Path(ge=1, le=LARGEST_NUMBER, description="Number of the token", examples=[2])]

PRIVATE = {"Cache-Control": "no-store"}


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Create a token",
    responses={
        201: {
            "model": NewToken,
            "description": "The token and its secret, which cannot be read again",
            "links": {
                "revoke": {"operationId": "revoke_token", "parameters": {"token_id": "$response.body#/token/id"}}
            },
        },
        **WRITES,
    },
)
def create_token(registry: OpenRegistry, by: Admin, body: TokenRequest) -> JSONResponse:
    """Create a token for a person; the response has the secret, which is stored hashed and shown once. For admins."""
    token, secret = registry.backend(by).create_token(body.name, body.role, body.expires_days)
    return JSONResponse(to_json(NewToken(token, secret)), HTTPStatus.CREATED, PRIVATE)


@router.get(
    "", summary="List tokens", responses={200: {"model": TokenList, "description": "All"}, **error_responses(401, 403)}
)
def list_tokens(registry: OpenRegistry, by: Admin) -> JSONResponse:
    """Return every token ever created, without secrets. For admins."""
    return JSONResponse(to_json(TokenList(registry.backend(by).tokens())), headers=PRIVATE)


@router.get(
    "/me",
    summary="Get the token's owner",
    responses={200: {"model": Actor, "description": "Name and role"}, **error_responses(401)},
)
def get_me(by: Anybody) -> JSONResponse:
    """Return the name and role of the owner of the request's token."""
    return JSONResponse(to_json(by), headers=PRIVATE)


@router.post(
    "/{token_id}/revocation",
    summary="Revoke a token",
    responses={200: {"model": Token, "description": "The token, revoked"}, **error_responses(401, 403, 404, 409)},
)
def revoke_token(registry: OpenRegistry, by: Admin, token_id: TokenId) -> JSONResponse:
    """Revoke a token. For admins."""
    return JSONResponse(to_json(registry.backend(by).revoke_token(token_id)), headers=PRIVATE)
