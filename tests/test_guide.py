"""The seed guide's three examples, with no configuration given (docs/training/guide.md explains the one difference)."""

import peft
import pytest
import timm
from transformers import AutoModelForCausalLM, MistralConfig
from zoo import MLP

from loradar import get_peft_model

pytestmark = pytest.mark.usefixtures("read_settings")


def test_the_multilayer_perceptron(capsys):
    """seq.0 and seq.2 are adapted, seq.4 is saved; the guide's 56,164 counted the frozen copy of seq.4 as trainable."""
    adapted = get_peft_model(MLP(2000))
    adapted.print_trainable_parameters()
    assert capsys.readouterr().out == "trainable params: 52,162 || all params: 4,100,164 || trainable%: 1.2722\n"
    assert adapted.targeted_module_names == ["seq.0", "seq.2"]
    assert adapted.peft_config["default"].modules_to_save == ["seq.4"]
    frozen_copy = sum(p.numel() for p in adapted.base_model.model.seq[4].original_module.parameters())
    assert 52_162 + frozen_copy == 56_164


def test_the_timm_model():
    """The 72 convolutions of the MLPs are adapted, the classifier is saved."""
    adapted = get_peft_model(timm.create_model("poolformer_m36.sail_in1k", num_classes=3))
    assert adapted.get_nb_trainable_parameters() == (1_062_147, 56_467_974)
    assert len(adapted.targeted_module_names) == 72
    assert all(name.endswith(("mlp.fc1", "mlp.fc2")) for name in adapted.targeted_module_names)
    assert adapted.peft_config["default"].modules_to_save == ["head.fc"]
    frozen_copy = sum(p.numel() for p in adapted.base_model.model.head.fc.original_module.parameters())
    assert 1_062_147 + frozen_copy == 1_064_454


def test_the_transformers_architecture():
    """mistral: q_proj and v_proj from PEFT's entry, rank 8, the layers that peft itself finds."""
    config = MistralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    adapted = get_peft_model(AutoModelForCausalLM.from_config(config))
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_config(config), peft.LoraConfig())
    assert adapted.decision.step == "registry"
    assert adapted.peft_config["default"].target_modules == {"q_proj", "v_proj"}
    assert adapted.peft_config["default"].r == 8
    assert adapted.targeted_module_names == theirs.targeted_module_names
    assert adapted.get_nb_trainable_parameters() == theirs.get_nb_trainable_parameters()
