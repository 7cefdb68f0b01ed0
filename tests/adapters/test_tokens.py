"""Rows of embeddings that train (``trainable_token_indices``), held against the installed peft."""

import copy
import pickle
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import loradar
from loradar.adapters import LoraConfig, PeftModel, inject
from loradar.errors import InvalidConfig, TargetsNotFound

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
IDS = torch.tensor([[1, 2, 3, 7], [4, 7, 7, 0]])
KEY = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
WEIGHTS = "adapter_model.safetensors"
FIELDS = {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]}


def llama(*, tied=True, dtype=torch.float32, **fields):
    """Return a small model, always with the same values."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied, **fields)).to(dtype).eval()


def gemma():
    """Return a model whose embedding scales its output in a forward of its own."""
    torch.manual_seed(0)
    sizes = {**SIZES, "head_dim": 16, "num_key_value_heads": 1, "sliding_window": 8}
    return Gemma3ForCausalLM(Gemma3TextConfig(**sizes)).eval()


def t5():
    """Return a model with one embedding for encoder, decoder and head."""
    torch.manual_seed(0)
    sizes = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": 50,
        "decoder_start_token_id": 0,
    }
    return T5ForConditionalGeneration(T5Config(**sizes)).eval()


def shaken(model):
    """Return the model with random values in everything that trains."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    return model.eval()


def logits(model):
    """Return the logits of fixed inputs."""
    inputs = {"input_ids": IDS}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = IDS
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize(
    ("build", "target", "tokens"),
    [
        (llama, "q_proj", [7, 1]),
        (lambda: llama(tied=False), "q_proj", [7, 1]),
        (llama, "q_proj", {"embed_tokens": [7, 1], "lm_head": [7, 1]}),
        (llama, "q_proj", {"embed_tokens": [7, 1], "lm_head": [3]}),
        (lambda: llama(tied=False), "q_proj", {"lm_head": [7, 49]}),
        (lambda: llama(pad_token_id=7), "q_proj", [7, 1]),
        (gemma, "q_proj", [7, 1]),
        (t5, "q", [7, 1]),
        (t5, "q", {"shared": [0]}),
    ],
)
@pytest.mark.filterwarnings("ignore:.* shares its weight", "ignore:Embeddings are no longer tied")
def test_rows_are_pefts(build, target, tokens, tmp_path):
    """Same keys in files both ways, same logits, same gradients; a merged model computes the same."""
    fields = {"target_modules": [target], "trainable_token_indices": tokens}
    theirs = shaken(peft.get_peft_model(build(), peft.LoraConfig(**fields)))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = PeftModel.from_pretrained(build(), tmp_path / "theirs", is_trainable=True).eval()
    expected = logits(theirs)
    torch.testing.assert_close(logits(ours), expected)
    assert (logits(build()) - expected).abs().max() > 0.1
    inputs = {"input_ids": IDS, "labels": IDS}
    ours(**inputs).loss.backward()
    theirs(**inputs).loss.backward()
    gradients = {name: each.grad for name, each in theirs.named_parameters() if each.requires_grad}
    assert gradients.keys() == {name for name, each in ours.named_parameters() if each.requires_grad}
    for name, each in ours.named_parameters():
        if each.requires_grad:
            torch.testing.assert_close(each.grad, gradients[name])
    ours.save_pretrained(tmp_path / "ours")
    assert load_file(tmp_path / "ours" / WEIGHTS).keys() == load_file(tmp_path / "theirs" / WEIGHTS).keys()
    torch.testing.assert_close(logits(peft.PeftModel.from_pretrained(build(), tmp_path / "ours").eval()), expected)
    torch.testing.assert_close(logits(ours.merge_and_unload()), expected)


@pytest.mark.parametrize("tied", [False, True])
def test_merging_and_unloading_restore_the_model(tied):
    """Bit for bit; a merged model keeps its embeddings tied."""
    model = llama(tied=tied)
    before, plain = copy.deepcopy(model.state_dict()), logits(model)
    adapted = shaken(inject(model, LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 1])))
    expected = logits(adapted)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted), plain)
    adapted.merge_adapter()
    torch.testing.assert_close(logits(adapted), expected)
    with adapted.disable_adapter():
        assert torch.equal(logits(adapted), plain)
    adapted.unmerge_adapter()
    assert torch.equal(logits(adapted), expected)
    unloaded = adapted.unload()
    assert unloaded is model
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    adapted = shaken(inject(model, LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 1])))
    merged = adapted.merge_and_unload()
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) is tied
    torch.testing.assert_close(logits(merged), expected)


