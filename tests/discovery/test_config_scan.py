"""A config.json that somebody sends: only what transformers itself has is built, and nothing is loaded or run."""

import json
import os
import sys

import hub_server
import pytest
from huggingface_hub import constants

from loradar.discovery import fetch_config, scan_config
from loradar.discovery.config_scan import MOST_VALUES, check_config, clean_config
from loradar.errors import HubFailed, InvalidReference, InvalidRequest, ScanFailed, UnknownArchitecture
from loradar.references import Reference

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "vocab_size": 256,
    "torch_dtype": "bfloat16",
}


def test_a_configuration_is_scanned_at_its_own_sizes():
    """Traced, at full depth."""
    found = scan_config(LLAMA)
    assert (found.method, found.architecture.class_name) == ("dataflow", "LlamaForCausalLM")
    proposal = found.propose("LORA", "default")
    assert (proposal.spec.target_modules, proposal.matched) == (("q_proj", "v_proj"), 6)
    assert proposal.per_rank == 3 * ((64 + 64) + (64 + 32))


def test_a_composite_configuration_is_scanned():
    """Its parts are configured inside."""
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    vision = {"model_type": "clip_vision_model", **tiny, "image_size": 28, "patch_size": 14, "projection_dim": 16}
    text = {"model_type": "llama", **tiny, "vocab_size": 64}
    found = scan_config({"model_type": "llava", "text_config": text, "vision_config": vision, "image_token_index": 63})
    assert found.propose("LORA", "default").matched == 4
    assert found.towers["vision"]


def test_code_that_a_configuration_names_is_never_run(tmp_path, monkeypatch):
    """A module beside it is there to be imported, and is not."""
    (tmp_path / "modeling_evil.py").write_text("import os; os.environ['EVIL'] = 'ran'\nclass Evil: pass\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    auto = {"AutoConfig": "modeling_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    evil = {
        "auto_map": auto,
        "trust_remote_code": True,
        "_name_or_path": str(tmp_path),
        "_attn_implementation": "somebody/kernels",
        "attn_implementation": "somebody/kernels",
        "experts_implementation": "somebody/kernels",
        "quantization_config": {"quant_method": "evil", "modules_to_not_convert": "x"},
    }
    assert scan_config({**LLAMA, **evil}).propose().matched == 6
    with pytest.raises(UnknownArchitecture, match="The code its auto_map names is never run"):
        scan_config({**LLAMA, **evil, "model_type": "evil"})
    assert "EVIL" not in os.environ
    assert "modeling_evil" not in sys.modules


def test_nothing_is_asked_of_a_hub_while_it_builds(hub):
    """A configuration may name a backbone elsewhere: it is not fetched."""
    hub.add("somebody/backbone", {"config.json": json.dumps(LLAMA).encode()})
    tiny = {"hidden_size": 32, "num_hidden_layers": 1, "use_pretrained_backbone": True, "use_timm_backbone": False}
    with pytest.raises(InvalidRequest, match="'backbone' is 'somebody/backbone', which is no name in a library"):
        scan_config({"model_type": "dpt", **tiny, "backbone": "somebody/backbone"})
    with pytest.raises(InvalidRequest, match="'backbone'"):
        scan_config({"model_type": "detr", "use_timm_backbone": True, "backbone": "local-dir:/etc"})
    scan_config(
        {"model_type": "detr", "use_timm_backbone": True, "backbone": "resnet18", "use_pretrained_backbone": True}
    )
    assert hub.requests == []
    assert constants.HF_HUB_OFFLINE is False


def test_what_is_left_out_is_left_out_at_any_depth():
    """Also inside the parts."""
    sent = {"a": {"auto_map": {}, "b": [{"attn_implementation": "x", "c": 1}]}, "dtype": "float16", "d": "kept"}
    assert clean_config(sent) == {"a": {"b": [{"c": 1}]}, "d": "kept"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": None}, "has no model_type"),
        ({"model_type": 7}, "has no model_type"),
        ({"model_type": "../llama"}, r"model_type: .*U\+002F"),
        ({"model_type": "ll\u0430ma"}, r"U\+0430"),
        ({"num_hidden_layers": 10**6}, "'num_hidden_layers' is 1000000; 2048 is the most"),
        ({"num_local_experts": 10**5}, "4096 is the most"),
        ({"num_attention_heads": 10**5}, "4096 is the most"),
        ({"num_labels": 10**9}, "1000000 is the most"),
        ({"hidden_size": 10**12}, "2147483648 is the most"),
        ({"vision_config": {"depths": [2, 10**5]}}, "'vision_config.depths' is 100000"),
        ({"x": "a" * 5000}, "has 5000 characters"),
        ({"x": list(range(MOST_VALUES + 1))}, f"more than {MOST_VALUES} values"),
    ],
    ids=range(12),
)
def test_absurd_configurations_are_refused_before_anything_is_built(changes, says):
    """With the setting, its value and the most it may be."""
    with pytest.raises(InvalidRequest, match=says):
        scan_config({**LLAMA, **changes})


