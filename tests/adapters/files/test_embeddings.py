"""Embeddings in adapter files: after ``resize_token_embeddings``, when they are adapted, and on request."""

import copy
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
from zoo import MLP

from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import AdapterUnreadable, InvalidConfig

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
ROWS = 56
TOKENS = torch.tensor([[1, 2, ROWS - 1]])


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def checkpoint(request, tmp_path):
    """The folder of a saved base model."""
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, tie_word_embeddings=request.param)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def resized(checkpoint):
    """Load the base model and add tokens to its vocabulary."""
    model = LlamaForCausalLM.from_pretrained(checkpoint)
    torch.manual_seed(1)
    model.resize_token_embeddings(ROWS, mean_resizing=False)
    return model


def shaken(model, **fields):
    """Return the model with an adapter whose every trainable value is random."""
    adapted = inject(model, LoraConfig(**fields)).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


def keys_of(folder):
    """Return the keys of a saved adapter that are no factors."""
    keys = load_file(folder / "adapter_model.safetensors")
    return {key for key in keys if "lora_" not in key}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_a_resized_vocabulary_is_saved_as_by_peft_and_loaded(checkpoint, tmp_path):
    """The logits of the reloaded model are the same to the bit, in loradar and in PEFT."""
    adapted = shaken(resized(checkpoint), target_modules=["q_proj"])
    with torch.no_grad():
        expected = adapted(TOKENS).logits
    with pytest.warns(UserWarning, match=f"resized from 50 to {ROWS}"):
        adapted.save_pretrained(tmp_path / "ours")
    theirs = peft.get_peft_model(resized(checkpoint), peft.LoraConfig(target_modules=["q_proj"]))
    theirs.save_pretrained(tmp_path / "theirs")
    assert keys_of(tmp_path / "ours") == keys_of(tmp_path / "theirs") != set()
    torch.manual_seed(2)
    base = LlamaForCausalLM.from_pretrained(checkpoint)
    base.resize_token_embeddings(ROWS)
    with torch.no_grad():
        assert torch.equal(PeftModel.from_pretrained(base, tmp_path / "ours")(TOKENS).logits, expected)
    again = LlamaForCausalLM.from_pretrained(checkpoint)
    again.resize_token_embeddings(ROWS)
    resumed = inject(copy.deepcopy(again), LoraConfig(target_modules=["q_proj"]))
    resumed.load_adapter(tmp_path / "ours", "default")  # as trainers do
    with torch.no_grad():
        assert torch.equal(resumed(TOKENS).logits, expected)
        torch.testing.assert_close(peft.PeftModel.from_pretrained(again, tmp_path / "ours")(TOKENS).logits, expected)


def test_a_model_that_was_not_resized_is_told_how(checkpoint, tmp_path):
    """The way out is in the error, and the model is unchanged."""
    with pytest.warns(UserWarning, match="resized"):
        shaken(resized(checkpoint), target_modules=["q_proj"]).save_pretrained(tmp_path / "ours")
    base = LlamaForCausalLM.from_pretrained(checkpoint)
    with pytest.raises(AdapterUnreadable, match=rf"resize_token_embeddings\({ROWS}\) on the model first"):
        PeftModel.from_pretrained(base, tmp_path / "ours")


def test_an_unchanged_vocabulary_is_not_saved(checkpoint, tmp_path):
    """An adapter stays small."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inject(LlamaForCausalLM.from_pretrained(checkpoint), LoraConfig(target_modules=["q_proj"])).save_pretrained(
            tmp_path
        )
    assert keys_of(tmp_path) == set()


@pytest.mark.parametrize(("wanted", "found"), [(True, 2), (False, 0)])
def test_the_caller_decides_if_asked(checkpoint, tmp_path, wanted, found):
    """Whatever the vocabulary is."""
    inject(resized(checkpoint), LoraConfig(target_modules=["q_proj"])).save_pretrained(
        tmp_path / "ours", save_embedding_layers=wanted
    )
    assert len(keys_of(tmp_path / "ours")) == found


@pytest.mark.filterwarnings("ignore:'model.embed_tokens' shares its weight")
def test_adapted_embeddings_are_saved_with_a_warning(checkpoint, tmp_path):
    """As in PEFT: an adapter of an embedding means little without it."""
    adapted = shaken(LlamaForCausalLM.from_pretrained(checkpoint), target_modules=["embed_tokens"])
    with pytest.warns(UserWarning, match="embed_tokens' is adapted"):
        adapted.save_pretrained(tmp_path)
    assert keys_of(tmp_path) == {"base_model.model.model.embed_tokens.base_layer.weight"}  # the other is unchanged
    with torch.no_grad():
        expected = adapted(TOKENS[:, :2]).logits
        loaded = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(checkpoint), tmp_path)
        assert torch.equal(loaded(TOKENS[:, :2]).logits, expected)
        resumed = inject(LlamaForCausalLM.from_pretrained(checkpoint), LoraConfig(target_modules=["embed_tokens"]))
        resumed.load_adapter(tmp_path, "default")  # as trainers do
        assert torch.equal(resumed(TOKENS[:, :2]).logits, expected)


def test_embeddings_trained_in_full_are_saved_once(checkpoint, tmp_path):
    """They are in the adapter already."""
    model = resized(checkpoint)
    fields = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject(model, LoraConfig(**fields)).save_pretrained(tmp_path / "ours")
    prefix = "base_model.model."
    assert keys_of(tmp_path / "ours") == {f"{prefix}model.embed_tokens.weight", f"{prefix}lm_head.weight"}


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
def test_the_embedding_beside_one_trained_in_full_is_not_saved(tmp_path, name):
    """As in PEFT: nothing changed it."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False))
    inject(model, LoraConfig(target_modules=["q_proj"], modules_to_save=[name])).save_pretrained(tmp_path)
    assert [key.endswith(f"{name}.weight") for key in keys_of(tmp_path)] == [True]


def test_all_are_saved_if_one_is_adapted_and_the_vocabulary_resized(tmp_path):
    """PEFT saves the adapted one alone, and the other has another shape in the checkpoint."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False))
    model.save_pretrained(tmp_path / "base")
    adapted = shaken(resized(tmp_path / "base"), target_modules=["embed_tokens"])
    with pytest.warns(UserWarning, match=f"resized from 50 to {ROWS}"):
        adapted.save_pretrained(tmp_path / "ours")
    assert len(keys_of(tmp_path / "ours")) == 2


def test_what_cannot_be_told_is_said(checkpoint, tmp_path):
    """The base is neither a folder nor in the cache of the hub."""
    model = LlamaForCausalLM.from_pretrained(checkpoint)
    model.name_or_path = "somebody/elsewhere"
    adapted = inject(model, LoraConfig(target_modules=["q_proj"]))
    with pytest.warns(UserWarning, match="'somebody/elsewhere' is not on this machine"):
        adapted.save_pretrained(tmp_path / "ours")
    assert keys_of(tmp_path / "ours") == set()


def test_a_model_without_a_vocabulary_has_none_to_save(tmp_path):
    """By itself nothing happens; on request there is an error that says why."""
    adapted = inject(MLP(8), LoraConfig(target_modules=["seq.0"]))
    adapted.save_pretrained(tmp_path)
    assert keys_of(tmp_path) == set()
    with pytest.raises(InvalidConfig, match="save_embedding_layers=True: the model has no get_input_embeddings"):
        adapted.save_pretrained(tmp_path, save_embedding_layers=True)
    with pytest.raises(InvalidConfig, match="save_embedding_layers='yes': give True, False or 'auto'"):
        adapted.save_pretrained(tmp_path, save_embedding_layers="yes")
