"""Bodies that are too much, mean two things, or are not what they are called."""

import gzip
import json
import resource
import socket
from urllib.parse import urlsplit

import pytest
from attack import attacked, parse, read_all, refused
from patience import patience

MEGABYTE = 1 << 20
JSON = "Content-Type: application/json"
AS_JSON = {"Content-Type": "application/json"}
STATED = {"name": "olmo2", "target_modules": ["q_proj", "v_proj"]}
WRITES = (
    "/v1/submissions",
    "/v1/submissions/1/reviews",
    "/v1/submissions/1/withdrawal",
    f"/v1/mappings/sha256:{'0' * 64}/yank",
    f"/v1/mappings/sha256:{'0' * 64}/restoration",
    "/v1/tokens",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One service for all of them: none leaves anything behind."""
    with attacked(tmp_path_factory.mktemp("bodies")) as target:
        yield target


def chunks(total, size=64 * 1024):
    """Yield a body in chunks, as HTTP sends what has no length."""
    piece = b"%x\r\n" % size + b"[" * size + b"\r\n"
    for _ in range(total // size):
        yield piece
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("path", [*WRITES, "/v1/scan", "/v1/doctor", "/v1/targets:batch"])
def test_a_hundred_megabytes_are_refused_by_their_length(service, path):
    """413 before any of it is read, on every route that takes a body."""
    with service.unharmed():
        answer = service.raw(f"POST {path} HTTP/1.1\n{JSON}\nContent-Length: {100 * MEGABYTE}", by="admin")
        assert refused(answer, 413) == "too_large"
        assert ("connection", "close") in answer.headers


@pytest.mark.parametrize(
    ("path", "limit"), [("/v1/submissions", 1), ("/v1/scan", 16), ("/v1/targets:batch", 1), ("/v1/tokens", 1)]
)
def test_a_hundred_megabytes_in_chunks_are_refused_on_the_way(service, path, limit):
    """413 once the limit is passed: the sender cannot get rid of the rest, and memory stays what it was."""
    parts = urlsplit(service.url)
    sent, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with service.unharmed(), socket.create_connection((parts.hostname, parts.port), timeout=patience()) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n"
        connection.sendall(f"{head}Authorization: Bearer {service.secrets['admin']}\r\n\r\n".encode())
        try:
            for chunk in chunks(100 * MEGABYTE):
                connection.sendall(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = parse(read_all(connection))
        assert refused(answer, 413) == "too_large"
    assert sent < (limit + 16) * MEGABYTE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_more_than_the_stated_length_is_not_read(service):
    """What follows the body is not part of it: as another request it is nonsense."""
    body = json.dumps(STATED | {"rationale": 3}).encode()
    with service.unharmed(lines=1):
        head = f"POST /v1/submissions HTTP/1.1\n{JSON}\nContent-Length: {len(body)}"
        answer = service.raw(head, body + b"x" * 100, by="contributor")
        refused(answer, 422)


def test_less_than_the_stated_length_stores_nothing(service):
    """A body cut off by the client is no body, even where what came is whole JSON."""
    parts = urlsplit(service.url)
    body = json.dumps(STATED).encode()
    address = (parts.hostname, parts.port)
    with service.unharmed(lines=0), socket.create_connection(address, timeout=patience()) as connection:
        head = f"POST /v1/submissions HTTP/1.1\r\nHost: a\r\n{JSON}\r\nContent-Length: {len(body) + 10}\r\n"
        connection.sendall(f"{head}Authorization: Bearer {service.secrets['admin']}\r\n\r\n".encode() + body)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""


@pytest.mark.parametrize(
    "length", ["-1", "1e3", "+5", "0x10", "5, 6", "", "9" * 30, "9" * 5000, "5\nContent-Length: 6"]
)
def test_a_length_that_is_none_is_refused(service, length):
    """400 from the server below, in the one shape, before the application sees a request."""
    with service.unharmed():
        refused(service.raw(f"POST /v1/submissions HTTP/1.1\n{JSON}\nContent-Length: {length}", by="admin"), 400)


AMBIGUOUS = {
    "chunked and a length": ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
    "a length and chunked": ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
    "chunked and no length": ("1.1", "content-length: 0\r\ntransfer-encoding: CHUNKED"),
    "two lengths": ("1.1", "Content-Length: 5\r\nContent-Length: 6"),
    "two lengths in one": ("1.1", "Content-Length: 5, 6"),
    "identity": ("1.1", "Transfer-Encoding: identity\r\nContent-Length: 5"),
    "identity alone": ("1.1", "Transfer-Encoding: identity"),
    "an unknown coding": ("1.1", "Transfer-Encoding: xchunked"),
    "two codings": ("1.1", "Transfer-Encoding: gzip, chunked"),
    "chunked twice": ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    "chunked in HTTP/1.0": ("1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked"),
}
"""Heads whose body two readers could take to end in different places."""


@pytest.mark.parametrize(("version", "lines"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_two_ways_to_tell_the_length_smuggle_no_request(service, version, lines):
    """400 and the end of the connection: a request that follows on it is not answered (RFC 9112, 6.1)."""
    head = f"POST /v1/submissions HTTP/{version}\r\nHost: a\r\n{JSON}\r\n{lines}\r\n"
    first = f"{head}Authorization: Bearer {service.secrets['admin']}\r\n\r\n0\r\n\r\n"
    second = "GET /v1/targets/llama HTTP/1.1\r\nHost: a\r\n\r\n"
    with service.unharmed():
        answer = service.bytes((first + second).encode())  # reads up to the end of the connection, which must come
        assert refused(answer, 400) == "bad_request"
        assert dict(answer.headers)["connection"] == "close"
        assert b"target_modules" not in answer.content


def test_a_request_that_is_unambiguous_keeps_the_connection(service):
    """Chunked alone and a length alone are answered one after the other on one connection, and so is what follows."""
    token = f"Authorization: Bearer {service.secrets['admin']}"
    head = f"POST /v1/submissions HTTP/1.1\r\nHost: a\r\n{JSON}\r\n{token}\r\n"
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    counted = f"{head}Content-Length: 2\r\n\r\n{{}}"
    last = "GET /v1/targets/llama HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with service.unharmed(lines=2):
        content = service.bytes((chunked + counted + last).encode()).content
        assert content.count(b"HTTP/1.1 422 ") + content.count(b"HTTP/1.1 200 ") == 2
        assert content.count(b"invalid_request") == 2
        assert b"target_modules" in content


@pytest.mark.parametrize("opened", [b"[", b'{"a":', b'{"layers":['])
@pytest.mark.parametrize(("path", "size"), [("/v1/submissions", 1_000_000), ("/v1/targets:batch", 250_000)])
def test_a_hundred_thousand_levels_are_refused(service, path, size, opened):
    """422 naming the place; no stack overflows."""
    deep = opened * (size // len(opened))
    with service.unharmed():
        answer = service.send("POST", path, "contributor", content=deep, headers=AS_JSON)
        assert refused(answer, 422) == "invalid_request"


@pytest.mark.parametrize(
    "said",
    [
        b'{"name":"olmo2","name":"llama","target_modules":["q_proj"]}',
        b'{"name":"olmo2","target_modules":["q_proj"],"target_modules":["k_proj"]}',
        b'{"olmo2":["q_proj"],"olmo2":["k_proj"]}',
        b'{"name":"olmo2","n\\u0061me":"llama","target_modules":["q_proj"]}',
    ],
)
def test_a_key_that_is_there_twice_is_refused(service, said):
    """Two readers could take it for two statements."""
    with service.unharmed():
        answer = service.send("POST", "/v1/submissions", "contributor", content=said, headers=AS_JSON)
        assert refused(answer, 422) == "invalid_request"


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1" + "0" * 400,
        "1" + "0" * 5000,
        "0.1",
        "true",
        '"1"',
        "01",
        "0x1",
        "1_000",
        "null",
    ],
)
def test_what_is_no_number_of_ours_is_refused(service, value):
    """Neither as the days of a token nor as the size of a layer."""
    days = f'{{"name":"ada","role":"admin","expires_days":{value}}}' if value != "null" else '{"name":null}'
    layer = f'{{"name":"a","target_modules":["q"],"layers":[{{"path":"q","shape":[{value}]}}]}}'
    for path, said in (("/v1/tokens", days), ("/v1/submissions", layer)):
        with service.unharmed():
            answer = service.send("POST", path, "admin", content=said, headers=AS_JSON)
            assert refused(answer, 422) == "invalid_request"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"null",
        b"1",
        b'"q_proj"',
        b"[]",
        b"{}",
        b"{",
        b'{"name":"olmo2"',
        b'{"name":"olmo2","target_modules":["q_proj"]} {}',
        b"\xff\xfe\x00",
        '{"name":"olmo2"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"name":"olmo2","target_modules":["q_proj"]}',
        b'{"name":"\xed\xa0\x80","target_modules":["q_proj"]}',
        b'{"name":"\\ud800","target_modules":["q_proj"]}',
        b'{"name":"olmo2\\u0000","target_modules":["q_proj"]}',
        b'{"name":"olmo2","target_modules":["q_proj"],}',
        b'{"name":"olmo2","target_modules":["q_proj"]/**/}',
        b"{'name':'olmo2','target_modules':['q_proj']}",
        b'{"name":"olmo2","target_modules":["q_proj"],"__proto__":{"role":"admin"}}',
        b'{"name":"olmo2","target_modules":["q_proj"],"status":"published","submitter":"admin"}',
        b'{"name":"olmo2","target_modules":{"0":"q_proj"}}',
        b'{"name":["olmo2"],"target_modules":["q_proj"]}',
    ],
)
def test_what_is_no_statement_is_refused(service, said):
    """Broken JSON, other encodings, other types, and fields that would be more than a statement."""
    with service.unharmed():
        answer = service.send("POST", "/v1/submissions", "contributor", content=said, headers=AS_JSON)
        assert refused(answer, 422) in ("invalid_request", "statement_refused")


def test_a_million_targets_are_refused(service):
    """As many as fit a body, and as many as fit a scan's."""
    many = json.dumps({"name": "olmo2", "target_modules": ["q"] * 200_000}, separators=(",", ":")).encode()
    more = json.dumps({"name": "olmo2", "target_modules": [f"q{number}" for number in range(1_000_000)]}).encode()
    for body, statuses in ((many, (422,)), (more, (413,))):
        with service.unharmed():
            answer = service.raw(
                f"POST /v1/submissions HTTP/1.1\n{JSON}\nContent-Length: {len(body)}", body, by="contributor"
            )
            refused(answer, *statuses)


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "modules_to_save", "target_parameters"])
def test_one_target_too_many_is_refused(service, field):
    """The bound holds for each list; the answer does not repeat the list."""
    body = STATED | {field: [f"layer{number}" for number in range(513)]}
    with service.unharmed():
        answer = service.submit(body)
        assert refused(answer, 422) == "invalid_request"
        assert len(answer.content) < 2000
        assert "512" in answer.text


