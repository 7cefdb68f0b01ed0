"""Ours against the installed peft on thirty-odd architectures: layers, outputs, gradients, files and merged weights."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import architectures as text
import architectures_seeing as seeing
import pytest
import torch
import zoo
from parity import (
    FAN,
    GROUPS,
    LORADAR,
    PATTERNS,
    PEFT,
    TOLERANCE,
    Case,
    distance,
    peft_warnings,
    saved,
    shake,
    tensors,
    trainable,
)
from torch import nn

GRADIENT_TOLERANCE = 1e-5
GAIN = 0.5
IMAGE_KERNEL = 4
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
LATENT = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]


def lora(build: Any, target_modules: Any, peft_warns: str = "", **more: Any) -> Case:
    """Return a case with a small rank, so that a rank times a number of experts stays below every width."""
    return Case(build, {"r": 2, "lora_alpha": 6, "target_modules": target_modules, **more}, peft_warns)


def ia3(build: Any, attention: list[str], feedforward: list[str], peft_warns: str = "", **more: Any) -> Case:
    """Return a case of (IA)^3: what scales its outputs, and what scales its inputs."""
    config = {"target_modules": [*attention, *feedforward], "feedforward_modules": feedforward, **more}
    return Case(build, config, peft_warns, "IA3Config")


CASES = {
    "gpt2": lora(zoo.gpt2, ["c_attn", "c_proj", "c_fc"], FAN),
    "gpt2-heads": lora(zoo.gpt2, ["c_attn"], FAN, modules_to_save=["ln_f"], bias="lora_only"),
    "bert": lora(zoo.bert, ["query", "value"], modules_to_save=["classifier"], bias="lora_only"),
    "bert-all": lora(zoo.bert, ["query", "key", "value", "dense"], bias="all", modules_to_save=["classifier"]),
    "t5": lora(zoo.t5, ["q", "k", "v", "o", "wi", "wo"]),
    "llama": lora(zoo.llama, LLAMA),
    "vit": lora(zoo.vit, ["q_proj", "v_proj", "fc1"], modules_to_save=["classifier"], bias="all"),
    "resnet": lora(zoo.resnet, ["conv1", "conv2", "downsample.0"], modules_to_save=["fc"]),
    "falcon": lora(text.falcon, ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]),
    "gpt_neox": lora(text.gpt_neox, ["query_key_value", "dense_h_to_4h"], bias="all"),
    "bloom": lora(text.bloom, ["query_key_value", "dense"]),
    "opt": lora(text.opt, ["q_proj", "v_proj", "fc1", "fc2"], bias="lora_only"),
    "phi3": lora(text.phi3, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    "gemma3": lora(text.gemma3, LLAMA, use_rslora=True),
    "mamba": lora(text.mamba, ["in_proj", "x_proj"]),
    "mamba2": lora(text.mamba2, ["in_proj"]),
    "albert": lora(text.albert, ["query", "value", "ffn"], modules_to_save=["classifier"]),
    "distilbert": lora(text.distilbert, ["q_lin", "v_lin", "lin1"], modules_to_save=["pre_classifier", "classifier"]),
    "deberta_v2": lora(text.deberta_v2, ["query_proj", "key_proj", "value_proj"]),
    "modernbert": lora(text.modernbert, ["Wqkv", "attn.Wo", "Wi"], modules_to_save=["classifier"]),
    "bart": lora(text.bart, ["q_proj", "v_proj", "fc1"]),
    "wav2vec2": lora(
        seeing.wav2vec2, ["q_proj", "v_proj", "output_dense"], modules_to_save=["projector", "classifier"]
    ),
    "wav2vec2-convolutions": lora(seeing.wav2vec2, ["conv_layers.0.conv", "conv_layers.1.conv", "projection"]),
    "whisper": lora(seeing.whisper, ["q_proj", "v_proj", "fc1"]),
    "siglip": lora(seeing.siglip, ["q_proj", "v_proj", "patch_embedding"]),
    "clip": lora(seeing.clip, r"text_model\..*\.(q|v)_proj"),
    "llava": lora(seeing.llava, r"model\.language_model\..*\.(q_proj|v_proj|down_proj)"),
    "llava-vision": lora(seeing.llava, ["q_proj", "v_proj", "linear_1"], exclude_modules=r"model\.language_model\..*"),
    "blip2": lora(seeing.blip2, ["q_proj", "v_proj", "query", "qkv"], modules_to_save=["language_projection"]),
    "convnext": lora(seeing.convnext, ["mlp.fc1", "mlp.fc2"], modules_to_save=["head.fc"]),
    "convnext-depthwise": lora(seeing.convnext, ["conv_dw", "mlp.fc1"], GROUPS, r=16),
    "timm-vit": lora(seeing.timm_vit, ["qkv", "attn.proj", "fc1"], modules_to_save=["head"], bias="all"),
    "swin": lora(seeing.swin, ["qkv", "reduction"], modules_to_save=["head"]),
    "mobilenet": lora(seeing.mobilenet, ["conv_pw", "conv_pwl", "conv_reduce"]),
    "unet": lora(seeing.unet, ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv_shortcut"]),
    "dit": lora(seeing.dit, ["to_q", "to_v", "ff.net.0.proj", "ff.net.2"]),
    # Experts: parameters of three dimensions, named as they are (peft takes transformers 4's names, too).
    "mixtral": lora(text.mixtral, ["q_proj"], target_parameters=EXPERTS),
    "qwen3_moe": lora(text.qwen3_moe, ["q_proj"], target_parameters=EXPERTS),
    "qwen3_moe-one": lora(text.qwen3_moe, [], target_parameters=["experts.gate_up_proj"], use_rslora=True),
    "qwen3_moe-attention": lora(text.qwen3_moe, ["q_proj", "k_proj", "v_proj", "o_proj"]),
    "qwen3_moe-patterns": lora(
        text.qwen3_moe,
        ["q_proj"],
        PATTERNS,
        target_parameters=EXPERTS,
        rank_pattern={"gate_up_proj": 3},
        alpha_pattern={r"layers\.1\.mlp\.experts\.down_proj": 5},
    ),
    "qwen2_moe": lora(text.qwen2_moe, ["shared_expert.down_proj", "q_proj"], target_parameters=EXPERTS),
    "qwen3_next": lora(text.qwen3_next, ["in_proj_qkvz", "in_proj_ba", "q_proj"], target_parameters=EXPERTS),
    "gpt_oss": lora(text.gpt_oss, ["q_proj", "v_proj"], target_parameters=EXPERTS),
    "gpt_oss-one": lora(text.gpt_oss, ["q_proj"], bias="all", target_parameters=["1.mlp.experts.down_proj"]),
    "llama4": lora(
        text.llama4,
        ["q_proj", "shared_expert.down_proj"],
        target_parameters=["feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"],
    ),
    "deepseek_v3": lora(text.deepseek_v3, LATENT),
    "deepseek_v3-experts": lora(text.deepseek_v3, ["q_b_proj"], target_parameters=EXPERTS),
    "llama-parameters": lora(zoo.llama, ["v_proj"], target_parameters=["q_proj.weight", "down_proj.weight"]),
    # Attention of torch's own, whose projections are never called.
    "attention": lora(zoo.attention, ["attention"]),
    "siglip-pooling": lora(seeing.siglip, ["head.attention", "q_proj"]),
    "torch-encoder": lora(seeing.encoder, ["self_attn", "linear1"]),
    "torch-encoder-mlp": lora(seeing.encoder, ["linear1"]),
    # (IA)^3: vectors that scale what a layer gives, or what a feedforward layer takes.
    "ia3-gpt2": ia3(zoo.gpt2, ["c_attn"], ["mlp.c_proj"], FAN),
    "ia3-bert": ia3(zoo.bert, ["key", "value"], ["output.dense"], modules_to_save=["classifier"]),
    "ia3-t5": ia3(zoo.t5, ["k", "v"], ["wo"]),
    "ia3-llama": ia3(zoo.llama, ["k_proj", "v_proj"], ["down_proj"]),
    "ia3-llama-random": ia3(zoo.llama, ["k_proj", "v_proj"], ["down_proj"], init_ia3_weights=False),
    "ia3-falcon": ia3(text.falcon, ["query_key_value"], ["dense_4h_to_h"]),
    "ia3-albert": ia3(text.albert, ["key", "value"], ["ffn_output"]),
    "ia3-qwen3_moe": ia3(text.qwen3_moe, ["k_proj", "v_proj"], []),
    "ia3-whisper": ia3(seeing.whisper, ["k_proj", "v_proj"], ["fc2"]),
    "ia3-resnet": ia3(zoo.resnet, ["conv1"], ["conv2"]),
    "ia3-mobilenet": ia3(seeing.mobilenet, ["conv_pw"], ["conv_dw", "conv_pwl"]),
    "ia3-unet": ia3(seeing.unet, ["to_k", "to_v"], ["ff.net.2"]),
}


# Neither library merges a grouped convolution's LoRA: its update has no grouped weight.
MERGEABLE = [name for name, case in CASES.items() if case.peft_warns != GROUPS]


@cache
def specimen_of(build: Any) -> zoo.Specimen:
    """Return the builder's model with weights large enough for an adapter to matter, small enough for 1e-6 in fp32.

    Deep networks of convolutions, without norms that count in eval, need larger ones.
    """
    torch.manual_seed(0)
    specimen: zoo.Specimen = build()
    for parameter in specimen.model.parameters():
        if parameter.ndim > 1:
            gain = GAIN if parameter.ndim < IMAGE_KERNEL else 1.4
            nn.init.normal_(parameter, std=gain * parameter[0].numel() ** -0.5)
    return specimen


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Any:
    """One of the cases, with its warning let through."""
    chosen = CASES[request.param]
    with peft_warnings(chosen):
        yield chosen


@pytest.fixture(name="subject")
def fixture_subject() -> Any:
    """The library held against peft."""
    return LORADAR


def plain(case: Case) -> nn.Module:
    """Return a model without an adapter."""
    return copy.deepcopy(specimen_of(case.build).model)


def answers(case: Case, model: nn.Module) -> list[torch.Tensor]:
    """Return everything the model says to the case's inputs."""
    return list(tensors(model(**specimen_of(case.build).inputs)))


