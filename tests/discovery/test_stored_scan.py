"""Scans of stored models: on a hub of the tests' own and in folders, by configuration and headers alone."""

import json

import diffusers
import hub_server
import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, LlamaConfig, MixtralConfig, ViTConfig

from loradar.discovery import scan, scan_files, scan_stored
from loradar.errors import HubFailed, InvalidReference, InvalidRequest, UnknownArchitecture, WeightsUnreadable
from loradar.sandbox.tasks import scan_sent
from loradar.weights import read_weights

SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3}
TWO_BLOCKS = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
MODELED = 'open("{mark}", "w").close()\n'
"""Code that would leave a mark if it ran."""


def sharded(count, blocks=4, width=8):
    """Return the files of a model of ``count`` shards and its index, as a hub has them."""
    names = [f"model.layers.{i}.{part}_proj.weight" for i in range(count * blocks) for part in ("q", "v")]
    files, weight_map, total = {}, {}, 0
    for shard in range(count):
        own = {name: torch.zeros(width, width) for name in names[shard * 2 * blocks : (shard + 1) * 2 * blocks]}
        if shard == 0:
            own["model.embed_tokens.weight"] = torch.zeros(32, width)
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        files[file] = save(own)
        weight_map |= dict.fromkeys(own, file)
        total += sum(tensor.nbytes for tensor in own.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return {**files, "model.safetensors.index.json": json.dumps(index).encode()}


def config_of(**changes):
    """Return a config.json."""
    return json.dumps({"model_type": "brandnew", "auto_map": {"AutoModel": "modeling_new.New"}, **changes}).encode()


@pytest.mark.parametrize("shard_size", ["50KB", "5GB"])
@pytest.mark.parametrize(
    ("model_class", "config", "verdict"),
    [
        (AutoModelForCausalLM, LlamaConfig(vocab_size=100, **SIZES), "fits"),
        (AutoModel, LlamaConfig(vocab_size=100, **SIZES), "fits with renames"),
        (AutoModel, BertConfig(vocab_size=100, **SIZES), "fits with renames"),
        (AutoModelForCausalLM, MixtralConfig(vocab_size=100, num_local_experts=4, **SIZES), "fits with renames"),
        (AutoModel, ViTConfig(image_size=32, patch_size=8, **SIZES), "fits with renames"),
    ],
    ids=["llama", "llama without its head", "bert with a pooler for its head", "mixtral", "vit"],
)
def test_a_saved_model_fits_its_own_type(tmp_path, model_class, config, verdict, shard_size):
    """Checkpoints have the names of earlier versions and experts one by one; the roles are those of a trace."""
    torch.manual_seed(0)
    model_class.from_config(config).save_pretrained(tmp_path, max_shard_size=shard_size)
    found = scan(f"file:{tmp_path}")
    assert (found.stored.verdict, found.stored.shapes) == (verdict, ())
    assert "pooler" not in " ".join(found.stored.renames)
    assert found.architecture.name == config.model_type
    assert found.stored.headers == found.stored.files == len(list(tmp_path.glob("*.safetensors")))


def test_a_type_nobody_knows_is_scanned_by_its_header(tmp_path):
    """Nothing is built; roles come from names and shapes, and that is said. The code beside it is not run."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=100, **SIZES))
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(config_of())
    (tmp_path / "modeling_new.py").write_text(MODELED.format(mark=tmp_path / "mark"))
    found = scan(f"file:{tmp_path}")
    assert (found.method, found.architecture.reference) == ("names", "transformers:brandnew")
    assert "has no 'brandnew', and code of a repository is not run" in found.proof
    assert {layer.path: layer.role for layer in scan(model).layers} == {x.path: x.role for x in found.layers}
    assert found.propose().spec.target_modules == ("q_proj", "v_proj")
    assert found.stored.verdict is None
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("build", "config"),
    [
        (
            lambda: timm.create_model("vit_tiny_patch16_224", num_classes=7),
            {"architecture": "vit_tiny_patch16_224", "num_classes": 7},
        ),
        (
            lambda: diffusers.AutoencoderKL(block_out_channels=[32, 64], norm_num_groups=8, **TWO_BLOCKS),
            {"_class_name": "AutoencoderKL", "block_out_channels": [32, 64], "norm_num_groups": 8, **TWO_BLOCKS},
        ),
    ],
    ids=["timm", "diffusers"],
)
def test_models_of_timm_and_diffusers_fit_their_classes(tmp_path, build, config):
    """With the sizes that their configuration states, and a head for other classes."""
    (tmp_path / "model.safetensors").write_bytes(save(build().state_dict()))
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = scan(f"file:{tmp_path}")
    assert (found.stored.verdict, found.stored.missing, found.method) == ("fits", (), "dataflow")
    assert set(found.stored.shapes) <= {"head"}


def test_a_quantised_model_fits_as_the_plain_one(hub):
    """Packed shapes are those of the layers they stand for."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=128, **SIZES))
    packed = {}
    for name, tensor in model.state_dict().items():
        if "_proj" not in name:
            packed[name] = tensor
            continue
        path, (outputs, inputs) = name.removesuffix(".weight"), tensor.shape
        packed[f"{path}.qweight"] = torch.zeros(inputs // 8, outputs, dtype=torch.int32)
        packed[f"{path}.qzeros"] = torch.zeros(1, outputs // 8, dtype=torch.int32)
        packed[f"{path}.scales"] = torch.zeros(1, outputs, dtype=torch.float16)
    config = model.config.to_dict() | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    hub.add("alice/packed", {"config.json": json.dumps(config).encode(), "model.safetensors": save(packed)})
    found = scan("hub:alice/packed")
    assert found.stored.verdict == "fits"
    assert found.stored.packed == ("GPTQ (21 weights)",)


def test_a_hub_is_asked_for_headers_alone(hub):
    """One listing, the configuration, the index, and the starts of the shards; all at one commit."""
    commit = hub.add("alice/new", {"config.json": config_of(), **sharded(3)})
    found = scan("hub:alice/new")
    assert len(found.layers) == 25
    assert (found.stored.files, found.stored.headers, found.stored.notes) == (3, 3, ())
    gets = [request for request in hub.requests if "/resolve/" in request]
    assert len(gets) == 5
    assert all(f"/resolve/{commit}/" in request for request in gets)
    assert [range_ for range_ in hub.ranges if range_]
    assert found.stored.transferred < 12_000


def test_others_are_answered_by_the_header_where_there_is_no_class(hub):
    """As ``POST /v1/scan`` does; without weights to read, the type is unknown as before."""
    hub.add("alice/new", {"config.json": config_of(), **sharded(1)})
    assert scan_sent({"reference": "hub:alice/new"}).stored.tensors == 9
    hub.add("alice/none", {"config.json": config_of()})
    with pytest.raises(UnknownArchitecture, match="Unknown architecture 'brandnew'"):
        scan_sent({"reference": "hub:alice/none"})


def test_offline_the_cache_is_read(hub, monkeypatch):
    """What a user has loaded before is at hand; else one line says why it is not."""
    hub.add("alice/new", {"config.json": config_of(), **sharded(1)})
    huggingface_hub.snapshot_download("alice/new", cache_dir=constants.HF_HUB_CACHE)
    hub.down = True
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert scan("hub:alice/new").stored.tensors == 9
    with pytest.raises(HubFailed, match="HF_HUB_OFFLINE is set"):
        scan("hub:alice/other")


def test_of_many_shards_few_are_read(hub):
    """The ends of each stack tell the shapes; the size of the whole tells that the rest are alike."""
    hub.add("alice/many", {"config.json": config_of(), **sharded(200, blocks=1)})
    weights = read_weights("hub:alice/many")
    assert len(weights.tensors) == 401
    assert (weights.files, weights.headers) == (200, 2)
    (note,) = weights.assumed
    assert note.startswith("the shapes of 396 of 401 tensors were taken")
    assert note.endswith("the size of all is the one that the index states")


def test_shapes_that_do_not_hold_are_told(hub):
    """A block in the middle is wider: the size of the whole disagrees."""
    files = sharded(40, blocks=1)
    name = "model-00020-of-00040.safetensors"
    index = json.loads(files["model.safetensors.index.json"])
    own = [tensor for tensor, file in index["weight_map"].items() if file == name]
    files[name] = save({tensor: torch.zeros(64, 8) for tensor in own})
    index["metadata"]["total_size"] += 2 * 56 * 8 * 4
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.add("alice/odd", {"config.json": config_of(), **files})
    (note,) = scan("hub:alice/odd").stored.notes
    assert "but not all of them hold" in note


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({"pytorch_model.bin": b"x"}, WeightsUnreadable, "pickled weights alone"),
        ({"README.md": b"x"}, WeightsUnreadable, "nothing tells the shapes"),
        ({"a.safetensors": b"x", "b.safetensors": b"x"}, WeightsUnreadable, "several files of weights and no index"),
        ({"model.safetensors": b"\xff" * 64}, WeightsUnreadable, "states a header of 18446744073709551615 bytes"),
        ({"model.safetensors": (400).to_bytes(8, "little") + b"{"}, WeightsUnreadable, "ends inside its header"),
        ({"config.json": b"[]", "model.safetensors": b""}, WeightsUnreadable, "config.json of .* is no JSON object"),
        ({"model.safetensors.index.json": b"{}"}, WeightsUnreadable, "no weight_map"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "../../etc/passwd.safetensors"}}'},
            WeightsUnreadable,
            "not beside it",
        ),
        (
            {"adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": "org/base"}'},
            InvalidReference,
            "is an adapter .LORA. of 'org/base'",
        ),
        (
            {"model_index.json": b'{"unet": ["diffusers", "UNet2DConditionModel"], "vae": [null, null]}'},
            InvalidReference,
            "Name one: 'hub:alice/x/unet'",
        ),
    ],
)
def test_what_is_no_stored_model_is_refused(hub, files, error, words):
    """In one line, with the way out."""
    hub.add("alice/x", files)
    with pytest.raises(error, match=words):
        scan("hub:alice/x")