def test_new_rows_change_nothing_and_only_they_train():
    """They begin with the base model's values, in a half-precision model in float32, as PEFT's."""
    model = llama(dtype=torch.bfloat16)
    plain = logits(model)
    adapted = inject(model, LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 1]))
    assert torch.equal(logits(adapted), plain)
    rows = dict(adapted.named_parameters())[f"{KEY}.default"]
    assert adapted.get_base_model().lm_head.token_adapter.token_indices == {"default": [7, 1]}
    assert (rows.dtype, rows.requires_grad, tuple(rows.shape)) == (torch.float32, True, (2, 32))
    assert not adapted.get_base_model().model.embed_tokens.original_module.weight.requires_grad
    assert adapted.targeted_module_names == ["model.layers.0.self_attn.q_proj"]


@pytest.mark.filterwarnings("ignore:'default' was active")
def test_each_adapter_has_rows_of_its_own():
    """Switching, one adapter per sample, several at once, deleting."""
    adapted = inject(llama(), LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 1]))
    shaken(adapted)
    adapted.add_adapter("other", LoraConfig(target_modules=["v_proj"], trainable_token_indices=[2]))
    first = logits(adapted)
    adapted.set_adapter("other")
    torch.manual_seed(3)
    nn.init.normal_(adapted.adapter_state("other")[KEY])
    second = logits(adapted)
    with torch.no_grad():
        mixed = adapted(IDS, adapter_names=["default", "other"]).logits
        base = adapted(IDS, adapter_names=["__base__", "__base__"]).logits
    torch.testing.assert_close(mixed, torch.stack([first[0], second[1]]))
    torch.testing.assert_close(base, logits(llama()))
    adapted.set_adapter(["default", "other"])
    both = logits(adapted)
    adapted.merge_adapter()
    torch.testing.assert_close(logits(adapted), both)
    adapted.unmerge_adapter()
    adapted.set_adapter("default")
    adapted.delete_adapter("default")
    torch.testing.assert_close(logits(adapted), second)


def test_adapters_with_the_same_row_do_not_run_together():
    """Neither at once nor merged one after the other, as in PEFT."""
    adapted = inject(llama(), LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 1]))
    adapted.add_adapter("other", LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7]))
    with pytest.raises(InvalidConfig, match=r"adapter 'other' are already defined.*'default' has rows \[7\] of"):
        adapted.set_adapter(["default", "other"])
    adapted.merge_adapter()
    with pytest.raises(InvalidConfig, match="undefined merging behavior"):
        adapted.merge_adapter(["other"])
    with pytest.warns(UserWarning, match="unmerged"):
        adapted.set_adapter("other")


def test_a_resized_vocabulary_is_saved_too(tmp_path):
    """With the rows, under PEFT's keys; both load it."""
    llama().save_pretrained(tmp_path / "base")

    def resized(seed):
        torch.manual_seed(seed)
        model = LlamaForCausalLM.from_pretrained(tmp_path / "base")
        model.resize_token_embeddings(52, mean_resizing=False)
        return model

    fields = {"target_modules": ["q_proj"], "trainable_token_indices": [51, 1]}
    adapted = shaken(inject(resized(1), LoraConfig(**fields)))
    with pytest.warns(UserWarning, match="resized from 50 to 52"):
        adapted.save_pretrained(tmp_path / "ours")
    theirs = shaken(peft.get_peft_model(resized(1), peft.LoraConfig(**fields)))
    with pytest.warns(UserWarning, match="resized"):
        theirs.save_pretrained(tmp_path / "theirs")
    embeddings = {
        f"base_model.model.{path}.token_adapter.base_layer.weight" for path in ("model.embed_tokens", "lm_head")
    }
    ours, known = (load_file(tmp_path / name / WEIGHTS).keys() for name in ("ours", "theirs"))
    assert embeddings < ours
    assert known - ours == {KEY.replace("model.embed_tokens", "lm_head")}  # peft writes tied rows twice
    for name in ("ours", "theirs"):
        torch.testing.assert_close(logits(PeftModel.from_pretrained(resized(2), tmp_path / name)), logits(adapted))
        loaded = peft.PeftModel.from_pretrained(resized(2), tmp_path / name)
        torch.testing.assert_close(logits(loaded), logits(adapted))


