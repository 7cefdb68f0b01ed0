"""``/v1/tokens``: who may, who may not, and what is shown of a secret."""

import pytest
from shapes import documented

from loradar.domain.identities import NewToken, Token, TokenList
from loradar.error_body import ErrorBody


def test_a_token_is_made_shown_once_and_works(service):
    """The secret is in the answer to its making and in no other; nothing may keep that answer."""
    made = service.post("/v1/tokens", {"name": "ada", "role": "reviewer", "expires_days": 30}, "admin")
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    body = documented(NewToken, made.json())
    me = service.client.get("/v1/tokens/me", headers={"Authorization": f"Bearer {body.secret}"})
    assert me.json() == {"name": "ada", "role": "reviewer"}
    listed = service.client.get("/v1/tokens", headers=service.as_("admin"))
    assert documented(TokenList, listed.json()).tokens[-1].created_by == "admin"
    assert body.secret not in listed.text


def test_a_revoked_token_works_no_longer(service):
    """From the next request on; revoking twice is a conflict, and what is not there cannot be revoked."""
    made = service.post("/v1/tokens", {"name": "bob", "role": "contributor"}, "admin").json()
    path = f"/v1/tokens/{made['token']['id']}/revocation"
    assert documented(Token, service.post(path, {}, "admin").json()).revoked_at
    answer = service.client.get("/v1/tokens/me", headers={"Authorization": f"Bearer {made['secret']}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_authenticated")
    assert service.post(path, {}, "admin").status_code == 409
    assert service.post("/v1/tokens/999999/revocation", {}, "admin").json()["error"]["code"] == "unknown_token"


@pytest.mark.parametrize("name", ["contributor", "reviewer"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/tokens"), ("GET", "/v1/tokens"), ("POST", "/v1/tokens/1/revocation")]
)
def test_only_an_admin_may(service, name, method, path):
    """403 names the role that is needed; nothing was made."""
    body = {"name": "eve", "role": "admin"} if method == "POST" else None
    before = len(service.registry.tokens.list())
    answer = service.client.request(method, path, json=body, headers=service.as_(name))
    assert answer.status_code == 403
    assert documented(ErrorBody, answer.json()).error.details["needs"] == "admin"
    assert len(service.registry.tokens.list()) == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer lrd_nothing"},
        {"Authorization": "Bearer ' OR 1=1 --"},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Authorization": "Bearer " + "a" * 8000},
    ],
)
def test_who_is_not_known_is_told_how_to_be(service, headers):
    """401 with the challenge that RFC 9110 asks for, whatever was sent instead of a token."""
    answer = service.client.get("/v1/tokens/me", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="loradar"'


@pytest.mark.parametrize(
    "body",
    [
        {"name": "Ada", "role": "admin"},
        {"name": "a" * 65, "role": "admin"},
        {"name": "аda", "role": "admin"},  # noqa: RUF001 - a Cyrillic letter
        {"name": "ada\r\nSet-Cookie: x", "role": "admin"},
        {"name": "local", "role": "admin"},
        {"name": "ada", "role": "owner"},
        {"name": "ada", "role": "admin", "expires_days": 0},
        {"name": "ada", "role": "admin", "expires_days": 1.5},
        {"name": "ada", "role": "admin", "hash": "x"},
        [],
    ],
)
def test_what_cannot_be_a_token_is_refused(service, body):
    """422 naming the field; nothing is made."""
    before = len(service.registry.tokens.list())
    answer = service.post("/v1/tokens", body, "admin")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert len(service.registry.tokens.list()) == before