def test_a_component_of_a_pipeline_is_scanned(hub):
    """By its subfolder, which has a configuration and weights of its own."""
    layers = {
        f"blocks.{i}.attn.{name}.weight": torch.zeros(8, 8) for i in range(2) for name in ("to_q", "to_k", "to_v")
    }
    config = json.dumps({"_class_name": "NewTransformer2DModel", "_diffusers_version": "0.40.0"}).encode()
    files = {"unet/config.json": config, "unet/diffusion_pytorch_model.safetensors": save(layers)}
    hub.add("alice/pipe", {"model_index.json": b"{}", **files})
    found = scan("hub:alice/pipe/unet")
    assert (found.architecture.reference, found.architecture.library_version) == (
        "diffusers:NewTransformer2DModel",
        "0.40.0",
    )
    assert {layer.role for layer in found.layers} == {"attention.query", "attention.key", "attention.value"}


def test_a_server_that_ignores_ranges_is_not_read_to_its_end(hub, tmp_path, monkeypatch):
    """The header is taken from the start of the whole file, and the connection closed."""
    path = tmp_path / "hub" / hub.store(save({"a.weight": torch.zeros(4, 4)}) + bytes(1 << 20))
    hub.add("alice/x", {"config.json": config_of(), "model.safetensors": path.read_bytes()})
    monkeypatch.setattr(hub, "honours_ranges", False)
    with pytest.raises(WeightsUnreadable, match="Is the file complete"):
        scan("hub:alice/x")


