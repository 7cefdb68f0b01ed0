"""Small real models for the scanner."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM


@pytest.fixture
def small_bert():
    """A BERT with two blocks, on meta."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    with torch.device("meta"):
        return BertForMaskedLM(BertConfig(vocab_size=64, **sizes))
