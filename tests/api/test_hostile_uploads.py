"""Forms with files: read within bounds, told apart by content, rejected in one line that shows nobody's markup."""

import gzip
import json

import pytest
from in_process import InProcess
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.middleware import LARGEST_SCAN
from loradar.api.uploads import MOST_FIELDS, clean_name
from loradar.api.workers import Workers
from loradar.settings import RequestLimits, Settings
from loradar.weights.sent_files import MOST_FILES

CONFIG = json.dumps({"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4})
SMALL = json.dumps({**json.loads(CONFIG), "intermediate_size": 96, "vocab_size": 100})


@pytest.fixture(scope="module")
def client(seeded, tmp_path_factory):
    """One service; a scan stores nothing, so that its registry is not written to."""
    limits = RequestLimits(*[10**9] * 4)
    settings = Settings(tmp_path_factory.mktemp("uploads"), f"sqlite:///{seeded}", limits=limits, workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "get_scans", lambda _: InProcess())
        with TestClient(create_app(settings), raise_server_exceptions=False) as opened:
            yield opened


def send(client, files=(), headers=None, **data):
    """Send a form; files are (name, content)."""
    parts = [("file", (name, content)) for name, content in files]
    parts += [(name, (None, value)) for name, value in data.items()]
    return client.post("/v1/scan", files=parts, headers=headers)


def problem_of(answer):
    """Return (status, message)."""
    return answer.status_code, answer.json()["error"]["message"]


def test_a_pasted_configuration_and_a_file_are_one_model(client):
    """The same response as to JSON."""
    found = send(client, text=SMALL).json()
    assert found == send(client, [("any name.txt", SMALL)]).json()
    assert found == client.post("/v1/scan", json={"config": json.loads(SMALL)}).json()
    default = next(one for one in found["proposals"] if (one["peft_type"], one["preset"]) == ("LORA", "default"))
    assert default["target_modules"] == ["q_proj", "v_proj"]


def test_a_reference_in_a_form_is_as_one_in_json(client):
    """One that the installed library lists."""
    assert send(client, reference=" timm:resnet18 ").json()["architecture"]["name"] == "resnet18"


@pytest.mark.parametrize(
    ("files", "data", "said"),
    [
        ((), {"reference": ""}, "nothing to scan"),
        ((), {"text": " \n"}, "nothing to scan"),
        ([("a.json", SMALL)], {"reference": "llama"}, "may be two models"),
        ([("a.json", SMALL)], {"text": SMALL}, "'a.json' and 'the pasted text'"),
        ([("x/a.json", SMALL), ("y\\a.json", SMALL)], {}, "Two files are called 'a.json'"),
        ([("a.json", gzip.compress(SMALL.encode()))], {}, "compressed (gzip)"),
        ((), {"text": "[" * 100_000}, "nested too deeply"),
        ((), {"text": "x" * 2_000_000}, "cannot be read: Part exceeded"),
        ([(f"{n}.json", SMALL) for n in range(MOST_FILES + 1)], {}, "Too many files"),
        ((), {f"text{n}": "x" for n in range(MOST_FIELDS + 1)}, "Too many fields"),
        ((), {"text": SMALL, "towers": "x"}, "field 'towers' too many"),
        ((), {"file": SMALL}, "field 'file' too many, or of the wrong kind"),
        ((), {"reference": "file:/etc/passwd"}, "not scanned for others"),
        ((), {"reference": "x" * 301}, "reference"),
    ],
)
def test_a_form_that_cannot_be_scanned_says_why(client, files, data, said):
    """Every file and field counts, or is named."""
    status, message = problem_of(send(client, files, **data))
    assert (status in {400, 404, 422}, said in message) == (True, True), (status, message)


@pytest.mark.parametrize(
    "name", ['<img src=x onerror="alert(1)">.json', "a\r\nSet-Cookie: b.json", "é\u202e.json", "a" * 900]
)
def test_the_name_of_a_file_is_cut_to_what_can_be_shown(client, name):
    """Printable, short, without folders; escaping it is left to the page."""
    shown = clean_name(name)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 100
    status, message = problem_of(send(client, [(name, b"PK\x03\x04")]))
    assert (status, "\n" in message, "\u202e" in message) == (422, False, False)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("multipart/form-data", b"--x\r\n", (422, "Missing boundary")),
        ("multipart/form-data; boundary=x", b"nothing like it", (422, "cannot be read")),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
            (422, '"name"'),
        ),
        (
            "multipart/form-data; boundary=x",  # a browser's, in which no file was chosen
            b'--x\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--x--',
            (422, "nothing to scan"),
        ),
        ("text/plain", b"{}", (415, "send application/json")),
    ],
)
def test_a_malformed_form_is_rejected(client, kind, content, expected):
    """With what is wrong with it."""
    status, message = problem_of(client.post("/v1/scan", content=content, headers={"Content-Type": kind}))
    assert (status, expected[1] in message) == (expected[0], True), message


def test_a_compressed_form_is_rejected(client):
    """What it would unpack to is nobody's guess."""
    status, message = problem_of(send(client, text=SMALL, headers={"Content-Encoding": "gzip"}))
    assert (status, "uncompressed" in message) == (415, True)


def test_a_form_that_is_too_large_is_rejected(client):
    """Before it is read as a form."""
    status, message = problem_of(send(client, [("model.safetensors", b"\0" * (LARGEST_SCAN + 1))]))
    assert (status, str(LARGEST_SCAN) in message) == (413, True)


def test_a_form_of_another_site_is_rejected(client):
    """A page elsewhere cannot spend the scans of its visitors; one's own form, and none at all, may."""
    status, message = problem_of(send(client, text=SMALL, headers={"Sec-Fetch-Site": "cross-site"}))
    assert (status, "another site" in message) == (403, True)
    assert send(client, text=SMALL, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
