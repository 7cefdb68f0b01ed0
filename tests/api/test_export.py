"""``GET /v1/export/constants.py``: the tables as a Python file."""

from threading import Thread

import pytest
from records_zoo import make_scan
from shapes import documented
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.routes import export as exports
from loradar.error_body import ErrorBody
from loradar.registry import Registry, load_constants, parse_constants
from loradar.settings import Settings

URL = "/v1/export/constants.py"
LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"


@pytest.fixture(scope="module")
def reader(seeded, tmp_path_factory):
    """A client of one service for all that only read: each file takes seconds to make."""
    settings = Settings(tmp_path_factory.mktemp("reader"), f"sqlite:///{seeded}")
    with TestClient(create_app(settings), raise_server_exceptions=False) as opened:
        yield opened


def tables(answer):
    """Return the tables of an answer, read and not run."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/x-python; charset=utf-8")
    return parse_constants(answer.content, "1.0", URL).tables


def test_the_file_has_pefts_entries_and_ours(reader):
    """Hundreds more than PEFT, whose own come first and unchanged."""
    found, ours = tables(reader.get(URL)), tables(reader.get(URL, params={"only": "ours"}))
    peft = load_constants().tables[LORA]
    assert found[LORA] == peft | ours[LORA]
    assert ours[LORA]["olmo2"] == ["q_proj", "v_proj"]
    assert len(ours[LORA]) > 500
    assert not ours[LORA].keys() & peft.keys()


def test_a_client_that_has_it_gets_no_body(reader):
    """The tag is that of the bytes; both kinds of the file have their own."""
    first, ours = reader.get(URL), reader.get(URL, params={"only": "ours"})
    tag = first.headers["ETag"]
    again = reader.get(URL, headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert tag != ours.headers["ETag"]
    assert first.headers["Cache-Control"] == again.headers["Cache-Control"] == "public, max-age=60"


def test_the_file_is_made_once_until_the_registry_changes(client, monkeypatch, settings):
    """Also for those who ask at the same time."""
    made = []
    make = exports.constants_python
    monkeypatch.setattr(exports, "constants_python", lambda *args, **named: made.append(1) or make(*args, **named))
    threads = [Thread(target=client.get, args=(URL,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    with Registry.open(settings) as registry:
        registry.add_scan(make_scan("a_new_one"))
    client.get(URL)
    assert len(made) == 2


@pytest.mark.parametrize("only", ["", "theirs", "ours\n", "OURS"])
def test_another_kind_is_refused(reader, only):
    """In the one shape, with the field."""
    answer = reader.get(URL, params={"only": only})
    assert answer.status_code == 422
    assert documented(ErrorBody, answer.json()).error.details["fields"][0]["field"] == "query.only"


def test_openapi_describes_it(reader):
    """With its media type, an example, and what can go wrong."""
    described = reader.get("/openapi.json").json()["paths"][URL]["get"]
    assert described["responses"].keys() >= {"200", "304", "422", "500", "503"}
    (media_type,) = described["responses"]["200"]["content"]
    assert media_type == "text/x-python"
