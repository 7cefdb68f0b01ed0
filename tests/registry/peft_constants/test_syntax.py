"""Every form PEFT's tables have had, in files of any age: each is read, none is run."""

import pytest

from loradar.errors import ConstantsUnreadable
from loradar.registry import parse_constants

LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
ADALORA = "TRANSFORMERS_MODELS_TO_ADALORA_TARGET_MODULES_MAPPING"
C3A = "TRANSFORMERS_MODELS_TO_C3A_TARGET_MODULES_MAPPING"
RANDLORA = "TRANSFORMERS_MODELS_TO_RANDLORA_TARGET_MODULES_MAPPING"
POSTPROCESS = "TRANSFORMERS_MODELS_TO_PREFIX_TUNING_POSTPROCESS_MAPPING"

IN_MAPPING = f"""\
# coding=utf-8
from .peft_model import PeftModel, PeftModelForCausalLM
from .utils import PeftType

MODEL_TYPE_TO_PEFT_MODEL_MAPPING = {{
    "CAUSAL_LM": PeftModelForCausalLM,
}}

PEFT_TYPE_TO_CONFIG_MAPPING = {{
    "LORA": LoraConfig,
    PeftType.P_TUNING: PromptEncoderConfig,
}}

{LORA} = {{
    "t5": ["q", "v"],
    "switch_transformers": ["q", "v"]
}}


def _prepare_lora_config(peft_config, model_config):
    if model_config["model_type"] not in {LORA}:
        raise ValueError("Please specify `target_modules` in `peft_config`")
    return {LORA}[model_config["model_type"]]
"""
"""As before 0.3: beside dicts of classes, in ``mapping.py``, and without a comma behind the last."""

IN_OTHER = f"""\
import torch
from accelerate.utils import is_npu_available


if is_bnb_available():
    import bitsandbytes as bnb


def bloom_model_postprocess_past_key_value(past_key_values):
    return tuple(zip(past_key_values, past_key_values))


class ModulesToSaveWrapper(torch.nn.Module):
    def __init__(self, module_to_save, adapter_name):
        super().__init__()


{LORA} = {{
    "blip-2": ["q", "v", "q_proj", "v_proj"],
    "chatglm": ["query_key_value"],
}}

{ADALORA} = {{
    "t5": ["q", "k", "v", "o", "wi", "wo"],
    # "gpt2": ["c_attn"],
    # "layoutlm": ["query", "value"],
}}

{POSTPROCESS} = {{
    "bloom": bloom_model_postprocess_past_key_value,
}}

COMMON_LAYERS_PATTERN = ["layers", "h", "block", "blocks"]
WEIGHTS_NAME = "adapter_model.bin"
CLAMP_QUANTILE = 0.99
"""
"""As from 0.3 to 0.5: in ``other.py``, among functions and classes."""

TWICE = f"""\
import packaging.version
import transformers


def starcoder_model_postprocess_past_key_value(past_key_values):
    return past_key_values


{POSTPROCESS} = {{}}
transformers_le_4_53 = packaging.version.parse(transformers.__version__) < packaging.version.parse("4.54.0.dev0")
if transformers_le_4_53:
    {POSTPROCESS}["gpt_bigcode"] = (
        starcoder_model_postprocess_past_key_value
    )

{LORA} = {{
    "gpt2": ["c_attn"],
}}
{C3A} = {LORA}.copy()
{RANDLORA} = {LORA}.copy()
{C3A}["gpt2"] = ["mlp.c_proj"]
{C3A} = {{
    "t5": ["q", "v"],
}}
{RANDLORA} = (
    {LORA}  # Leaving this for now but RandLoRA is flexible
)
DUMMY_MODEL_CONFIG = {{"model_type": "custom"}}
ALLOWED_COMPUTE_DTYPES = (torch.float16, torch.bfloat16)
"""
"""As in 0.17 and 0.18: tables made twice, and one that is another under a second name."""


def test_tables_beside_dicts_of_classes_are_read():
    """Such a dict is kept as its source, and no reason to refuse the file."""
    found = parse_constants(IN_MAPPING.encode(), "0.2.0", "mapping.py")
    assert found.tables == {LORA: {"t5": ["q", "v"], "switch_transformers": ["q", "v"]}}
    assert found.values["MODEL_TYPE_TO_PEFT_MODEL_MAPPING"] == {"expression": "{'CAUSAL_LM': PeftModelForCausalLM}"}
    assert "PeftType.P_TUNING" in found.values["PEFT_TYPE_TO_CONFIG_MAPPING"]["expression"]


def test_tables_among_functions_and_classes_are_read():
    """What is commented out is no entry."""
    found = parse_constants(IN_OTHER.encode(), "0.5.0", "other.py")
    assert [*found.tables] == [LORA, ADALORA, POSTPROCESS]
    assert found.tables[ADALORA] == {"t5": ["q", "k", "v", "o", "wi", "wo"]}
    assert found.tables[POSTPROCESS] == {"bloom": {"function": "bloom_model_postprocess_past_key_value"}}
    assert found.values["COMMON_LAYERS_PATTERN"] == ["layers", "h", "block", "blocks"]


def test_a_table_made_twice_is_what_it_was_made_last():
    """A second name is the same dict; what a branch sets is kept with its condition."""
    found = parse_constants(TWICE.encode(), "0.17.0", "constants.py")
    assert found.tables[C3A] == {"t5": ["q", "v"]}
    assert found.tables[RANDLORA] == {"gpt2": ["c_attn"]}
    assert [(entry.key, entry.condition) for entry in found.conditional] == [("gpt_bigcode", "transformers_le_4_53")]
    assert found.tables["DUMMY_MODEL_CONFIG"] == {"model_type": "custom"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (f"import x\n{LORA} = x.make()\n", "line 2"),
        (f"{LORA} = {{}}\nOTHERS = {{A: B}}\n{ADALORA} = OTHERS.copy()\n", "line 3"),
        (f"state = {{'a': ['q']}}\nstate.update(b=['v'])\n{LORA} = state\n", "line 3"),
    ],
)
def test_a_table_made_of_what_was_not_understood_is_refused(source, says):
    """Passing over a dict of others must not lose entries of a table in silence."""
    with pytest.raises(ConstantsUnreadable, match=says) as caught:
        parse_constants(source.encode(), "1.0", "constants.py")
    assert caught.value.details["source"]


@pytest.mark.parametrize(
    "source",
    [
        b"\xef\xbb\xbf" + f'{LORA} = {{"a": ["q"]}}\r\n'.encode(),
        f'# -*- coding: latin-1 -*-\n# d\u00e9j\u00e0 vu\n{LORA} = {{"a": ["q"]}}\n'.encode("latin-1"),
    ],
    ids=["byte order mark", "another encoding"],
)
def test_a_file_is_read_in_its_own_encoding(source):
    """As Python itself would."""
    assert parse_constants(source, "1.0", "constants.py").tables == {LORA: {"a": ["q"]}}
