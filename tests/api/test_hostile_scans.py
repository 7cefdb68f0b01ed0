"""What is sent to be scanned or checked: code by many names, none of which is run, and sizes that no machine has."""

import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import hub_server
import pytest
from attack import refused
from served import children_of, memory_of, served

NUMBERS = count()
MEBIBYTES = 1536
MARKER = "known_to_last"
"""A name in what is sent that gives its scan little time: it may be ended by any bound."""

BOUNDS = f"""
from functools import partial
from hostile_tasks import TwoBounds
workers.MEMORY = {MEBIBYTES / 1024}
workers.Sandbox = partial(TwoBounds, {MARKER!r}, 3.0)
"""
TRAPS = ("evil", "modeling_x", "configuration_x", "kernels_x", "os_x")
TRAP = "from pathlib import Path\nPath({place!r}).touch()\nclass Evil: ...\ndef evil(*_, **__): ...\n"

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 256,
}
LAYERS = [{"path": f"blocks.{n}.attn.q_proj", "shape": [64, 64], "class": "evil.Evil"} for n in range(4)]
MAPPED = {"AutoConfig": "configuration_x.Evil", "AutoModelForCausalLM": "modeling_x.Evil"}

RUNNING = {
    "a class beside it": {"auto_map": MAPPED, "trust_remote_code": True},
    "a class of a repo": {"auto_map": {name: f"x/evil--{place}" for name, place in MAPPED.items()}},
    "an architecture": {"architectures": ["evil.Evil", "modeling_x.Evil"]},
    "a kernel": {"attn_implementation": "x/evil", "_attn_implementation": "x/evil:kernels_x"},
    "kernels": {"use_kernels": True, "kernel_config": {"RMSNorm": "x/evil:Evil"}},
    "experts": {"experts_implementation": "evil.evil", "_experts_implementation": "evil"},
    "a dtype": {"torch_dtype": "evil.Evil", "dtype": "evil"},
    "a quantiser": {"quantization_config": {"quant_method": "evil", "modules_to_not_convert": ["evil"]}},
    "a backbone": {"backbone": "x/evil", "use_pretrained_backbone": True, "backbone_kwargs": {"evil": 1}},
    "a path": {"_name_or_path": "/etc/passwd", "name_or_path": "x/evil"},
    "an activation": {"hidden_act": "evil.evil"},
    "a pipeline": {"custom_pipelines": {"evil": {"impl": "evil.Evil"}}, "custom_generate": "x/evil"},
    "a tokeniser": {"tokenizer_class": "evil.Evil", "processor_class": "evil.Evil"},
    "dunders": {"__class__": "evil.Evil", "__reduce__": ["os.system", "id"], "__dict__": {}},
    "a type": {"model_type": "evil"},
    "a type that is code": {"model_type": "evil", "auto_map": MAPPED},
    "a type that is a path": {"model_type": "../../evil"},
    "a type that is a module": {"model_type": "evil.Evil"},
}
"""What a configuration may have loaded or run, by what it would be taken for."""

REFERENCES = (
    "torch:evil:Evil",
    "torch:evil",
    "torch:os:system",
    "torch:builtins:exec",
    "torch:torch.nn:Linear",
    "file:evil.py",
    "file:/etc/passwd",
    "file:///etc/passwd",
    "file:../../../etc/passwd",
    "hub:../..",
    "hub:../../etc/passwd",
    "hub:x/../../etc",
    "hub:evil",
    "hub:x/y/z",
    "hub:x/nowhere",
    "hub:x/code@../../other/repo/resolve/main",
    "hub:x/code@no-such-revision",
    "hub:x/code@../../../../pwned",
    "hub:x/code@a\\b",
    "hub:x/code/../../y@main",
    "hub:http://127.0.0.1:1/x",
    "hub:x%2f..%2fcode",
    "transformers:evil",
    "transformers:../evil",
    "transformers:evil.Evil",
    "timm:evil",
    "timm:hf-hub:x/code",
    "timm:hf_hub:x/code",
    "timm:local-dir:/etc",
    "diffusers:evil",
    "diffusers:evil.Evil",
    "diffusers:../evil",
    "python:evil",
    "http://127.0.0.1:1/config.json",
    "ftp:x",
    "evil:x",
    ":",
)

