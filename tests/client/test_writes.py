"""What the client sends to write, seen by a service made for the test; the real one is met in test_contributing.py."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from loradar.client import Client
from loradar.domain.submissions import Statement, Submission
from loradar.errors import Conflict, NotAuthenticated, ServiceUnreachable, StaleVersion
from loradar.schema import to_json

SECRET = "lrd_secret"  # noqa: S105 - none
SAID = Statement("transformers", "olmo2", "LORA", "default", target_modules=("q_proj",))
SENT = Submission(
    id=7,
    status="checking",
    submitter="ada",
    statement=SAID,
    created_at="2026-01-01T00:00:00Z",
    updated_at="2026-01-01T00:00:00Z",
)


class Recorder:
    """A service that notes what it is asked, breaks some connections, and answers what it is told to."""

    def __init__(self) -> None:
        self.asked = []
        self.breaks = 0
        self.answer = (200, to_json(SENT))
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            """Notes and answers."""

            def do_POST(self) -> None:
                """Take the body, then answer or hang up."""
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                recorder.asked.append((self.path, dict(self.headers), json.loads(body or b"null")))
                if recorder.breaks:
                    recorder.breaks -= 1
                    self.close_connection = True
                    return
                status, answer = recorder.answer
                told = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def do_GET(self) -> None:
                """Likewise."""
                self.do_POST()

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def recorder():
    """A recording service, and a client that does not pause before it tries again."""
    found = Recorder()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def client(recorder):
    """A client with a token."""
    with Client(recorder.url, token=SECRET) as opened:
        yield opened


def test_a_write_carries_a_token_and_a_key(client, recorder):
    """A key of its own for each, so that two are two."""
    assert client.submit(SAID) == SENT
    client.submit(SAID)
    first, second = recorder.asked
    assert first[0] == "/v1/submissions"
    assert first[1]["Authorization"] == f"Bearer {SECRET}"
    assert first[2] == to_json(SAID)
    assert first[1]["Idempotency-Key"] != second[1]["Idempotency-Key"]
    assert "If-Match" not in first[1]


def test_a_key_of_the_caller_s_is_sent_as_it_is(client, recorder):
    """For who tries again after a restart."""
    client.submit(SAID, key="mine")
    assert recorder.asked[0][1]["Idempotency-Key"] == "mine"


def test_a_lost_answer_is_asked_for_again_under_the_same_key(client, recorder):
    """The service may have done it before the connection broke."""
    recorder.breaks = 2
    assert client.submit(SAID) == SENT
    assert len({asked[1]["Idempotency-Key"] for asked in recorder.asked}) == 1
    assert len(recorder.asked) == 3


def test_in_the_end_it_gives_up(client, recorder):
    """With the error that any silence ends in."""
    recorder.breaks = 3
    with pytest.raises(ServiceUnreachable, match="RemoteProtocolError"):
        client.submit(SAID)
    assert len(recorder.asked) == 3


def test_a_refusal_is_not_tried_again(client, recorder):
    """It is an answer, and raised as what the registry would raise."""
    recorder.answer = (409, Conflict("Submission 7 says the same.", submission=7).to_dict())
    with pytest.raises(Conflict, match="says the same") as caught:
        client.submit(SAID)
    assert caught.value.details == {"submission": 7}
    assert len(recorder.asked) == 1


@pytest.mark.parametrize(
    ("call", "path", "body"),
    [
        (
            lambda client: client.review(7, "approve", "Good.", version=3),
            "/v1/submissions/7/reviews",
            {"decision": "approve", "comment": "Good."},
        ),
        (
            lambda client: client.withdraw(7, "Mistaken.", version=3),
            "/v1/submissions/7/withdrawal",
            {"reason": "Mistaken."},
        ),
    ],
)
def test_a_decision_rests_on_a_version(client, recorder, call, path, body):
    """Sent as ``If-Match``; a stale one is refused."""
    assert call(client) == SENT
    assert (recorder.asked[0][0], recorder.asked[0][2]) == (path, body)
    assert recorder.asked[0][1]["If-Match"] == '"v3"'
    recorder.answer = (412, StaleVersion("Submission 7 is at version 4, not 3.").to_dict())
    with pytest.raises(StaleVersion, match="not 3"):
        call(client)


def test_filters_are_passed_on(client, recorder):
    """Those that are given."""
    recorder.answer = (200, {"submissions": [to_json(SENT)], "next": None})
    assert client.submissions(status="checking", name="olmo2", submitter=None, before=9, limit=3) == (SENT,)
    path, _, query = recorder.asked[0][0].partition("?")
    assert path == "/v1/submissions"
    assert sorted(query.split("&")) == ["before=9", "limit=3", "name=olmo2", "status=checking"]


@pytest.mark.parametrize("token", ["", "a b", "lrd_x\r\nX-Evil: 1", "lrd_ä", "lrd_\x00"])
def test_a_token_that_is_none_is_not_sent(token):
    """It could end the header and start another; the message does not repeat it."""
    with pytest.raises(NotAuthenticated, match="invalid characters") as caught:
        Client("http://127.0.0.1:9", token=token)
    assert not token or token not in str(caught.value)
