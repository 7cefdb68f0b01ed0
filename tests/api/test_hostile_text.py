"""Text that is more than it looks like: regexes without end, letters that are others, paths, and pieces of SQL."""

import json

import pytest
from attack import attacked, refused

STATED = {"name": "olmo2", "target_modules": ["q_proj", "v_proj"]}
FIELDS = ("target_modules", "exclude_modules", "feedforward_modules")

REFUSED = {
    "too often": "(a{1,1000}){1,1000}",
    "too large": "((a{1,100}){1,100}){1,100}",
    "many times": "x{1,1001}",
    "of all letters": "(\\pL{1,500}){1,2}" * 20,
    "itself again": r"(q_proj|v_proj)\1",
    "by its name": "(?P<a>q)(?P=a)",
    "ahead": "q_proj(?=.*model)",
    "not ahead": "(?!lm_head).*",
    "behind": "(?<=layers).*",
    "not behind": "(?<!vision).*q_proj",
    "at once": "(?>a+)b",
    "never back": "a++b",
    "if": "(a)?(?(1)b|c)",
    "open": "(q_proj",
    "empty class": "[",
    "long": "a" * 4097,
    "nothing": "",
    "other letters": "q_рroj",  # noqa: RUF001 - a Cyrillic letter
    "a null": "q_proj\x00",
    "a line end": "q_proj\n",
    "code": "(?{os.system('id')})",
}

ODD = {
    "a Cyrillic letter": "ll\u0430ma",
    "a Greek letter": "l\u03bbama",
    "a fullwidth letter": "\uff4clama",
    "a ligature": "\ufb01ne",
    "an accent of its own": "re\u0301sume",
    "an accent": "r\u00e9sume",
    "a soft hyphen": "lla\u00adma",
    "a zero width space": "lla\u200bma",
    "a joiner": "lla\u200dma",
    "from right to left": "ll\u202eama",
    "isolated": "\u2066llama\u2069",
    "a byte order mark": "\ufeffllama",
    "a null": "llama\x00",
    "a bell": "ll\x07ama",
    "an escape": "\x1b[31mllama",
    "a delete": "llama\x7f",
    "a line": "llama\nadmin",
    "a carriage return": "llama\r\nSet-Cookie: a=b",
    "a line of Unicode": "llama\u2028admin",
    "a space": "lla ma",
    "a letter of plane 1": "\U0001d4c1lama",
    "a tag": "llama\U000e0041",
    "not a character": "llama\uffff",
    "private": "llama\ue000",
    "markup": "<script>alert(1)</script>",
    "a template": "{{7*7}}",
    "a format": "%s%n",
    "a shell": "$(id)",
    "a jndi": "${jndi:ldap://127.0.0.1/a}",
}

TRAVERSING = (
    "../../etc/passwd",
    "..",
    ".",
    "...",
    "a/../../b",
    "/etc/passwd",
    "..\\..\\windows",
    "%2e%2e%2fetc%2fpasswd",
    "..%2f..%2fetc",
    "%252e%252e%252f",
    "file:///etc/passwd",
    "a..b",
    ".hidden",
    "a.",
    "~root",
    "C:\\windows",
    "//host/share",
    "",
)

