"""Small real models for the scanner."""

import hub_server
import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertForMaskedLM


@pytest.fixture
def small_bert():
    """A BERT with two blocks, on meta."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
    with torch.device("meta"):
        return BertForMaskedLM(BertConfig(vocab_size=64, **sizes))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback with nothing in it, and an empty cache."""
    (tmp_path / "hub").mkdir()
    with hub_server.running(tmp_path / "hub") as running:
        settings = {
            "ENDPOINT": running.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": running.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running
    huggingface_hub.close_session()
