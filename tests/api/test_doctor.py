"""``POST /v1/doctor``: an adapter that is sent is examined in a worker."""

import json
from base64 import b64encode

import pytest
import torch
from denoiser_zoo import CROSS, UNET
from safetensors.torch import save, save_file
from shapes import documented
from starlette.testclient import TestClient

from loradar.api import create_app
from loradar.api.openapi import ADAPTER_EXAMPLE
from loradar.client import Client
from loradar.errors import AdapterUnreadable
from loradar.settings import RequestLimits, Settings
from loradar.weights.diagnoses import Diagnosis

LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 64}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 4}
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
FACTORS = {
    f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{name}.weight": torch.ones(shape)
    for layer in range(2)
    for name, shape in (("A", (4, 64)), ("B", (64, 4)))
}


@pytest.fixture(scope="module")
def client(seeded, tmp_path_factory):
    """One service with real workers."""
    limits = RequestLimits(*[10**9] * 4)
    settings = Settings(tmp_path_factory.mktemp("doctor"), f"sqlite:///{seeded}", limits=limits, workers=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as opened:
        yield opened


class Local(Client):
    """The client, whose requests go to an application in this process."""

    def __init__(self, opened):
        super().__init__("")
        self._http.close()
        self._http = opened

    def close(self):
        """Leave the application open."""


def examine(client, body):
    """Return the diagnosis in a response."""
    answer = client.post("/v1/doctor", json=body)
    assert answer.status_code == 200, answer.text
    return documented(Diagnosis, answer.json())


def header_of(content):
    """Return the header of a file as JSON."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def test_a_header_is_examined_beside_a_registered_architecture(client):
    """Names are compared; the note has what was not."""
    found = examine(client, ADAPTER_EXAMPLE)
    assert (found.base, found.layers, found.landed, found.findings) == ("transformers:llama", 1, 1, ())
    assert "shapes were not compared" in found.note
    assert "values were not sent" in found.note


def test_a_file_is_examined_beside_a_configuration(client, tmp_path):
    """Shapes, depth and values are compared too; the client sends the folder."""
    save_file(FACTORS, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    local = Local(client)
    found = local.doctor(tmp_path, LLAMA)
    assert (found.is_sound, found.landed, found.note) == (True, 2, "")
    assert {x.code for x in local.doctor(tmp_path, LLAMA | {"hidden_size": 128}).findings} == {"shapes"}
    save_file({k: t * ("lora_A" in k) for k, t in FACTORS.items()}, tmp_path / "adapter_model.safetensors")
    assert {x.code for x in local.doctor(tmp_path, LLAMA).findings} == {"zero"}
    assert local.doctor(tmp_path, LLAMA, values=False).is_sound
    with pytest.raises(AdapterUnreadable, match="cannot be read"):
        local.doctor(tmp_path / "none", LLAMA)


def test_names_of_an_older_version_are_found(client):
    """The service's registry has the renames, also for a configuration."""
    names = [
        f"base_model.model.vit.encoder.layer.{n}.attention.attention.query.lora_{x}.weight"
        for n in range(2)
        for x in "AB"
    ]
    content = save({name: torch.ones((4, 32) if "_A" in name else (32, 4)) for name in names})
    config = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    for model in ("vit", config | {"intermediate_size": 48}):
        found = examine(client, {"config": CONFIG, "header": header_of(content), "model": model})
        assert [*found.renames] == ["vit.encoder.layer.*.attention.attention.query"], model


def test_a_file_of_kohya_is_examined_as_on_the_command_line(client):
    """Beside the configuration of the model it adapts; the header alone tells the format."""
    unet = {"_class_name": "UNet2DConditionModel", **UNET, **CROSS, "cross_attention_dim": 16}
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {f"{layer}.lora_down.weight": torch.ones(4, 16), f"{layer}.lora_up.weight": torch.ones(16, 4)}
    content = save({**factors, f"{layer}.alpha": torch.tensor(4.0)})
    body = {"file": b64encode(content).decode(), "model": unet}
    found = examine(client, body)
    assert (found.format, found.landed, {(x.code, x.level) for x in found.findings}) == (
        "kohya",
        1,
        {("format", "warning")},
    )
    found = examine(client, body | {"model": unet | {"block_out_channels": [32, 64]}})
    assert {x.code for x in found.findings if x.level == "error"} == {"shapes"}
    found = examine(client, {"header": header_of(content), "model": unet})
    assert (found.landed, "send the whole 'file'" in found.note) == (0, True)


def test_the_adapter_names_its_base(client):
    """A checkpoint that is known offline stands for its architecture; any other is said to be unknown."""
    header = header_of(save(FACTORS))
    config = CONFIG | {"base_model_name_or_path": "meta-llama/Llama-2-7b-hf"}
    assert examine(client, {"config": config, "header": header}).base == "transformers:llama"
    found = examine(client, {"config": CONFIG | {"base_model_name_or_path": "/etc/passwd"}, "header": header})
    assert (found.base, "no base model is known" in found.note) == (None, True)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "invalid_request")),
        ([], (422, "invalid_request")),
        ({"header": {}, "file": "AAAA"}, (422, "invalid_request")),
        ({"file": "A"}, (422, "invalid_request")),
        ({"file": "é"}, (422, "invalid_request")),
        ({"file": "AAAAAAAAAAAA"}, (422, "weights_unreadable")),
        ({"header": {"a": {"dtype": "F32", "shape": [1 << 62], "data_offsets": [0, 4]}}}, (422, "weights_unreadable")),
        ({"header": {"a": [[[[[[1]]]]]]}}, (422, "weights_unreadable")),
        ({"header": ADAPTER_EXAMPLE["header"], "model": "file:/etc/passwd"}, (400, "invalid_reference")),
        ({"header": ADAPTER_EXAMPLE["header"], "model": "../../etc"}, (400, "invalid_reference")),
        ({"header": ADAPTER_EXAMPLE["header"], "model": "hub:../../etc"}, (400, "invalid_reference")),
        ({"header": ADAPTER_EXAMPLE["header"], "model": {"model_type": "nobody_knows"}}, (422, None)),
        ({"header": ADAPTER_EXAMPLE["header"], "model": {}}, (422, None)),
        ({"header": ADAPTER_EXAMPLE["header"], "model": ""}, (422, "invalid_request")),
        ({"header": ADAPTER_EXAMPLE["header"], "model": LLAMA | {"num_hidden_layers": 10**9}}, (422, None)),
        ({"header": ADAPTER_EXAMPLE["header"], "config": {"r": "x" * 99}, "surprise": 1}, (422, "invalid_request")),
    ],
)
def test_what_is_no_adapter_is_rejected(client, body, expected):
    """In the one shape and one line."""
    answer = client.post("/v1/doctor", json=body)
    status, error = answer.status_code, answer.json()["error"]
    assert status == expected[0], error
    assert expected[1] in (None, error["code"])
    assert "\n" not in error["message"]
