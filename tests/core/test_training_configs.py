"""Configurations of training projects are told apart by their keys and read with their lines; nothing is run."""

import pytest

from loradar.errors import InvalidConfig
from loradar.training_configs import read_parts

SAMPLES = {
    "axolotl": (
        "a.yml",
        """\
# a comment
base_model: org/model
adapter: qlora
lora_target_modules:
  - q_proj

  - v_proj
lora_modules_to_save: [embed_tokens]
tokens:
  - "<a>"
""",
    ),
    "LLaMA-Factory": (
        "b.yaml",
        "model_name_or_path: org/model\nfinetuning_type: lora\nlora_target: q_proj, v_proj\n",
    ),
    "ms-swift": (
        "c.sh",
        (
            "export MODEL=org/model\nNPROC=2 \\\nswift sft \\\n    --model $MODEL \\\n"
            "    --target_modules q_proj v_proj \\\n    --lora_rank 8\n"
        ),
    ),
    "TRL": (
        "d.sh",
        "trl sft --model_name_or_path org/model --use_peft --lora_target_modules q_proj v_proj\n",
    ),
    "Unsloth": (
        "e.py",
        (
            'NAME = "org/model"\nmodel, tokenizer = FastLanguageModel.from_pretrained(model_name=NAME)\n'
            'model = FastLanguageModel.get_peft_model(model, r=8, target_modules=["q_proj",\n    "v_proj"])\n'
        ),
    ),
    "torchtune": (
        "f.yaml",
        (
            "model:\n  _component_: torchtune.models.qwen2_5.lora_qwen2_5_3b\n"
            "  lora_attn_modules: [q_proj, v_proj]\n  apply_lora_to_mlp: True\n"
        ),
    ),
    "diffusers": (
        "g.json",
        '{"pretrained_model_name_or_path": "org/model",\n\t"lora_layers": "to_q,to_v",\n "rank": 4}\n',
    ),
    "PEFT": (
        "adapter_config.json",
        '{"peft_type": "LORA", "base_model_name_or_path": "org/model",\n "target_modules": ["q_proj", "v_proj"]}\n',
    ),
}


def read(text, name="x.yml"):
    """Read a configuration with one part."""
    (part,) = read_parts(text, name)
    return part


@pytest.mark.parametrize("project", SAMPLES)
def test_each_project_is_told_by_its_keys(project):
    """The model and the targets are those that its own program reads."""
    name, text = SAMPLES[project]
    part = read(text, name)
    assert part.project.name == project
    expected = {"torchtune": "torchtune.models.qwen2_5.lora_qwen2_5_3b"}.get(project, "org/model")
    assert part.base
    assert part.base.text == expected
    roles = {"attention.query", "attention.qkv", "attention.value", "mlp.down"}
    if project == "torchtune":
        assert part.reference == "transformers:qwen2"
        assert {role for role, _ in part.roles} >= roles
    else:
        assert len(part.names) == 2


def test_each_target_has_its_line():
    """Comments and blank lines count."""
    part = read(SAMPLES["axolotl"][1], "a.yml")
    assert [(name.text, name.line) for name in part.names] == [("q_proj", 5), ("v_proj", 7)]
    assert [(name.text, name.line) for name in part.saved] == [("embed_tokens", 8)]
    assert part.tokens
    assert part.tokens.line == 9
    shell = read(SAMPLES["ms-swift"][1], "c.sh")
    assert {name.line for name in shell.names} == {5}
    assert {name.line for name in read(SAMPLES["Unsloth"][1], "e.py").names} == {3, 4}


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("base_model: m\nadapter: lora\nlora_target_linear: true\n", "lora_target_linear"),
        ("model_name_or_path: m\nfinetuning_type: lora\nlora_target: all\n", "all"),
        ("model_name_or_path: m\nfinetuning_type: lora\n", "all"),
        ("model: m\ntuner_type: lora\ntarget_modules: all-linear\n", "all-linear"),
        ("model_name_or_path: m\nuse_peft: true\nlora_target_modules: [all-linear]\n", "all-linear"),
    ],
)
def test_words_for_every_layer_are_understood(text, every):
    """Each project has its own, and some mean it without a word."""
    part = read(text)
    assert part.every
    assert part.every.text == every
    assert not part.names


def test_a_text_is_a_regex_where_peft_reads_one():
    """Also the only name of a list in TRL, which hands it to PEFT as a text."""
    assert read("base_model: m\nadapter: lora\nlora_target_modules: '.*q_proj'\n").regex
    assert read("model_name_or_path: m\nuse_peft: true\nlora_target_modules: [q_proj]\n").regex
    assert not read("model_name_or_path: m\nfinetuning_type: lora\nlora_target: q_proj\n").regex


def test_frozen_towers_are_those_of_the_project():
    """LLaMA-Factory leaves vision alone unless told otherwise."""
    text = "model_name_or_path: m\nfinetuning_type: lora\nlora_target: q_proj\n"
    assert read(text).frozen == {"vision", "audio", "projector"}
    assert read(f"{text}freeze_vision_tower: false\n").frozen == {"projector"}


def test_what_only_runs_can_tell_is_left_open():
    """A variable or an expression is no default."""
    part = read("targets = find(model)\nconfig = LoraConfig(r=8, target_modules=targets)\n", "x.py")
    assert "expression or a variable" in part.unread
    assert (
        "variable" in read("trl sft --model_name_or_path m --use_peft --lora_target_modules $LAYERS\n", "x.sh").unread
    )


def test_other_programs_with_the_same_keys_are_not_taken():
    """Megatron's layers have other names."""
    with pytest.raises(InvalidConfig, match="no LoRA part"):
        read_parts("megatron sft --model m --tuner_type lora --target_modules linear_qkv\n", "x.sh")


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("base_model: m\ndatasets: []\n", "x.yml", "axolotl that trains no LoRA: adapter does not switch it on"),
        ("a: 1\n", "x.yml", "no LoRA part of axolotl"),
        ("a: [1\n", "x.yml", "cannot be read as YAML.* line 2"),
        ("- a\n", "x.yml", "no YAML with keys"),
        ('{"a": 1', "x.json", "cannot be read as JSON"),
        ("def f(:\n", "x.py", "cannot be read as Python.* line 1"),
        ("a: !!python/object/apply:os.system ['true']\n", "x.yml", "no LoRA part"),
        ("a: \x00\n", "x.yml", "cannot be read as YAML"),
        ("a: " + "[" * 5000, "x.yml", "cannot be read as YAML"),
        ("x\n", "x.sh", "no LoRA part"),
    ],
)
def test_what_has_no_lora_part_gets_one_clear_line(text, name, says):
    """With the line of the fault in its syntax, and without a traceback."""
    with pytest.raises(InvalidConfig, match=says) as caught:
        read_parts(text, name)
    assert "\n" not in caught.value.message


def test_too_many_targets_are_rejected():
    """Each is compared with every layer."""
    names = "".join(f"  - n{index}\n" for index in range(300))
    with pytest.raises(InvalidConfig, match="300 names"):
        read_parts(f"base_model: m\nadapter: lora\nlora_target_modules:\n{names}", "x.yml")
