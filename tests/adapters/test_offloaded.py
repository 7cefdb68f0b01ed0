"""Adapters in a model whose weights accelerate keeps off the device until a layer runs."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from adapter_zoo import randomise
from zoo import MLP, llama, words

from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "fields",
    [{"target_modules": ["q_proj", "down_proj"]}, {"target_modules": ["q_proj"], "bias": "none", "lora_dropout": 0.1}],
)
def test_an_offloaded_model_adapts_trains_and_loads_as_a_plain_one(fields: dict[str, Any], tmp_path: Path) -> None:
    """Its factors are where it computes; they were on meta, with no values."""
    specimen = llama()
    plain = inject(copy.deepcopy(specimen.model), LoraConfig(**fields)).eval()
    randomise(plain)
    plain.save_pretrained(tmp_path)
    expected = specimen(plain)
    cpu_offload(specimen.model, execution_device=CPU)
    adapted = PeftModel.from_pretrained(specimen.model, tmp_path, is_trainable=True).eval()
    torch.testing.assert_close(specimen(adapted), expected)
    adapted(**specimen.inputs).logits.sum().backward()
    assert all(each.grad is not None and each.device == CPU for each in adapted.parameters() if each.requires_grad)
    fresh = inject(adapted.unload(), LoraConfig(**fields))
    assert not any(tensor.is_meta for tensor in fresh.adapter_state().values())
    with pytest.raises(InvalidConfig, match=r"'model.layers.0.* has weights that accelerate offloads: Keep"):
        fresh.merge_adapter()


@pytest.mark.parametrize(
    ("build", "fields", "says"),
    [
        (MLP, {"init_lora_weights": "pissa", "r": 2}, "whose weight accelerate offloads: begin before the model is"),
        (MLP, {"use_dora": True}, "its weight is packed in a way of its own, or offloaded"),
        (
            MLP,
            {"modules_to_save": ["seq.2"]},
            "'seq.2' .* has weights that accelerate offloads, and no copy of them can",
        ),
        (
            lambda: words().model,
            {"target_modules": ["head"], "trainable_token_indices": {"emb": [1]}},
            "'emb' has weights that accelerate offloads, and no rows of them can train",
        ),
    ],
)
def test_what_reads_the_weights_is_rejected(build: Any, fields: dict[str, Any], says: str) -> None:
    """They are not there yet."""
    model = build()
    cpu_offload(model, execution_device=CPU)
    with pytest.raises(InvalidConfig, match=says):
        inject(model, LoraConfig(**{"target_modules": ["seq.0"], **fields}))