def test_an_unchanged_vocabulary_is_not_saved(tmp_path):
    """Rows of an embedding are there to keep a file small."""
    llama().save_pretrained(tmp_path / "base")
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    adapted = inject(base, LoraConfig(target_modules=["q_proj"], trainable_token_indices=[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted.save_pretrained(tmp_path / "ours")
    assert {key for key in load_file(tmp_path / "ours" / WEIGHTS) if "lora_" not in key} == {KEY}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "is no list of token indices"),
        ([-1], "give integers from 0"),
        ([True], "give integers from 0"),
        ("abc", "is no list of token indices"),
        ([1, 1], "names a token twice"),
        ({}, "names no module"),
        ({"embed_tokens": [-2]}, r"trainable_token_indices\['embed_tokens'\]=\[-2\]"),
    ],
)
def test_impossible_indices_are_rejected(value, says):
    """By the configuration."""
    with pytest.raises(InvalidConfig, match=says):
        LoraConfig(trainable_token_indices=value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"trainable_token_indices": [50]}, r"names row 50, and 'model.embed_tokens' has 50, from 0"),
        ({"trainable_token_indices": {"norm": [0]}}, r"'model.norm' \(LlamaRMSNorm\) is no embedding or linear"),
        ({"trainable_token_indices": [1], "modules_to_save": ["embed_tokens"]}, "already marked to be trained fully"),
        (
            {"trainable_token_indices": [1], "modules_to_save": ["lm_head"]},
            "trained fully: 'lm_head' is in modules_to_save",
        ),
        ({"trainable_token_indices": [1], "target_modules": ["embed_tokens"]}, "is adapted too"),
        ({"trainable_token_indices": {"embed_tokens": [1], "model.embed_tokens": [2]}}, "several names match"),
    ],
)
@pytest.mark.filterwarnings("ignore:.* shares its weight")
def test_rows_that_cannot_train_are_rejected(fields, says):
    """Before the model is touched."""
    model = llama()
    before = [*map(type, model.modules())]
    with pytest.raises(InvalidConfig, match=says):
        inject(model, LoraConfig(**{"target_modules": ["q_proj"], **fields}))
    assert [*map(type, model.modules())] == before


def test_a_name_without_a_module_is_rejected():
    """With the closest one."""
    with pytest.raises(TargetsNotFound, match=r"{'embed_token'} not found in the base model\..*'embed_tokens'"):
        inject(llama(), LoraConfig(target_modules=["q_proj"], trainable_token_indices={"embed_token": [1]}))
    with pytest.raises(TargetsNotFound, match=r"{'embed_tokens'} not found"):
        inject(
            nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3)),
            LoraConfig(target_modules=["1"], trainable_token_indices=[1]),
        )


@pytest.mark.filterwarnings("ignore:.* shares its weight")
def test_one_embedding_is_adapted_in_one_way():
    """Rows by one adapter and LoRA or a full copy by another are rejected, in either order."""
    rows = LoraConfig(target_modules=["q_proj"], trainable_token_indices=[1])
    factors = LoraConfig(target_modules=["embed_tokens"])
    saved = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])
    for first, second, says in (
        (rows, factors, "rows that another adapter trains"),
        (rows, saved, "rows that another adapter trains"),
        (factors, rows, "adapted or saved by another adapter"),
        (saved, rows, "adapted or saved by another adapter"),
    ):
        adapted = inject(llama(), first)
        with pytest.raises(InvalidConfig, match=says):
            adapted.add_adapter("other", second)