ABSURD = {
    "a million layers": {"num_hidden_layers": 10**6},
    "a billion layers": {"num_hidden_layers": 10**9},
    "a million heads": {"num_attention_heads": 10**6},
    "more than any number": {"hidden_size": 10**30},
    "less than nothing": {"hidden_size": -64},
    "no heads": {"num_attention_heads": 0},
    "half a layer": {"num_hidden_layers": 0.5},
    "a word for a number": {"hidden_size": "64"},
    "a list for a number": {"hidden_size": [64]},
    "a thousand levels": {"rope_scaling": json.loads("[" * 180 + "]" * 180)},
    "a list without end": {"layer_types": ["full_attention"] * 30_000},
    "a long word": {"hidden_act": "a" * 100_000},
    "no configuration": {"model_type": None},
}

HUGE = {
    "as wide as may be": {"hidden_size": 2**31, "intermediate_size": 2**31, "vocab_size": 2**31},
    "as many experts as may be": {"model_type": "mixtral", "num_local_experts": 4096, "num_hidden_layers": 2048},
    "as large a picture as may be": {"model_type": "vit", "image_size": 2**31, "patch_size": 1},
    "as many positions as may be": {"model_type": "gpt2", "n_positions": 2**31, "n_layer": 2},
}
"""Within the bounds of numbers; the worker's own bounds are for these."""

ENDLESS = ("(a+)+$", "(a|a)*b", "(.*)*(.*)*(.*)*x", r"([a-z]+)*\.q_proj", "(x+x+)+y", "(" * 900 + "a" + ")" * 900)
"""What a matcher that goes back tries for ever; one that does not is through in a moment."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A service with real workers, a hub whose repos hold code, and traps wherever Python looks for modules."""
    folder = tmp_path_factory.mktemp("scans")
    places = {name: folder / name for name in ("service", "traps", "sprung", "hub")}
    for place in places.values():
        place.mkdir()
    for name in TRAPS:
        (places["traps"] / f"{name}.py").write_text(TRAP.format(place=str(places["sprung"] / name)))
    with hub_server.running(places["hub"]) as hub:
        code = {f"{name}.py": TRAP.format(place=str(places["sprung"] / name)).encode() for name in TRAPS}
        for repo, config in (("x/code", LLAMA), ("x/evil", {"model_type": "evil"})):
            files = {"config.json": json.dumps(config | {"auto_map": MAPPED}).encode(), "pytorch_model.bin": b"\x80"}
            hub.add(repo, {**files, **code})
        hub.add("alice/private", {"config.json": json.dumps(LLAMA).encode()}, private=True)
        environment = {
            "PYTHONPATH": f"{places['traps']}:{Path(__file__).parent.parent}",
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "hf_alice",
        }
        with served(places["service"], BOUNDS, **environment) as (target, pid):
            assert target.send("POST", "/v1/scan", json={"config": LLAMA}).status_code == 200
            yield target, pid, hub, places


@pytest.fixture
def service(running):
    """The service; after each attack no trap is sprung, and it holds no more memory than before."""
    target, pid, _hub, places = running
    before = memory_of(pid)
    yield target
    assert not list(places["sprung"].iterdir())
    assert memory_of(pid) - before < 150
    assert target.send("GET", "/v1/targets/llama").json()["target_modules"] == ["q_proj", "v_proj"]


