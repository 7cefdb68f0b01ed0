"""Adapters on the hub: pushed to and fetched from a real server on loopback, through huggingface_hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hub_server
import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from torch import nn
from zoo import MLP, llama

import loradar
from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.adapters.hub.transfer import fetch
from loradar.errors import AdapterUnreadable, HubFailed, InvalidReference
from loradar.references import HubFolder

# What huggingface_hub 2.4 calls httpx2 with when it uploads without xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
FIELDS = {"target_modules": ["seq.0", "seq.2"], "modules_to_save": ["seq.4"]}


@pytest.fixture
def hub(hub, monkeypatch):
    """A hub with nothing in it, which alice is logged in to, and an empty cache."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    return hub


def adapted(seed: float = 1.0, **fields: object) -> PeftModel:
    """Return an MLP whose adapter has values of its own."""
    model = inject(MLP(8), LoraConfig(**{**FIELDS, **fields}))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=seed)
    return model


def files_of(model: PeftModel, folder: Path) -> dict[str, bytes]:
    """Return what the model's adapter is saved as."""
    model.save_pretrained(folder)
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def same(left: PeftModel, right: PeftModel) -> bool:
    """Tell whether two adapters are the same, bit for bit."""
    one, other = left.adapter_state(), right.adapter_state()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_there_and_back(hub):
    """What is pushed is what a fresh model gets, bit for bit; one commit; its address comes back."""
    model = adapted()
    address = model.push_to_hub("alice/mlp", commit_message="Say hello")
    repo = hub.repos["alice/mlp"]
    assert address == f"{hub.url}/alice/mlp/commit/{repo.branches['main']}"
    assert repo.messages == ["initial commit", "Say hello"]
    assert sorted(repo.commits[repo.branches["main"]]) == [".gitattributes", CARD, CONFIG, WEIGHTS]
    back = PeftModel.from_pretrained(MLP(8), "hub:alice/mlp")
    assert same(back, model)
    assert back.get_nb_trainable_parameters()[0] == 0
    assert (back.decision, back.active_peft_config.target_modules) == (None, {"seq.0", "seq.2"})


def test_a_configuration_alone_is_fetched(hub):
    """``LoraConfig.from_pretrained`` reads a repo, a subfolder, a revision; the weights stay where they are."""
    config = json.dumps(LoraConfig(target_modules=["seq.0"], r=2).to_peft_dict()).encode()
    hub.add("bob/configs", {CONFIG: config, f"best/{CONFIG}": config})
    places = [
        ("hub:bob/configs", {}),
        ("hub:bob/configs", {"subfolder": "best"}),
        ("hub:bob/configs@main", {"subfolder": "best"}),
    ]
    for place, options in [*places, ("hub:bob/configs", {"revision": "main"})]:
        assert LoraConfig.from_pretrained(place, **options) == LoraConfig(target_modules=["seq.0"], r=2)
    with pytest.raises(HubFailed, match="nobody"):
        LoraConfig.from_pretrained("hub:bob/nobody")


