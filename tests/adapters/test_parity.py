"""Ours against the installed peft: same layers, same counts, and each reads the other's files to equal outputs."""

import copy
import warnings
from pathlib import Path

import peft
import pytest
from parity import EMBEDDING, FAN, GROUPS, TOLERANCE, Case, distance, ours, peft_warnings, shake, theirs, trainable
from zoo import bert, convolutions, gpt2, llama, mlp, resnet, t5, vit, words

from loradar.adapters import PeftModel

CASES = {
    "gpt2": Case(gpt2, {"target_modules": ["c_attn"]}, FAN),
    "gpt2-all": Case(gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "r": 4}, FAN),
    "bert": Case(bert, {"target_modules": ["query", "value"]}),
    "bert-head": Case(bert, {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]}),
    "bert-task": Case(bert, {"target_modules": ["query", "dense"], "task_type": "SEQ_CLS"}),
    "bert-biases": Case(bert, {"target_modules": ["query", "value"], "bias": "all"}),
    "bert-lora-biases": Case(bert, {"target_modules": ["query", "value"], "bias": "lora_only"}),
    "llama": Case(llama, {"target_modules": ["q_proj", "v_proj"]}),
    "llama-causal": Case(llama, {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}),
    "llama-regex": Case(llama, {"target_modules": r".*\.(q|up)_proj", "lora_alpha": 32}),
    "llama-rslora": Case(llama, {"target_modules": ["q_proj", "down_proj"], "use_rslora": True, "lora_alpha": 16}),
    "llama-patterns": Case(
        llama,
        {
            "target_modules": ["q_proj", "v_proj", "gate_proj"],
            "rank_pattern": {"v_proj": 3, r"^model\.layers\.0\..*q_proj": 5},
            "alpha_pattern": {r"layers\.1\..*": 24},
        },
    ),
    "llama-one-block": Case(llama, {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
    "llama-block-list": Case(
        llama, {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": 0, "layers_pattern": "layers"}
    ),
    "llama-excluded": Case(llama, {"target_modules": ["q_proj", "v_proj"], "exclude_modules": [r"0.self_attn.v_proj"]}),
    "llama-excluded-regex": Case(
        llama, {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*\.0\..*v_proj"}
    ),
    "llama-gaussian": Case(llama, {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"}),
    "llama-nonzero": Case(llama, {"target_modules": ["q_proj"], "init_lora_weights": False}),
    "llama-embedding": Case(llama, {"target_modules": ["embed_tokens", "q_proj"]}, EMBEDDING),
    "t5": Case(t5, {"target_modules": ["q", "v"]}),
    "t5-mlp": Case(t5, {"target_modules": ["wi", "wo"]}),
    "vit": Case(vit, {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]}),
    "resnet": Case(resnet, {"target_modules": ["conv1", "conv2"], "modules_to_save": ["fc"]}),
    "resnet-shortcut": Case(resnet, {"target_modules": ["downsample.0"]}),
    "mlp": Case(mlp, {"target_modules": ["seq.0", "seq.2"], "modules_to_save": ["seq.4"]}),
    "embedding": Case(words, {"target_modules": ["emb", "head"], "use_rslora": True}),
    "embedding-nonzero": Case(words, {"target_modules": ["emb"], "init_lora_weights": False}),
    "conv1d": Case(lambda: convolutions(1), {"target_modules": ["plain"]}),
    "conv3d": Case(lambda: convolutions(3), {"target_modules": ["plain"]}),
    "conv1d-grouped": Case(lambda: convolutions(1), {"target_modules": ["grouped"]}, GROUPS),
    "conv2d-grouped": Case(lambda: convolutions(2), {"target_modules": ["plain", "grouped"]}, GROUPS),
}


# A grouped convolution's update has no grouped weight: neither library merges it (ours refuses, see test_model.py).
MERGEABLE = [name for name, case in CASES.items() if case.peft_warns != GROUPS]


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """One of the cases."""
    return CASES[request.param]


def test_same_layers_counts_and_keys(case: Case) -> None:
    """Both libraries adapt the same layers, under the same state-dict keys, with the same trainable parameters."""
    specimen = case.build()
    mine = ours(copy.deepcopy(specimen.model), case)
    peer = theirs(specimen.model, case)
    assert mine.targeted_module_names == peer.targeted_module_names
    assert mine.get_nb_trainable_parameters() == peer.get_nb_trainable_parameters()
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert trainable(mine).keys() == trainable(peer).keys()


def test_ours_reads_a_peft_adapter(case: Case, tmp_path: Path) -> None:
    """An adapter that peft trained and saved gives the same outputs in ours."""
    specimen = case.build()
    plain = copy.deepcopy(specimen.model)
    peer = theirs(specimen.model, case)
    shake(peer)
    with peft_warnings(case):
        peer.save_pretrained(tmp_path)
    mine = PeftModel.from_pretrained(plain, tmp_path)
    assert distance(specimen(peer), specimen(mine)) <= TOLERANCE * max(1.0, float(specimen(peer).abs().max()))
    assert distance(specimen(mine), specimen(case.build().model)) > TOLERANCE


def test_peft_reads_our_adapter_without_warnings(case: Case, tmp_path: Path) -> None:
    """An adapter that ours trained and saved gives the same outputs in peft, which finds nothing to warn of."""
    specimen = case.build()
    plain = copy.deepcopy(specimen.model)
    mine = ours(specimen.model, case)
    shake(mine)
    save(mine, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", GROUPS)
        peer = peft.PeftModel.from_pretrained(plain, tmp_path)
    assert distance(specimen(peer), specimen(mine)) <= TOLERANCE * max(1.0, float(specimen(peer).abs().max()))


def save(mine: PeftModel, folder: Path) -> None:
    """Save an adapter; that adapted embeddings are saved is told by both libraries."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is adapted: its weight is saved too")
        mine.save_pretrained(folder)


@pytest.mark.parametrize("case", MERGEABLE, indirect=True)
def test_merged_weights_agree(case: Case, tmp_path: Path) -> None:
    """Merging gives the same model in both libraries."""
    specimen = case.build()
    plain = copy.deepcopy(specimen.model)
    mine = ours(specimen.model, case)
    shake(mine)
    save(mine, tmp_path)
    peer = peft.PeftModel.from_pretrained(plain, tmp_path).merge_and_unload().state_dict()
    merged = mine.merge_and_unload().state_dict()
    assert merged.keys() == peer.keys()
    assert all(distance(merged[name].double(), peer[name].double()) <= 1e-5 for name in merged)
