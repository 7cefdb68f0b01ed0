"""Lines, headers and connections that are bent: methods, conditions, keys, forged addresses, and who never ends."""

import json
import socket
from contextlib import ExitStack, suppress
from urllib.parse import quote, urlsplit

import pytest
from attack import attacked, parse, read_all, refused
from patience import patience, wait_until

from loradar.api import middleware, protocol

JSON = "Content-Type: application/json"
STATED = {"name": "olmo2", "target_modules": ["q_proj", "v_proj"]}
SPLIT = (
    "a\r\nX-Injected: 1",
    "a\nX-Injected: 1",
    "a\rX-Injected: 1",
    "a\u560a\u560dX-Injected: 1",
    "a%0d%0aX-Injected: 1",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One service for all of them; what is submitted here is submitted before it is attacked."""
    with attacked(tmp_path_factory.mktemp("headers")) as target:
        yield target


def said(body):
    """Return the headers and bytes of a JSON body."""
    content = json.dumps(body).encode()
    return f"{JSON}\nContent-Length: {len(content)}", content


def connect(service):
    """Return an open connection."""
    parts = urlsplit(service.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=patience())


@pytest.mark.parametrize("text", SPLIT)
def test_a_line_end_makes_no_header(service, text):
    """Whatever a client chose and may read again in a header: no answer has one it should not have."""
    attempts = [
        service.submit(STATED | {"name": text}),
        service.send("POST", "/v1/tokens", "admin", json={"name": text, "role": "admin"}),
        service.send("GET", "/v1/targets/llama", params={"library_version": text.replace(" ", "") + "\n"}),
        service.send("GET", "/v1/architectures", params={"after": text + "\n"}),
    ]
    for answer in attempts:
        assert "x-injected" not in answer.headers
        refused(answer, 422)
    for path in (f"/v1/targets/{text}", f"/v1/mappings/{text}", f"/v1/submissions/{text}"):
        answer = service.raw(f"GET {quote(path)} HTTP/1.1")
        refused(answer, 404, 422)
        assert "x-injected" not in dict(answer.headers)


@pytest.mark.parametrize(
    "line",
    [
        'If-Match: "v1"\r\n X-Folded: 1',
        "If-Match: a\x00b",
        "Bad Name: 1",
        "Bad\x00Name: 1",
        ": nothing",
        "X: a\rb",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Host: other",
    ],
)
def test_a_header_that_is_none_is_refused(service, line):
    """400 in the one shape from the server below; the application sees nothing of it."""
    with service.unharmed():
        answer = service.raw(f"POST /v1/submissions HTTP/1.1\n{line}\nContent-Length: 0", by="contributor")
        refused(answer, 400, 401, 415, 422, 501)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "GET",
        "GET /",
        "GET /\x00 HTTP/1.1",
        "GET /a b HTTP/1.1",
        "G\x01T / HTTP/1.1",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "SSH-2.0-OpenSSH_9.6",
    ],
)
def test_what_is_no_request_is_refused(service, line):
    """400 in the one shape, and a line in the log."""
    with service.unharmed():
        refused(service.raw(line), 400)


@pytest.mark.parametrize("target", ["http://other/v1/targets/llama", "other:443", "*", "//other/v1/targets/llama"])
def test_the_service_is_no_proxy(service, target):
    """A target of another form is a path that nothing is at."""
    for method in ("GET", "CONNECT"):
        answer = service.raw(f"{method} {target} HTTP/1.1")
        refused(answer, 400, 404, 405)


def test_a_long_line_is_refused(service):
    """A path of 8 KiB is answered for what it says; of 1 MiB it is not read."""
    with service.unharmed(lines=0):
        refused(service.raw(f"GET /v1/targets/{'a' * 8000} HTTP/1.1"), 422)
    with service.unharmed(lines=0):
        refused(service.raw(f"GET /v1/targets/llama?peft_type={'a' * 8000} HTTP/1.1"), 422)
    for line in (f"GET /{'a' * (1 << 20)} HTTP/1.1", f"GET /?q={'a' * (1 << 20)} HTTP/1.1"):
        with service.unharmed():
            refused(service.raw(line), 400)


def test_many_headers_are_refused(service):
    """No more than 64 KiB of them, whether one or many."""
    for line in (f"X: {'a' * (1 << 20)}", "\n".join(f"X-{number}: a" for number in range(20_000))):
        with service.unharmed():
            refused(service.raw(f"GET / HTTP/1.1\n{line}"), 400)


def test_ten_thousand_parameters_are_only_many(service):
    """Those nobody knows are passed over."""
    with service.unharmed(lines=0):
        answer = service.raw(f"GET /v1/targets/llama?{'a&' * 10_000} HTTP/1.1")
        assert answer.json()["target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND"])
@pytest.mark.parametrize("path", ["/v1/submissions", "/v1/targets/llama", "/v1/tokens/1/revocation", "/"])
def test_a_method_of_no_route_is_refused(service, path, method):
    """405 with what is allowed; ``TRACE`` would say a token back."""
    with service.unharmed():
        answer = service.raw(f"{method} {path} HTTP/1.1", by="admin")
        assert refused(answer, 405) == "method_not_allowed"
        assert dict(answer.headers)["allow"]
        assert service.secrets["admin"].encode() not in answer.content


@pytest.mark.parametrize("method", ["get", "X" * 100])
def test_a_method_that_nobody_knows_is_no_request(service, method):
    """400, and the end of the connection."""
    with service.unharmed():
        refused(service.raw(f"{method} / HTTP/1.1"), 400)


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"])
def test_a_method_is_not_overridden(service, header):
    """A read stays a read, whatever a header or parameter says; a write stays that write."""
    with service.unharmed(lines=0):
        assert (
            service.send("GET", "/v1/tokens/1/revocation?_method=POST", "admin", headers={header: "POST"}).status_code
            == 405
        )
    with service.unharmed():
        refused(service.send("POST", "/v1/targets/llama", "admin", headers={header: "GET"}), 405)


@pytest.mark.parametrize("header", ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Script-Name"])
def test_a_path_is_not_overridden(service, header):
    """What a proxy in front looked at is what is served."""
    answer = service.send("GET", "/healthz", headers={header: "/v1/tokens"})
    assert answer.json()["status"] == "ok"


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP"])
def test_an_address_is_not_believed(service, header):
    """The log and the limits have the address of the connection, unless a trusted proxy tells another."""
    value = "for=6.6.6.6" if header == "Forwarded" else "6.6.6.6"
    with service.unharmed():
        service.send("POST", "/v1/submissions", json={}, headers={header: value})
        assert service.log[0].endswith("from 127.0.0.1")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example\r\nX-Injected: 1", "a" * 5000, "@evil", "127.0.0.1:99999"]
)
def test_a_host_leads_nowhere(service, host):
    """No answer has an address of the service's own: ``Location`` is a path."""
    head, content = said({"name": f"host{len(host)}{host[0].replace('@', 'x')}", "target_modules": ["q_proj"]})
    answer = service.raw(f"POST /v1/submissions HTTP/1.0\nX-Forwarded-Host: {host}\n{head}", content, by="contributor")
    location = dict(answer.headers).get("location", "/v1/submissions/")
    assert location.startswith("/v1/submissions/")
    assert b"evil" not in answer.content


@pytest.mark.parametrize(
    "tag",
    [
        "v1",
        '"1"',
        'W/"v1"',
        '"v01"',
        '"v1", "v2"',
        "",
        '"v"',
        '"v-1"',
        f'"v{"9" * 400}"',
        '"v1"x',
        "'v1'",
        '"v1\' OR 1=1"',
        "\xe9",
    ],
)
@pytest.mark.parametrize("what", ["reviews", "withdrawal"])
def test_a_condition_that_is_none_is_refused(service, waiting, what, tag):
    """422: what is not understood must not be passed over; nothing is decided."""
    body = {"decision": "approve", "comment": "Good."} if what == "reviews" else {"reason": "No."}
    head, content = said(body)
    with service.unharmed():
        path = f"/v1/submissions/{waiting}/{what}"
        answer = service.raw(
            f"POST {path} HTTP/1.1\nIf-Match: {tag}\n{head}",
            content,
            by="reviewer" if what == "reviews" else "contributor",
        )
        assert refused(answer, 422) == "invalid_request"


@pytest.fixture(scope="module")
def waiting(service):
    """A submission that waits for its review, at version 2."""
    number = service.submit({"name": "waiting", "target_modules": ["q_proj"]}).json()["id"]
    service.settle(number)
    return number


@pytest.mark.parametrize("tag", ['"v1"', '"v3"', '"v999999999"'])
def test_a_stale_condition_is_refused(service, waiting, tag):
    """412, for each write that has a version; a lost update is no update."""
    found = service.send("GET", "/v1/mappings?library=transformers&limit=1").json()["mappings"][0]
    mapping = f"/v1/mappings/{(found.get('mapping') or found)['id']}"
    requests = {
        f"/v1/submissions/{waiting}/reviews": {"decision": "approve", "comment": "Good."},
        f"/v1/submissions/{waiting}/withdrawal": {"reason": "No."},
        f"{mapping}/yank": {"reason": "No."},
    }
    for path, body in requests.items():
        if "mappings" in path and tag == '"v1"':
            continue  # the current one
        with service.unharmed():
            answer = service.send("POST", path, "admin", json=body, headers={"If-Match": tag})
            assert refused(answer, 412) == "stale_version"


@pytest.mark.parametrize(
    "twice",
    [
        'If-Match: "v1"\nIf-Match: "v2"',
        'If-Match: "v2"\nIf-Match: "v1"',
        "Idempotency-Key: a\nIdempotency-Key: b",
        "Authorization: Bearer lrd_other",
        "Content-Type: text/plain",
        "Content-Encoding: identity\nContent-Encoding: gzip",
    ],
)
def test_a_header_that_is_there_twice_is_refused(service, waiting, twice):
    """Two readers could each take another: a proxy the first, the service the last."""
    head, content = said({"reason": "No."})
    with service.unharmed():
        path = f"/v1/submissions/{waiting}/withdrawal"
        answer = service.raw(f"POST {path} HTTP/1.1\n{twice}\n{head}", content, by="contributor")
        assert refused(answer, 422) == "invalid_request"


@pytest.mark.parametrize("key", ["", " ", "a" * 256, "a\tb", "\xe9", "a\x7fb"])
def test_a_key_that_is_none_is_refused(service, key):
    """Printable ASCII, up to 255 of it; a key that is passed over would let a request be done twice."""
    head, content = said(STATED)
    with service.unharmed():
        answer = service.raw(
            f"POST /v1/submissions HTTP/1.1\nIdempotency-Key: {key}\n{head}", content, by="contributor"
        )
        assert refused(answer, 400, 422)


def test_a_key_is_spent_on_one_request_of_one_person(service):
    """With another body, path or condition it is refused; another person's is another, and gets none of the answer."""
    key = {"Idempotency-Key": "once' OR 1=1 --"}
    body = {"name": "spent", "target_modules": ["q_proj"]}
    first = service.submit(body, **key)
    assert first.status_code == 202
    withdrawal = f"/v1/submissions/{first.json()['id']}/withdrawal"
    others = (
        ("/v1/submissions", body | {"rationale": "other"}, {}),
        ("/v1/submissions", body | {"name": "other"}, {}),
        (withdrawal, {"reason": "No."}, {}),
        ("/v1/submissions", body, {"If-Match": '"v1"'}),
    )
    for path, asked, headers in others:
        with service.unharmed():
            answer = service.send("POST", path, "contributor", json=asked, headers=key | headers)
            assert refused(answer, 422) == "key_reused"
    with service.unharmed():
        assert refused(service.submit(body, "other", **key), 409) == "conflict"
    with service.unharmed(lines=0):
        assert service.submit(body, **key).json() == first.json()


def test_what_would_send_a_browser_elsewhere_is_not_said(service):
    """Answers are JSON, and say that no browser may take them for anything else."""
    for path in ("/v1/targets/<script>", "/<script>alert(1)</script>", "/v1/targets/llama"):
        answer = service.raw(f"GET {path} HTTP/1.1")
        assert dict(answer.headers)["content-type"] == "application/json"
        assert "access-control-allow-origin" not in dict(answer.headers)


def test_who_sends_a_head_for_ever_is_hung_up_on(service, monkeypatch):
    """408 in the one shape once a request was begun; who never says anything is not answered."""

    def send_more():
        with suppress(OSError):  # it hung up just now
            slow.sendall(b"a")
        return service.log

    with service.unharmed(), monkeypatch.context() as patch, ExitStack() as stack:
        patch.setattr(protocol, "HEAD_SECONDS", 0.3)
        slow, silent = (stack.enter_context(connect(service)) for _ in range(2))
        slow.sendall(b"GET /v1/targets/llama HTTP/1.1\r\nX: ")
        wait_until(send_more, "the refusal")
        assert refused(parse(read_all(slow)), 408) == "request_timeout"
        assert read_all(silent) == b""


def test_who_sends_a_body_for_ever_is_hung_up_on(service, monkeypatch):
    """408, however little is missing; others are answered meanwhile."""
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.3)
    content = json.dumps(STATED).encode()
    with service.unharmed(), connect(service) as slow:
        head = f"POST /v1/submissions HTTP/1.1\r\nHost: a\r\n{JSON}\r\nContent-Length: {len(content)}\r\n"
        slow.sendall(f"{head}Authorization: Bearer {service.secrets['contributor']}\r\n\r\n".encode() + content[:-2])
        assert service.send("GET", "/healthz").status_code == 200
        assert refused(parse(read_all(slow)), 408) == "request_timeout"


def test_two_hundred_connections_that_wait_keep_nobody_out(service):
    """Each costs a socket, and no thread."""
    opened = [connect(service) for _ in range(200)]
    try:
        with service.unharmed(lines=0):
            for connection in opened:
                connection.sendall(b"POST /v1/submissions HTTP/1.1\r\nHost: a\r\nContent-Le")
    finally:
        for connection in opened:
            connection.close()
