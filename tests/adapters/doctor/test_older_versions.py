"""Adapters of transformers 4 on the models of version 5: mended copies give the reference outputs."""

import copy
import json

import peft
import pytest
import torch
from adapter_zoo import randomise
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SiglipVisionConfig,
    ViTConfig,
    ViTForImageClassification,
)

from loradar import doctor
from loradar.adapters import IA3Config, LoraConfig, PeftModel, inject

pytestmark = pytest.mark.usefixtures("read_settings")

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
TEXT = {**SIZES, "num_key_value_heads": 2, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VISION = {**SIZES, "image_size": 16, "patch_size": 8}
LORA = {"r": 4, "lora_alpha": 8}
TOKENS = {"input_ids": torch.arange(12).view(1, -1) + 3}
PIXELS = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)}


def vit():
    """A vision transformer."""
    return ViTForImageClassification(ViTConfig(**VISION, num_labels=3))


def llava():
    """A vision-language model on CLIP and Llama."""
    config = LlavaConfig(vision_config=CLIPVisionConfig(**VISION), text_config=LlamaConfig(**TEXT), image_token_index=3)
    return LlavaForConditionalGeneration(config)


def gemma3():
    """A vision-language model on SigLIP and Gemma 3."""
    text = Gemma3TextConfig(**TEXT, head_dim=16)
    config = Gemma3Config(text_config=text, vision_config=SiglipVisionConfig(**VISION), mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config)


def qwen3_moe():
    """A language model with experts."""
    experts = {"moe_intermediate_size": 16, "num_experts": 3, "num_experts_per_tok": 2, "head_dim": 16}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**TEXT, **experts))


def llama():
    """A language model."""
    return LlamaForCausalLM(LlamaConfig(**TEXT))


VIT = (
    ("vit.layers.", "vit.encoder.layer."),
    ("attention.q_proj", "attention.attention.query"),
    ("attention.v_proj", "attention.attention.value"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)
COMPOSED = (
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
)
"""The names of version 5, and those of version 4."""
WRAPPED = (("model.layers.", "_orig_mod.model.layers."), ("model.embed_tokens", "_orig_mod.model.embed_tokens"))

CASES = {
    "vit": (vit, VIT, LoraConfig(**LORA, target_modules=["q_proj", "fc2"]), PIXELS, ["query", "output.dense"]),
    "vit, DoRA": (
        vit,
        VIT,
        LoraConfig(**LORA, use_dora=True, target_modules=["q_proj", "v_proj"]),
        PIXELS,
        ["query", "value"],
    ),
    "vit, a saved head": (
        vit,
        VIT,
        LoraConfig(**LORA, target_modules=["q_proj"], modules_to_save=["classifier"]),
        PIXELS,
        ["query"],
    ),
    "vit, ranks by layer": (
        vit,
        VIT,
        LoraConfig(
            **LORA, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2}, alpha_pattern={"v_proj": 3}
        ),
        PIXELS,
        ["query", "value"],
    ),
    "vit, IA3": (
        vit,
        VIT,
        IA3Config(target_modules=["v_proj", "fc2"], feedforward_modules=["fc2"]),
        PIXELS,
        ["value", "output.dense"],
    ),
    "llava": (llava, COMPOSED, LoraConfig(**LORA, target_modules=["q_proj", "down_proj"]), TOKENS, None),
    "gemma3": (gemma3, COMPOSED, LoraConfig(**LORA, target_modules=["q_proj", "down_proj"]), TOKENS, None),
    "qwen3_moe, attention": (qwen3_moe, (), LoraConfig(**LORA, target_modules=["q_proj"]), TOKENS, None),
    "llama, embeddings": (llama, WRAPPED, LoraConfig(**LORA, target_modules=["embed_tokens", "q_proj"]), TOKENS, None),
}
OLD_PATTERNS = {"v_proj": "value"}


def run(model, inputs):
    """Return the output of a model."""
    model.eval()
    with torch.no_grad():
        return model(**inputs).logits


