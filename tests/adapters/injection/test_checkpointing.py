"""Adapters learn in checkpointed blocks, whatever module takes the model's input, and whenever it was enabled."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from adapter_zoo import adapter_parameters, randomise
from architectures import DECODER
from architectures_seeing import clip, wav2vec2, whisper
from torch import nn
from torch.utils.checkpoint import checkpoint
from zoo import Specimen, bert, llama, t5

from loradar.adapters import LoraConfig, PeftModel, inject

REENTRANT = {"use_reentrant": True}
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


def pixels() -> dict[str, torch.Tensor]:
    """Return two small images."""
    return {"pixel_values": torch.rand(2, 3, 16, 16)}


def vit() -> Specimen:
    """Return a ViT: a convolution over patches takes its input."""
    return Specimen(hf.ViTModel(hf.ViTConfig(**SIZE, intermediate_size=24)), pixels())


def dinov2() -> Specimen:
    """Return a DINOv2."""
    return Specimen(hf.Dinov2Model(hf.Dinov2Config(**SIZE, mlp_ratio=1)), pixels())


def segformer() -> Specimen:
    """Return a SegFormer: each of its stages begins with a convolution, and only the first takes the input."""
    config = hf.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[2, 4],
        mlp_ratios=[2, 2],
    )
    return Specimen(hf.SegformerModel(config), pixels())


def swin() -> Specimen:
    """Return a Swin."""
    config = hf.SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 4], window_size=4)
    return Specimen(hf.SwinModel(config), pixels())


def sam() -> Specimen:
    """Return a SAM: an image encoder with checkpointed blocks, a prompt encoder, and a decoder without."""
    tiny = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "mlp_dim": 16}
    config = hf.SamConfig(
        vision_config=tiny
        | {"image_size": 16, "patch_size": 8, "output_channels": 8, "num_pos_feats": 4, "window_size": 2},
        prompt_encoder_config={"hidden_size": 8, "image_size": 16, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 8, "mlp_dim": 8, "num_attention_heads": 2, "iou_head_hidden_dim": 8},
    )
    return Specimen(hf.SamModel(config), {**pixels(), "input_points": torch.rand(2, 1, 1, 2)})


class HandWritten(nn.Module):
    """Blocks that are checkpointed by the function of torch, as in models whose code comes with their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 8, 1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2))
        self.head = nn.Linear(4, 2)
        self.gradient_checkpointing = False

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Return the head's output."""
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=True) if self.gradient_checkpointing and self.training else block(x)
        return (self.head(x),)


def gradients(model: PeftModel, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the gradients of the adapter after one backward, without dropout."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout", "drop_prob", "layerdrop"):
            if isinstance(module.__dict__.get(name), float):
                setattr(module, name, 0.0)
    torch.manual_seed(0)
    output = model(**inputs)
    results = output.values() if hasattr(output, "values") else output
    tensors = [each for each in results if isinstance(each, torch.Tensor) and each.is_floating_point()]
    sum(tensor.square().sum() for tensor in tensors).backward()
    return {name: p.grad for name, p in adapter_parameters(model) if p.grad is not None}


FAMILIES = (vit, dinov2, segformer, swin, sam, whisper, wav2vec2, clip, t5, bert, llama)


@pytest.mark.parametrize("first", ["checkpointing", "injection"])
@pytest.mark.parametrize("build", FAMILIES, ids=lambda build: build.__name__)
def test_every_family_learns(build: Callable[[], Specimen], first: str) -> None:
    """With reentrant checkpointing each factor gets the gradient that it gets without."""
    torch.manual_seed(0)
    specimen = build()
    if specimen.model.config.model_type == "wav2vec2":
        specimen.model.config.apply_spec_augment = False
    config = LoraConfig(target_modules=r".*\.(q|v|qkv|q_proj|v_proj|query|value)", r=2)
    twin = inject(copy.deepcopy(specimen.model), config)
    randomise(twin)
    expected = gradients(twin, specimen.inputs)
    if first == "checkpointing":
        specimen.model.activation_checkpointing_enable(REENTRANT)
    model = inject(specimen.model, config)
    randomise(model)
    if first == "injection":
        model.activation_checkpointing_enable(REENTRANT)
    found = gradients(model, specimen.inputs)
    assert found.keys() == expected.keys()
    assert expected
    for name, gradient in found.items():
        largest = expected[name].abs().max()  # a small element is the rest of large ones, and as exact as these
        torch.testing.assert_close(gradient / largest, expected[name] / largest, rtol=1e-4, atol=1e-5)


def test_checkpointing_of_the_models_own() -> None:
    """Blocks that call torch's function themselves learn too, though nothing names what takes the input."""
    model = inject(HandWritten(), LoraConfig(target_modules=["0.0", "1.0"], init_lora_weights=False))
    inputs = {"x": torch.rand(2, 3, 4)}
    expected = gradients(copy.deepcopy(model), inputs)
    model.get_base_model().gradient_checkpointing = True
    found = gradients(model, inputs)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_blocks_without_adapters_get_no_gradient() -> None:
    """Frozen blocks before the first adapted one are not run backwards."""
    model = hf.ViTModel(hf.ViTConfig(**SIZE, intermediate_size=24))
    seen = []
    for index, block in enumerate(model.layers):
        block.register_forward_hook(lambda *args, index=index: seen.append((index, args[-1].requires_grad)))
    adapted = inject(model, LoraConfig(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="layers"))
    adapted.activation_checkpointing_enable(REENTRANT)
    assert len(gradients(adapted, pixels())) == 2
    assert seen[:2] == [(0, False), (1, True)]


def test_without_reentrance_the_function_stays() -> None:
    """Checkpointing that passes gradients on by itself is left alone; ``unload`` restores the function in any case."""
    for reentrant in (True, False):
        model = hf.LlamaForCausalLM(hf.LlamaConfig(**DECODER))
        adapted = inject(model, LoraConfig(target_modules=["q_proj"]))
        adapted.activation_checkpointing_enable({"use_reentrant": reentrant})
        function = model.model.layers[0]._gradient_checkpointing_func
        ids = torch.arange(6)[None]
        adapted.train()(ids)
        assert (model.model.layers[0]._gradient_checkpointing_func is function) is not reentrant
        assert len(model._forward_pre_hooks) == 1
        adapted.unload()
        assert model.model.layers[0]._gradient_checkpointing_func is function
        assert not model._forward_pre_hooks


def test_copies_restore_themselves() -> None:
    """A copy and a pickle of the wrapper take their own hook away."""
    specimen = vit()
    model = inject(specimen.model, LoraConfig(target_modules=["q_proj"]))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own bytes
        assert not twin.unload()._forward_pre_hooks
    assert len(specimen.model._forward_pre_hooks) == 1
