"""``GET /v1/export/constants.py``: the tables as a Python file."""

from threading import Thread

import pytest
from records_zoo import make_scan
from shapes import documented

from loradar.api.routes import export as exports
from loradar.error_body import ErrorBody
from loradar.registry import Registry, load_constants, parse_constants

URL = "/v1/export/constants.py"
LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"


def tables(answer):
    """Return the tables of an answer, read and not run."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/x-python; charset=utf-8")
    return parse_constants(answer.content, "1.0", URL).tables


def test_the_file_has_pefts_entries_and_ours(client):
    """Hundreds more than PEFT, whose own come first and unchanged."""
    found, ours = tables(client.get(URL)), tables(client.get(URL, params={"only": "ours"}))
    peft = load_constants().tables[LORA]
    assert found[LORA] == peft | ours[LORA]
    assert ours[LORA]["olmo2"] == ["q_proj", "v_proj"]
    assert len(ours[LORA]) > 500
    assert not ours[LORA].keys() & peft.keys()


def test_a_client_that_has_it_gets_no_body(client):
    """The tag is that of the bytes; both kinds of the file have their own."""
    first, ours = client.get(URL), client.get(URL, params={"only": "ours"})
    tag = first.headers["ETag"]
    again = client.get(URL, headers={"If-None-Match": tag})
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
def test_another_kind_is_refused(client, only):
    """In the one shape, with the field."""
    answer = client.get(URL, params={"only": only})
    assert answer.status_code == 422
    assert documented(ErrorBody, answer.json()).error.details["fields"][0]["field"] == "query.only"


def test_openapi_describes_it(client):
    """With its media type, an example, and what can go wrong."""
    described = client.get("/openapi.json").json()["paths"][URL]["get"]
    assert described["responses"].keys() >= {"200", "304", "422", "500", "503"}
    (media_type,) = described["responses"]["200"]["content"]
    assert media_type == "text/x-python"
