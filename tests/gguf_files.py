"""Write GGUF files as llama.cpp's converter does, with the package ``gguf``."""

import gguf
import numpy as np

FIELDS = {"hidden_size": "embedding_length", "intermediate_size": "feed_forward_length"}
FIELDS |= {"num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv"}
FIELDS |= {
    "num_hidden_layers": "block_count",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
}
FIELDS |= {"moe_intermediate_size": "expert_feed_forward_length", "head_dim": "attention.key_length"}


def write_model(path, name, model):
    """Write a model of transformers; experts one matrix for gate and one for up, as llama.cpp has them."""
    writer = gguf.GGUFWriter(path, name)
    for field, key in FIELDS.items():
        if (value := getattr(model.config, field, None)) is not None:
            writer.add_uint32(f"{name}.{key}", value)
    writer.add_array("tokenizer.ggml.tokens", [f"token {number}" for number in range(300)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 300)
    known = {text: arch for arch, text in gguf.MODEL_ARCH_NAMES.items()}[name]
    names = gguf.get_tensor_name_map(known, model.config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        parts = {key: tensor}
        if key.endswith("gate_up_proj"):
            parts = {
                key.replace("gate_up", end): half for end, half in zip(("gate", "up"), tensor.chunk(2, 1), strict=True)
            }
        for own, part in parts.items():
            theirs = names.get_name(own, (".weight", ".bias")) or names.get_name(own)
            writer.add_tensor(theirs if theirs.endswith((".weight", ".bias")) else f"{theirs}.weight", _plain(part))
    _finish(writer)


def write_adapter(path, name, factors, *, alpha=8.0):
    """Write a LoRA, of pairs of factors by the name of the layer."""
    writer = gguf.GGUFWriter(path, name)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for layer, (first, second) in factors.items():
        writer.add_tensor(f"{layer}.weight.lora_a", _plain(first))
        writer.add_tensor(f"{layer}.weight.lora_b", _plain(second))
    _finish(writer)


def _plain(tensor):
    return tensor.detach().numpy().astype(np.float32)


def _finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
