"""What vLLM, SGLang and llama.cpp do with an adapter: by roles, kinds and towers; classes are facts in data/serving."""

import json
from types import SimpleNamespace

import pytest
import transformers

import loradar
from loradar.data import read_facts
from loradar.domain.serving import Features, assess, find_outcomes, get_engine, list_engines
from loradar.domain.serving.engines import ENGINES
from loradar.domain.vocabulary import Kind, Role
from loradar.errors import InvalidRequest, UnknownName

LLAMA = "LlamaForCausalLM"
TINY = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 32,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}


def placed(kind="linear", role="attention.query", tower="language"):
    """Return a layer as rules see it."""
    return SimpleNamespace(kind=kind, role=role, tower=tower)


QUERY = ("model.layers.*.self_attn.q_proj", placed())
PAIR = [QUERY, ("model.layers.*.self_attn.v_proj", placed(role="attention.value"))]


@pytest.mark.parametrize("engine", list_engines(), ids=lambda engine: engine.key)
def test_the_facts_of_an_engine_are_in_order(engine):
    """Each has a version and a source; rules name kinds, roles and lists that there are; classes are in one list."""
    assert engine.version
    assert engine.version in engine.source
    assert len(engine.supports) > 100
    assert not engine.supports & engine.without
    for rule in engine.rules:
        assert set(rule.kinds) <= set(Kind.__args__)
        assert set(rule.roles) <= set(Role.__args__)
        assert rule.classes in {"", *engine.classes}
    facts = read_facts(f"serving/{engine.key}.toml")
    stated = (*facts["rule"], *facts.get("need", ()), *facts["feature"].values())
    assert all(".py" in fact["source"] or ".cpp" in fact["source"] or ".h" in fact["source"] for fact in stated)
    assert set(engine.classes) <= {rule.classes for rule in engine.rules}, "a list that no rule reads"
    assert all(classes <= engine.supports for classes in engine.classes.values())
    assert len(facts["supports"]) == len(engine.supports)


@pytest.mark.parametrize("engine", ENGINES)
def test_query_and_value_of_llama_are_applied_by_all(engine):
    """The plainest adapter there is."""
    found = assess(get_engine(engine), LLAMA, PAIR, Features(8))
    assert (found.outcome, found.text) == ("applies", "applies all")


