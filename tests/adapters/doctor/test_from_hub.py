"""Adapters, base models and pipelines on a hub: examined and converted as those of a folder."""

import json

import pytest
import torch
from denoiser_zoo import MAKERS
from safetensors.torch import save, save_file

from loradar import doctor
from loradar.adapters.doctor import convert
from loradar.errors import HubFailed

pytestmark = pytest.mark.usefixtures("read_settings")

VIT = {"model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 32, "num_hidden_layers": 2}
VIT |= {"num_attention_heads": 2, "intermediate_size": 48, "image_size": 16, "patch_size": 8}


def test_an_adapter_of_an_older_version_names_its_base(hub, tmp_path):
    """Both are on the hub; the base is read by its configuration alone, and the copy is sound."""
    stems = [f"base_model.model.vit.encoder.layer.{n}.attention.attention.query" for n in range(2)]
    tensors = {f"{stem}.lora_A.weight": torch.ones(4, 32) for stem in stems}
    tensors |= {f"{stem}.lora_B.weight": torch.ones(32, 4) for stem in stems}
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"]}
    config["base_model_name_or_path"] = "ada/vit"
    files = {"adapter_model.safetensors": save(tensors), "adapter_config.json": json.dumps(config).encode()}
    hub.add("ada/lora", files)
    hub.add("ada/vit", {"config.json": json.dumps(VIT).encode(), "model.safetensors": b"never read"})
    found = doctor("hub:ada/lora", fix=tmp_path / "mended")
    assert {*found.renames.values()} == {"vit.layers.*.attention.q_proj"}
    assert doctor(tmp_path / "mended", "ada/vit").is_sound
    assert not [request for request in hub.requests if "model.safetensors" in request and "ada/vit" in request]


def test_a_pipeline_gives_its_models_by_configuration(hub, tmp_path):
    """Of the models that may have adapters; a repo that is none is one line."""
    models = MAKERS["wan"]()
    config = json.dumps(dict(models["transformer"].config) | {"_class_name": "WanTransformer3DModel"}).encode()
    index = json.dumps({"transformer": ["diffusers", "WanTransformer3DModel"], "vae": ["diffusers", "X"]}).encode()
    hub.add("ada/wan", {"model_index.json": index, "transformer/config.json": config})
    stem = "diffusion_model.blocks.0.self_attn.q"
    save_file(
        {f"{stem}.lora_A.weight": torch.ones(2, 16), f"{stem}.lora_B.weight": torch.ones(16, 2)},
        tmp_path / "a.safetensors",
    )
    assert doctor(tmp_path / "a.safetensors", "hub:ada/wan").is_sound
    (folder,) = convert(tmp_path / "a.safetensors", "peft", tmp_path / "out", "hub:ada/wan")
    written = json.loads((folder / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"]) == (2, 2)
    with pytest.raises(HubFailed):
        convert(tmp_path / "a.safetensors", "peft", tmp_path / "other", "hub:ada/none")