def test_deep_nesting_is_refused():
    """Deeper than any configuration, long before Python minds."""
    tables, lists = {}, []
    for _ in range(300):
        tables, lists = {"a": tables}, [lists]
    for nested in (tables, {"a": lists}):
        with pytest.raises(InvalidRequest, match="nested deeper than 24"):
            check_config(nested)


def test_an_unknown_type_is_told_with_near_names():
    """Only transformers' own types are built."""
    with pytest.raises(UnknownArchitecture, match="Closest: 'llama'") as caught:
        scan_config({**LLAMA, "model_type": "lama"})
    assert caught.value.details["library"] == "transformers"


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"hidden_act": "no_such_thing"}],
    ids=["text", "zero", "name"],
)
def test_what_does_not_build_is_told(changes):
    """In one line, with the cause."""
    with pytest.raises(ScanFailed, match="No model of type 'llama' builds from this configuration") as caught:
        scan_config({**LLAMA, **changes})
    assert "\n" not in caught.value.message


def test_a_repo_is_scanned_by_its_config_alone(hub):
    """Nothing else of it is asked for."""
    hub.add("alice/llama", {"config.json": json.dumps(LLAMA).encode(), "modeling_evil.py": b"raise SystemExit"})
    config = fetch_config(Reference.parse("hub:alice/llama"))
    assert scan_config(config).propose().matched == 6
    assert {request.split()[1] for request in hub.requests} == {"/alice/llama/resolve/main/config.json"}


def test_a_revision_is_taken(hub):
    """A branch of the repo."""
    hub.add("alice/llama", {"config.json": json.dumps(LLAMA).encode()})
    hub.add("alice/llama", {"config.json": json.dumps({**LLAMA, "num_hidden_layers": 1}).encode()}, branch="small")
    assert fetch_config(Reference.parse("hub:alice/llama@small"))["num_hidden_layers"] == 1


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        ("hub:alice/nothing", HubFailed, "is not on"),
        ("hub:alice/llama@gone", HubFailed, "has no such revision"),
        ("hub:alice/empty", HubFailed, "holds no config.json"),
        ("hub:alice/large", HubFailed, "more than 1048576"),
        ("hub:alice/broken", HubFailed, "is no JSON object"),
        ("hub:alice/list", HubFailed, "is no JSON object"),
        ("hub:alice/deep", HubFailed, "is no JSON object"),
        ("hub:alice/gated", HubFailed, "is gated"),
        ("hub:llama", InvalidReference, "names no repo"),
        ("hub:../../etc", InvalidReference, "names no repo"),
        ("hub:alice/../bob", InvalidReference, "names no repo"),
    ],
)
def test_a_repo_that_cannot_be_scanned_is_told(hub, reference, error, says):
    """In one line, with the reference."""
    files = {
        "llama": json.dumps(LLAMA).encode(),
        "large": b" " * ((1 << 20) + 1),
        "broken": b"{",
        "list": b"[]",
        "deep": b"[" * 100_000,
    }
    for name, content in files.items():
        hub.add(f"alice/{name}", {"config.json": content})
    hub.add("alice/gated", {"config.json": b"{}"}, gated=True)
    hub.add("alice/empty", {"README.md": b"nothing"})
    with pytest.raises(error, match=says) as caught:
        fetch_config(Reference.parse(reference))
    assert "\n" not in caught.value.message
    assert caught.value.message.replace("'", "").startswith(reference)


