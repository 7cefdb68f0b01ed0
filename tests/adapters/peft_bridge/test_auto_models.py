"""Adapters loaded together with the base model that they name, held against the installed peft."""

import json
from contextlib import nullcontext

import peft
import pytest
import torch
import transformers
from zoo import bert, llama

import loradar
from loradar.errors import InvalidConfig

SEEN = {"input_ids": torch.arange(6).reshape(1, 6)}
CLASSIFIER = {"target_modules": ["query"], "task_type": "SEQ_CLS"}


def saved(specimen, folder, config, *, rows=None):
    """Save a model, and an adapter of a copy loaded from there with a resized vocabulary; return its logits."""
    specimen.model.save_pretrained(folder / "base")
    model = type(specimen.model).from_pretrained(folder / "base")
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    model = loradar.get_peft_model(model, config).eval()
    with pytest.warns(UserWarning, match="resized from 60") if rows else nullcontext():
        model.save_pretrained(folder / "adapter")
    with torch.no_grad():
        return model(**SEEN).logits


def test_the_base_model_is_built_and_its_vocabulary_resized(tmp_path):
    """The embeddings in the file decide; peft needs a tokenizer beside it."""
    logits = saved(llama(), tmp_path, loradar.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"), rows=140)
    for auto in (loradar.AutoPeftModelForCausalLM, loradar.AutoPeftModel):
        model = auto.from_pretrained(tmp_path / "adapter", adapter_name="mine", dtype=torch.float32)
        assert isinstance(model, loradar.PeftModelForCausalLM)
        assert model.active_adapters == ["mine"]
        with torch.no_grad():
            torch.testing.assert_close(model(**SEEN).logits, logits)


def test_a_class_of_a_task_rejects_adapters_of_another(tmp_path):
    """As in PEFT; the class without a task takes any."""
    saved(bert(), tmp_path, loradar.LoraConfig(**CLASSIFIER))
    folder = tmp_path / "adapter"
    with pytest.raises(InvalidConfig, match=r"task_type='SEQ_CLS'.* is for 'CAUSAL_LM': load it with AutoPeftModel"):
        loradar.AutoPeftModelForCausalLM.from_pretrained(folder)
    ours, theirs = (each.AutoPeftModelForSequenceClassification.from_pretrained(folder) for each in (loradar, peft))
    with torch.no_grad():
        torch.testing.assert_close(ours(**SEEN).logits, theirs(**SEEN).logits)
    with pytest.raises(InvalidConfig, match="AutoPeftModel is loaded, not made"):
        loradar.AutoPeftModel()


def test_the_class_in_the_file_is_imported_from_trusted_libraries_alone(tmp_path):
    """An adapter of no task names the class of its base model, and a file of somebody else's any module."""
    saved(bert(), tmp_path, loradar.LoraConfig(target_modules=["query"]))
    model = loradar.AutoPeftModel.from_pretrained(tmp_path / "adapter")
    assert isinstance(model.get_base_model(), transformers.BertForSequenceClassification)
    path = tmp_path / "adapter/adapter_config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "auto_mapping": {"parent_library": "evil", "base_model_class": "X"}}))
    with pytest.raises(InvalidConfig, match="names a class of 'evil' to import, and allowed is 'transformers'"):
        loradar.AutoPeftModel.from_pretrained(tmp_path / "adapter")
    for named in (
        {"parent_library": "transformers", "base_model_class": "X"},
        {"parent_library": "transformers.x", "base_model_class": "X"},
    ):
        path.write_text(json.dumps({**fields, "auto_mapping": named}))
        with pytest.raises(InvalidConfig, match="which cannot be imported"):
            loradar.AutoPeftModel.from_pretrained(path.parent)
    path.write_text(json.dumps({**fields, "auto_mapping": None}))
    with pytest.raises(InvalidConfig, match="neither a task nor a class"):
        loradar.AutoPeftModel.from_pretrained(tmp_path / "adapter")
    path.write_text(json.dumps({**fields, "base_model_name_or_path": None}))
    with pytest.raises(InvalidConfig, match=r"names no base model: build the base model"):
        loradar.AutoPeftModel.from_pretrained(tmp_path / "adapter")