def test_what_peft_saves_is_fetched(hub, tmp_path):
    """An adapter of PEFT's own, in a subfolder as transformers' repos have it."""
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(MLP(8), peft.LoraConfig(target_modules=["seq.0"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "saved")
    hub.add("bob/mlp", {f"best/{name}": (tmp_path / "saved" / name).read_bytes() for name in (CONFIG, WEIGHTS)})
    back = PeftModel.from_pretrained(MLP(8), "hub:bob/mlp/best")
    saved = load_file(tmp_path / "saved" / WEIGHTS)
    assert all(torch.equal(saved[key], value) for key, value in back.adapter_state().items())


def test_by_revision(hub):
    """A branch is made, may hold slashes, and keeps what it has when the main branch moves on; so does a commit."""
    first, second, third = adapted(1.0), adapted(2.0), adapted(3.0)
    first.push_to_hub("alice/mlp")
    commit = hub.repos["alice/mlp"].branches["main"]
    second.push_to_hub("alice/mlp", revision="try/two")
    third.push_to_hub("alice/mlp")
    assert same(PeftModel.from_pretrained(MLP(8), f"hub:alice/mlp@{commit}"), first)
    assert same(PeftModel.from_pretrained(MLP(8), "hub:alice/mlp@try/two"), second)
    assert same(PeftModel.from_pretrained(MLP(8), "hub:alice/mlp"), third)


def test_both_files_are_of_one_commit(hub, tmp_path, monkeypatch):
    """A push between the two downloads does not mix two adapters."""
    first = adapted(1.0)
    first.push_to_hub("alice/mlp")
    download = huggingface_hub.HfApi.hf_hub_download

    def and_then_push(api, repo, name, **options):
        got = download(api, repo, name, **options)
        if name == WEIGHTS:
            hub.add(repo, files_of(adapted(2.0, target_modules=["seq.0"]), tmp_path / "second"))
        return got

    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", and_then_push)
    assert same(PeftModel.from_pretrained(MLP(8), "hub:alice/mlp"), first)


def test_a_named_adapter_is_in_its_folder(hub):
    """As in save_pretrained; the card says how to load it from there."""
    model = inject(MLP(8), LoraConfig(**FIELDS), "poet")
    model.push_to_hub("alice/mlp", revision="v1")
    assert same(PeftModel.from_pretrained(MLP(8), "hub:alice/mlp/poet@v1"), model)
    card = hub.read("alice/mlp", CARD, "v1").decode()
    assert 'loradar.PeftModel.from_pretrained(model, "hub:alice/mlp/poet@v1")' in card
    assert 'PeftModel.from_pretrained(model, "alice/mlp", revision="v1", subfolder="poet")' in card


def test_ones_own_account_needs_no_name(hub):
    """As everywhere on the hub; `hub:` before the name is no harm."""
    adapted().push_to_hub("mlp")
    adapted().push_to_hub("hub:alice/other")
    assert set(hub.repos) == {"alice/mlp", "alice/other"}
    assert '"hub:alice/mlp"' in hub.read("alice/mlp", CARD).decode()


def test_a_pull_request(hub):
    """The branch stays as it is; the address is the request's; more can be pushed to it."""
    adapted(1.0).push_to_hub("alice/mlp")
    before, proposed = dict(hub.repos["alice/mlp"].branches), adapted(2.0)
    address = proposed.push_to_hub("alice/mlp", create_pr=True)
    assert address == f"{hub.url}/alice/mlp/discussions/1"
    assert hub.repos["alice/mlp"].branches["main"] == before["main"]
    assert same(PeftModel.from_pretrained(MLP(8), "hub:alice/mlp@refs/pr/1"), proposed)
    better = adapted(3.0)
    better.push_to_hub("alice/mlp", revision="refs/pr/1")
    assert same(PeftModel.from_pretrained(MLP(8), "hub:alice/mlp@refs/pr/1"), better)


def test_a_private_repo(hub, monkeypatch):
    """Open with its owner's token, whether from the environment or given; for others as good as missing."""
    model = adapted()
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    model.push_to_hub("alice/secret", private=True, token="hf_alice")  # noqa: S106 - of our own hub
    assert hub.repos["alice/secret"].private
    for token in ("hf_bob", ""):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(HubFailed, match=r"not open to this account.*if it is private, log in with 'hf auth"):
            PeftModel.from_pretrained(MLP(8), "hub:alice/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    assert same(PeftModel.from_pretrained(MLP(8), "hub:alice/secret"), model)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("hub:bob/nothing", r"^hub:bob/nothing is not on http://127.0.0.1:\d+, or not open to this account\. Check"),
        (
            "hub:bob/mlp@v9",
            r"^hub:bob/mlp@v9 has no such revision: http\S+/bob/mlp/tree/main lists them\. A subfolder",
        ),
        ("hub:bob/mlp/deep", r"^hub:bob/mlp/deep holds no adapter_model\.safetensors: there is no adapter\."),
        ("hub:bob/half", r"^hub:bob/half holds no adapter_config\.json: there is no adapter\."),
        (
            "hub:bob/gated",
            r"^hub:bob/gated is gated, and this account has no access\. Ask for it at \S+/bob/gated,",
        ),
    ],
)
def test_what_is_not_to_be_had_is_named(hub, tmp_path, reference, says):
    """The reference, what is wrong with it and the way out, in one line; the model is unchanged."""
    files = files_of(adapted(), tmp_path / "saved")
    hub.add("bob/mlp", files)
    hub.add("bob/half", {WEIGHTS: files[WEIGHTS]})
    hub.add("bob/gated", files, gated=True)
    model = MLP(8)
    modules = dict(model.named_modules())
    with pytest.raises(HubFailed, match=says) as refused:
        PeftModel.from_pretrained(model, reference)
    assert "\n" not in str(refused.value)
    assert refused.value.details == {"reference": reference, "endpoint": hub.url}
    assert dict(model.named_modules()) == modules


def test_a_pickle_is_refused(hub, tmp_path):
    """The message says what is there instead; not one byte of the repo is downloaded."""
    hub.add("bob/old", {CONFIG: b"{}", "adapter_model.bin": b"\x80\x04.", "modeling.py": b"raise SystemExit"})
    with pytest.raises(HubFailed, match=r"adapter_model\.bin is a pickle and is not read\. Save it again with peft"):
        PeftModel.from_pretrained(MLP(8), "hub:bob/old")
    assert not [request for request in hub.requests if request.startswith("GET")]
    assert not list((tmp_path / "cache").rglob("blobs/*"))


def test_only_two_files_are_downloaded(hub, tmp_path):
    """Code, pickles and whatever else is beside them stay where they are."""
    others = {"adapter_model.bin": b"\x80\x04.", "modeling.py": b"raise SystemExit", "optimizer.pt": b"\x80\x04."}
    hub.add("bob/mlp", {**files_of(adapted(), tmp_path / "saved"), **others})
    folder = fetch(HubFolder.parse("hub:bob/mlp"))
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    fetched = [request.rpartition("/")[2] for request in hub.requests if request.startswith("GET")]
    assert sorted(fetched) == [CONFIG, WEIGHTS]


def test_offline_with_a_warm_cache(hub, monkeypatch):
    """What was fetched once loads without a connection, and nobody is asked; the rest is refused in words."""
    model = adapted()
    model.push_to_hub("alice/mlp")
    fetch(HubFolder.parse("hub:alice/mlp"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    asked = len(hub.requests)
    assert same(PeftModel.from_pretrained(MLP(8), "hub:alice/mlp"), model)
    with pytest.raises(HubFailed, match="hub:alice/other is out of reach: HF_HUB_OFFLINE is set, and a needed file"):
        fetch(HubFolder.parse("hub:alice/other"))
    with pytest.raises(HubFailed, match="hub:alice/mlp is out of reach: HF_HUB_OFFLINE is set"):
        model.push_to_hub("alice/mlp")
    assert len(hub.requests) == asked


def test_nobody_answers(hub, monkeypatch):
    """A refused connection names the address and the variable that holds it."""
    hub_server.ask("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr("time.sleep", lambda _: None)  # it tries again for half a minute
    for call in (lambda: fetch(HubFolder.parse("hub:alice/mlp")), lambda: adapted().push_to_hub("alice/mlp")):
        with pytest.raises(HubFailed, match=r"http://127.0.0.1:9 does not answer \(.*refused.*Check.*and HF_ENDPOINT"):
            call()
    assert not hub.requests


def test_a_failing_hub(hub, monkeypatch):
    """An error of the server is told with its status; what is in the cache still loads."""
    model = adapted()
    model.push_to_hub("alice/mlp")
    fetch(HubFolder.parse("hub:alice/mlp"))
    hub.down = True
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert same(PeftModel.from_pretrained(MLP(8), "hub:alice/mlp"), model)
    with pytest.raises(HubFailed, match=r"hub:alice/mlp is refused by http\S+: 500, Out of order\.$"):
        model.push_to_hub("alice/mlp")


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("hf_bob", "403, You don't have the rights.*'alice'. If it should be open to you, log in with 'hf auth login'"),
        ("hf_wrong", "401, Invalid credentials in Authorization header. If it should be open to you, log in"),
    ],
)
def test_no_right_to_push(hub, token, says):
    """The hub's own reason, and how to be somebody else."""
    with pytest.raises(HubFailed, match=says):
        adapted().push_to_hub("alice/mlp", token=token)
    assert not hub.repos


def test_a_lost_upload(hub):
    """A file that does not arrive leaves the branch as it was."""
    adapted().push_to_hub("alice/mlp")
    before = hub.repos["alice/mlp"].branches["main"]
    hub.full = True
    with pytest.raises(HubFailed, match=r"hub:alice/mlp is refused by \S+: 507, Disk is full"):
        adapted(2.0).push_to_hub("alice/mlp")
    assert hub.repos["alice/mlp"].branches["main"] == before


@pytest.mark.parametrize(
    "reference",
    ["hub:mlp", "hub:alice/mlp/../../other", "hub:alice//mlp", "hub:alice/mlp/", "hub:alice/mlp@../../x", "hub:/mlp"],
)
def test_impossible_references(hub, reference):
    """Refused before anything is asked; none leads out of the cache."""
    with pytest.raises(InvalidReference, match="is no adapter on the hub: write 'hub:org/repo', 'hub:org/repo@rev"):
        PeftModel.from_pretrained(MLP(8), reference)
    assert not hub.requests


@pytest.mark.parametrize("revision", ["../../x", "a..b", "x.lock", "a b", "", "x\\\\y", "/x"])
def test_impossible_revisions(hub, revision):
    """Rejected before a request, whether an adapter is pushed or its place is stated."""
    with pytest.raises(InvalidReference, match="invalid revision"):
        adapted().push_to_hub("alice/mlp", revision=revision)
    with pytest.raises(InvalidReference, match="invalid revision"):
        HubFolder("alice/mlp", revision=revision)
    with pytest.raises(InvalidReference, match="invalid subfolder"):
        HubFolder("alice/mlp", subfolder=revision or "/")
    assert not hub.requests


@pytest.mark.parametrize("repo", ["alice/mlp/deep", "alice/m lp", "alice/--mlp", "hub:alice/mlp@v1", ""])
def test_impossible_repos(hub, repo):
    """A name the hub cannot have is refused before anything is asked."""
    with pytest.raises(InvalidReference, match="names no repo"):
        adapted().push_to_hub(repo)
    assert not hub.requests


def test_a_card_somebody_wrote_is_kept(hub):
    """Replaced while it is loradar's own, word for word; kept from the first edit on, on the hub as in a folder."""
    adapted(r=4).push_to_hub("alice/mlp")
    assert "| `r` | `4` |" in hub.read("alice/mlp", CARD).decode()
    adapted(r=2).push_to_hub("alice/mlp")
    assert "| `r` | `2` |" in hub.read("alice/mlp", CARD).decode()
    edited = hub.read("alice/mlp", CARD).replace(b"# LORA", b"# Our LORA")
    hub.add("alice/mlp", {CARD: edited})
    adapted(r=1).push_to_hub("alice/mlp")
    assert hub.read("alice/mlp", CARD) == edited
    assert json.loads(hub.read("alice/mlp", CONFIG))["r"] == 1


def test_a_base_model_in_a_folder_is_not_published(hub, tmp_path):
    """The hub refuses a card whose base model is a path, and nobody else could load it."""
    (tmp_path / "base").mkdir()
    adapted(base_model_name_or_path=str(tmp_path / "base")).push_to_hub("alice/mlp")
    assert str(tmp_path) not in hub.read("alice/mlp", CARD).decode()


def test_nothing_to_push_on_meta(hub):
    """An adapter without values is refused before a repo is made."""
    with torch.device("meta"):
        model = inject(MLP(8), LoraConfig(**FIELDS))
    with pytest.raises(loradar.LoradarError, match="is on the meta device and has no values"):
        model.push_to_hub("alice/mlp")
    assert not hub.requests


SCRIPT = """
import sys
import torch
import loradar.adapters
assert not {"huggingface_hub", "jinja2"} & set(sys.modules), "only who saves or shares an adapter pays for them"

def build():
    return torch.nn.Sequential(torch.nn.Linear(4, 4))

model = loradar.adapters.inject(build(), loradar.LoraConfig(target_modules=["0"], init_lora_weights=False))
model.push_to_hub("alice/own", private=True)
back = loradar.PeftModel.from_pretrained(build(), "hub:alice/own")
ours, theirs = model.adapter_state(), back.adapter_state()
assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)

named = loradar.adapters.inject(build(), loradar.LoraConfig(target_modules=["0"], init_lora_weights=False), "poet")
named.push_to_hub("alice/own", revision="v1")
import peft
model = build()
ours = named.adapter_state()
theirs = peft.get_peft_model_state_dict(eval(sys.stdin.read(), {"PeftModel": peft.PeftModel, "model": model}))
assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
"""
LOADED_BY_PEFT = 'PeftModel.from_pretrained(model, "alice/own", revision="v1", subfolder="poet")'


def test_the_environment_decides(hub, tmp_path):
    """Endpoint, token and cache are huggingface_hub's settings; and PEFT loads it by the line the card gives for it."""
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_alice", "HF_HOME": str(tmp_path / "own")}
    others = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", SCRIPT],
        env={**others, **settings, "HF_HUB_DISABLE_XET": "1"},
        input=LOADED_BY_PEFT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert LOADED_BY_PEFT in hub.read("alice/own", CARD, "v1").decode()
    assert hub.repos["alice/own"].private
    assert list((tmp_path / "own" / "hub").glob("models--alice--own/snapshots/*/adapter_model.safetensors"))


@pytest.mark.usefixtures("hub")
def test_the_llama_from_the_hub_answers_the_same():
    """Not the tensors alone: what the model says."""
    specimen = llama()
    fresh = llama().model
    fresh.load_state_dict(specimen.model.state_dict())
    model = inject(specimen.model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)).eval()
    model.push_to_hub("alice/llama")
    back = PeftModel.from_pretrained(fresh, "hub:alice/llama")
    assert torch.equal(specimen(back), specimen(model))


def test_a_bare_name_is_a_folder(hub):
    """A typing error in one is told at once, and asked of no hub, where every adapter is ``org/repo``."""
    with pytest.raises(AdapterUnreadable, match="my-adaptr is no folder"):
        PeftModel.from_pretrained(nn.Sequential(nn.Linear(4, 4)), "my-adaptr")
    assert hub.requests == []