def assert_same_answers(case: Case, first: nn.Module, second: nn.Module) -> None:
    """Compare all outputs, to a millionth of what is large in them."""
    with torch.no_grad():
        pairs = list(zip(answers(case, first), answers(case, second), strict=True))
    assert pairs
    for mine, peer in pairs:
        assert distance(mine, peer) <= TOLERANCE * max(1.0, float(peer.abs().max()))


def effect(case: Case, adapted: nn.Module) -> float:
    """Return how far an adapted model's answers are from the plain one's."""
    with torch.no_grad():
        pairs = zip(answers(case, adapted), answers(case, plain(case)), strict=True)
        return max(distance(*pair) for pair in pairs)


def gradients(case: Case, model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the gradient of what trains, under a loss that covers every output unevenly."""
    loss = torch.zeros(())
    for output in answers(case, model):
        loss = loss + (output.flatten() * torch.linspace(-1, 1, output.numel())).sum()
    loss.backward()
    return {name: p.grad for name, p in trainable(model).items() if p.grad is not None}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare each to its own size, and to a hundredth of the largest: a key's bias has none but rounding."""
    assert found.keys() == expected.keys()
    sizes = {name: float(gradient.abs().max()) for name, gradient in expected.items()}
    least = max(sizes.values()) / 100
    for name, size in sizes.items():
        assert distance(found[name], expected[name]) <= GRADIENT_TOLERANCE * max(size, least), name


def assert_same_tensors(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Compare bit by bit."""
    assert first.keys() == second.keys()
    assert [name for name in first if first[name].dtype != second[name].dtype] == []
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def shaken(case: Case, adapt: Any) -> nn.Module:
    """Return an adapted model with a random adapter."""
    model: nn.Module = adapt(plain(case), case).eval()
    torch.manual_seed(1)
    shake(model)
    for name, parameter in model.named_parameters():
        # peft 0.21.2 adds the update of an attention's output projection twice; test_algebra.py adds it once.
        if ".base_layer.out_proj.lora_B." in name:
            nn.init.zeros_(parameter)
    return model


def saved_config(folder: Path) -> dict[str, Any]:
    """Return a saved configuration without peft's version: its lists are sets to peft, which repeats some entries.

    Some empty lists are absent, too: peft writes the one for a ``None`` of some architectures.
    """
    data = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    data.pop("peft_version", None)
    return {name: sorted(set(value)) or None if isinstance(value, list) else value for name, value in data.items()}


def test_same_layers_counts_and_keys(case: Case, subject: Any) -> None:
    """The same modules and parameters are adapted, under the same keys, with as many trainable parameters."""
    mine, peer = subject.adapt(plain(case), case), PEFT.adapt(plain(case), case)
    assert mine.targeted_module_names == peer.targeted_module_names
    names = [getattr(model, "targeted_parameter_names", []) for model in (mine, peer)]
    assert names[0] == names[1]
    assert mine.get_nb_trainable_parameters() == peer.get_nb_trainable_parameters()
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert trainable(mine).keys() == trainable(peer).keys()


def test_same_outputs_and_gradients(case: Case, subject: Any) -> None:
    """With peft's values in the adapter, outputs agree to 1e-6 and the gradient of every one of its tensors to 1e-5."""
    mine, peer = subject.adapt(plain(case), case).eval(), shaken(case, PEFT.adapt)
    mine.load_state_dict({name: value.detach() for name, value in trainable(peer).items()}, strict=False)
    assert_same_answers(case, mine, peer)
    assert effect(case, peer) > TOLERANCE
    assert_same_gradients(gradients(case, mine), gradients(case, peer))


def test_a_peft_file_goes_through_ours_and_back(case: Case, subject: Any, tmp_path: Path) -> None:
    """What peft saved answers the same in ours, and what ours saves of it is the same file to the bit."""
    peer = shaken(case, PEFT.adapt)
    written = saved(peer, tmp_path / "peft")
    mine = subject.load(plain(case), tmp_path / "peft")
    assert_same_answers(case, mine, peer)
    assert_same_tensors(saved(mine, tmp_path / "ours"), written)
    assert saved_config(tmp_path / "ours") == saved_config(tmp_path / "peft")
    assert_same_answers(case, PEFT.load(plain(case), tmp_path / "ours"), peer)


def test_our_file_goes_through_peft_and_back(case: Case, subject: Any, tmp_path: Path) -> None:
    """What ours saved answers the same in peft, and what peft saves of it is the same file to the bit."""
    mine = shaken(case, subject.adapt)
    written = saved(mine, tmp_path / "ours")
    peer = PEFT.load(plain(case), tmp_path / "ours")
    assert_same_answers(case, mine, peer)
    assert_same_tensors(saved(peer, tmp_path / "peft"), written)
    assert_same_answers(case, subject.load(plain(case), tmp_path / "peft"), mine)


@pytest.mark.parametrize("case", MERGEABLE, indirect=True)
def test_merged_weights_agree(case: Case, subject: Any, tmp_path: Path) -> None:
    """Merging gives the same model in both libraries."""
    peer = shaken(case, PEFT.adapt)
    peer.save_pretrained(tmp_path)
    merged = subject.load(plain(case), tmp_path).merge_and_unload().state_dict()
    expected = peer.merge_and_unload().state_dict()
    assert merged.keys() == expected.keys()
    for name, weight in expected.items():
        assert distance(merged[name].double(), weight.double()) <= TOLERANCE * max(1.0, float(weight.abs().max())), name