SQL = (
    "'",
    '"',
    "' OR '1'='1",
    "'; DROP TABLE mappings; --",
    "llama' UNION SELECT name, hash FROM tokens --",
    "%' OR 1=1 --",
    "llama%",
    "\\'",
    "1); DELETE FROM tokens; --",
    "' || (SELECT hash FROM tokens LIMIT 1) || '",
    "llama'/**/AND/**/1=1",
    ":name",
    "%(name)s",
    "?",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One service for all of them: none leaves anything behind."""
    with attacked(tmp_path_factory.mktemp("text")) as target:
        yield target


@pytest.mark.parametrize("regex", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("field", FIELDS)
def test_a_regex_that_could_take_for_ever_is_refused(service, field, regex):
    """422 before it is stored, with the reason: RE2 compiles it or nothing does."""
    body = STATED | {field: regex} | ({"peft_type": "IA3"} if field == "feedforward_modules" else {})
    with service.unharmed():
        assert refused(service.submit(body), 422) in ("statement_refused", "invalid_request")


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_a_name_that_is_not_what_it_looks_like_is_refused(service, odd):
    """Neither for an architecture, a target, a layer, its class nor the shorthand; the odd character is told."""
    layer = {"path": "model.q_proj", "shape": [1, 1]}
    for body in (
        STATED | {"name": odd},
        STATED | {"target_modules": [odd]},
        STATED | {"modules_to_save": [odd]},
        STATED | {"target_parameters": [odd]},
        STATED | {"peft_type": odd},
        STATED | {"library": odd},
        STATED | {"preset": odd},
        STATED | {"layers": [layer | {"class": odd}]},
        {odd: ["q_proj"]},
    ):
        with service.unharmed():
            assert refused(service.submit(body), 422) in ("statement_refused", "invalid_request")


@pytest.mark.parametrize("odd", [text for text in ODD.values() if not text.isascii() or not text.isprintable()])
def test_a_layer_s_path_is_what_it_looks_like(service, odd):
    """Real paths may have odd signs, but each of them can be seen."""
    with service.unharmed():
        refused(service.submit(STATED | {"layers": [{"path": odd, "shape": [1, 1]}]}), 422)


@pytest.mark.parametrize(
    "odd",
    [
        "a\x00b",
        "a\x1b[2Jb",
        "a\u202eb",
        "a\u2066b",
        "a\u200bb",
        "a\ufeffb",
        "a\u00adb",
        "a\u2028b",
        "a\u2063b",
        "a\x7fb",
        "a\x85b",
        "",
        " \n\t",
        "a" * 4001,
    ],
)
def test_a_text_hides_nothing(service, odd):
    """Neither a rationale nor a reason nor a comment; control characters could forge what a terminal shows."""
    requests = {
        "/v1/submissions/1/reviews": {"decision": "approve", "comment": odd},
        "/v1/submissions/1/withdrawal": {"reason": odd},
        f"/v1/mappings/sha256:{'0' * 64}/yank": {"reason": odd},
        f"/v1/mappings/sha256:{'0' * 64}/restoration": {"reason": odd},
    }
    if odd.strip():
        requests["/v1/submissions"] = STATED | {"rationale": odd}
    for path, body in requests.items():
        with service.unharmed():
            assert refused(service.send("POST", path, "admin", json=body), 422) in (
                "statement_refused",
                "invalid_request",
            )


@pytest.mark.parametrize("path", TRAVERSING)
def test_a_name_is_no_path(service, path):
    """Neither in a statement nor as somebody's name."""
    for body in (STATED | {"name": path}, STATED | {"target_modules": [path]}):
        with service.unharmed():
            refused(service.submit(body), 422)
    if "/" in path or path.startswith("."):
        with service.unharmed():
            refused(service.send("POST", "/v1/tokens", "admin", json={"name": path, "role": "admin"}), 422)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/targets/../../etc/passwd",
        "/v1/targets/..%2f..%2fetc%2fpasswd",
        "/v1/targets/%2e%2e/%2e%2e/etc/passwd",
        "/v1/targets/..%5c..%5cetc",
        "/v1/targets/%2e%2e",
        "/v1/targets/file:%2f%2f%2fetc%2fpasswd",
        "/v1/targets/%252e%252e%252fetc",
        "/v1/targets/llama%00.json",
        "/v1/targets/llama%0d%0aX-Injected:%201",
        "/v1/targets/llama/",
        "/v1/targets//llama",
        "/v1//targets/llama",
        "//v1/targets/llama",
        "/./v1/targets/llama",
        "/v1/targets/llama;jsessionid=1",
        "/v1/targets/%c0%ae%c0%ae",
        "/v1/targets/%ff%fe",
        "/v1/targets/ll%D0%B0ma",
        "/v1/architectures/transformers/../../../etc/passwd",
        "/v1/architectures/..%2f..%2f/llama",
        "/v1/architectures/torch/os.system",
        "/static/../../../etc/passwd",
        "/etc/passwd",
        "/.git/config",
        "/.env",
        "/openapi.json/..",
    ],
)
def test_a_path_leads_nowhere_else(service, path):
    """404 or 422: no file is ever served by its name, and no name is made another."""
    with service.unharmed(lines=0):
        answer = service.raw(f"GET {path} HTTP/1.1")
        refused(answer, 404, 422)
        assert b"root:" not in answer.content
        assert "x-injected" not in dict(answer.headers)


