"""Compare the peaks that ``loradar.plan`` predicts with those of real training steps, as torch's profiler counts them.

    python bench/memory.py [CASE ...] [--json FILE]

Each model is small, has random weights and trains on the CPU with AdamW, in its second step. The profiler reports each
allocation and each free of torch's allocator, those inside of kernels included. CASE selects the cases whose name
contains it.
"""

import argparse
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import timm
import torch
import transformers
from torch import nn
from transformers.utils import logging

import loradar

BATCH = 4
LIMIT = 0.15
"""Largest relative difference accepted."""
TEXT = {"vocab_size": 2000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
FOUR = {"num_attention_heads": 4}
EXPERTS = {"num_experts": 8, "moe_intermediate_size": 128}
WIDE = {"vocab_size": 2000, "d_model": 128, "encoder_layers": 2, "decoder_layers": 2}
WIDE |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
T5 = {"vocab_size": 2000, "d_model": 256, "d_kv": 64, "d_ff": 512, "num_layers": 3, "num_heads": 4}
SIGHT = {"hidden_size": 192, "intermediate_size": 384, "num_hidden_layers": 4, **FOUR, "image_size": 96}
UNET: dict[str, Any] = {"sample_size": 32, "block_out_channels": (32, 64), "norm_num_groups": 8}
UNET |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
DIT = {"sample_size": 16, "num_layers": 4, "attention_head_dim": 32, **FOUR}
SD3 = {**DIT, "caption_projection_dim": 128, "joint_attention_dim": 64, "pooled_projection_dim": 64}


class Case(NamedTuple):
    """A model, and how an adapter on it is trained."""

    name: str
    make: Callable[[], nn.Module]
    preset: str = "all-linear"
    length: int = 128
    rank: int = 16
    checkpointing: bool = False
    dtype: torch.dtype = torch.float32
    batch: int = BATCH


def of(name: str, head: str, **sizes: Any) -> Callable[[], nn.Module]:
    """Return the constructor of a model of transformers, by the names of its configuration and class."""

    def make() -> nn.Module:
        config = getattr(transformers, f"{name}Config")(**sizes)
        model: nn.Module = getattr(transformers, f"{name.removesuffix('Text')}{head}")(config)
        return model

    return make


def image(name: str, **sizes: Any) -> Callable[[], nn.Module]:
    """Return the constructor of a model of timm."""
    return lambda: timm.create_model(name, num_classes=10, **sizes)


def diffusion(name: str, **sizes: Any) -> Callable[[], nn.Module]:
    """Return the constructor of a model of diffusers."""
    return lambda: getattr(diffusers, name)(**sizes)


LLAMA = of("Llama", "ForCausalLM", **TEXT, **HEADS)
BERT = of("Bert", "ForSequenceClassification", **TEXT, **FOUR)
CASES = (
    Case("llama", LLAMA),
    Case("llama, attention", LLAMA, "attention"),
    Case("llama, r=64", LLAMA, rank=64),
    Case("llama, 1 x 512", LLAMA, length=512, batch=1),
    Case("llama, checkpointing", LLAMA, length=256, checkpointing=True),
    Case("llama, bf16", LLAMA, dtype=torch.bfloat16),
    Case("qwen3", of("Qwen3", "ForCausalLM", **TEXT, **HEADS, head_dim=64)),
    Case("gemma3_text", of("Gemma3Text", "ForCausalLM", **TEXT, **HEADS, head_dim=64)),
    Case("phi3", of("Phi3", "ForCausalLM", **TEXT, **HEADS, pad_token_id=0)),
    Case("gpt2", of("GPT2", "LMHeadModel", vocab_size=2000, n_embd=256, n_layer=4, n_head=4)),
    Case("gpt_neox", of("GPTNeoX", "ForCausalLM", **TEXT, **FOUR)),
    Case("qwen3_moe", of("Qwen3Moe", "ForCausalLM", **TEXT, **HEADS, **EXPERTS), "attention"),
    Case("qwen3_moe, experts", of("Qwen3Moe", "ForCausalLM", **TEXT, **HEADS, **EXPERTS)),
    Case("mamba", of("Mamba", "ForCausalLM", vocab_size=2000, hidden_size=128, num_hidden_layers=2), length=32),
    Case("bert", BERT),
    Case("bert, checkpointing", BERT, checkpointing=True),
    Case("deberta-v2", of("DebertaV2", "ForMaskedLM", **TEXT, **FOUR)),
    Case("albert", of("Albert", "ForMaskedLM", **TEXT, **FOUR)),
    Case("t5", of("T5", "ForConditionalGeneration", **T5)),
    Case("bart", of("Bart", "ForConditionalGeneration", **WIDE)),
    Case(
        "whisper",
        of("Whisper", "ForConditionalGeneration", **WIDE, max_source_positions=200, pad_token_id=0),
        length=64,
    ),
    Case("wav2vec2", of("Wav2Vec2", "ForCTC", **{**TEXT, "vocab_size": 32}, **FOUR)),
    Case("vit", of("ViT", "ForImageClassification", **SIGHT)),
    Case("dinov2", of("Dinov2", "ForImageClassification", **SIGHT)),
    Case("swin", of("Swin", "ForImageClassification", image_size=112, embed_dim=48, depths=[2, 2], num_heads=[2, 4])),
    Case("segformer", of("Segformer", "ForSemanticSegmentation"), batch=1),
    Case("clip", of("CLIP", "Model", text_config={**TEXT, **FOUR}, vision_config=SIGHT), length=64),
    Case("timm vit_tiny", image("vit_tiny_patch16_224")),
    Case("timm swin_tiny", image("swin_tiny_patch4_window7_224"), batch=2),
    Case("timm resnet18", image("resnet18")),
    Case("timm convnext_atto", image("convnext_atto")),
    Case("timm efficientnet_b0", image("efficientnet_b0")),
    Case("timm mixer_s32", image("mixer_s32_224")),
    Case("diffusers UNet2DModel", diffusion("UNet2DModel", **UNET)),
    Case("diffusers DiT", diffusion("DiTTransformer2DModel", **DIT)),
    Case("diffusers SD3", diffusion("SD3Transformer2DModel", **SD3)),
)


def make_input(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return numbers for an input of a name and shape."""
    if name.endswith(("ids", "labels")):
        return torch.randint(3, 10, shape)
    if name.endswith("mask"):
        return torch.ones(shape, dtype=torch.long)
    if name in ("timestep", "class_labels"):
        return torch.ones(shape, dtype=torch.long)
    return torch.randn(shape).to(dtype)


def find_loss(outputs: Any) -> torch.Tensor:
    """Return the loss of a model, or the mean squares of its outputs."""
    if getattr(outputs, "loss", None) is not None:
        loss: torch.Tensor = outputs.loss
        return loss
    found = outputs if isinstance(outputs, torch.Tensor) else [*outputs.values()]
    tensors = [
        each for each in ([found] if isinstance(found, torch.Tensor) else found) if isinstance(each, torch.Tensor)
    ]
    return torch.stack([each.float().square().mean() for each in tensors if each.requires_grad]).sum()


def count_peak(model: nn.Module, given: dict[str, Any], optimizer: torch.optim.Optimizer) -> int:
    """Return the most bytes that one training step holds at a time, without those held before it."""

    def step() -> None:
        outputs = model(**given)
        find_loss(outputs).backward()
        optimizer.step()

    step()
    optimizer.zero_grad()
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def measure(case: Case) -> dict[str, Any]:
    """Return the predicted and the measured peak of one case."""
    torch.manual_seed(0)
    model = case.make().to(case.dtype)
    planned = loradar.plan(
        model,
        presets=[case.preset],
        ranks=[case.rank],
        batch=case.batch,
        length=case.length,
        checkpointing=case.checkpointing,
        device="cpu",
    )
    choice = planned.choices[0]
    adapted = loradar.get_peft_model(model, loradar.LoraConfig(r=case.rank, target_modules=None), preset=case.preset)
    adapted.train()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    if (count := sum(parameter.numel() for parameter in trained)) != choice.parameters:
        raise SystemExit(f"{case.name}: the plan trains {choice.parameters:,} parameters, the adapter has {count:,}.")
    if case.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(trained)
    given: dict[str, Any] = {name: make_input(name, shape, case.dtype) for name, shape in planned.inputs.items()}
    if len(given) == 1 and not isinstance(model, transformers.PreTrainedModel):
        peak = count_peak(lambda **named: adapted(*named.values()), given, optimizer)
    else:
        peak = count_peak(adapted, given, optimizer)
    tensors = {id(t): t for t in (*adapted.parameters(), *adapted.buffers())}
    states = [t for state in optimizer.state.values() for t in state.values()]
    measured = peak + sum(t.numel() * t.element_size() for t in (*tensors.values(), *states))
    predicted = choice.peak - choice.base - choice.adapter - choice.optimizer
    return {
        "case": case.name,
        "inputs": {name: list(shape) for name, shape in planned.inputs.items()},
        "predicted": choice.peak,
        "measured": measured,
        "difference": round(choice.peak / measured - 1, 4),
        "difference_of_step": round(predicted / peak - 1, 4),
    }


def main() -> None:
    """Measure the cases and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=[""])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    logging.set_verbosity_error()
    diffusers.utils.logging.set_verbosity_error()
    rows = []
    print(f"{'model':28}{'predicted':>10}{'measured':>10} MB   peak    step")
    for case in CASES:
        if any(word in case.name for word in options.cases):
            row = measure(case)
            rows.append(row)
            predicted, measured = (row[name] / 1e6 for name in ("predicted", "measured"))
            differences = f"{row['difference']:+7.1%} {row['difference_of_step']:+7.1%}"
            print(f"{case.name:28}{predicted:10.1f}{measured:10.1f}  {differences}", flush=True)
    worst = max(abs(row["difference"]) for row in rows)
    print(f"{len(rows)} models, largest difference {worst:.1%}")
    if options.json:
        options.json.write_text(
            json.dumps({"torch": torch.__version__, "limit": LIMIT, "results": rows}, indent=2) + "\n"
        )
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
