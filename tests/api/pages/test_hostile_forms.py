"""Forms from elsewhere, cookies of others and of nobody: what the pages for people do not let through."""

import pytest

FORMS = (
    "/login",
    "/logout",
    "/submissions/new",
    *(f"/submissions/1/{act}" for act in ("review", "withdrawal", "yank")),
)


@pytest.fixture
def unharmed(service):
    """Check after the test that nothing was written."""
    before = service.registry.serial()
    yield
    assert service.registry.serial() == before


@pytest.fixture
def reviewer(visit):
    """A reviewer's browser, and the fields that prove a form to be from there."""
    person = visit("reviewer")
    return person, person.fill(person.read("/login"), "/logout")


@pytest.mark.parametrize("path", [*FORMS, "/submissions/1/yank", "/submissions/1/restoration"])
@pytest.mark.usefixtures("unharmed")
def test_a_form_of_another_site_is_not_taken(reviewer, path):
    """Whatever it holds: 403 by its origin, and by its token where a browser tells no origin."""
    person, own = reviewer
    filled = own | {"name": "llama", "target_modules": "q_proj", "decision": "reject", "comment": "x", "reason": "x"}
    for origin in ("https://evil.example", "http://testserver.evil.example", "http://testserver:81", "null", ""):
        assert person.post(path, filled, Origin=origin).status_code == 403
    stranger = {name: value for name, value in filled.items() if name != "form_token"}
    for token in ({}, {"form_token": ""}, {"form_token": "0" * 64}, {"form_token": person.client.cookies["loradar"]}):
        assert person.client.post(path, data=stranger | token).status_code == 403
    assert "You are signed in" in person.read("/login").text


@pytest.mark.usefixtures("unharmed")
def test_the_token_of_a_form_is_that_of_its_browser(visit, reviewer):
    """Neither another person's, nor that of the time before signing in."""
    person, _ = reviewer
    other = visit("other")
    stolen = other.fill(other.read("/login"), "/logout")
    assert person.post("/logout", stolen).status_code == 403
    nobody = visit()
    assert person.post("/logout", nobody.fill(nobody.read("/login"), "/login")).status_code == 403


@pytest.mark.usefixtures("unharmed")
def test_a_cookie_is_no_token_of_the_api(service, visit):
    """Over REST a person is known by the header alone, which no other site can send."""
    person = visit("admin")
    session = person.client.cookies["loradar"]
    for method, path in (("POST", "/v1/submissions"), ("GET", "/v1/tokens"), ("GET", "/v1/tokens/me")):
        assert person.client.request(method, path, json={"llama": ["q_proj"]}).status_code == 401
        told = {"Authorization": f"Bearer {session}"}
        assert service.client.request(method, path, json={}, headers=told).status_code == 401


@pytest.mark.parametrize("cookie", ["", "x", "A" * 43, "A" * 10_000, "é", "' OR '1'='1", "lrd_" + "A" * 43])
@pytest.mark.usefixtures("unharmed")
def test_a_cookie_nobody_was_given_is_nobody(visit, cookie):
    """A page is read with it as without, and a form is not sent by it."""
    person = visit()
    sent = {"Cookie": f"loradar={cookie}".encode("latin-1")}
    assert "You are signed in" not in person.client.get("/login", headers=sent).text
    assert person.post("/submissions/new", {"form_token": ""}, **sent).status_code == 403


def test_a_token_is_no_session(service, visit):
    """Who has the token signs in with it; as a cookie it is nothing."""
    person = visit()
    person.client.cookies["loradar"] = service.tokens["admin"]
    assert "You are signed in" not in person.read("/login").text


@pytest.mark.usefixtures("unharmed")
def test_over_https_the_cookie_of_plain_http_is_not_taken(visit):
    """Any site below the same domain could have set it."""
    session = visit("admin").client.cookies["loradar"]
    person = visit(base_url="https://testserver")
    person.client.cookies["loradar"] = session
    assert "You are signed in" not in person.read("/login").text


def test_a_session_ends_with_its_token(service, visit):
    """Revoking it is enough: the next page knows nobody, and the next form is rejected."""
    token, secret = service.registry.tokens.create("mallory", "reviewer")
    person = visit()
    assert person.sign_in(secret).status_code == 303
    fields = person.fill(person.read("/login"), "/logout", name="llama", target_modules="q_proj")
    service.registry.tokens.revoke(token.id)
    assert "You are signed in" not in person.read("/login").text
    assert person.post("/submissions/new", fields).status_code == 401


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"a=1", "text/plain", 415),
        (b"a=1", "", 415),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", 415),
        (b"&".join([b"a%d=1" % n for n in range(40)]), "application/x-www-form-urlencoded", 422),
        (b"reason=a&reason=b", "application/x-www-form-urlencoded", 422),
        (b"reason=%ff%fe", "application/x-www-form-urlencoded", 422),
        (b"reason=\xff", "application/x-www-form-urlencoded", 422),
        (b"reason=" + b"x" * (65 << 10), "application/x-www-form-urlencoded", 413),
    ],
)
@pytest.mark.usefixtures("unharmed")
def test_what_is_no_form_of_ours_is_rejected(visit, content, kind, status):
    """By its kind, its size, its fields and their encoding, before anything is done."""
    person = visit("reviewer")
    response = person.client.post("/submissions/1/review", content=content, headers={"Content-Type": kind})
    assert response.status_code == status


def test_no_secret_of_a_person_is_logged_or_shown(service, visit, caplog):
    """Neither the token, nor the session, nor the token of a form; a rejected sign-in is a line with its route."""
    person = visit("contributor")
    session, secret = person.client.cookies["loradar"], service.tokens["contributor"]
    fields = person.fill(person.read("/login"), "/logout")
    answer = person.post("/login", fields | {"token": "lrd_wrong-one"})
    person.post("/submissions/new", fields | {"name": "no name", "target_modules": "q_proj"})
    assert "rejected POST /login: 401 not_authenticated" in caplog.text
    assert "rejected POST /submissions/new: 422 statement_refused" in caplog.text
    for hidden in (session, secret, fields["form_token"], "lrd_wrong-one"):
        assert hidden not in caplog.text
    for hidden in (session, secret, "lrd_wrong-one"):
        assert hidden not in answer.text
