"""The description at ``/openapi.json``: valid, whole, and true."""

import re
from collections import Counter
from importlib import import_module

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from shapes import documented, validator

from loradar.api import create_app, requests
from loradar.settings import Settings

RECORDS = (
    "api.routes.operations",
    "domain.changes",
    "weights.diagnoses",
    "domain.identities",
    "domain.mappings",
    "domain.reports.audits",
    "domain.reports.placement",
    "domain.reports.side_by_side",
    "domain.scans",
    "domain.submissions",
    "errors",
    "snapshots",
)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The description; no registry is opened for it."""
    folder = tmp_path_factory.mktemp("nothing")
    return create_app(Settings(folder, f"sqlite:///{folder / 'none.sqlite3'}")).openapi()


@pytest.fixture(scope="module")
def operations(document):
    """Every operation with its path and method."""
    return [(path, method, op) for path, methods in document["paths"].items() for method, op in methods.items()]


def resolved(document, schema):
    """Return what a schema with a reference stands for."""
    return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def has_example(document, media):
    """Tell whether a body has an example, with it or with the schema it refers to."""
    return bool({"example", "examples"} & (media.keys() | resolved(document, media["schema"]).keys()))


def test_it_is_valid(document):
    """By the specification's own schema."""
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_operation_is_described(document, operations):
    """A summary, a description, one known tag, and a name of its own that no path change will change."""
    tags = {tag["name"] for tag in document["tags"]}
    for path, method, op in operations:
        assert op["summary"] != op["operationId"].replace("_", " ").title(), (path, method)  # what none makes of it
        assert op["description"].endswith("."), (path, method)
        assert len(op["tags"]) == 1, (path, method)
        assert tags.issuperset(op["tags"]), (path, method)
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", op["operationId"]), op["operationId"]
    assert Counter(op["operationId"] for *_, op in operations).most_common(1)[0][1] == 1


def test_every_parameter_is_described(operations):
    """What it is, and within which bounds; those in a path are all there."""
    for path, method, op in operations:
        parameters = op.get("parameters", [])
        for parameter in parameters:
            assert parameter.get("description"), (path, method, parameter["name"])
        named = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), (path, method)


def test_every_body_has_an_example(document, operations):
    """Of what is sent, and of every answer that is not empty."""
    for path, method, op in operations:
        bodies = [op["requestBody"]] if "requestBody" in op else []
        for answer in [*bodies, *op["responses"].values()]:
            for media in answer.get("content", {}).values():
                if "anyOf" in media["schema"] or "oneOf" in media["schema"]:
                    parts = media["schema"].get("oneOf") or media["schema"]["anyOf"]
                    assert all(resolved(document, part)["examples"] for part in parts), (path, method)
                else:
                    assert has_example(document, media), (path, method, media)


def test_every_error_it_may_give_is_told(operations):
    """In the one shape: what any route may answer, and what those do that take a token, a body or a name."""
    for path, method, op in operations:
        statuses = set(op["responses"])
        expected = {"422", "429", "500", "503"}
        expected |= {"401"} if "security" in op else set()
        expected |= {"413", "415"} if "requestBody" in op else set()
        expected |= {"412"} if any(one["name"] == "If-Match" for one in op.get("parameters", ())) else set()
        expected |= {"404"} if "{" in path else set()
        assert expected <= statuses, (path, method, expected - statuses)
        for status in statuses:
            if int(status) >= 400:
                schema = op["responses"][status]["content"]["application/json"]["schema"]
                assert schema["$ref"].endswith("/ErrorBody"), (path, method, status)


def test_every_write_takes_a_token(operations):
    """But a scan, an examination, a check, a preview and a batch, which store nothing."""
    open_to_all = {op["operationId"] for _, method, op in operations if method != "get" and "security" not in op}
    assert open_to_all == {"scan", "check", "examine_adapter", "preview_submission", "get_targets_of_many"}


def test_links_lead_to_operations(operations):
    """With parameters they have."""
    known = {op["operationId"]: {one["name"] for one in op.get("parameters", ())} for *_, op in operations}
    answers = [answer for *_, op in operations for answer in op["responses"].values()]
    links = [link for answer in answers for link in answer.get("links", {}).values()]
    assert len(links) >= 5
    for link in links:
        assert set(link["parameters"]) <= known[link["operationId"]]


@pytest.mark.parametrize("module", RECORDS)
def test_examples_of_responses_are_valid(module):
    """An example that does not fit its own schema would mislead."""
    found = vars(import_module(f"loradar.{module}")).values()
    records = [each for each in found if isinstance(each, type) and hasattr(each, "__pydantic_config__")]
    examples = [(record, example) for record in records for example in validator(record).schema.get("examples", ())]
    for record, example in examples:
        documented(record, example)
    assert examples


def test_examples_of_requests_are_valid():
    """As those of responses."""
    bodies = [each for each in vars(requests).values() if isinstance(each, type) and hasattr(each, "model_config")]
    examples = [(b, e) for b in bodies for e in (b.model_config.get("json_schema_extra") or {}).get("examples", ())]
    for body, example in examples:
        body.model_validate(example)
    assert len(examples) >= 6


def test_no_framework_shape_is_left(document):
    """Errors have our shape, and no schema is called by the path of its module."""
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()
    assert not [name for name in document["components"]["schemas"] if "__" in name]
