"""The doctor of adapters: each fault named with its way out, and mended copies that compute what was trained."""

import copy
import json
import re
from itertools import product

import peft
import pytest
import torch
from adapter_zoo import randomise
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from loradar import doctor
from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.cli import main
from loradar.errors import InvalidConfig

pytestmark = pytest.mark.usefixtures("read_settings")

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 4}
LLAMA = {**SIZES, "vocab_size": 64}


def vit():
    """A vision transformer of the installed version."""
    return ViTForImageClassification(ViTConfig(**SIZES, image_size=16, patch_size=8))


def llama(**changes):
    """A language model."""
    return LlamaForCausalLM(LlamaConfig(**{**LLAMA, **changes}))


def llava():
    """A vision-language model."""
    vision = CLIPVisionConfig(**SIZES, image_size=16, patch_size=8)
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=LlamaConfig(**LLAMA), image_token_index=3)
    )


class ToOut(nn.Module):
    """An attention of diffusers, whose output layer is in a list with its dropout."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"to_q": nn.Linear(8, 8), "to_out": nn.ModuleList([nn.Linear(8, 8)])}) for _ in range(2)
        )

    def forward(self, x):
        """Run all blocks."""
        for block in self.blocks:
            x = x + block["to_out"][0](block["to_q"](x))
        return x


def adapt(model, folder, targets, **fields):
    """Save an adapter of a model with random factors, and the configuration of the model."""
    adapted = inject(model, LoraConfig(target_modules=targets, **{"r": 4, "lora_alpha": 8, **fields}))
    randomise(adapted)
    adapted.save_pretrained(folder / "adapter")
    if hasattr(model, "config"):
        model.config.save_pretrained(folder / "base")
    return adapted


def change(folder, keys=lambda key: key, config=None, values=lambda _, tensor: tensor):
    """Change the keys, the values (``None`` drops one) and the configuration of an adapter's files."""
    file = folder / "adapter" / WEIGHTS
    tensors = {keys(key): values(key, tensor) for key, tensor in load_file(file).items()}
    save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, file)
    file = file.with_name(CONFIG)
    file.write_text(json.dumps(json.loads(file.read_text()) | (config or {})))


def examine(folder, model=None, **options):
    """Return the diagnosis of the adapter in a folder beside the model there."""
    return doctor(folder / "adapter", model or folder / "base", **options)


def codes(found):
    """Return the kinds of the errors found."""
    return {finding.code for finding in found.findings if finding.level == "error"}


def run(model, **inputs):
    """Return the output of a model."""
    torch.manual_seed(0)
    model.eval()
    return model(**(inputs or {"pixel_values": torch.randn(2, 3, 16, 16)})).logits.detach()