def test_a_storage_host_gets_no_token(hub, tmp_path, monkeypatch):
    """Large files are elsewhere: on another port of the same host it is followed, to another host it is not."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    content = save({"layers.0.fc1.weight": torch.zeros(4, 4), "layers.1.fc1.weight": torch.zeros(4, 4)})
    hub.add("alice/new", {"config.json": config_of(), "model.safetensors": content})
    path = f"/alice/new/resolve/{hub.repos['alice/new'].branches['main']}/model.safetensors"
    (tmp_path / "other").mkdir()
    with hub_server.running(tmp_path / "other") as storage:
        storage.add("alice/new", {"model.safetensors": content})
        hub.redirects[path] = f"{storage.url}/alice/new/resolve/main/model.safetensors"
        assert len(scan("hub:alice/new").layers) == 2
        assert storage.tokens == [None]
        with pytest.raises(HubFailed, match="which is not followed"):
            scan_stored("hub:alice/new", for_others=True)
        hub.redirects[path] = hub.redirects[path].replace("127.0.0.1", "localhost")
        with pytest.raises(HubFailed, match=r"redirected away from .* to http://localhost:\d+, which is not followed"):
            scan("hub:alice/new")


def test_options_that_mean_nothing_here_are_rejected():
    """A stored model is neither run nor proved."""
    with pytest.raises(InvalidRequest, match="for which proved cannot be given"):
        scan("hub:alice/x", proved=True)


def test_no_file_of_this_machine_is_read_for_others(tmp_path):
    """Whatever the reference says."""
    with pytest.raises(InvalidReference, match="is stored nowhere"):
        scan_stored(f"file:{tmp_path}", for_others=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The files of a small llama in six shards."""
    folder = tmp_path_factory.mktemp("saved")
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=100, **SIZES))
    model.save_pretrained(folder, max_shard_size="100KB")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pick(saved, *ends):
    """Return the saved files with these ends of their names, of weights the headers alone."""
    chosen = {name: content for name, content in saved.items() if name.endswith(ends)}
    weights = {name: text for name, text in chosen.items() if name.endswith(".safetensors")}
    return chosen | {name: text[: 8 + int.from_bytes(text[:8], "little")] for name, text in weights.items()}