def name_as_before(folder, renames, targets):
    """Give the files of an adapter the names of an older version."""
    tensors = load_file(folder / WEIGHTS)
    for new, old in renames:
        tensors = {key.replace(new, old): tensor for key, tensor in tensors.items()}
    save_file(tensors, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    config |= {"target_modules": targets} if targets else {}
    config |= {"feedforward_modules": ["output.dense"]} if config.get("feedforward_modules") else {}
    for field in ("rank_pattern", "alpha_pattern"):
        if config.get(field):
            config[field] = {OLD_PATTERNS[key]: value for key, value in config[field].items()}
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("case", CASES)
def test_the_mended_copy_gives_the_reference_outputs(tmp_path, case):
    """In loradar and in peft, to 1e-6; the names come from records of versions, none from a likeness."""
    make, renames, config, inputs, targets = CASES[case]
    torch.manual_seed(0)
    model = make()
    model.config.save_pretrained(tmp_path / "base")
    plain = copy.deepcopy(model)
    adapted = inject(model, config)
    randomise(adapted)
    for name, parameter in adapted.named_parameters():
        if "ia3_l" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    expected = run(adapted, inputs)
    assert (expected - run(plain, inputs)).abs().max() > 1e-4
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers="embed_tokens" in config.target_modules)
    name_as_before(tmp_path / "adapter", renames, targets)
    found = doctor(tmp_path / "adapter", tmp_path / "base", fix=tmp_path / "mended")
    assert found.landed == found.layers
    assert not [x.message for x in found.findings if "most alike" in x.message]
    assert bool(found.findings) == bool(renames)
    assert doctor(tmp_path / "mended", tmp_path / "base").is_sound
    for load in (PeftModel.from_pretrained, peft.PeftModel.from_pretrained):
        loaded = load(copy.deepcopy(plain), tmp_path / "mended")
        torch.testing.assert_close(run(loaded, inputs), expected, rtol=0, atol=1e-6)


# peft 0.21.2 compares the patterns with modules alone, and uses those of parameters all the same
@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")
def test_experts_one_by_one_of_qwen3_moe(tmp_path):
    """Gate, up and down of every expert become the factors of its parameters, beside those of attention."""
    torch.manual_seed(0)
    model = qwen3_moe()
    model.config.save_pretrained(tmp_path / "base")
    expected, factors = copy.deepcopy(model), {}
    for layer, block in enumerate(expected.model.layers):
        places = {
            f"mlp.experts.{n}.{name}": (n, name) for n in range(3) for name in ("gate_proj", "up_proj", "down_proj")
        }
        for path, (expert, name) in places.items():
            own = block.mlp.experts.down_proj[expert] if name == "down_proj" else block.mlp.experts.gate_up_proj[expert]
            own = own.chunk(2)[name == "up_proj"] if name != "down_proj" else own
            first, second = torch.randn(4, own.shape[1]) / 5, torch.randn(own.shape[0], 4) / 5
            own.data += 2 * second @ first
            stem = f"base_model.model.model.layers.{layer}.{path}"
            factors |= {f"{stem}.lora_A.weight": first, f"{stem}.lora_B.weight": second}
        first, second = torch.randn(4, 32) / 5, torch.randn(32, 4) / 5
        block.self_attn.q_proj.weight.data += 2 * second @ first
        stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        factors |= {f"{stem}.lora_A.weight": first, f"{stem}.lora_B.weight": second}
    (tmp_path / "adapter").mkdir()
    save_file(factors, tmp_path / "adapter" / WEIGHTS)
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    fields["target_modules"] = ["q_proj", "gate_proj", "up_proj", "down_proj"]
    (tmp_path / "adapter" / CONFIG).write_text(json.dumps(fields))
    found = doctor(tmp_path / "adapter", tmp_path / "base", fix=tmp_path / "mended")
    assert {x.code for x in found.findings} == {"fused", "targets"}
    for load in (PeftModel.from_pretrained, peft.PeftModel.from_pretrained):
        loaded = load(copy.deepcopy(model), tmp_path / "mended")
        torch.testing.assert_close(run(loaded, TOKENS), run(expected, TOKENS), rtol=0, atol=1e-6)
    assert (run(model, TOKENS) - run(expected, TOKENS)).abs().max() > 1e-3
