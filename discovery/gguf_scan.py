"""Read a model of transformers from a GGUF file: its configuration, and the names of its layers there.

The fields of the configuration are those that transformers reads of each architecture (``GGUF_CONFIG_MAPPING``), the
names those of the package ``gguf``, which llama.cpp converts with.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..errors import MissingExtra
from ..extras import require
from ..weights import GgufHeader

ARCHITECTURE = "general.architecture"
ADAPTER = "adapter"
"""The value of ``general.type`` of an adapter's file."""
UNREAD = {"expert_feed_forward_length": "moe_intermediate_size"}
"""Fields that transformers 5.24.0 leaves at the default of its configuration."""
FUSED = "gate_up_proj"


def read_configuration(header: GgufHeader) -> dict[str, Any]:
    """Return the ``config.json`` of the model in a GGUF file, as far as transformers knows its fields."""
    require("scan", "transformers")
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING  # noqa: PLC0415 - transformers takes seconds
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES  # noqa: PLC0415

    name = str(header.metadata.get(ARCHITECTURE, ""))
    types = {_plain(model_type): model_type for model_type in GGUF_CONFIG_MAPPING}
    model_type = types.get(_plain(name))
    if model_type is None or model_type in ("general", "tokenizer"):
        return {}
    fields: Mapping[str, str | None] = {**GGUF_CONFIG_MAPPING[model_type], **UNREAD}
    text = f"{model_type}_text"  # towers are in a file of their own, mmproj
    config: dict[str, Any] = {"model_type": text if text in CONFIG_MAPPING_NAMES else model_type}
    for field, key in fields.items():
        value = header.metadata.get(f"{name}.{field}")
        if key and value is not None:
            config[key] = value
    vocabulary = next((tensor.shape[0] for tensor in header.tensors if tensor.name == "token_embd.weight"), None)
    if vocabulary is not None:
        config["vocab_size"] = vocabulary
    if "output.weight" not in {tensor.name for tensor in header.tensors}:
        config["tie_word_embeddings"] = True
    return config


def _plain(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def name_as_gguf(architecture: str, paths: Iterable[str], blocks: int) -> dict[str, str]:
    """Return the names that layers of a model have in GGUF files, by path; of those that have one.

    Args:
        architecture: The architecture's name in GGUF.
        paths: The paths.
        blocks: The number of blocks.

    Raises:
        MissingExtra: If the package ``gguf`` is not installed.
    """
    require("gguf", "gguf")
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map  # noqa: PLC0415 - an extra

    known = {_plain(name): arch for arch, name in MODEL_ARCH_NAMES.items()}
    if _plain(architecture) not in known:
        return {}
    names = get_tensor_name_map(known[_plain(architecture)], blocks)
    found = ((path, names.get_name(path)) for path in paths)
    return {path: name for path, name in found if name}


def rename_as_model(header: GgufHeader, paths: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return the path in the model by name in a GGUF file, and what is not known of them.

    Args:
        header: The header.
        paths: The paths of the model's layers.
    """
    name = str(header.metadata.get(ARCHITECTURE, ""))
    blocks = header.metadata.get(f"{name}.block_count")
    blocks = blocks if isinstance(blocks, int) and 0 < blocks <= len(header.tensors) else 0
    fused = [path for path in paths if path.endswith(FUSED)]  # of experts, which GGUF has as two
    parts = [path.replace(FUSED, end) for path in fused for end in ("gate_proj", "up_proj")]
    with suppress(MissingExtra):
        return {theirs: path for path, theirs in name_as_gguf(name, [*paths, *parts], blocks).items()}, ""
    return {}, "names of GGUF were not translated: pip install 'loradar[gguf]'"