CASES = [
    ("vllm", LLAMA, [QUERY], Features(64), "applies", "needs --max-lora-rank 64"),
    ("vllm", LLAMA, [QUERY], Features(48), "applies", "needs --max-lora-rank 64"),
    ("vllm", LLAMA, [QUERY], Features(1024), "rejects", "rank 1024 is over 512"),
    ("vllm", LLAMA, [QUERY], Features(8, ("dora",)), "rejects", "DoRA"),
    ("vllm", LLAMA, [QUERY], Features(8, ("rslora",)), "applies", "applies all"),
    ("vllm", LLAMA, [QUERY], Features(8, saved=("lm_head",)), "rejects", "modules_to_save lm_head"),
    ("vllm", LLAMA, [QUERY], Features(8, saved=("score",)), "applies", "applies all"),
    ("vllm", "GPT2LMHeadModel", [QUERY], None, "rejects", "serves GPT2LMHeadModel without adapters"),
    ("vllm", "NewForCausalLM", [QUERY], None, "unknown", "not in its registry"),
    ("vllm", None, [QUERY], None, "rejects", "transformers alone"),
    ("vllm", LLAMA, [("lm_head", placed(role="head"))], None, "applies", "applies all"),
    ("vllm", "Gemma2ForCausalLM", [("lm_head", placed(role="head"))], None, "rejects", "embeddings and heads"),
    ("sglang", LLAMA, [QUERY], None, "rejects", "q_proj (it takes an adapter there with one on v_proj)"),
    ("sglang", LLAMA, PAIR, Features(8, ("rslora",)), "ignores", "ignores use_rslora"),
    ("sglang", LLAMA, PAIR, Features(8, ("regex",)), "rejects", "regex"),
    ("sglang", LLAMA, PAIR, Features(8, ("rank_pattern",)), "rejects", "rank_pattern"),
    ("sglang", LLAMA, PAIR, Features(8, saved=("lm_head",)), "ignores", "ignores modules_to_save lm_head"),
    ("sglang", LLAMA, [("score", placed(role="head"))], None, "rejects", "knows no size"),
    ("sglang", LLAMA, [("word_embeddings", placed(role="embedding.token"))], None, "ignores", "lm_head alone"),
    ("sglang", "OPTForCausalLM", [("layers.*.self_attn.out_proj", placed())], None, "rejects", "knows no size"),
    ("sglang", "NemotronHForCausalLM", [("layers.*.mixer.out_proj", placed())], None, "applies", "applies all"),
    ("sglang", "GPTJForCausalLM", [("h.*.attn.qkv_proj", placed())], None, "ignores", "`layers.N` alone"),
    ("vllm", LLAMA, [QUERY], Features(8, ("init",)), "rejects", "path_initial_model_for_weight_conversion"),
    ("vllm", "WhisperForConditionalGeneration", [("layers.*.fc1", placed(tower="audio"))], None, "applies", "all"),
    ("llama_cpp", "GPT2LMHeadModel", [("h.*.c_attn", placed("transposed_linear"))], None, "rejects", "transposes"),
    ("sglang", LLAMA, [("h.*.c_attn", placed())], None, "rejects", "knows no size"),
    ("llama_cpp", LLAMA, [QUERY], Features(8, ("alpha_pattern",)), "ignores", "ignores alpha_pattern"),
    ("llama_cpp", LLAMA, [QUERY], Features(8, ("dora",)), "rejects", "DoRA"),
    ("llama_cpp", "NewForCausalLM", [QUERY], None, "rejects", "not registered"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_said_follows_from_the_rules(case):
    """With the reason, and the option that is needed."""
    engine, class_name, layers, features, outcome, says = case
    found = assess(get_engine(engine), class_name, layers, features)
    assert found.outcome == outcome
    assert says in found.text


AWAY = {"vllm": ("ignores", "ignores"), "sglang": ("ignores", "rejects"), "llama_cpp": ("rejects", "rejects")}
"""The outcome for a vision tower with `blocks`, and with `layers`, whose numbers SGLang takes for its own."""


@pytest.mark.parametrize("engine", ENGINES)
def test_other_towers_are_not_applied_and_counted(engine):
    """The engines apply adapters to the language model; no engine but vLLM looks at where a layer is."""
    model = "Qwen2_5_VLForConditionalGeneration"
    for name, outcome in zip(("blocks", "layers"), AWAY[engine], strict=True):
        away = (f"model.visual.{name}.*.attn.qkv_proj", placed(role="attention.qkv", tower="vision"))
        found = assess(get_engine(engine), model, [*PAIR, away])
        assert (found.outcome, found.ignored or found.rejected) == (outcome, (away[0],))
        assert found.text.startswith("ignores 1 of 3: " if outcome == "ignores" else f"rejects: {away[0]}")


def test_fused_experts_differ_by_engine():
    """PEFT's factors of all experts at once."""
    fused = placed("expert_parameter", "expert.gate_up")
    layers = [("e.gate_up_proj", fused)]
    found = {key: find_outcomes(get_engine(key), "Qwen3MoeForCausalLM", layers) for key in ENGINES}
    outcomes = {key: outcome for key, by_path in found.items() for outcome, _ in by_path.values()}
    assert outcomes == {"vllm": "applies", "sglang": "rejects", "llama_cpp": "rejects"}
    whole = assess(get_engine("vllm"), "Qwen3MoeForCausalLM", [("mlp.experts.gate_up_proj", fused)])
    assert "--enable-mixed-moe-lora-format" in whole.text


@pytest.mark.usefixtures("read_settings")
def test_a_lookup_says_by_whom_it_is_served():
    """Of LoRA on transformers' models alone."""
    found = {one.engine: one for one in loradar.lookup("llama").served}
    assert {one.outcome for one in found.values()} == {"applies"}
    assert set(found) == set(ENGINES)
    assert not loradar.lookup("timm:resnet50").served
    assert not loradar.lookup("llama", "IA3").served


@pytest.mark.usefixtures("read_settings")
def test_a_preset_is_narrowed_to_what_is_served():
    """Experts are left out for SGLang, with the reason; what is left is served."""
    found = loradar.lookup("qwen3_moe", preset="all-linear", servable="SGLang")
    assert found.target_parameters is None
    assert any("SGLang" in reason and "gate_up_proj" in reason for reason in found.reasons)
    served = {one.engine: one for one in found.served}
    assert served["sglang"].outcome == "applies"
    assert loradar.lookup("qwen3_moe", preset="all-linear").target_parameters
    with pytest.raises(InvalidRequest, match="without adapters"):
        loradar.lookup("falcon", servable="vllm")
    with pytest.raises(UnknownName, match="Engines: vllm, sglang, llama_cpp"):
        loradar.lookup("llama", servable="vlm")


def test_a_scan_of_a_live_model_is_narrowed_too():
    """As `get_peft_model(model, servable=...)` takes it: experts that are parameters, for SGLang."""
    model = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**TINY))
    adapted = loradar.get_peft_model(model, preset="all-linear", servable="sglang")
    assert not any("experts" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)
    assert any("q_proj" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)


def test_the_doctor_says_by_whom_an_adapter_is_served(tmp_path):
    """By its configuration: rank-stabilised scales are not those of SGLang."""
    config = transformers.Qwen3Config(**TINY)
    lora = loradar.LoraConfig(r=32, use_rslora=True, target_modules=["q_proj", "v_proj"])
    loradar.get_peft_model(transformers.Qwen3ForCausalLM(config), lora).save_pretrained(tmp_path)
    found = {one.engine: one for one in loradar.doctor(tmp_path, transformers.Qwen3ForCausalLM(config)).served}
    assert (found["vllm"].outcome, found["vllm"].text) == ("applies", "applies all; needs --max-lora-rank 32")
    assert found["sglang"].outcome == "ignores"
    assert "use_rslora" in found["llama_cpp"].text
    path = tmp_path / "adapter_config.json"
    more = {"init_lora_weights": "pissa_niter_4", "alora_invocation_tokens": [1], "use_qalora": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    found = {one.engine: one for one in loradar.doctor(tmp_path, transformers.Qwen3ForCausalLM(config)).served}
    assert all(name in found["vllm"].text for name in more)
    assert "use_qalora" in found["llama_cpp"].text