def scan(service, body):
    """Ask for a scan, of which nothing may be stored, and return the answer."""
    before = service.content()
    answer = service.send("POST", "/v1/scan", json=body)
    assert service.content() == before
    if answer.status_code != 200:
        refused(answer, 400, 404, 422, 502, 503)
    return answer


def check(service, body):
    """Submit something and return it once its checks are through."""
    made = service.submit({"rationale": str(next(NUMBERS)), **body})
    assert made.status_code == 202, made.text
    return service.wait_for(made.json()["id"])


def test_the_traps_are_where_they_would_be_sprung(running):
    """Python finds them in the service and its workers; one that is imported leaves its sign."""
    _target, pid, _hub, places = running
    for one in children_of(pid):
        environment = Path(f"/proc/{one}/environ").read_bytes()
        assert f"PYTHONPATH={places['traps']}:".encode() in environment
    for name in TRAPS:
        command = f"import sys; sys.path.insert(0, {str(places['traps'])!r}); import {name}"
        subprocess.run([sys.executable, "-c", command], check=True)  # noqa: S603 - our own interpreter
        (places["sprung"] / name).unlink()


@pytest.mark.parametrize("more", RUNNING.values(), ids=RUNNING)
def test_no_code_of_a_configuration_is_run(service, running, more):
    """It is left out, or the configuration is refused; nobody is asked for it."""
    asked = len(running[2].requests)
    scan(service, {"config": LLAMA | more})
    assert running[2].requests[asked:] == []


@pytest.mark.parametrize("revision", ["../../../../pwned", "..", "../pwned", "refs/../../../pwned", "/tmp/pwned"])  # noqa: S108 - what is tried
def test_no_revision_escapes_the_cache(service, running, revision):
    """Rejected before a request, although this hub answers 200 to any revision; no file is made anywhere."""
    _target, _pid, hub, places = running
    folder = places["hub"].parent
    before = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    asked = len(hub.requests)
    hub.revises = True
    try:
        assert refused(scan(service, {"reference": f"hub:x/code@{revision}"}), 400) == "invalid_reference"
    finally:
        hub.revises = False
    assert hub.requests[asked:] == []
    assert {path for path in folder.rglob("*") if "__pycache__" not in path.parts} == before


def test_a_scan_follows_the_hub_nowhere_else(service, running):
    """A redirect of the hub to another service is an error of the hub; that service receives nothing."""
    _target, _pid, hub, places = running
    (places["hub"] / "other").mkdir()
    with hub_server.running(places["hub"] / "other") as other:
        other.add("x/moved", {"config.json": json.dumps(LLAMA).encode()})
        hub.redirects["/x/moved/resolve/main/config.json"] = f"{other.url}/x/moved/resolve/main/config.json"
        assert refused(scan(service, {"reference": "hub:x/moved"}), 502) == "hub_failed"
        assert other.requests == []


@pytest.mark.parametrize("reference", REFERENCES)
def test_no_reference_leads_to_code_or_a_file(service, reference):
    """Only names that the installed libraries list, and repos on the configured hub."""
    answer = scan(service, {"reference": reference})
    refused(answer, 400, 404, 422, 502)
    assert "root:" not in answer.text


def test_no_code_of_a_repo_is_run(service, running):
    """Its ``config.json`` is asked for, of an unknown type the list of files; what transformers has is scanned so."""
    hub = running[2]
    hub.requests.clear()
    assert scan(service, {"reference": "hub:x/code"}).json()["architecture"]["class"] == "LlamaForCausalLM"
    assert refused(scan(service, {"reference": "hub:x/evil"}), 404) == "unknown_architecture"
    assert hub.requests
    allowed = ("/config.json", "/api/models/x/evil")
    assert all(request.endswith(allowed) for request in hub.requests)


