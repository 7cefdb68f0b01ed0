"""What is sent: so many bytes, called JSON, meaning one thing; none of it gets into a header or a line of the log."""

import http.client
import logging
import socket
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from patience import patience

from loradar.api import running
from loradar.api.middleware import LARGER, LARGEST_BODY, LARGEST_STATEMENT, LOGGER
from loradar.settings import Settings

JSON = {"Content-Type": "application/json"}


def code_of(answer):
    """Return the code of an error."""
    return answer.json()["error"]["code"]


def send(service, content, path="/v1/submissions", **headers):
    """Send bytes as a contributor."""
    return service.client.post(path, content=content, headers=service.as_("contributor", **JSON) | headers)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "It is missing"),
        (b"{", "EOF"),
        (b'{"name": "a", "name": "b", "target_modules": ["q_proj"]}', "uplicate"),
        (b'{"name": NaN}', "expected value"),
        (b'{"name": Infinity}', "expected value"),
        (b'{"name": "\xff"}', "unicode"),
        (b'{"name": "\\ud800"}', "hex escape"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"a":' * 100_000, "recursion limit"),
        (b'{"name": "a"} x', "trailing"),
        (b"\xef\xbb\xbf{}", "expected value"),
        (b'{"name": ' + b"9" * 5000 + b"}", "number out of range"),
        (b'"' + b"a" * 1000 + b'"', "body"),
        (b"null", "body"),
    ],
)
def test_what_is_no_json_is_refused(service, content, said):
    """422 saying what is wrong with it; nothing is stored."""
    before = len(service.registry.submissions.list())
    answer = send(service, content)
    assert (answer.status_code, code_of(answer)) == (422, "invalid_request")
    assert said in answer.json()["error"]["message"]
    assert len(service.registry.submissions.list()) == before


@pytest.mark.parametrize(
    "called", ["", "text/plain", "application/xml", "application/jsonx", "multipart/form-data", "a;b", "\x00"]
)
def test_what_is_not_called_json_is_not_read(service, called):
    """415 saying what would do."""
    answer = send(service, b'{"olmo2": ["q_proj"]}', **{"Content-Type": called})
    assert (answer.status_code, code_of(answer)) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["error"]["message"]