@pytest.mark.parametrize(
    ("ends", "headers", "verdict"),
    [
        (("config.json",), None, None),
        (("config.json", "index.json"), 0, "fits"),
        (("config.json", "index.json", *(f"{n}-of-00006.safetensors" for n in (1, 2, 3, 5, 6))), 5, "fits"),
        (("config.json", ".safetensors"), 6, "fits"),
    ],
)
def test_sent_files_of_a_model_are_scanned_together(saved, ends, headers, verdict):
    """The configuration is built, and what was sent of the weights is compared with it."""
    found = scan_files({name: text for name, text in pick(saved, *ends).items() if not name.startswith("generation")})
    assert found.propose().spec.target_modules == ("q_proj", "v_proj")
    assert found.architecture.class_name == "LlamaForCausalLM"
    stored = found.stored
    assert (stored.headers, stored.verdict, stored.missing) == (headers, verdict, ()) if stored else headers is None


def test_headers_alone_are_scanned_by_names(saved):
    """Without a configuration nothing is built."""
    found = scan_files(pick(saved, ".safetensors"))
    assert (found.method, found.propose().spec.target_modules) == ("names", ("q_proj", "v_proj"))


def test_an_index_says_what_does_not_fit(saved):
    """By names: a block that is not stored, and one with another prefix; without shapes, which is said."""
    index = json.loads(next(text for name, text in saved.items() if name.endswith("index.json")))
    moved = {name.replace("model.", "backbone."): file for name, file in index["weight_map"].items()}
    without = {name: file for name, file in moved.items() if ".q_proj." not in name} | {"extra.weight": "x"}
    found = scan_files({"config.json": saved["config.json"], "i": json.dumps({"weight_map": without}).encode()})
    assert (found.stored.verdict, found.stored.renames) == ("differs", ("model.* = backbone.*",))
    assert found.stored.missing == ("model.layers.*.self_attn.q_proj",)
    assert found.stored.beyond == ("extra",)
    assert "only the names were compared" in found.stored.notes[0]


@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        ({"i": b'{"weight_map": {"a.weight": "m"}}'}, WeightsUnreadable, "names without shapes"),
        ({"c": b'{"hidden_size": 64}'}, InvalidRequest, "no model_type"),
        ({"c": b'{"model_type": "lama"}'}, UnknownArchitecture, "lama"),
        ({"c": b'{"architecture": "resnet18x"}'}, UnknownArchitecture, "resnet18x"),
        ({"c": b'{"_class_name": "UNet9DModel"}'}, UnknownArchitecture, "UNet9DModel"),
    ],
)
def test_sent_files_that_describe_no_model_are_rejected(files, error, said):
    """In one line with the way out."""
    with pytest.raises(error, match=said):
        scan_files(files)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architecture": "resnet18", "num_classes": 10}, "timm:resnet18"),
        ({"_class_name": "VQModel"}, "diffusers:VQModel"),
    ],
)
def test_configurations_of_other_libraries_are_scanned(config, expected):
    """As their own files state them."""
    assert scan_files({"config.json": json.dumps(config).encode()}).architecture.reference == expected
