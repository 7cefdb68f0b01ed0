"""People who want more than they may: guessed tokens, other people's submissions, one's own reviewed, higher roles."""

import base64
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
from attack import attacked, refused
from sqlalchemy import update

from loradar.domain.identities import Actor
from loradar.registry.db import tables
from loradar.settings import RequestLimits

WRONG = "lrd_" + "A" * 43
NUMBERS = iter(range(10_000))
NOT_THERE = f"/v1/mappings/sha256:{'0' * 64}"

MAY = {
    "contributor": (("POST", "/v1/submissions"), ("POST", "/v1/submissions/1/withdrawal"), ("GET", "/v1/tokens/me")),
    "reviewer": (
        ("POST", "/v1/submissions/1/reviews"),
        ("POST", f"{NOT_THERE}/yank"),
        ("POST", f"{NOT_THERE}/restoration"),
    ),
    "admin": (("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("POST", "/v1/tokens/1/revocation")),
}
"""What each role adds to the one before."""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One service for those who are not many."""
    with attacked(tmp_path_factory.mktemp("people")) as target:
        yield target


def submit(service, by="contributor"):
    """Return the number of something new that waits for a review."""
    made = service.submit({"name": f"model{next(NUMBERS)}", "target_modules": ["q_proj"]}, by)
    service.settle(made.json()["id"])
    return made.json()["id"]


def approve(service, number, by, **headers):
    """Try to approve a submission."""
    ruling = {"decision": "approve", "comment": "Good."}
    return service.send("POST", f"/v1/submissions/{number}/reviews", by, json=ruling, headers=headers)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "bearer",
        f"Bearer {WRONG}",
        f"Token {WRONG}",
        f"Basic {base64.b64encode(b'admin:admin').decode()}",
        "Basic ",
        "Bearer null",
        "Bearer undefined",
        "Bearer lrd_",
        "Bearer ' OR '1'='1",
        "Bearer lrd_%",
        "Bearer " + "a" * 30_000,
        "Bearer \xff\xfe",
        "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ.",
        f"Bearer {WRONG}, Bearer {WRONG}",
        "Digest username=admin",
        "Negotiate TlRMTVNTUAAB",
    ],
)
def test_who_is_not_known_is_refused(service, header):
    """401 with the challenge, on every route that takes a token; what was sent is nowhere to be read again."""
    for method, path in (route for routes in MAY.values() for route in routes):
        with service.unharmed(lines=int(method == "POST")):
            told = f"\nAuthorization: {header}" if header is not None else ""
            answer = service.raw(f"{method} {path} HTTP/1.1{told}")
            assert refused(answer, 401) == "not_authenticated"
            assert dict(answer.headers)["www-authenticate"] == 'Bearer realm="loradar"'
            assert WRONG not in answer.content.decode() + "".join(service.log)


def test_a_token_is_looked_at_where_it_belongs(service):
    """Neither in the query, a cookie, the body nor another header; nor is part of one enough."""
    secret = service.secrets["admin"]
    with service.unharmed(lines=0):
        for path in (f"/v1/tokens?access_token={secret}", f"/v1/tokens?token={secret}"):
            refused(service.send("GET", path), 401)
        for header in ("Cookie", "X-Api-Key", "Proxy-Authorization", "X-Authorization"):
            value = f"token={secret}" if header == "Cookie" else f"Bearer {secret}"
            refused(service.send("GET", "/v1/tokens", headers={header: value}), 401)
        for part in (secret[:-1], secret[:10], secret + "A", secret.swapcase(), secret[4:], f"{secret} x"):
            refused(service.send("GET", "/v1/tokens", headers={"Authorization": f"Bearer {part}"}), 401)


def test_guessing_tokens_comes_to_an_end(tmp_path):
    """After the limit of an address, no token of it is looked at: not even a right one gets in among the guesses."""
    with attacked(tmp_path, RequestLimits(10**6, 10**6, 5, 10**6)) as service:
        guess = {"Authorization": f"Bearer {WRONG}"}
        with service.unharmed(lines=12):
            answers = [service.send("POST", "/v1/tokens", headers=guess, json={}) for _ in range(12)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 7
        assert refused(answers[-1], 429) == "too_many_requests"
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        assert '"failed";r=0' in answers[-1].headers["RateLimit"]
        refused(service.send("GET", "/v1/tokens", "admin"), 429)
        refused(service.send("GET", "/v1/tokens/me", "contributor", headers={"X-Forwarded-For": "6.6.6.6"}), 429)


def test_one_address_cannot_ask_for_ever(tmp_path):
    """429 for whatever it asks, in the one shape; before its body is read or its token looked at."""
    with attacked(tmp_path, RequestLimits(20, 10**6, 10**6, 10**6)) as service:
        before = service.content()
        answers = [service.send("GET", "/v1/targets/llama") for _ in range(25)]
        assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 5
        assert refused(answers[-1], 429) == "too_many_requests"
        head = "POST /v1/submissions HTTP/1.1\nContent-Type: application/json\nContent-Length: 100000000"
        refused(service.raw(head, by="admin"), 429)
        assert service.content() == before


def test_what_costs_more_counts_for_more(tmp_path):
    """A batch, a snapshot and a comparison with everything are many requests in one."""
    with attacked(tmp_path, RequestLimits(60, 10**6, 10**6, 10**6)) as service:
        before = service.content()
        batch = {"questions": [{"model_type": f"model{number}"} for number in range(256)]}
        left = [
            service.send(method, path, json=body).headers["RateLimit"]
            for method, path, body in (
                ("GET", "/v1/architectures/transformers/llama/similar", None),
                ("POST", "/v1/targets:batch", batch),
                ("GET", "/v1/targets/llama", None),
            )
        ]
        assert [told.partition(";")[2].partition(";")[0] for told in left] == ["r=55", "r=25", "r=24"]
        refused(service.send("POST", "/v1/targets:batch", json=batch), 429)
        assert service.content() == before


def test_one_person_cannot_ask_for_ever(tmp_path):
    """With two tokens no more than with one; others may go on."""
    with attacked(tmp_path, RequestLimits(10**6, 6, 10**6, 10**6)) as service:
        second = service.registry.tokens.create("contributor", "contributor")[1]
        before = service.content()
        answers = [service.send("GET", "/v1/tokens/me", "contributor").status_code for _ in range(4)]
        more = [
            service.send("GET", "/v1/tokens/me", headers={"Authorization": f"Bearer {second}"}).status_code
            for _ in range(4)
        ]
        assert answers + more == [200] * 6 + [429] * 2
        assert service.send("GET", "/v1/tokens/me", "other").status_code == 200
        assert service.content() == before


def test_scans_are_counted_apart(tmp_path):
    """They cost more than anything else that is open to all."""
    with attacked(tmp_path, RequestLimits(10**6, 10**6, 10**6, 3)) as service, service.unharmed(lines=5):
        sent = [
            service.send("POST", "/v1/scan", content=b"[", headers={"Content-Type": "text/plain"}) for _ in range(3)
        ]
        assert {answer.status_code for answer in sent} == {415}
        head = "POST /v1/scan HTTP/1.1\nContent-Type: application/json\nContent-Length: 100000000"
        assert {service.raw(head).status for _ in range(2)} == {413}


@pytest.mark.parametrize("role", ["contributor", "reviewer"])
def test_no_role_does_what_a_higher_one_does(service, role):
    """403 naming the role it takes, on every route; and nothing a request says of itself makes it another."""
    higher = list(MAY)[list(MAY).index(role) + 1 :]
    for method, path in (route for other in higher for route in MAY[other]):
        body = {"decision": "approve", "comment": "Good."} if "reviews" in path else {"reason": "No."}
        body = {"name": "eve", "role": "admin"} if path == "/v1/tokens" else body
        with service.unharmed(lines=int(method == "POST")):
            answer = service.send(
                method,
                f"{path}?role=admin",
                role,
                headers={"X-Role": "admin", "X-User": "admin", "Content-Type": "application/json"},
                content=json.dumps(body) if method == "POST" else None,
            )
            assert refused(answer, 403) == "not_allowed"
            assert answer.json()["error"]["details"]["role"] == role


def test_nobody_makes_a_token_for_loradar_itself(service):
    """Its names are what writes without a token; a name says who somebody is, so it cannot be another spelling."""
    for name in ("local", "loradar", "loradar-drift", "LOCAL", "Local", "local ", "l\u043ecal", "admin\n", ""):
        with service.unharmed():
            refused(service.send("POST", "/v1/tokens", "admin", json={"name": name, "role": "admin"}), 422)


@pytest.mark.parametrize("who", ["contributor", "reviewer", "admin"])
def test_nobody_reviews_their_own(service, who):
    """Whatever the role, and whichever of a person's tokens it comes with."""
    number = submit(service, who)
    secrets = [service.secrets[who]] if who != "contributor" else []
    secrets += [service.registry.tokens.create(who, role)[1] for role in ("reviewer", "admin")]
    for secret in secrets:
        with service.unharmed():
            ruling = {"decision": "approve", "comment": "Good."}
            answer = service.send(
                "POST", f"/v1/submissions/{number}/reviews", json=ruling, headers={"Authorization": f"Bearer {secret}"}
            )
            assert refused(answer, 403) == "not_allowed"
    assert service.send("GET", f"/v1/submissions/{number}").json()["status"] == "needs_review"


def test_a_submission_is_its_submitter_s(service):
    """Nobody else withdraws it but an admin; a reviewer rejects it instead, with their name to it."""
    number = submit(service)
    for who in ("other", "reviewer"):
        with service.unharmed():
            path = f"/v1/submissions/{number}/withdrawal"
            assert refused(service.send("POST", path, who, json={"reason": "No."}), 403) == "not_allowed"
    with service.unharmed():
        body = {"name": "mine", "target_modules": ["q_proj"], "submitter": "other", "id": number, "origin": "drift"}
        refused(service.submit(body), 422)


def test_nothing_is_decided_before_its_time_or_twice(service):
    """Not before the checks are through, not after the decision, not after it failed or was withdrawn."""
    checking = service.submit({"name": "early", "target_modules": ["q_proj"]}).json()["id"]
    failed = service.submit({"name": "failed", "target_modules": ["q_proj"]}).json()["id"]
    service.settle(failed, "It hits nothing.")
    done = submit(service)
    assert approve(service, done, "reviewer").status_code == 200
    gone = submit(service)
    assert (
        service.send("POST", f"/v1/submissions/{gone}/withdrawal", "contributor", json={"reason": "No."}).status_code
        == 200
    )
    for number in (checking, failed, done, gone):
        with service.unharmed():
            assert refused(approve(service, number, "reviewer"), 409) == "conflict"
    for number in (done, gone):
        with service.unharmed():
            answer = service.send("POST", f"/v1/submissions/{number}/withdrawal", "contributor", json={"reason": "No."})
            assert refused(answer, 409) == "conflict"


def test_an_approval_is_not_replayed(service):
    """A key of another reviewer gives nothing, and a second request with one's own does nothing more."""
    first, second = submit(service), submit(service)
    assert approve(service, first, "reviewer", **{"Idempotency-Key": "approve"}).status_code == 200
    with service.unharmed():
        assert refused(approve(service, second, "reviewer", **{"Idempotency-Key": "approve"}), 422) == "key_reused"
    with service.unharmed():
        assert refused(approve(service, first, "admin", **{"Idempotency-Key": "approve"}), 409) == "conflict"
    with service.unharmed(lines=0):
        assert approve(service, first, "reviewer", **{"Idempotency-Key": "approve"}).status_code == 200


def test_ten_at_once_do_it_once(service):
    """Requests that race: one is done, the others get its answer if they have its key, or a conflict."""

    def at_once(ask):
        with ThreadPoolExecutor(10) as pool:
            return [answer.result() for answer in [pool.submit(ask, number) for number in range(10)]]

    body, key = {"name": "raced", "target_modules": ["q_proj"]}, {"Idempotency-Key": "raced"}
    same = at_once(lambda _: service.submit(body, **key))
    assert {answer.status_code for answer in same} == {202}
    assert len({answer.json()["id"] for answer in same}) == 1
    others = at_once(lambda _: service.submit(body | {"name": "raced2"}))
    assert sorted(answer.status_code for answer in others) == [202] + [409] * 9
    number = submit(service)
    ruled = at_once(lambda turn: approve(service, number, ("reviewer", "admin")[turn % 2]))
    assert sorted(answer.status_code for answer in ruled) == [200] + [409] * 9
    yank = f"/v1/mappings/{service.send('GET', f'/v1/submissions/{number}').json()['mapping_id']}/yank"
    stale = {"If-Match": '"v1"'}
    yanked = at_once(lambda _: service.send("POST", yank, "reviewer", json={"reason": "No."}, headers=stale))
    assert sorted(answer.status_code for answer in yanked) == [200] + [412] * 9
    assert service.registry.verify_log().faults == ()


def test_a_hundred_open_submissions_are_enough(service, monkeypatch):
    """One person cannot bury the reviewers."""
    monkeypatch.setattr("loradar.registry.contributions.submissions.MAX_OPEN", 2)
    secret = service.registry.tokens.create("busy", "contributor")[1]
    headers = {"Authorization": f"Bearer {secret}"}
    for number in range(2):
        body = {"name": f"busy{number}", "target_modules": ["q_proj"]}
        assert service.send("POST", "/v1/submissions", json=body, headers=headers).status_code == 202
    with service.unharmed():
        body = {"name": "busy2", "target_modules": ["q_proj"]}
        assert refused(service.send("POST", "/v1/submissions", json=body, headers=headers), 409) == "conflict"


def test_five_hundred_submissions_a_day_are_enough(service, monkeypatch):
    """Nor can one fill the disk by taking each back: 429, and when to come again."""
    monkeypatch.setattr("loradar.registry.contributions.submissions.MAX_A_DAY", 2)
    secret = service.registry.tokens.create("restless", "contributor")[1]
    headers = {"Authorization": f"Bearer {secret}"}
    for number in range(2):
        body = {"name": f"restless{number}", "target_modules": ["q_proj"]}
        made = service.send("POST", "/v1/submissions", json=body, headers=headers).json()["id"]
        service.send("POST", f"/v1/submissions/{made}/withdrawal", json={"reason": "No."}, headers=headers)
    with service.unharmed():
        answer = service.send("POST", "/v1/submissions", json=body, headers=headers)
        assert refused(answer, 429) == "too_many_requests"
        assert answer.headers["Retry-After"] == "3600"


def test_the_same_is_not_submitted_twice(service):
    """Neither by the same person nor by another: 409 names the one that is open."""
    body = {"name": "same", "target_modules": ["q_proj"]}
    number = service.submit(body).json()["id"]
    for who in ("contributor", "other"):
        with service.unharmed():
            answer = service.submit(body | {"rationale": f"From {who}."}, who)
            assert refused(answer, 409) == "conflict"
            assert answer.json()["error"]["details"]["submission"] == number


@pytest.mark.parametrize("gone", ["revoked", "expired"])
def test_a_token_that_is_no_more_does_nothing(service, gone):
    """From the next request on, whatever its role was."""
    token, secret = service.registry.tokens.create("root", "admin")
    if gone == "revoked":
        service.registry.tokens.revoke(token.id, Actor("admin", "admin"))
    else:
        with service.registry._database.write("test", "test") as write:
            past = {"expires_at": "2020-01-01T00:00:00.000000Z"}
            write.change(update(tables.tokens).where(tables.tokens.c.id == token.id).values(**past))
    with service.unharmed():
        headers = {"Authorization": f"Bearer {secret}"}
        answer = service.send("POST", "/v1/tokens", json={"name": "eve", "role": "admin"}, headers=headers)
        assert refused(answer, 401) == "not_authenticated"
        assert secret not in answer.text


def test_no_secret_is_kept_or_told(service, caplog):
    """The database has digests, lists have the first ten characters, and no log has any of it."""
    caplog.set_level(logging.DEBUG)
    made = service.send("POST", "/v1/tokens", "admin", json={"name": "new", "role": "contributor"}).json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    service.send("POST", "/v1/tokens", json={"name": "eve", "role": "admin"}, headers=headers)
    secret = made["secret"].removeprefix("lrd_")
    assert secret[6:] not in str(service.content())
    assert secret[6:] not in service.send("GET", "/v1/tokens", "admin").text
    assert secret[6:] not in service.send("GET", "/v1/changes?limit=100").text
    assert secret[6:] not in caplog.text + "".join(service.log)


def test_what_is_open_to_all_tells_of_people_what_docs_say(service):
    """Names of those who wrote, and when; no addresses, tokens or roles of others."""
    submit(service)
    hidden = ("127.0.0.1", "last_used", "expires_at", *service.secrets.values())
    for path in ("/v1/changes?limit=100", "/v1/submissions", "/metrics", "/readyz", "/v1/mappings", "/v1/snapshot"):
        text = service.send("GET", path).text
        assert not [word for word in hidden if word in text], path