def test_what_only_the_service_may_read_is_not_read_for_others(service):
    """The token for the hub that is in its environment opens nothing to whoever asks."""
    answer = scan(service, {"reference": "hub:alice/private"})
    assert refused(answer, 502) == "hub_failed"
    assert "hf_alice" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {"layers": LAYERS, "name": "evil.Evil", "library": "torch"},
        {"layers": LAYERS, "name": "evil", "library": "transformers"},
        {"layers": [{"path": "evil.Evil", "shape": [1, 1], "class": "modeling_x.Evil"}]},
    ],
)
def test_no_class_of_a_listing_is_loaded(service, body):
    """Its name says what a layer may be, and nothing else."""
    assert scan(service, body).json()["method"] == "names"


def test_no_code_of_a_statement_is_run(service):
    """A name that no library lists is not looked for: its layers are what it is checked on."""
    listed = {"target_modules": ["q_proj"], "layers": LAYERS}
    assert check(service, {"library": "torch", "name": "evil.Evil", **listed})["evidence"]["method"] == "listing"
    for library, name in (("transformers", "evil"), ("timm", "evil"), ("diffusers", "evil.Evil")):
        found = check(service, {"library": library, "name": name, "target_modules": ["evil.Evil"]})
        assert (found["status"], found["evidence"]) == ("failed", None)
    for body in (
        {"library": "torch", "name": "evil.Evil", "target_modules": ["q_proj"]},
        {"name": "llama", "peft_type": "evil.Evil", "target_modules": ["q_proj"]},
        {"library": "evil", "name": "evil", "target_modules": ["q_proj"]},
    ):
        with service.unharmed():
            refused(service.submit(body), 422)


def test_layers_that_are_listed_answer_nobody(service):
    """They may be invented: until somebody approves, nobody is answered from them."""
    name = f"invented{next(NUMBERS)}"
    found = check(service, {"name": name, "target_modules": ["q_proj"], "layers": LAYERS})
    assert (found["status"], found["evidence"]["method"]) == ("needs_review", "listing")
    for path in (
        f"/v1/targets/{name}",
        f"/v1/targets/{name}?preset=all-linear",
        f"/v1/architectures/transformers/{name}",
    ):
        refused(service.send("GET", f"/v1/{path.format(name)}"), 404)


@pytest.mark.parametrize("regex", ENDLESS)
@pytest.mark.parametrize("field", ["target_modules", "exclude_modules"])
def test_an_endless_regex_is_through_in_a_moment(service, field, regex):
    """It hits something or nothing, in linear time; what would be published is made anew, and is no regex of theirs."""
    layers = [{"path": f"{'a' * 120}.{n}.{'x' * 120}", "shape": [8, 8]} for n in range(400)] + LAYERS
    name = f"m{next(NUMBERS)}"
    found = check(
        service, {"library": "torch", "name": name, "target_modules": ["q_proj"], "layers": layers, field: regex}
    )
    assert found["status"] in ("failed", "needs_review")
    assert "worker" not in (found["reason"] or "")
    assert found["evidence"] is None or regex not in json.dumps(found["evidence"]["spec"])


@pytest.mark.parametrize("more", ABSURD.values(), ids=ABSURD)
def test_an_absurd_configuration_is_refused(service, more):
    """Before anything is built of it, or by the library that cannot."""
    refused(scan(service, {"config": LLAMA | more}), 422)


@pytest.mark.parametrize("more", HUGE.values(), ids=HUGE)
def test_a_huge_configuration_ends(service, more):
    """It is scanned without its weights, or its worker runs out of time or memory: 503."""
    config = {"model_type": more["model_type"]} if "model_type" in more else LLAMA
    answer = scan(service, {"config": config | more | {MARKER: True}})
    assert answer.status_code in (200, 422, 503)


def test_a_listing_of_thirty_thousand_layers_ends(service):
    """It is scanned, or its worker runs out of time or memory."""
    layers = [{"path": f"l.{n}.q", "shape": [1, 1]} for n in range(30_000)]
    assert scan(service, {"layers": layers, "name": MARKER}).status_code in (200, 422, 503)
