"""Messages of errors that people paste: what they mean, and the models that the text around them names."""

from importlib.metadata import files

import pytest

from loradar.data import read_facts
from loradar.references.pasted import LONGEST, read_pasted

MESSAGES = read_facts("error_messages.toml")["message"]
OF_PEFT = [one for one in MESSAGES if one["source"].startswith("peft")]
"""Those of vLLM cannot be compared: it is no dependency of the tests."""


@pytest.mark.parametrize("message", OF_PEFT, ids=lambda one: one["contains"][:20])
def test_the_messages_of_peft_are_those_of_the_installed_one(message):
    """In the file that is named as the source."""
    _, _, path = message["source"].partition(", ")
    source = next(file for file in files("peft") if str(file) == path)
    assert message["contains"] in source.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ValueError: Target modules {'q'} not found in the base model. Please check the target modules", []),
        ("model = Qwen3ForCausalLM(config)\nValueError: Please specify `target_modules` in `peft_config`", ["qwen3"]),
        ('File "/x/models/olmo2/modeling_olmo2.py", line 3\nTarget modules {} not found in the base model', ["olmo2"]),
        ("loading 'Qwen/Qwen3-8B' failed: no modules were targeted for adaptation.", ["qwen3"]),
        ('{"model_type": "gpt_neox"} Please specify `target_modules` in `peft_config`', ["gpt_neox"]),
        ("AttributeError: 'GPTNeoXForCausalLM' object has no attribute 'foo'", ["gpt_neox"]),
    ],
)
def test_a_message_gives_the_models_that_its_text_names(text, expected):
    """By a class, a repo, a type or a file; names of layers and of other classes are none."""
    assert [candidate.name for candidate in read_pasted(text).candidates] == expected


def test_names_alone_are_no_messages():
    """They are understood as references."""
    for text in ("Qwen/Qwen3-8B", "LlamaForCausalLM", "stable diffusion xl", "q_proj", ""):
        assert not read_pasted(text).is_message


def test_a_long_text_is_read_in_part():
    """However long it is, and whatever it repeats."""
    assert read_pasted("A" * 10 * LONGEST).candidates == ()
    assert read_pasted("a/" * LONGEST + "\nPlease specify `target_modules`").says == ""
