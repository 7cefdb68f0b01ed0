"""Limits: counted by address and by token, told on every answer, and strict with who guesses."""

import re
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.middleware import Limiter, client_of
from loradar.errors import InvalidRequest, TooManyRequests
from loradar.settings import LIMITS_VARIABLE, PROXIES_VARIABLE, WORKERS_VARIABLE, RequestLimits, Settings


@pytest.fixture
def limited(seeded_settings):
    """Make a client of a service with limits of its own."""
    opened = []

    def make(**limits):
        settings = Settings(seeded_settings.home, seeded_settings.database_url, limits=RequestLimits(**limits))
        client = TestClient(create_app(settings), raise_server_exceptions=False)
        opened.append(client)
        return client.__enter__()

    yield make
    for client in opened:
        client.__exit__(None, None, None)


def told(answer):
    """Return what the headers tell: for each policy (limit, what is left, seconds)."""
    policies = dict(re.findall(r'"(\w+)";q=(\d+);w=60', answer.headers["RateLimit-Policy"]))
    left = {
        name: (int(r), int(t)) for name, r, t in re.findall(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    }
    assert policies.keys() == left.keys()
    return {name: (int(quota), *left[name]) for name, quota in policies.items()}


def test_every_answer_tells_what_is_left(limited):
    """Those that fail too; a request more is one less."""
    client = limited(address=100)
    for number, path in enumerate(["/", "/v1/targets/llama", "/nowhere", "/v1/targets/lama", "/v1/tokens/me"], 1):
        limit, left, seconds = told(client.get(path))["address"]
        assert (limit, left) == (100, 100 - number)
        assert 1 <= seconds <= 60


def test_beyond_the_limit_nothing_is_answered(limited):
    """429 with ``Retry-After``, in the one shape, whatever is asked for."""
    client = limited(address=2)
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
    answer = client.post("/v1/scan", content=b"x" * 100)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["policy"]) == (429, "too_many_requests", "address")
    assert int(answer.headers["Retry-After"]) == error["details"]["retry_after"] <= 60
    assert told(answer)["address"][1] == 0


def test_a_probe_is_always_answered(limited):
    """A service behind a busy proxy is not taken for dead; a probe counts for nobody."""
    client = limited(address=1)
    answers = [client.get(path) for path in ("/readyz", "/healthz", "/", "/", "/readyz", "/healthz")]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 200, 200]
    assert "RateLimit" not in answers[0].headers


def test_a_person_has_a_limit_whatever_the_token(limited, registry):
    """Two tokens of one name count together; somebody else's do not."""
    client = limited(token=3)
    mine = [registry.tokens.create("ada", "contributor")[1] for _ in range(2)]
    other = registry.tokens.create("bob", "contributor")[1]
    answers = [client.get("/v1/tokens/me", headers={"Authorization": f"Bearer {mine[n % 2]}"}) for n in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert told(answers[3])["token"][1] == 0
    assert client.get("/v1/tokens/me", headers={"Authorization": f"Bearer {other}"}).status_code == 200


def test_who_guesses_is_soon_not_listened_to(limited, registry, monkeypatch):
    """A few wrong tokens, and none of that address is looked at, not even a right one; reads go on."""
    client = limited(failed=3)
    right = registry.tokens.create("ada", "contributor")[1]
    wrong = [client.get("/v1/tokens/me", headers={"Authorization": f"Bearer lrd_{n}"}) for n in range(3)]
    assert [answer.status_code for answer in wrong] == [401] * 3
    monkeypatch.setattr(
        "loradar.registry.contributions.tokens.Tokens.authenticate", None
    )  # would fail if it were asked
    answer = client.get("/v1/tokens/me", headers={"Authorization": f"Bearer {right}"})
    assert (answer.status_code, answer.json()["error"]["details"]["policy"]) == (429, "failed")
    assert client.get("/v1/targets/llama").status_code == 200


def test_no_token_is_no_guess(limited):
    """Asking without one is answered with 401 as often as one likes."""
    client = limited(failed=1)
    assert {client.get("/v1/tokens/me").status_code for _ in range(4)} == {401}


def test_scans_have_a_limit_of_their_own(limited):
    """They cost; what is no scan does not count."""
    client = limited(scan=1)
    statuses = [
        client.post("/v1/scan", content=b"{", headers={"Content-Type": "text/plain"}).status_code for _ in range(3)
    ]
    assert statuses == [415] * 3
    client.app.state.workers.scans.close()
    client.post("/v1/scan", json={"reference": "transformers:llama"})
    answer = client.post("/v1/scan", json={"reference": "transformers:llama"})
    assert (answer.status_code, answer.json()["error"]["details"]["policy"]) == (429, "scan")


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_is_what_one_customer_has(host, counted):
    """One IPv4 address, one IPv6 network of /64."""
    assert client_of({"client": (host, 1)}) == counted
    assert client_of({"client": None}) == "unknown"


def test_windows_end(monkeypatch):
    """What was too many is allowed again a minute later, whatever the time of day; ended windows are forgotten."""
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=1000.0)  # without the time of day
    monkeypatch.setattr("loradar.api.middleware.time", clock)
    limiter, met = Limiter(RequestLimits(address=1)), {}
    limiter.take("address", "a", met)
    with pytest.raises(TooManyRequests, match=r"More than 1 requests from your address .* again in \d+ s"):
        limiter.take("address", "a", met)
    clock.now += 59.5
    with pytest.raises(TooManyRequests, match="again in 1 s"):
        limiter.require_left("address", "a", met)
    clock.now += 0.5
    limiter.require_left("address", "a", met)
    limiter.take("address", "b", met)
    assert [*limiter._windows] == [("address", "b")]
    limiter.take("address", "a", met)
    assert met["address"] == (0, 60)


def test_limits_are_read_from_the_environment(tmp_path):
    """Those left out keep what they are."""
    environment = {
        "LORADAR_HOME": str(tmp_path),
        LIMITS_VARIABLE: "scan=3, address=1000",
        WORKERS_VARIABLE: "4",
        PROXIES_VARIABLE: "10.0.0.0/8",
    }
    settings = Settings.from_environment(environment)
    assert asdict(settings.limits) == {"address": 1000, "token": 300, "failed": 10, "scan": 3}
    assert (settings.workers, settings.trusted_proxies) == (4, "10.0.0.0/8")


def test_every_proxy_may_be_trusted(tmp_path):
    """Several parts are joined as the server takes them."""
    environment = {"LORADAR_HOME": str(tmp_path), PROXIES_VARIABLE: " ::1 , 10.0.0.0/8,*"}
    assert Settings.from_environment(environment).trusted_proxies == "::1,10.0.0.0/8,*"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (LIMITS_VARIABLE, "adress=5"),
        (LIMITS_VARIABLE, "scan=0"),
        (LIMITS_VARIABLE, "scan"),
        (LIMITS_VARIABLE, "scan=-1"),
        (PROXIES_VARIABLE, "nginx"),
        (PROXIES_VARIABLE, "10.0.0.1/8"),
        (WORKERS_VARIABLE, "many"),
        (WORKERS_VARIABLE, "0"),
    ],
)
def test_what_is_no_limit_is_refused(tmp_path, variable, value):
    """The message names the variable and what would do."""
    with pytest.raises(InvalidRequest, match="give ") as caught:
        Settings.from_environment({"LORADAR_HOME": str(tmp_path), variable: value})
    assert variable in str(caught.value)
    assert repr(value) in str(caught.value)
