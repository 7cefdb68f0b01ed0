"""Adapting something that is no model: one line that names it and the way to a model, through every door."""

from collections.abc import Callable
from types import SimpleNamespace

import peft
import pytest
from torch import nn
from transformers import LlamaConfig, LlamaModel, TextGenerationPipeline

from loradar.adapters import LoraConfig, PeftModel, get_peft_model, inject
from loradar.adapters.peft_bridge.functions import inject_adapter_in_model
from loradar.errors import InvalidConfig

FROM_CONFIG = "Build the model of the configuration first: AutoModel.from_config(config)."
TARGETS = {"target_modules": ["q_proj"]}
DOORS: dict[str, Callable[..., object]] = {
    "get_peft_model, which decides": get_peft_model,
    "get_peft_model with a preset": lambda given: get_peft_model(given, preset="attention"),
    "get_peft_model with targets": lambda given: get_peft_model(given, LoraConfig(**TARGETS)),
    "get_peft_model with a shorthand": lambda given: get_peft_model(given, LoraConfig(target_modules="all-linear")),
    "get_peft_model with peft's configuration": lambda given: get_peft_model(given, peft.LoraConfig(**TARGETS)),
    "inject": lambda given: inject(given, LoraConfig(**TARGETS)),
    "PeftModel": lambda given: PeftModel(given, LoraConfig(**TARGETS)),
    "PeftModel, which decides": lambda given: PeftModel(given, LoraConfig()),
    "from_pretrained": lambda given: PeftModel.from_pretrained(given, "no folder"),
    "inject_adapter_in_model": lambda given: inject_adapter_in_model(LoraConfig(**TARGETS), given),
}


def pipeline() -> TextGenerationPipeline:
    """Return a pipeline around a model, made without its tokenizer."""
    made = TextGenerationPipeline.__new__(TextGenerationPipeline)
    made.model = nn.Linear(2, 2)
    return made


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("org/model", "A str is no torch.nn.Module. Load the model first: AutoModel.from_pretrained('org/model')."),
        (None, "A NoneType is no torch.nn.Module. Give a model."),
        (LlamaConfig(), f"A LlamaConfig is no torch.nn.Module. {FROM_CONFIG}"),
        (pipeline(), "A TextGenerationPipeline is no torch.nn.Module. Give a module inside of it: .model."),
        (
            SimpleNamespace(unet=nn.Linear(2, 2), name="x"),
            "A SimpleNamespace is no torch.nn.Module. Give a module inside of it: .unet.",
        ),
        (LlamaModel, "A type is no torch.nn.Module. It is the class LlamaModel: give a model of it."),
        ({}, "A dict is no torch.nn.Module. Give the module it was made from."),
    ],
    ids=["name", "none", "config", "pipeline", "diffusion", "class", "state dict"],
)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_model_is_rejected_with_the_way_to_one(door: str, given: object, says: str) -> None:
    """Before anything is read of it, whether or not the configuration names targets."""
    with pytest.raises(InvalidConfig) as caught:
        DOORS[door](given)
    assert str(caught.value) == says