V4 = (
    (r"vit\.layers\.", "vit.encoder.layer."),
    (r"attention\.q_proj", "attention.attention.query"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc2", "output.dense"),
)


def as_v4(key):
    """Return the key that the vision transformer had before version 5."""
    for new, old in V4:
        key = re.sub(new, old, key)
    return key


def test_a_sound_adapter_is_sound(tmp_path):
    """Nothing is found, every layer lands, and its tower is named."""
    adapt(llama(), tmp_path, ["q_proj", "down_proj"])
    found = examine(tmp_path)
    assert (found.findings, found.layers, found.landed, found.towers) == ((), 8, 8, {"language": 8})
    assert found.is_sound


def test_names_of_an_older_version_are_mended(tmp_path):
    """The copy computes in loradar and in peft what was trained, though ``output.dense`` named two layers."""
    model = vit()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = run(adapt(model, tmp_path, ["q_proj", "o_proj", "fc2"]))
    change(tmp_path, as_v4, {"target_modules": ["query", "output.dense"]})
    found = examine(tmp_path, fix=tmp_path / "mended")
    assert codes(found) == {"names", "targets"}
    assert found.renames["vit.encoder.layer.*.output.dense"] == "vit.layers.*.mlp.fc2"
    assert found.landed == 12
    assert doctor(tmp_path / "mended", tmp_path / "base").is_sound
    for load in (PeftModel.from_pretrained, peft.PeftModel.from_pretrained):
        fresh = vit()
        fresh.load_state_dict(state)
        torch.testing.assert_close(run(load(fresh, tmp_path / "mended")), expected, rtol=0, atol=1e-6)


# peft 0.21.2 compares the patterns with modules alone, and uses those of parameters all the same
@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")
def test_factors_of_single_experts_are_joined(tmp_path):
    """The copy computes in loradar and in peft what the experts' own updates do, with gate and up in one parameter."""
    config = MixtralConfig(**LLAMA, num_key_value_heads=2, num_local_experts=3)
    config.num_hidden_layers = 2
    model = MixtralForCausalLM(config)
    config.save_pretrained(tmp_path / "base")
    expected, factors = copy.deepcopy(model), {}
    for layer, expert, (name, start) in product(range(2), range(3), (("w1", 0), ("w3", 48), ("w2", 0))):
        experts = expected.model.layers[layer].mlp.experts
        weight = experts.down_proj if name == "w2" else experts.gate_up_proj
        first, second = torch.randn(4, weight.shape[2]) / 5, torch.randn(weight.shape[1] if name == "w2" else 48, 4) / 5
        weight.data[expert, start : start + len(second)] += 2 * second @ first
        key = f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"
        factors |= {f"{key}.lora_A.weight": first, f"{key}.lora_B.weight": second}
    (tmp_path / "adapter").mkdir()
    save_file(factors, tmp_path / "adapter" / WEIGHTS)
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["w1", "w2", "w3"]}
    (tmp_path / "adapter" / CONFIG).write_text(json.dumps(fields))
    assert codes(examine(tmp_path, fix=tmp_path / "mended")) == {"fused", "targets"}
    tokens = {"input_ids": torch.arange(12).view(1, -1)}
    for load in (PeftModel.from_pretrained, peft.PeftModel.from_pretrained):
        loaded = load(copy.deepcopy(model), tmp_path / "mended")
        torch.testing.assert_close(run(loaded, **tokens), run(expected, **tokens), rtol=0, atol=1e-6)
    assert (run(model, **tokens) - run(expected, **tokens)).abs().max() > 1e-2
    file = tmp_path / "adapter" / WEIGHTS
    save_file({key: tensor for key, tensor in factors.items() if "experts.1.w3" not in key}, file)
    with pytest.raises(InvalidConfig, match="have to be there for 2 x 3 experts"):
        examine(tmp_path, fix=tmp_path / "other")


def test_names_from_before_a_model_was_composed_anew(tmp_path):
    """The language model of llava has stood elsewhere; the layers of its vision tower are not taken for it."""
    adapt(llava(), tmp_path, ["q_proj"])
    moved = {"model.language_model.": "language_model.model.", "model.vision_tower.": "vision_tower.vision_model."}

    def move(key):
        for new, old in moved.items():
            key = key.replace(f"base_model.model.{new}", f"base_model.model.{old}")
        return key

    change(tmp_path, move)
    found = examine(tmp_path)
    assert codes(found) == {"names"}
    assert found.towers == {"language": 4, "vision": 4}
    assert (
        found.renames["language_model.model.layers.*.self_attn.q_proj"]
        == "model.language_model.layers.*.self_attn.q_proj"
    )


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_layer_in_a_list_of_one(tmp_path, is_listed):
    """``to_out`` and ``to_out.0`` are one layer."""
    model = ToOut()
    x = torch.randn(3, 8)
    expected = adapt(model, tmp_path, ["to_q", "to_out.0"])(x)
    if is_listed:
        change(tmp_path, lambda key: key.replace("to_out.0", "to_out"), {"target_modules": ["to_q", "to_out"]})
    else:
        change(tmp_path, lambda key: key.replace("to_q.", "to_q.0."))
    plain = ToOut()
    plain.load_state_dict({k.replace(".base_layer", ""): v for k, v in model.state_dict().items() if "lora" not in k})
    found = examine(tmp_path, plain, fix=tmp_path / "mended")
    assert {finding.message.split(":")[0] for finding in found.findings if finding.code == "names"} == {
        "2 layers blocks.*.to_out are blocks.*.to_out.* in this model"
        if is_listed
        else "2 layers blocks.*.to_q.* are blocks.*.to_q in this model"
    }
    torch.testing.assert_close(PeftModel.from_pretrained(plain, tmp_path / "mended")(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        (lambda key: key.replace("self_attn", "_orig_mod.self_attn"), "wrappers"),
        (lambda key: key.replace("base_model.model.", "base_model.model.module."), "wrappers"),
        (lambda key: key.removeprefix("base_model.model."), "wrappers"),
        (lambda key: key.replace(".weight", ".default.weight"), "wrappers"),
        (lambda key: key.replace("base_model.model.model.", "base_model.model."), "names"),
        (lambda key: key.replace("base_model.model.model.", "base_model.model.model.model."), "names"),
    ],
    ids=["_orig_mod", "module", "no prefix", "an adapter's name", "without model.", "model. twice"],
)
def test_prefixes_and_wrappers_are_mended(tmp_path, keys, code):
    """The mended copy has the tensors and the keys of the original."""
    adapt(llama(), tmp_path, ["q_proj"])
    original = load_file(tmp_path / "adapter" / WEIGHTS)
    change(tmp_path, keys)
    found = examine(tmp_path, fix=tmp_path / "mended")
    assert {finding.code for finding in found.findings} == {code}
    mended = load_file(tmp_path / "mended" / WEIGHTS)
    assert mended.keys() == original.keys()
    assert all(torch.equal(mended[key], original[key]) for key in original)