def test_what_is_called_json_with_a_charset_is(service):
    """A parameter changes nothing."""
    answer = send(service, b'{"charset": ["q_proj"]}', **{"Content-Type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 202


def test_a_million_targets_are_refused(service):
    """Before they are looked at one by one; the answer does not repeat them."""
    answer = send(service, b'{"name": "a", "target_modules": [' + b'"a",' * 200_000 + b'"a"]}')
    assert answer.status_code == 422
    assert len(answer.content) < 10_000


def test_many_faults_are_told_of_in_few_words(service):
    """A body that is wrong in sixty places is answered with twenty."""
    answer = send(service, b"{" + b",".join(b'"x%d": 1' % n for n in range(60)) + b', "name": "a"}')
    assert len(answer.json()["error"]["details"]["fields"]) == 20


@pytest.fixture(scope="module")
def url(service):
    """The URL of the same registry's service behind a real socket."""
    folder = Path(service.registry.url.removeprefix("sqlite:///")).parent
    with running(Settings(folder, service.registry.url)) as opened:
        yield opened


def raw(url, head, chunks=()):
    """Send bytes as they are and return (status line, headers and body), and how many chunks were taken."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=patience()) as connection:
        connection.sendall(head)
        sent = 0
        try:
            for chunk in chunks:
                connection.sendall(chunk)
                sent += 1
        except OSError:  # it hung up, as it should
            pass
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
            return answer.status, answer.read(), sent
        except (OSError, http.client.HTTPException):
            return None, b"", sent


@pytest.mark.parametrize(
    ("path", "limit"),
    [*LARGER.items(), ("/v1/tokens", LARGEST_BODY)],
)
def test_a_body_that_says_it_is_too_long_is_not_read(url, path, limit):
    """413 at once: 100 MB that never come are not waited for."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {limit + 1}\r\n\r\n"
    status, body, _ = raw(url, head.encode())
    assert status == 413
    assert b'"too_large"' in body
    assert str(limit).encode() in body


def test_a_body_that_does_not_say_its_length_is_counted(service, url):
    """100 MB in chunks: the first of them are read, and the connection is closed."""
    head = "POST /v1/submissions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {service.tokens['contributor']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"[" * 65536 + b"\r\n"
    status, body, sent = raw(url, head.encode(), [chunk] * 1600)
    assert sent < 1600 or status == 413
    assert status in (413, None)
    assert not body or b'"too_large"' in body


def test_the_longest_body_is_read(service):
    """One byte more is one too many."""
    longest = b'{"a": "' + b"x" * (LARGEST_STATEMENT - 9) + b'"}'
    assert send(service, longest).status_code == 422
    assert send(service, longest + b" ").status_code == 413


@pytest.mark.parametrize("path", ["/v1/submissions", "/v1/submissions/1/reviews", "/v1/submissions/1/withdrawal"])
def test_nothing_sent_comes_back_as_a_header(service, path):
    """Line ends in a value stay in the body, as JSON."""
    odd = "x\r\nSet-Cookie: a=b\r\n\r\n<script>"
    answer = service.client.post(path, json={odd: odd}, headers=service.as_("reviewer", **{"Idempotency-Key": "a"}))
    assert answer.status_code == 422
    assert "Set-Cookie" not in answer.headers
    assert not [value for value in answer.headers.values() if "x" == value]


def test_a_refused_write_is_logged_in_one_line(service, caplog):
    """Who, from where, what and why; neither a secret nor a line of the sender's own."""
    with caplog.at_level(logging.WARNING, LOGGER.name):
        service.post("/v1/tokens", {"name": "eve", "role": "admin"})
        service.client.post(
            "/v1/no%0d%0arejected POST /forged", json={}, headers={"Authorization": "Bearer lrd_secret"}
        )
        service.client.post("/v1/tokens", json={}, headers={"Authorization": "Bearer lrd_secret"})
        service.client.get("/v1/nowhere")
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER.name]
    assert lines == [
        "rejected POST /v1/tokens: 403 not_allowed; by 'contributor' from testclient",
        "rejected POST '/v1/no\\r\\nrejected POST /forged': 404 not_found; by anonymous from testclient",
        "rejected POST /v1/tokens: 401 not_authenticated; by anonymous from testclient",
    ]


def asked_for(url, address):
    """Ask on behalf of an address, and return how many requests are left."""
    place = urlsplit(url)
    client = http.client.HTTPConnection(place.hostname, place.port, timeout=patience())
    client.request("GET", "/", headers={"X-Forwarded-For": address})
    left = int(client.getresponse().headers["RateLimit"].partition("r=")[2].partition(";")[0])
    client.close()
    return left


def test_forwarded_for_is_not_believed(url):
    """Whoever connects is who is counted, whatever they say of themselves."""
    first, second, third = (asked_for(url, f"192.0.2.{number}") for number in range(3))
    assert (second, third) == (first - 1, first - 2)


def test_a_trusted_proxy_is_believed(seeded_settings):
    """Then each of its clients is counted apart."""
    with running(replace(seeded_settings, trusted_proxies="127.0.0.1")) as url:
        assert [asked_for(url, f"192.0.2.{number}") for number in (1, 2, 2)] == [599, 599, 598]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"olmo2": []}', "body.olmo2: A list has 1 to 512 names; this one has 0. Leave the field out for none. See"),
        (b'{"a": ["q"], "b": ["q"]}', "body: The shorthand has one architecture, this body 2. Send one, or"),
        (b'{"name": "a", "rational": "x"}', "body.rational: There is no such field"),
        (b'{"target_modules": ["q"]}', "body.name: It is missing. See"),
        (b'{"name": "a", "preset": "attn"}', "'experts' or 'everything', not 'attn'. See"),
    ],
)
def test_a_fault_is_told_with_its_value(service, content, said):
    """In one sentence each, whoever found it; a value that is not there is not told of."""
    answer = send(service, content)
    assert said in answer.json()["error"]["message"]
    fields = answer.json()["error"]["details"]["fields"]
    assert all(("value" in field) == (field["problem"] != "It is missing") for field in fields)


@pytest.mark.parametrize(("reason", "said"), [("", "Say why"), (" \n", "Say why"), ("a\u200bb", "(U+200B)")])
def test_a_reason_is_something_to_read(service, reason, said):
    """A word for what is wrong with it, and not the pattern it does not match."""
    answer = service.post("/v1/submissions/1/withdrawal", {"reason": reason})
    assert (answer.status_code, code_of(answer)) == (422, "invalid_request")
    assert said in answer.json()["error"]["message"]
