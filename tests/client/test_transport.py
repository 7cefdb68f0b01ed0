"""What a client does between a call and a response: store, revalidate, repeat, and stay with one host."""

import json

import pytest
from records_zoo import make_scan
from scripted_server import ScriptedServer

from loradar.client import Client
from loradar.domain.mappings import Mapping
from loradar.errors import DatabaseUnusable, LoradarError, NotRegistered, ServiceUnreachable, TooManyRequests
from loradar.registry import Registry
from loradar.schema import to_json
from loradar.settings import Settings

TAGGED = {"ETag": '"1"', "Cache-Control": "public, max-age=60", "Date": "Sun, 29 Nov 2026 10:00:00 GMT"}
LATER = {"ETag": '"2"', "Date": "Sun, 29 Nov 2026 10:00:01 GMT"}
SECRET = "lrd_x"  # noqa: S105 - of nobody
NOT_CHANGED = (304, {"ETag": '"1"', "Cache-Control": "public, max-age=60"}, b"")


@pytest.fixture(scope="module")
def mapping(tmp_path_factory) -> Mapping:
    """A mapping, as a service would send it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("list_catalogs", "list_older"):
            patch.setattr(f"loradar.registry.catalogs.{name}", list)
        with Registry.open(Settings(tmp_path_factory.mktemp("own"), "sqlite://")) as registry:
            registry.add_scan(make_scan("mine"))
            return registry.lookup("mine")


@pytest.fixture
def sent(mapping):
    """The response with the mapping."""
    return 200, TAGGED, json.dumps(to_json(mapping)).encode()


@pytest.fixture
def server():
    """A server that answers as it is told to."""
    with ScriptedServer().running() as running:
        yield running


def failed(error: LoradarError, **headers: str):
    """Return the response of a service that cannot answer."""
    status = {DatabaseUnusable: 503, TooManyRequests: 429}[type(error)]
    return status, headers, json.dumps(error.to_dict()).encode()


def test_a_response_is_revalidated_by_its_tag(server, sent, mapping, home):
    """Also by the next process: the store is on disk, and its owner's alone."""
    server.answers = [sent, NOT_CHANGED]
    for _ in range(3):
        with Client(server.url) as client:
            assert client.targets("mine") == mapping
    assert [headers.get("if-none-match") for _, headers in server.asked] == [None, '"1"', '"1"']
    assert (home / "responses.sqlite3").stat().st_mode & 0o777 == 0o600


def test_a_changed_response_takes_the_place_of_the_stored_one(server, sent):
    """With its own tag."""
    changed = json.loads(sent[2]) | {"revision": 2}
    server.answers = [sent, (200, TAGGED | LATER, json.dumps(changed).encode()), (304, {"ETag": '"2"'}, b"")]
    with Client(server.url) as client:
        assert [client.targets("mine").revision for _ in range(3)] == [1, 2, 2]
    assert server.asked[2][1]["if-none-match"] == '"2"'


def test_a_current_response_is_not_asked_for_where_that_is_allowed(server, sent, mapping):
    """For the minute that the service states."""
    server.answers = [(200, {name: value for name, value in TAGGED.items() if name != "Date"}, sent[2])]
    with Client(server.url, revalidate=False) as client:
        assert [client.targets("mine"), client.targets("mine")] == [mapping] * 2
    assert len(server.asked) == 1


@pytest.mark.parametrize("away", [None, failed(DatabaseUnusable("The registry is away.", database="x", reason="y"))])
def test_a_stored_response_is_used_with_a_warning_if_the_service_fails(server, sent, mapping, away):
    """Whether it says so or says nothing; again after that."""
    server.answers = [sent, away]
    with Client(server.url) as client:
        client.targets("mine")
        for _ in range(2):
            with pytest.warns(UserWarning, match=r"stored response of Sun, 29 Nov 2026 10:00:00 GMT is used"):
                assert client.targets("mine") == mapping
        expected = DatabaseUnusable if away else ServiceUnreachable
        with pytest.raises(expected):
            client.targets("other")


def test_nothing_is_stored_where_that_is_said(server, sent, mapping, home):
    """Then a service that fails is an error."""
    server.answers = [sent, sent, None]
    with Client(server.url, store=False) as client:
        assert client.targets("mine") == client.targets("mine") == mapping
        with pytest.raises(ServiceUnreachable):
            client.targets("mine")
    assert "if-none-match" not in server.asked[1][1]
    assert not home.exists()


def test_what_is_of_one_person_is_not_stored(server, home):
    """A submission, whose status must be the present one."""
    server.answers = [(200, TAGGED, b'{"submissions": [], "next": null}'), None]
    with Client(server.url, token=SECRET) as client:
        assert client.submissions() == ()
        with pytest.raises(ServiceUnreachable):
            client.submissions()
    assert b"submissions" not in (home / "responses.sqlite3").read_bytes()


def test_what_was_sent_with_a_token_is_not_stored_unless_it_is_public(server, sent):
    """Another person of the machine might read it."""
    server.answers = [(200, {"ETag": '"1"', "Cache-Control": "max-age=60"}, sent[2])]
    with Client(server.url, token=SECRET, revalidate=False) as client:
        assert client.targets("mine") == client.targets("mine")
    assert len(server.asked) == 2


@pytest.mark.parametrize("answers", [[None, None], [(502, {}, b"bad gateway"), (429, {"Retry-After": "0"}, b"{}")]])
def test_a_read_is_repeated(server, sent, mapping, answers):
    """A connection that breaks, a proxy in between, a limit that is over at once."""
    server.answers = [*answers, sent]
    with Client(server.url) as client:
        assert client.targets("mine") == mapping
    assert len(server.asked) == 3


def test_a_service_that_asks_for_a_long_pause_is_left_alone(server):
    """Its error is raised at once, with the time."""
    server.answers = [failed(TooManyRequests("Too many requests.", retry_after=60), **{"Retry-After": "60"})]
    with Client(server.url) as client, pytest.raises(TooManyRequests):
        client.targets("mine")
    assert len(server.asked) == 1


def test_an_answer_is_not_repeated(server):
    """Not even one that is an error of the request."""
    server.answers = [(404, {}, json.dumps(NotRegistered("mine", (), "No mine.").to_dict()).encode())]
    with Client(server.url) as client, pytest.raises(NotRegistered):
        client.targets("mine")
    assert len(server.asked) == 1


def test_a_write_without_a_key_is_sent_once(server):
    """The service may have done it."""
    server.answers = [None]
    with Client(server.url, token=SECRET) as client, pytest.raises(ServiceUnreachable):
        client.create_token("person", "contributor")
    assert len(server.asked) == 1


def test_a_redirect_is_not_followed(server):
    """The host in the URL is the only one that is asked."""
    with ScriptedServer().running() as other:
        other.answers = [(200, {}, b"{}")]
        server.answers = [(302, {"Location": f"{other.url}/v1/targets/mine"}, b"")]
        with Client(server.url) as client, pytest.raises(ServiceUnreachable, match="which is not followed"):
            client.targets("mine")
        assert other.asked == []


@pytest.mark.parametrize("content", [None, b"no database at all, but somebody's notes" * 100])
def test_a_store_that_cannot_be_used_is_left_alone(server, sent, mapping, tmp_path, content):
    """A folder in its place, or another file: a warning, and everything is asked for."""
    file = tmp_path / "store"
    file.write_bytes(content) if content else file.mkdir()
    server.answers = [sent]
    with pytest.warns(UserWarning, match="not stored"):
        client = Client(server.url, store=file)
    with client:
        assert client.targets("mine") == mapping
    assert content is None or file.read_bytes() == content