def test_another_rank_than_the_configuration_has(tmp_path):
    """The rank of the factors is written, by layer, and the change of scale is stated."""
    adapt(llama(), tmp_path, ["q_proj", "v_proj"], rank_pattern={"v_proj": 2})
    change(tmp_path, config={"r": 8, "rank_pattern": {}})
    found = examine(tmp_path, fix=tmp_path / "mended")
    assert codes(found) == {"rank"}
    assert "rank 8 for 4 layers whose factors have rank 2" in " ".join(x.message for x in found.findings)
    assert examine(tmp_path).findings[0].way_out.count("Check lora_alpha") == 1
    assert doctor(tmp_path / "mended", tmp_path / "base").is_sound
    change(tmp_path, values=lambda key, tensor: tensor[:1].clone() if "0.self_attn.q_proj.lora_A" in key else tensor)
    with pytest.raises(InvalidConfig, match="of 1 layer have different ranks"):
        examine(tmp_path, fix=tmp_path / "other")


def test_half_of_the_layers_are_missing(tmp_path):
    """The blocks are named; the copy selects those that are there."""
    adapt(llama(), tmp_path, ["q_proj"])
    change(tmp_path, values=lambda key, tensor: None if re.search(r"layers\.[23]\.", key) else tensor)
    found = examine(tmp_path, fix=tmp_path / "mended")
    layers = "2 of 4 layers model.layers.*.self_attn.q_proj that the targets select: those of blocks 2-3."
    assert [finding.message for finding in found.findings] == [f"The file has no factors for {layers}"]
    assert doctor(tmp_path / "mended", tmp_path / "base").is_sound


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"hidden_size": 64}, "shapes", "are for 32 -> 32, not 64 -> 64"),
        ({"num_hidden_layers": 2}, "unknown-layers", "the adapter is for a deeper model"),
    ],
)
def test_an_adapter_of_another_base(tmp_path, changes, code, says):
    """Other widths and depths are told, and no copy pretends to mend them."""
    adapt(llama(), tmp_path, ["q_proj"])
    LlamaConfig(**{**LLAMA, **changes}).save_pretrained(tmp_path / "base")
    found = examine(tmp_path)
    assert codes(found) == {code}
    assert says in found.findings[0].message
    with pytest.raises(InvalidConfig, match="cannot be mended"):
        examine(tmp_path, fix=tmp_path / "mended")
    assert not (tmp_path / "mended").exists()


