"""Tokens: made, shown once, used, expired, revoked."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from loradar.domain.identities import LOCAL, Actor
from loradar.errors import Conflict, InvalidRequest, NotAuthenticated, UnknownToken
from loradar.registry.contributions import tokens as tokens_module
from loradar.registry.db import tables


def rows_of(registry, table):
    """Return every column of every row."""
    with registry._database.read() as connection:
        return connection.execute(select(table)).mappings().all()


def stored(registry):
    """Return every column of every token."""
    return rows_of(registry, tables.tokens)


def test_a_token_tells_who_writes(any_registry):
    """The name and the role it was made with."""
    token, secret = any_registry.tokens.create("ada", "contributor")
    assert any_registry.tokens.authenticate(secret) == Actor("ada", "contributor")
    assert (token.created_by, token.expires_at, token.revoked_at) == (LOCAL.name, None, None)
    assert secret.startswith(token.prefix)
    assert len(secret) - len(token.prefix) >= 32


def test_the_secret_is_not_kept(any_registry):
    """Whoever reads the database, or its log, cannot write with what is there."""
    _, secret = any_registry.tokens.create("ada", "admin")
    log = rows_of(any_registry, tables.changes)
    assert secret not in str([stored(any_registry), log])


def test_two_tokens_of_one_person_are_two(any_registry):
    """A new one is made before the old one is revoked."""
    secrets = {any_registry.tokens.create("ada", role)[1] for role in ("contributor", "reviewer")}
    assert len(secrets) == 2
    assert {any_registry.tokens.authenticate(secret).role for secret in secrets} == {"contributor", "reviewer"}


@pytest.mark.parametrize("secret", ["", "lrd_", "lrd_" + "A" * 43, "é\udcff", "x" * 10_000])
def test_an_unknown_token_is_refused(any_registry, secret):
    """Whatever it looks like, and without saying it again."""
    any_registry.tokens.create("ada", "admin")
    with pytest.raises(NotAuthenticated, match="loradar token create") as caught:
        any_registry.tokens.authenticate(secret)
    assert not secret or secret not in caught.value.message


def test_a_revoked_token_works_no_longer(any_registry):
    """From then on, for its one owner only; who did it is in the log."""
    token, secret = any_registry.tokens.create("ada", "reviewer")
    _, other = any_registry.tokens.create("bob", "reviewer")
    revoked = any_registry.tokens.revoke(token.id, Actor("eve", "admin"))
    assert revoked == any_registry.tokens.list()[0]
    with pytest.raises(NotAuthenticated, match="revoked at"):
        any_registry.tokens.authenticate(secret)
    assert any_registry.tokens.authenticate(other).name == "bob"
    (link,) = [row for row in rows_of(any_registry, tables.changes) if row["action"] == "token.revoke"]
    assert link["actor"] == "eve"


def test_a_token_is_revoked_once(any_registry):
    """The second time says since when."""
    token, _ = any_registry.tokens.create("ada", "reviewer")
    any_registry.tokens.revoke(token.id)
    with pytest.raises(Conflict, match="revoked at 20"):
        any_registry.tokens.revoke(token.id)
    with pytest.raises(UnknownToken, match="'7'"):
        any_registry.tokens.revoke(7)


def test_a_token_expires(any_registry):
    """At its time, which it tells."""
    _, secret = any_registry.tokens.create("ada", "reviewer", expires_in=timedelta(microseconds=1))
    with pytest.raises(NotAuthenticated, match="expired at 20"):
        any_registry.tokens.authenticate(secret)
    _, secret = any_registry.tokens.create("ada", "reviewer", expires_in=timedelta(days=1))
    assert any_registry.tokens.authenticate(secret).name == "ada"


def test_the_last_use_is_noted_but_not_each(any_registry, monkeypatch):
    """A minute is exact enough; using a token is no change of the registry."""
    token, secret = any_registry.tokens.create("ada", "reviewer")
    assert token.last_used_at is None
    serial = any_registry.serial()
    any_registry.tokens.authenticate(secret)
    first = any_registry.tokens.list()[0].last_used_at
    any_registry.tokens.authenticate(secret)
    assert first is not None
    assert any_registry.tokens.list()[0].last_used_at == first
    monkeypatch.setattr(tokens_module, "USE_NOTED_EVERY", timedelta())
    any_registry.tokens.authenticate(secret)
    assert any_registry.tokens.list()[0].last_used_at > first
    assert any_registry.serial() == serial


@pytest.mark.parametrize(
    "name", ["", "Ada", "\u0430da", "a b", "-a", "a\n", "a" * 65, "../a", "local", "loradar", "a;--"]
)
def test_a_name_nobody_can_mistake(any_registry, name):
    """Lower case ASCII only: two names that look alike are two people; loradar's own are taken."""
    with pytest.raises(InvalidRequest, match="name"):
        any_registry.tokens.create(name, "contributor")
    assert not stored(any_registry)