@pytest.mark.parametrize(
    "more",
    [
        {"layers": [{"path": 1, "shape": 1}] * 30_000},
        {"layers": [{f"field{number}": 1 for number in range(50_000)}]},
        {f"field{number}": 1 for number in range(50_000)},
    ],
    ids=["layers", "fields of a layer", "fields"],
)
def test_fifty_thousand_faults_are_not_all_told(service, more):
    """The first is enough: finding them all would take the service's time from others."""
    with service.unharmed():
        answer = service.submit(STATED | more)
        assert refused(answer, 422) == "invalid_request"
        assert len(answer.content) < 2_000


@pytest.mark.parametrize(
    "called",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/json-patch+json",
        "application/octet-stream",
        "application/yaml",
        "json",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/v1/submissions", "/v1/scan"])
def test_what_is_not_called_json_is_refused(service, path, called):
    """A form of another site's page cannot be a request here, but for a scan, which stores nothing: it takes files."""
    is_form = path == "/v1/scan" and called.startswith(("multipart/", "application/x-www-form"))
    with service.unharmed():
        answer = service.send("POST", path, "contributor", content=json.dumps(STATED), headers={"Content-Type": called})
        if is_form:
            assert refused(answer, 422) == "invalid_request"
        else:
            assert refused(answer, 415) == "unsupported_media_type"


BOMB = gzip.compress(b" " * 100 * MEGABYTE, 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
@pytest.mark.parametrize("path", ["/v1/submissions", "/v1/scan"])
def test_a_compressed_body_is_not_unpacked(service, path, encoding):
    """A bomb of 100 MB in 100 KB stays 100 KB, which are no JSON."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with service.unharmed():
        answer = service.send(
            "POST",
            path,
            "contributor",
            content=BOMB,
            headers={"Content-Type": "application/json", "Content-Encoding": encoding},
        )
        refused(answer, 415)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