def test_values_that_change_nothing_or_are_no_numbers(tmp_path):
    """Zero factors of all layers are an error, of some a warning; NaN is named by its key."""
    adapt(llama(), tmp_path, ["q_proj"])
    change(tmp_path, values=lambda key, tensor: tensor * ("lora_B" not in key or "layers.0" not in key))
    found = examine(tmp_path)
    assert [(finding.code, finding.level) for finding in found.findings] == [("zero", "warning")]
    change(tmp_path, values=lambda key, tensor: tensor * ("lora_B" not in key))
    assert codes(examine(tmp_path)) == {"zero"}
    change(tmp_path, values=lambda key, tensor: tensor / 0 if "layers.1" in key and "lora_A" in key else tensor)
    found = examine(tmp_path)
    assert codes(found) == {"zero", "values"}
    assert "layers.1.self_attn.q_proj.lora_A" in " ".join(finding.message for finding in found.findings)


def test_an_architecture_gives_names_alone(tmp_path):
    """Without a checkpoint, renames come from the registry, and it is said what was not compared."""
    adapt(vit(), tmp_path, ["q_proj"])
    change(tmp_path, as_v4, {"target_modules": ["query"]})
    found = examine(tmp_path, "vit")
    assert found.renames == {"vit.encoder.layer.*.attention.attention.query": "vit.layers.*.attention.q_proj"}
    assert "shapes were not compared" in found.note


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("lora_unet_down_blocks_0_attentions_0_to_q.lora_down.weight", "kohya"),
        ("diffusion_model.blocks.0.attn.lora_A.weight", "comfyui"),
        ("unet.down_blocks.0.attn1.processor.to_q_lora.down.weight", "diffusers"),
        ("transformer.blocks.0.attn.to_q.lora_A.weight", "diffusers"),
        ("some.weight", "unknown"),
    ],
)
def test_formats_of_others_are_told(tmp_path, key, name):
    """Each with where it loads."""
    save_file({key: torch.ones(2, 2)}, tmp_path / "lora.safetensors")
    found = doctor(tmp_path / "lora.safetensors")
    assert (found.format, codes(found)) == (name, {"format"})


def test_the_mark_of_unsloth_is_told(tmp_path):
    """Its adapters are in PEFT's format, and examined as such."""
    adapt(llama(), tmp_path, ["q_proj"])
    mapping = {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers", "unsloth_fixed": True}
    change(tmp_path, config={"auto_mapping": mapping})
    found = examine(tmp_path)
    assert (found.format, found.is_sound, found.landed) == ("unsloth", True, 4)


def test_a_hub_that_does_not_answer_is_told(tmp_path):
    """The registered architecture of that name stands for the base, and the note says why."""
    adapt(llama(), tmp_path, ["q_proj"])
    found = examine(tmp_path, "meta-llama/Llama-2-7b-hf")
    assert (found.base, found.landed) == ("transformers:llama", 4)
    assert "its config.json was not read" in found.note
    assert "so transformers:llama was taken" in found.note


def test_the_command_prints_the_way_out_and_exits_with_1(tmp_path, capsys):
    """And with 0 of a sound adapter, and of one for the class without a head; JSON has the same."""
    adapt(llama(), tmp_path, ["q_proj"])
    arguments = ["doctor", str(tmp_path / "adapter"), "--model", str(tmp_path / "base")]
    main_exits(arguments, 0)
    assert "4 of 4 land: 4 language" in capsys.readouterr().out
    change(tmp_path, lambda key: key.replace("model.model.", "model."))
    main_exits(arguments, 0)
    assert "with another beginning: with 'model'" in " ".join(capsys.readouterr().out.split())
    change(tmp_path, lambda key: key.replace("self_attn", "_orig_mod.self_attn"))
    main_exits(arguments, 1)
    assert "names that are no part of the model" in " ".join(capsys.readouterr().out.split())
    main_exits([*arguments, "--json"], 1)
    printed = json.loads(capsys.readouterr().out)
    assert printed["findings"][0]["code"] == "wrappers"
    assert printed["is_sound"] is False


def test_a_registry_that_cannot_be_read_is_told(tmp_path, home):
    """The names of other versions are in it; the rest is examined without."""
    adapt(llama(), tmp_path, ["q_proj"])
    path = home / "registry.sqlite3"
    path.unlink()  # a link to the one that all tests read
    path.write_bytes(b"somebody's notes" * 100)
    found = examine(tmp_path)
    assert found.is_sound
    assert "names of other library versions were not tried" in found.note


def main_exits(arguments, code):
    """Run the command line and compare its exit code."""
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert (exited.value.code or 0) == code