QUERIES = (
    "/v1/targets/{}",
    "/v1/targets/llama?peft_type={}",
    "/v1/targets/llama?preset={}",
    "/v1/targets/llama?library={}",
    "/v1/targets/llama?library_version={}",
    "/v1/architectures?q={}",
    "/v1/architectures?library={}",
    "/v1/architectures?limit={}",
    "/v1/architectures/transformers/{}",
    "/v1/architectures/transformers/{}/similar",
    "/v1/architectures/transformers/{}/layers",
    "/v1/architectures/transformers/{}/history",
    "/v1/mappings?q={}",
    "/v1/mappings?source={}",
    "/v1/mappings?status={}",
    "/v1/mappings?peft_type={}",
    "/v1/mappings?library={}",
    "/v1/mappings/{}",
    "/v1/mappings/{}/diff?against=12345678",
    "/v1/mappings/12345678/diff?against={}",
    "/v1/snapshot?since={}",
    "/v1/export/constants.py?only={}",
    "/v1/changes?since={}",
    "/v1/changes?limit={}",
    "/v1/submissions?name={}",
    "/v1/submissions?submitter={}",
    "/v1/submissions?status={}",
    "/v1/submissions?before={}",
    "/v1/submissions/{}",
)
"""Every place a read takes text in."""


def quote(text):
    """Quote every byte, so that all of it arrives."""
    return "".join(f"%{byte:02x}" for byte in text.encode())


@pytest.mark.parametrize("where", QUERIES)
def test_sql_is_only_text_where_things_are_read(service, where):
    """Nothing but the shape of the request decides: no answer has more than it should, and none is a 500."""
    for text in SQL:
        with service.unharmed(lines=0):
            answer = service.raw(f"GET {where.format(quote(text))} HTTP/1.1")
            assert answer.status in (200, 404, 422), answer.content
            if answer.status == 200:
                found = answer.json()
                assert all(found[name] == [] for name in ("architectures", "mappings", "submissions") if name in found)
            else:
                refused(answer, 404, 422)
            for secret in service.secrets.values():
                assert secret.encode() not in answer.content
            assert b"sqlite" not in answer.content.lower()


@pytest.mark.parametrize("text", SQL)
def test_sql_is_no_name_where_things_are_written(service, text):
    """It cannot get in by the front door."""
    for body in (STATED | {"name": text}, STATED | {"target_modules": [text]}, {text: ["q_proj"]}):
        with service.unharmed():
            refused(service.submit(body), 422)
    with service.unharmed():
        answer = service.send("POST", "/v1/tokens", "admin", json={"name": text, "role": "admin"})
        refused(answer, 422)
    with service.unharmed():
        refused(service.send("POST", f"/v1/submissions/{quote(text)}/reviews", "reviewer", json={}), 404, 405, 422)


def test_sql_in_a_batch_is_only_text(service):
    """Each question is answered for itself: not registered."""
    with service.unharmed(lines=0):
        asked = [{"model_type": text} for text in SQL if " " not in text]
        answer = service.send("POST", "/v1/targets:batch", json={"questions": asked})
        assert answer.status_code == 200
        assert {one["error"]["code"] for one in answer.json()["answers"]} == {"not_registered"}


@pytest.mark.parametrize("text", [*ODD.values(), *TRAVERSING])
def test_odd_text_in_a_query_is_not_found(service, text):
    """No answer is a 500, and what is said back is JSON, in which it cannot be anything else."""
    for where in QUERIES:
        if not text and "/{}" in where:
            continue  # another path
        if not text and "?since" in where:
            continue  # all of it, which is no JSON
        answer = service.raw(f"GET {where.format(quote(text))} HTTP/1.1")
        assert answer.status in (200, 404, 422), (where, answer.content)
        assert dict(answer.headers)["content-type"] == "application/json"
        if answer.status == 200 and text:
            found = answer.json()
            assert all(found[name] == [] for name in ("architectures", "submissions") if name in found), where
        else:
            json.loads(answer.content)


def test_one_name_is_not_written_in_two_ways(service):
    """Letters that look like others are others, and nothing is cut on the way in; upper case is said to be one."""
    with service.unharmed(lines=0):
        assert b'"how":"spelling"' in service.raw("GET /v1/targets/LLAMA HTTP/1.1").content
        for text in ("llama ", " llama", "llama\u0301", "\uff4clama", "llama\x00", "ll\u0430ma"):
            assert service.raw(f"GET /v1/targets/{quote(text)} HTTP/1.1").status in (404, 422)