def test_a_hub_that_does_not_answer_is_told(hub):
    """With its address."""
    hub.down = True
    with pytest.raises(HubFailed, match=r"is refused by http://127.0.0.1:.*500"):
        fetch_config(Reference.parse("hub:alice/llama"))


@pytest.mark.parametrize("for_others", [True, False])
def test_redirects_within_the_endpoint_are_followed(hub, for_others):
    """By a path or by a whole URL of the endpoint."""
    hub.add("alice/new", {"config.json": json.dumps(LLAMA).encode()})
    hub.redirects["/alice/old/resolve/main/config.json"] = "/alice/middle/resolve/main/config.json"
    hub.redirects["/alice/middle/resolve/main/config.json"] = f"{hub.url}/alice/new/resolve/main/config.json"
    assert fetch_config(Reference.parse("hub:alice/old"), for_others=for_others) == LLAMA


@pytest.mark.parametrize("for_others", [True, False])
def test_a_redirect_to_another_origin_is_not_followed(hub, tmp_path, for_others):
    """Another port is another service: it receives no request, and the cache stays empty."""
    (tmp_path / "other").mkdir()
    with hub_server.running(tmp_path / "other") as other:
        other.add("alice/llama", {"config.json": json.dumps(LLAMA).encode()})
        path = "/alice/llama/resolve/main/config.json"
        host = other.url.removeprefix("http:")
        for target in (other.url + path, host + path, f"https:{hub.url.removeprefix('http:')}{path}", "ftp://x/y"):
            hub.redirects[path] = target
            with pytest.raises(HubFailed, match="is redirected away from") as caught:
                fetch_config(Reference.parse("hub:alice/llama"), for_others=for_others)
            assert caught.value.details["endpoint"] == hub.url
        assert other.requests == []
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("config.json"))


def test_endless_redirects_end(hub):
    """A redirect to itself is followed a few times."""
    path = "/alice/llama/resolve/main/config.json"
    hub.redirects[path] = path
    with pytest.raises(HubFailed, match="redirected more than 5 times"):
        fetch_config(Reference.parse("hub:alice/llama"), for_others=True)


def test_a_configuration_read_for_others_leaves_no_file(hub, tmp_path):
    """It goes from the socket into memory; only the owner's own requests fill the cache."""
    hub.add("alice/llama", {"config.json": json.dumps(LLAMA).encode()})
    before = sorted(tmp_path.rglob("*"))
    assert fetch_config(Reference.parse("hub:alice/llama"), for_others=True) == LLAMA
    assert sorted(tmp_path.rglob("*")) == before
    assert fetch_config(Reference.parse("hub:alice/llama")) == LLAMA
    assert list((tmp_path / "cache").rglob("config.json"))


@pytest.mark.parametrize(
    "reference", ["hub:alice/nothing", "hub:alice/llama@gone", "hub:alice/empty", "hub:alice/large"]
)
def test_errors_for_others_are_those_of_the_owner(hub, reference):
    """Both ways to read a configuration give the same message."""
    hub.add("alice/llama", {"config.json": b"{}"})
    hub.add("alice/empty", {"README.md": b"nothing"})
    hub.add("alice/large", {"config.json": b" " * ((1 << 20) + 1)})
    messages = []
    for for_others in (True, False):
        with pytest.raises(HubFailed) as caught:
            fetch_config(Reference.parse(reference), for_others=for_others)
        messages.append(caught.value.message.replace(str((1 << 20) + 1), "N"))
    assert messages[0] == messages[1]
