"""``GET /v1/targets``: the recommended mapping, its tag, and every way to ask for it wrongly."""

from dataclasses import replace

import pytest
from records_zoo import VERSION, make_scan
from shapes import documented

from loradar.domain.architectures import ModelPart
from loradar.domain.mappings import Mapping


def test_the_body_is_the_registry_s_mapping(client, registry):
    """The JSON is that of the lookup command, and the shape OpenAPI documents."""
    answer = client.get("/v1/targets/llama?peft_type=ia3")
    assert answer.status_code == 200
    assert answer.json() == registry.lookup("llama", "IA3").to_dict()
    assert documented(Mapping, answer.json())


def test_every_part_of_the_question_counts(client, registry):
    """Library, version, preset and PEFT type reach the lookup."""
    registry.add_scan(make_scan("net", library="timm"))
    query = {"library": "timm", "library_version": VERSION, "preset": "default", "peft_type": "LORA"}
    body = client.get("/v1/targets/net", params=query).json()
    assert body["verification"]["library_version"] == VERSION
    far = client.get("/v1/targets/net", params=query | {"library_version": "1"}).json()
    assert far["reasons"][0] == "seen at 5.24.0, the nearest to 1"
    assert far["versions"] == {"since": "5.24.0", "until": "5.24.0"}
    assert client.get("/v1/targets/net", params={"library": "transformers"}).status_code == 404


@pytest.mark.parametrize("named", ["{}", "W/{}", '"other", {}', "*"])
def test_a_client_that_has_the_answer_gets_304(client, named):
    """A tag named in ``If-None-Match`` is answered without a body; the headers stay."""
    first = client.get("/v1/targets/llama")
    assert first.headers["Cache-Control"] == "public, max-age=60"
    tag = first.headers["ETag"]
    again = client.get("/v1/targets/llama", headers={"If-None-Match": named.format(tag)})
    assert (again.status_code, again.content) == (304, b"")
    assert (again.headers["ETag"], again.headers["Cache-Control"]) == (tag, first.headers["Cache-Control"])


def test_a_tag_changes_with_the_verification(client, registry):
    """A strong tag stands for the very bytes; a new verdict makes new ones, another mapping too."""
    tag = client.get("/v1/targets/llama").headers["ETag"]
    assert client.get("/v1/targets/llama", headers={"If-None-Match": '"stale"'}).status_code == 200
    registry.add_scan(make_scan("llama"))
    assert client.get("/v1/targets/llama").headers["ETag"] != tag
    assert client.get("/v1/targets/bert").headers["ETag"] != tag


def test_a_miss_lists_near_names(client):
    """404 with a command that works; an error is not to be cached."""
    answer = client.get("/v1/targets/lama")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-store")
    error = answer.json()["error"]
    assert error["code"] == "not_registered"
    assert "llama" in error["details"]["near"]
    assert error["details"]["command"] == "loradar lookup llama"


@pytest.mark.parametrize(
    ("path", "reference"),
    [
        ("timm:resnet50", "timm:resnet50"),
        ("Qwen/Qwen3-8B", "transformers:qwen3"),
        ("Qwen%2FQwen3-8B", "transformers:qwen3"),
        ("stable%20diffusion%20xl", "diffusers:UNet2DConditionModel"),
    ],
)
def test_the_path_takes_any_spelling(client, path, reference):
    """Slashes may stand in it as they are; the body says how it was read."""
    body = client.get(f"/v1/targets/{path}").json()
    assert ":".join(body["architecture"].values()) == reference
    assert (body["understood"] is None) == (path == reference)
    answers = client.post("/v1/targets:batch", json={"questions": [{"model_type": "LlamaModel"}]}).json()["answers"]
    assert answers[0]["mapping"]["understood"]["how"] == "class"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/targets/llama?preset=none", 404, "unknown_preset"),
        ("/v1/targets/llama?peft_type=LORRA", 404, "unknown_peft_type"),
        ("/v1/targets/llama?library=keras", 422, "invalid_request"),
        ("/v1/targets/llama?peft_type=", 422, "invalid_request"),
        ("/v1/targets/llama?peft_type=a b", 422, "invalid_request"),
        ("/v1/targets/llama?library_version=%00", 422, "invalid_request"),
        (f"/v1/targets/{'x' * 256}", 422, "invalid_request"),
        ("/v1/targets/a%20%20b", 422, "invalid_request"),
        ("/v1/targets/%00", 422, "invalid_request"),
        ("/v1/targets/", 422, "invalid_request"),
    ],
)
def test_a_bad_question_has_the_one_shape(client, path, status, code):
    """Codes for programs, a sentence for people, the field or value in the details."""
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "details"}
    assert error["code"] == code
    assert error["message"]
    assert error["details"]


def test_a_bad_field_is_named(client):
    """Where it is, what is wrong, and a bounded piece of its value."""
    answer = client.get("/v1/targets/llama", params={"peft_type": "x" * 500})
    field = answer.json()["error"]["details"]["fields"][0]
    assert field["field"] == "query.peft_type"
    assert "64" in field["problem"]
    assert len(field["value"]) == 100


def test_a_name_of_other_letters_is_a_bad_field(client):
    r"""``\w`` would be other letters in one engine than in another: the description says which are meant."""
    for name in ("LÖRA", "\uff2cORA"):
        assert client.get("/v1/targets/llama", params={"peft_type": name}).status_code == 422
        question = {"model_type": "llama", "peft_type": name}
        assert client.post("/v1/targets:batch", json={"questions": [question]}).status_code == 422


def test_a_composite_is_asked_by_its_parts(client, registry):
    """The parameter repeats; a batch has an object; errors have the one shape."""
    named = {"text": ModelPart("text", "llama", True, "model"), "vision": ModelPart("vision", "vit", False)}  # noqa: FBT003
    registry.add_scan(replace(make_scan("seer"), parts=tuple(named.values())))
    plain = client.get("/v1/targets/seer").json()
    assert [part["model_type"] for part in plain["parts"]] == ["llama", "vit"]
    asked = client.get("/v1/targets/seer", params={"part": ["text=llama", "vision=vit"]})
    assert asked.json() == plain
    question = {"model_type": "seer", "parts": {"text": "llama"}}
    batch = client.post("/v1/targets:batch", json={"questions": [question]}).json()
    assert batch["answers"] == [{"mapping": plain}]
    for part, code in {"txt=t5": "unknown_name", "vision=clip": "invalid_request", "text": "invalid_request"}.items():
        assert client.get("/v1/targets/seer", params={"part": part}).json()["error"]["code"] == code


def test_engines_that_serve_the_adapter_are_named(client):
    """And a preset is narrowed to the layers that one of them applies."""
    served = client.get("/v1/targets/llama").json()["served"]
    assert [(one["engine"], one["outcome"]) for one in served] == [
        ("vllm", "applies"),
        ("sglang", "applies"),
        ("llama_cpp", "applies"),
    ]
    query = {"preset": "all-linear", "servable": "sglang"}
    narrowed = client.get("/v1/targets/qwen3_moe", params=query).json()
    assert narrowed["target_parameters"] is None
    question = {"model_type": "falcon", "servable": "vllm"}
    (answer,) = client.post("/v1/targets:batch", json={"questions": [question]}).json()["answers"]
    assert "without adapters" in answer["error"]["message"]
