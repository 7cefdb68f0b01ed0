"""Lookups from memory: rendered once, the same as from the database, and never older than the registry."""

import pytest
from records_zoo import make_scan, proposal
from starlette.testclient import TestClient

from loradar.api import create_app, stored_responses
from loradar.registry import Registry

URL = "/v1/targets/llama"


@pytest.fixture
def lookups(monkeypatch):
    """The names that the registry was asked for."""
    asked, lookup = [], Registry.lookup

    def note(registry, name, *args, **choice):
        asked.append(name)
        return lookup(registry, name, *args, **choice)

    monkeypatch.setattr(Registry, "lookup", note)
    return asked


@pytest.fixture
def settled(monkeypatch):
    """Let files be settled at once: the tests' registries are younger than a twentieth of a second."""
    monkeypatch.setattr("loradar.registry.db.watch.SETTLED", -1)


def without_quota(headers):
    """Return headers without what is left of the rate limit, and the id of the request."""
    return {name: value for name, value in headers.items() if name not in ("ratelimit", "x-request-id")}


@pytest.mark.usefixtures("settled")
def test_a_repeated_lookup_is_not_looked_up_again(client, lookups):
    """The same status, headers and bytes; each query has its own, in any method of asking again."""
    first, *others = [client.get(URL) for _ in range(4)]
    assert {other.content for other in others} == {first.content}
    assert all(without_quota(other.headers) == without_quota(first.headers) for other in others)
    assert len(lookups) == 2  # the first request only reads the serial
    assert client.get(URL, params={"preset": "mlp"}).content != first.content
    assert client.get(f"{URL}?preset=mlp&rank=16").json()["rank"] == 16


@pytest.mark.usefixtures("settled")
def test_a_client_that_has_it_gets_304(client, lookups):
    """Without a lookup, also where nobody asked before without a tag; another tag gets the whole."""
    tag = client.get(URL).headers["ETag"]
    answers = [client.get(URL, headers={"If-None-Match": value}) for value in (tag, f'"x", W/{tag}', "*", '"x"')]
    assert [answer.status_code for answer in answers] == [304, 304, 304, 200]
    assert {answer.headers["ETag"] for answer in answers} == {tag}
    assert [answer.content for answer in answers[:3]] == [b""] * 3
    assert "Content-Length" not in answers[1].headers
    assert len(lookups) == 2


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("path", [URL, "/architectures/transformers/llama"])
def test_a_response_is_compressed_for_who_accepts_that(client, path):
    """First and from memory: each form has its own tag and length, and says that there is another."""
    forms = {}
    for accepted in ("gzip, br", "identity", "gzip;q=0, *") * 3:
        asked = {"Accept": "text/html", "Accept-Encoding": accepted}
        answer = client.get(path, headers=asked)
        assert ("Content-Encoding" in answer.headers) == (accepted == "gzip, br")
        assert "Accept-Encoding" in answer.headers["Vary"]
        again = client.get(path, headers={**asked, "If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.headers["Vary"]) == (304, answer.headers["Vary"])
        assert "Content-Encoding" not in again.headers
        size = client.head(path, headers=asked).headers["Content-Length"]
        forms.setdefault(answer.headers["ETag"], set()).add((answer.headers["Content-Length"], size, answer.content))
    (plain,), (packed,) = sorted(forms.values(), key=lambda form: -int(next(iter(form))[0]))
    assert plain[2] == packed[2]
    assert [plain[0], packed[0]] == [plain[1], packed[1]]
    assert 2 * int(packed[0]) < int(plain[0]) == len(plain[2])


def test_a_change_is_served_at_once(seeded_settings, lookups):
    """Made by this process or another, however soon after the last: never an older answer."""
    with Registry.open(seeded_settings) as other, TestClient(create_app(seeded_settings)) as client:
        for target in ["q_proj", "k_proj"] * 10:
            other.add_scan(make_scan("zaza", proposals=(proposal(target),)))
            for _ in range(3):
                assert client.get("/v1/targets/zaza").json()["target_modules"] == [target]
    assert len(lookups) >= 20


@pytest.mark.usefixtures("settled")
def test_nothing_is_answered_from_memory_once_the_registry_is_gone(client, seeded_settings):
    """503, as before; and answers again when the file is back."""
    assert [client.get(URL).status_code for _ in range(3)] == [200] * 3
    file = seeded_settings.home / "registry.sqlite3"
    away = file.rename(file.with_suffix(".away"))
    assert client.get(URL).status_code == 503
    away.rename(file)
    assert client.get(URL).status_code == 200


@pytest.mark.usefixtures("settled")
def test_errors_and_other_methods_are_not_stored(client, lookups):
    """A miss is looked up each time; a write to the same path is no lookup."""
    assert [client.get("/v1/targets/none-such").status_code for _ in range(3)] == [404] * 3
    assert lookups.count("none-such") == 3
    assert [client.get(URL).status_code for _ in range(3)] == [200] * 3
    assert client.post(URL).status_code == 405


@pytest.mark.usefixtures("settled")
def test_stored_responses_are_counted_and_limited(client):
    """Under their route, and for the client's address."""
    left = [int(client.get(URL).headers["RateLimit"].split("r=")[1].split(";")[0]) for _ in range(4)]
    assert left == [*range(left[0], left[0] - 4, -1)]
    metrics = client.get("/metrics").text
    assert 'loradar_http_requests_total{method="GET",route="/v1/targets/{model_type}",status="200"} 4.0' in metrics


@pytest.mark.usefixtures("settled")
def test_the_oldest_make_room(client, lookups, monkeypatch):
    """A client that invents queries fills no memory."""
    size = len(client.get(URL).content)
    monkeypatch.setattr(stored_responses, "MOST_BYTES", 3 * size)
    for rank in range(1, 12):
        client.get(URL, params={"rank": rank})
    (kept,) = _find(client.app.middleware_stack, stored_responses.StoredResponses)
    assert 0 < kept._size == sum(len(each.body) for each in kept._stored.values()) <= 3 * size
    lookups.clear()
    client.get(URL, params={"rank": 11})
    assert not lookups
    client.get(URL, params={"rank": 2})
    assert lookups


def _find(app, kind):
    """Yield the middleware of a class, of those around an application."""
    while app is not None:
        if isinstance(app, kind):
            yield app
        app = getattr(app, "_app", None) or getattr(app, "app", None)
