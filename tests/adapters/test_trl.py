"""trl's ``SFTTrainer``: our configuration, PEFT's and our model train the same adapter.

Needs the extra ``trl``, which the environment for development leaves out: pyarrow and pandas are 220 MB.
"""

from pathlib import Path

import peft
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import loradar
from loradar.adapters.config import AdapterConfig

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

WORDS = ["<pad>", "<eos>", "<unk>", *"abcdefgh"]
FIELDS = {"target_modules": ["q_proj", "v_proj"], "r": 4, "task_type": "CAUSAL_LM"}


def llama() -> LlamaForCausalLM:
    """Return the same small model on each call."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), **sizes))


def train(folder: Path, model: nn.Module, config: AdapterConfig | peft.PeftConfig | None) -> dict[str, torch.Tensor]:
    """Train three steps, save, and return the adapter that PEFT loads from the files."""
    vocabulary = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, "<unk>"))
    vocabulary.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            output_dir=str(folder),
            max_steps=3,
            learning_rate=0.1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            max_length=8,
        ),
        train_dataset=datasets.Dataset.from_dict({"text": ["a b c d", "e f g h"] * 12}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=vocabulary, **special),
        peft_config=config,
    )
    trainer.train()
    trainer.save_model(str(folder))
    state = peft.PeftModel.from_pretrained(llama(), str(folder)).state_dict()
    return {key: value for key, value in state.items() if "lora_" in key}


def check_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], **tolerances: float) -> None:
    """Check that two adapters have the same values, and were trained."""
    torch.testing.assert_close(ours, theirs, **tolerances)
    assert all(value.any() for key, value in ours.items() if "lora_B" in key)


def test_a_configuration_of_ours_trains_as_pefts_does(tmp_path: Path) -> None:
    """Trl checks for ``peft.PeftConfig`` and calls PEFT's ``get_peft_model``, which adapts with ours to the bit."""
    ours, theirs = loradar.LoraConfig(**FIELDS), peft.LoraConfig(**FIELDS)
    check_same(train(tmp_path / "ours", llama(), ours), train(tmp_path / "theirs", llama(), theirs))


def test_a_model_of_ours_trains_as_pefts_does(tmp_path: Path) -> None:
    """A model that was adapted before is given without a configuration; it is saved as PEFT's is."""
    models = [loradar.get_peft_model(llama(), loradar.LoraConfig(**FIELDS))]
    models.append(peft.get_peft_model(llama(), peft.LoraConfig(**FIELDS)))
    models[1].load_state_dict(models[0].state_dict())
    ours, theirs = (train(tmp_path / str(index), model, None) for index, model in enumerate(models))
    # Adam turns rounding errors of tiny gradients into parts of its step, 0.1.
    check_same(ours, theirs, rtol=0, atol=1e-3)