@pytest.mark.filterwarnings("ignore:.* shares its weight")
def test_tying_can_be_ensured():
    """Of rows; a target is rejected, and a model without tied weights is named."""
    fields = {"target_modules": ["q_proj"], "ensure_weight_tying": True}
    adapted = inject(llama(), LoraConfig(**fields, trainable_token_indices={"embed_tokens": [1], "lm_head": [1]}))
    assert [name for name, each in adapted.named_parameters() if each.requires_grad and "lora" not in name] == [
        f"{KEY}.default"
    ]
    with pytest.raises(InvalidConfig, match="Cannot ensure weight tying when different token indices"):
        inject(llama(), LoraConfig(**fields, trainable_token_indices={"embed_tokens": [1], "lm_head": [2]}))
    with pytest.warns(UserWarning, match="does not have tied weights"):
        inject(llama(tied=False), LoraConfig(**fields, trainable_token_indices=[1]))
    with pytest.warns(UserWarning, match="no tied modules are added"):
        inject(llama(), LoraConfig(**fields))
    with pytest.raises(InvalidConfig, match="and 'lm_head' is another target"):
        inject(llama(), LoraConfig(target_modules=["lm_head"], ensure_weight_tying=True))
    with torch.device("meta"), pytest.raises(InvalidConfig, match=r"'model\.embed_tokens' is on the meta device"):
        inject(llama(), LoraConfig(**fields, modules_to_save=["embed_tokens"]))


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
def test_tied_layers_that_are_saved_train_one_weight(name, tmp_path):
    """As in PEFT, with the same file: the head was another copy, so that merging untied them."""
    fields = {"target_modules": ["q_proj"], "modules_to_save": [name], "ensure_weight_tying": True}
    ours, theirs = inject(llama(), LoraConfig(**fields)), peft.get_peft_model(llama(), peft.LoraConfig(**fields))
    assert ours.get_nb_trainable_parameters() == theirs.get_nb_trainable_parameters()
    with torch.no_grad():
        ours.base_model.model.lm_head.modules_to_save["default"].weight.mul_(2)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    ours_file, theirs_file = (load_file(tmp_path / folder / WEIGHTS) for folder in ("ours", "theirs"))
    assert ours_file.keys() == theirs_file.keys()
    again = (library.PeftModel.from_pretrained(llama(), tmp_path / "ours") for library in (loradar, peft))
    logits = [model(IDS).logits for model in (ours.eval(), *again)]
    torch.testing.assert_close(logits[1], logits[0])
    torch.testing.assert_close(logits[2], logits[0])
    merged = ours.merge_and_unload()
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    torch.testing.assert_close(merged(IDS).logits, logits[0])


class Tied(nn.Module):
    """An embedding and a head with one weight, and a configuration or none that states so."""

    def __init__(self, config=None):
        super().__init__()
        torch.manual_seed(0)
        self.config = config
        self.emb = nn.Embedding(10, 4)
        self.lin = nn.Linear(4, 4)
        self.head = nn.Linear(4, 10)
        self.head.weight = self.emb.weight

    def get_input_embeddings(self):
        """Return the embedding."""
        return self.emb

    def forward(self, x):
        """Return scores."""
        return self.head(self.lin(self.emb(x)))


def test_the_status_of_a_tied_head_is_that_of_its_embedding():
    """PEFT's ``get_model_status`` compares all layers; a head without adapters made it irregular."""
    statuses = []
    for library in (loradar, peft):
        model = library.get_peft_model(llama(), library.LoraConfig(**FIELDS))
        model.add_adapter("other", library.LoraConfig(**FIELDS))
        statuses.append([model.get_model_status(), model.get_layer_status()[-1].available_adapters])
        model.set_adapter("other")
        statuses[-1].append(model.get_model_status())
    assert statuses[0] == statuses[1]


def test_a_bias_of_a_tied_head_stays():
    """PEFT 0.21.2 drops it."""
    model = Tied({"tie_word_embeddings": True})
    x = torch.arange(10).view(1, 10)
    plain = model(x)
    adapted = inject(model, LoraConfig(target_modules=["lin"], trainable_token_indices=[2, 5]))
    torch.testing.assert_close(adapted(x), plain)
    shaken(adapted)
    weight = adapted.get_base_model().emb.weight
    hidden = adapted.get_base_model().lin(functional.embedding(x, weight))
    torch.testing.assert_close(adapted(x), functional.linear(hidden, weight, model.head.bias))


