"""Signing in and out: a session for a token, in a cookie that only the browser sends."""

import pytest

from loradar.api.middleware import Limiter
from loradar.settings import RequestLimits


def cookie_of(response):
    """Return the parts of the one cookie that a response sets."""
    (cookie,) = response.headers.get_list("Set-Cookie")
    pair, *attributes = cookie.split("; ")
    name, _, value = pair.partition("=")
    return name, value, {attribute.lower() for attribute in attributes}


def test_a_token_is_exchanged_for_a_session(service, visit):
    """The cookie is for the browser alone, ends by itself, and is not the token."""
    person = visit()
    response = person.sign_in(service.tokens["contributor"])
    assert (response.status_code, response.headers["Location"]) == (303, "/submissions")
    name, value, attributes = cookie_of(response)
    assert name == "loradar"
    assert value != service.tokens["contributor"]
    assert attributes == {"httponly", "samesite=lax", "path=/", "max-age=43200"}
    page = person.read("/login")
    assert "You are signed in" in page.text
    assert "contributor" in page.text
    for path in ("/login", "/submissions", "/submissions/new"):
        html = person.read(path).html
        assert value not in html
        assert service.tokens["contributor"] not in html


@pytest.mark.parametrize(
    ("base_url", "headers"), [("https://testserver", {}), ("http://testserver", {"Origin": "https://testserver"})]
)
def test_over_https_the_cookie_is_for_https_alone(service, visit, base_url, headers):
    """Also behind a proxy whose headers are not trusted: the browser's own Origin tells."""
    person = visit(base_url=base_url)
    fields = person.fill(person.read("/login"), "/login", token=service.tokens["contributor"])
    name, _, attributes = cookie_of(person.post("/login", fields, **headers))
    assert name == "__Host-loradar"
    assert {"secure", "path=/", "httponly"} <= attributes


def test_a_wrong_token_is_no_session(service, visit):
    """401 on the same page, which says so and does not repeat the token."""
    person, wrong = visit(), "lrd_" + "A" * 43
    response = person.sign_in(wrong)
    assert response.status_code == 401
    assert "Unknown token" in response.text
    assert wrong not in response.text
    assert "Set-Cookie" not in response.headers
    assert "Your token" in person.read("/login").text
    assert person.sign_in(f"  {service.tokens['reviewer']}\n").status_code == 303


@pytest.mark.parametrize(
    ("after", "goes_to"),
    [
        ("/submissions/7", "/submissions/7"),
        ("/submissions/new", "/submissions/new"),
        ("//evil.example", "/submissions"),
        ("https://evil.example", "/submissions"),
        ("/%5Cevil.example", "/submissions"),
        ("/%09/evil.example", "/submissions"),
        ("javascript:alert(1)", "/submissions"),
        ("/submissions%0d%0aX-Evil:1", "/submissions"),
        ("/login?x=//evil", "/submissions"),
    ],
)
def test_nobody_is_led_elsewhere_after_signing_in(service, visit, after, goes_to):
    """Only a path of this service is followed."""
    response = visit().sign_in(service.tokens["contributor"], after)
    assert (response.status_code, response.headers["Location"]) == (303, goes_to)


def test_signing_out_ends_the_session_on_the_service(visit):
    """A copy of the cookie is worth nothing after it."""
    person = visit("reviewer")
    session = person.client.cookies["loradar"]
    response = person.send(person.read("/login"), "/logout")
    assert (response.status_code, response.headers["Location"]) == (303, "/login")
    assert "loradar" not in person.client.cookies
    person.client.cookies["loradar"] = session
    assert "You are signed in" not in person.read("/login").text


def test_signing_in_again_ends_the_session_before(service, visit):
    """The secret changes with the person."""
    person = visit("reviewer")
    before = person.client.cookies["loradar"]
    # The page of somebody signed in has no form for a token: it is that of another tab.
    fields = person.fill(person.read("/login"), "/logout", token=service.tokens["admin"])
    assert person.post("/login", fields).status_code == 303
    assert "admin" in person.read("/login").text
    person.client.cookies.clear()
    person.client.cookies["loradar"] = before
    assert "You are signed in" not in person.read("/login").text


def test_what_depends_on_the_person_is_stored_nowhere(visit):
    """Neither by the service nor by a cache between."""
    ada, nobody = visit("contributor"), visit()
    for path in ("/login", "/submissions", "/submissions/new"):
        assert ada.client.get(path).headers["Cache-Control"] == "no-store"
        assert "Signed in as" not in nobody.read(path).text
    assert visit("reviewer").client.get("/submissions").text.count("reviewer") > 0


def test_guessing_comes_to_an_end(service, visit, monkeypatch):
    """As over REST: after the failures of a minute, tokens from the address are not looked at."""
    monkeypatch.setitem(service.client.app.state._state, "limiter", Limiter(RequestLimits(failed=2)))
    person = visit()
    answers = [person.sign_in("lrd_wrong").status_code for _ in range(3)]
    assert answers == [401, 401, 429]
    assert person.sign_in(service.tokens["contributor"]).status_code == 429


def test_a_program_is_told_who_it_is(service):
    """The JSON twin takes a token, and no cookie."""
    client = service.client
    assert client.get("/login", headers=service.as_("reviewer")).json()["role"] == "reviewer"
    assert client.get("/login").status_code == 401