@pytest.mark.parametrize(
    ("role", "expires_in", "says"),
    [
        ("root", None, "Unknown role 'root'"),
        ("admin", timedelta(0), "0 days"),
        ("admin", timedelta(days=-1), "-1 days"),
        ("admin", timedelta(days=4000), "4000 days"),
    ],
)
def test_what_cannot_be_is_refused(any_registry, role, expires_in, says):
    """And nothing is made."""
    with pytest.raises(InvalidRequest, match=says):
        any_registry.tokens.create("ada", role, expires_in=expires_in)
    assert not stored(any_registry)


def test_a_role_includes_those_below_it():
    """An admin may review, a reviewer may contribute, not the other way."""
    assert [Actor("a", "reviewer").may(role) for role in ("contributor", "reviewer", "admin")] == [True, True, False]


def test_a_session_stands_for_its_token(any_registry):
    """Who signs in is who the token says; a session is no token, and its secret is not kept."""
    _, secret = any_registry.tokens.create("ada", "reviewer")
    actor, session = any_registry.tokens.sign_in(secret)
    assert actor == any_registry.tokens.authenticate_session(session) == Actor("ada", "reviewer")
    assert session not in str(rows_of(any_registry, tables.sessions))
    for wrong in (secret, "", session[:-1]):
        with pytest.raises(NotAuthenticated, match="signed out"):
            any_registry.tokens.authenticate_session(wrong)
    with pytest.raises(NotAuthenticated, match="Unknown token"):
        any_registry.tokens.authenticate(session)


def test_signing_out_ends_one_session(any_registry):
    """The one on another machine goes on."""
    _, secret = any_registry.tokens.create("ada", "reviewer")
    (_, here), (_, there) = any_registry.tokens.sign_in(secret), any_registry.tokens.sign_in(secret)
    any_registry.tokens.sign_out(here)
    any_registry.tokens.sign_out(here)
    with pytest.raises(NotAuthenticated, match="signed out"):
        any_registry.tokens.authenticate_session(here)
    assert any_registry.tokens.authenticate_session(there).name == "ada"


def test_a_session_ends_with_its_token(any_registry):
    """Revoking a token leaves nobody signed in by it."""
    token, secret = any_registry.tokens.create("ada", "reviewer")
    _, session = any_registry.tokens.sign_in(secret)
    any_registry.tokens.revoke(token.id)
    with pytest.raises(NotAuthenticated, match="revoked at"):
        any_registry.tokens.authenticate_session(session)


def test_sessions_end_and_are_deleted(any_registry, monkeypatch):
    """After their time, by the next person who signs in; signing in is no change of the registry."""
    _, secret = any_registry.tokens.create("ada", "reviewer")
    serial = any_registry.serial()
    with monkeypatch.context() as patch:
        patch.setattr(tokens_module, "SESSION", timedelta(microseconds=1))
        _, over = any_registry.tokens.sign_in(secret)
    with pytest.raises(NotAuthenticated, match="signed out"):
        any_registry.tokens.authenticate_session(over)
    any_registry.tokens.sign_in(secret)
    assert len(rows_of(any_registry, tables.sessions)) == 1
    assert any_registry.serial() == serial