def test_weights_tied_by_hand_are_untied_with_a_warning():
    """Without a configuration that states the tie, the head keeps its rows, as in PEFT."""
    model = Tied()
    x = torch.arange(10).view(1, 10)
    with pytest.warns(UserWarning, match="'emb' shares its weight with 'head', which keeps its rows"):
        adapted = inject(model, LoraConfig(target_modules=["lin"], trainable_token_indices=[2, 5]))
    assert type(adapted.get_base_model().head) is nn.Linear
    expected = shaken(adapted)(x)
    adapted.merge_adapter()
    torch.testing.assert_close(adapted(x), expected)
    adapted.unmerge_adapter()
    assert torch.equal(adapted(x), expected)
    assert adapted.unload().head.weight is model.emb.weight


def test_options_of_an_embedding_are_kept():
    """One with a limit on its norms runs with the whole weight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4, max_norm=0.5), nn.Linear(4, 2))
    adapted = inject(model, LoraConfig(target_modules=["1"], trainable_token_indices={"0": [3]}))
    shaken(adapted)
    assert adapted.get_base_model()[0](torch.tensor([3])).norm() <= 0.5 + 1e-6


def test_rows_on_meta_are_filled_later(tmp_path):
    """By ``reset_adapter`` once there is storage; a model on meta runs."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True))
    adapted = inject(model, LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 1]))
    assert adapted(IDS.to("meta")).logits.is_meta
    values = llama().state_dict()
    adapted.to_empty(device="cpu")
    inner = adapted.get_base_model()
    inner.lm_head.original_module.weight = inner.model.embed_tokens.original_module.weight
    with torch.no_grad():
        inner.model.embed_tokens.original_module.weight.copy_(values["lm_head.weight"])
    adapted.reset_adapter()
    assert torch.equal(adapted.adapter_state()[KEY], values["lm_head.weight"][[7, 1]])
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)


def test_copies_have_rows_of_their_own():
    """A deep copy or a pickle trains apart, and its head follows its own embedding."""
    adapted = shaken(inject(llama(), LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 1])))
    expected = logits(adapted)
    for other in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):  # noqa: S301 - our own bytes
        nn.init.zeros_(other.adapter_state()[KEY])
        assert torch.equal(logits(adapted), expected)
        assert torch.equal(logits(other)[..., 7], torch.zeros(2, 4))


def test_a_compiled_model_is_one_graph():
    """Tied rows included."""
    torch.compiler.reset()  # what other tests compiled counts towards the limit of graphs per function
    adapted = shaken(inject(llama(), LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 1])))
    torch.compiler.set_stance("default")
    counter = CompileCounter()
    embed, head = adapted.get_base_model().model.embed_tokens, adapted.get_base_model().lm_head

    def run(x):
        return head(embed(x))

    expected = run(IDS)
    torch.testing.assert_close(torch.compile(run, backend=counter, fullgraph=True)(IDS), expected)
    assert counter.frame_count == 1


def test_rows_swap_in_place(tmp_path):
    """The same rows alone."""
    fields = {"target_modules": ["q_proj"], "trainable_token_indices": [7, 1]}
    other = shaken(inject(llama(), LoraConfig(**fields)))
    other.save_pretrained(tmp_path, save_embedding_layers=False)
    adapted = inject(llama(), LoraConfig(**fields)).eval()
    adapted.hotswap_adapter(tmp_path)
    assert torch.equal(logits(adapted), logits(other))
    adapted = inject(llama(), LoraConfig(**{**fields, "trainable_token_indices": [7, 2]}))
    with pytest.raises(InvalidConfig, match=r"trainable_token_indices=\[7, 1\]"):
        adapted.hotswap_adapter(tmp_path)
    with pytest.raises(InvalidConfig, match=r"trainable_token_indices=\[7, 1\]"):
        adapted.load_adapter(tmp_path, "default")


def test_weighted_sums_of_rows_are_rejected():
    """PEFT would begin them anew, without a word."""
    adapted = inject(llama(), LoraConfig(target_modules=["q_proj"], trainable_token_indices=[7, 1]))
    with pytest.raises(InvalidConfig, match="cannot sum rows of embeddings"):
        adapted.add_weighted_adapter(["default"], [1.0], "sum")
