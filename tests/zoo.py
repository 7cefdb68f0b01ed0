"""Tiny models with random weights, one oddity each. Nothing here needs a network.

Every builder returns a ``Specimen``: a fresh model in eval mode and the inputs its forward takes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
import transformers
from torch import nn

VOCABULARY = 60
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


class Specimen(NamedTuple):
    """A model and what to call it with."""

    model: nn.Module
    inputs: dict[str, Any]

    def __call__(self, model: nn.Module | None = None) -> torch.Tensor:
        """Return what ``model`` (this one, if none is given) answers, as one tensor, without gradients."""
        with torch.no_grad():
            result = (model or self.model)(**self.inputs)
        return result if isinstance(result, torch.Tensor) else result[0]


class MLP(nn.Module):
    """The multi-layer perceptron of PEFT's guide to custom models: layers whose names are bare digits."""

    def __init__(self, hidden: int = 2000) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            nn.Linear(20, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2),
            nn.LogSoftmax(dim=-1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities, (batch, 2)."""
        result: torch.Tensor = self.seq(x)
        return result


class Words(nn.Module):
    """An embedding and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(VOCABULARY, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return one vector of four per id."""
        result: torch.Tensor = self.head(self.emb(ids))
        return result


class Convolutions(nn.Module):
    """A convolution of one dimension count, then one with groups, stride and padding."""

    def __init__(self, kind: type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]) -> None:
        super().__init__()
        self.plain = kind(4, 8, 3)
        self.grouped = kind(8, 16, 3, stride=2, padding=1, groups=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a feature map."""
        result: torch.Tensor = self.grouped(self.plain(x).relu())
        return result


class Attention(nn.Module):
    """``nn.MultiheadAttention``, whose ``out_proj`` is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.dense = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return as many vectors as came in."""
        attended, _ = self.attention(x, x, x)
        result: torch.Tensor = self.dense(self.norm(self.dropout(attended)))
        return result


def mlp(hidden: int = 2000) -> Specimen:
    """Return PEFT's MLP."""
    return Specimen(MLP(hidden).eval(), {"x": torch.randn(3, 20)})


def words() -> Specimen:
    """Return a model with an embedding."""
    return Specimen(Words().eval(), {"ids": _ids()})


def convolutions(dimensions: int) -> Specimen:
    """Return a convolutional model in one, two or three dimensions."""
    kinds = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    return Specimen(Convolutions(kinds[dimensions]).eval(), {"x": torch.randn(2, 4, *[7] * dimensions)})


def attention() -> Specimen:
    """Return a model around ``nn.MultiheadAttention``."""
    return Specimen(Attention().eval(), {"x": torch.randn(5, 2, 8)})


def gpt2() -> Specimen:
    """Return a GPT-2: transposed linears, tied embeddings."""
    config = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=32, **TOKENS)
    return Specimen(transformers.GPT2LMHeadModel(config).eval(), {"input_ids": _ids()})


def bert() -> Specimen:
    """Return a BERT classifier, with a head to save."""
    config = transformers.BertConfig(
        num_hidden_layers=2,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
        **TOKENS,
    )
    return Specimen(transformers.BertForSequenceClassification(config).eval(), {"input_ids": _ids()})


def llama(layers: int = 2) -> Specimen:
    """Return a llama."""
    config = transformers.LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        **TOKENS,
    )
    return Specimen(transformers.LlamaForCausalLM(config).eval(), {"input_ids": _ids()})


def t5() -> Specimen:
    """Return a T5: an encoder, a decoder, and model code that reads ``wo.weight.dtype``."""
    config = transformers.T5Config(
        num_layers=2, d_model=16, d_kv=8, num_heads=2, d_ff=32, decoder_start_token_id=0, **TOKENS
    )
    ids = {"input_ids": _ids(), "decoder_input_ids": _ids()}
    return Specimen(transformers.T5ForConditionalGeneration(config).eval(), ids)


def vit() -> Specimen:
    """Return a ViT classifier."""
    config = transformers.ViTConfig(
        num_hidden_layers=2,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
        num_labels=3,
    )
    model = transformers.ViTForImageClassification(config).eval()
    return Specimen(model, {"pixel_values": torch.randn(2, 3, 16, 16)})


def resnet() -> Specimen:
    """Return a timm resnet18 with three classes."""
    model = timm.create_model("resnet18", pretrained=False, num_classes=3).eval()
    return Specimen(model, {"x": torch.randn(1, 3, 32, 32)})


def on_meta(builder: Callable[[], Specimen]) -> nn.Module:
    """Return the builder's model on the meta device: shapes, no weights."""
    with torch.device("meta"):
        return builder().model


def _ids() -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (2, 7))
