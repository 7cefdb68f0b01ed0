"""Stand-ins for the small models that PEFT's tests download: of the same classes and of random weights."""

from pathlib import Path

SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "vocab_size": 1024,
}
EXPERTS = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4}
OPT = {"num_hidden_layers": 5, "hidden_size": 16, "ffn_dim": 32, "num_attention_heads": 4, "vocab_size": 50265}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 5, "num_heads": 4, "vocab_size": 1103}
BART = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 4, "decoder_ffn_dim": 4}
TEXT = {**SMALL, "max_position_embeddings": 128}

MODELS = {
    "hf-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", SMALL),
    "peft-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", SMALL),
    "trl-internal-testing/tiny-random-LlamaForCausalLM": ("LlamaForCausalLM", SMALL),
    "hf-internal-testing/tiny-random-MistralForCausalLM": ("MistralForCausalLM", {**SMALL, "num_key_value_heads": 2}),
    "trl-internal-testing/tiny-Qwen3ForCausalLM": (
        "Qwen3ForCausalLM",
        {**SMALL, "num_key_value_heads": 2, "head_dim": 8},
    ),
    "peft-internal-testing/tiny-dummy-qwen2": ("Qwen2ForCausalLM", {**SMALL, "num_key_value_heads": 2}),
    "trl-internal-testing/tiny-GptOssForCausalLM": (
        "GptOssForCausalLM",
        {**EXPERTS, "num_experts_per_tok": 2, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "trl-internal-testing/tiny-Llama4ForCausalLM": (
        "Llama4ForCausalLM",
        {**EXPERTS, "intermediate_size_mlp": 32, "interleave_moe_layer_step": 1, "attention_chunk_size": 128},
    ),
    "peft-internal-testing/tiny-random-OPTForCausalLM": ("OPTForCausalLM", {**OPT, "word_embed_proj_dim": 16}),
    "peft-internal-testing/opt-125m": ("OPTForCausalLM", {**OPT, "num_hidden_layers": 12, "word_embed_proj_dim": 16}),
    "peft-internal-testing/tiny-random-BloomForCausalLM": (
        "BloomForCausalLM",
        {"n_layer": 5, "hidden_size": 32, "n_head": 4, "vocab_size": 1024},
    ),
    "peft-internal-testing/tiny-random-GPTNeoXForCausalLM": ("GPTNeoXForCausalLM", SMALL),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": (
        "GPTJForCausalLM",
        {"n_layer": 2, "n_embd": 32, "n_head": 4, "rotary_dim": 4, "vocab_size": 1024},
    ),
    **dict.fromkeys(
        (
            "hf-internal-testing/tiny-random-gpt2",
            "peft-internal-testing/tiny-random-gpt2",
            "peft-internal-testing/tiny-random-GPT2LMHeadModel",
            "gpt2",
        ),
        ("GPT2LMHeadModel", {"n_layer": 5, "n_embd": 32, "n_head": 4, "vocab_size": 1024}),
    ),
    "peft-internal-testing/tiny-random-t5": ("T5ForConditionalGeneration", T5),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration": ("T5ForConditionalGeneration", T5),
    "google/flan-t5-small": ("T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu"}),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": (
        "BartForConditionalGeneration",
        {**BART, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 1024},
    ),
    "peft-internal-testing/tiny-random-BertModel": ("BertModel", TEXT),
    "peft-internal-testing/tiny-random-BertForSequenceClassification": ("BertForSequenceClassification", TEXT),
    "peft-internal-testing/tiny-random-RobertaModel": ("RobertaModel", TEXT),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": ("RobertaForSequenceClassification", TEXT),
}
"""The class and the sizes of each stand-in, by the name of the model it stands for."""


def write_cache(folder: Path) -> None:
    """Write all stand-ins that are missing into a folder laid out as the hub's."""
    import torch  # noqa: PLC0415 - seconds, for the runner itself
    import transformers  # noqa: PLC0415

    for name, (class_name, sizes) in MODELS.items():
        repo = folder / "hub" / f"models--{name.replace('/', '--')}"
        if (repo / "refs" / "main").exists():
            continue
        torch.manual_seed(0)
        model_class = getattr(transformers, class_name)
        model = model_class(model_class.config_class(**sizes))
        model.save_pretrained(repo / "snapshots" / "stand-in")
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / "main").write_text("stand-in")
