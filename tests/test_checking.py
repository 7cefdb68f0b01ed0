"""``loradar check``: what the targets of a training configuration miss or hit by accident, and the targets instead."""

import re
from pathlib import Path

import pytest

from loradar.cli import main
from loradar.data import read_facts
from loradar.domain.targets import TargetMatcher
from loradar.errors import InvalidConfig, NotRegistered
from loradar.registry import Registry, check, check_text
from loradar.settings import DATABASE_URL_VARIABLE, Settings

DOCUMENT = Path(__file__).parents[1] / "docs/training/check.md"


@pytest.fixture(scope="module")
def registry(seeded):
    """One registry for all tests, which read it alone."""
    with Registry.open(Settings(seeded.parent, f"sqlite:///{seeded}")) as opened:
        yield opened


@pytest.fixture
def checked(registry):
    """Return a function that checks a configuration with one part."""

    def check_one(text, name="x.yml", model=None):
        (part,) = check_text(registry, text, name, model).parts
        return part

    return check_one


def axolotl(base, *lines):
    """Return a configuration of axolotl."""
    return "\n".join((f"base_model: {base}", "adapter: lora", *lines, ""))


def codes(part):
    """Return the code and line of each finding."""
    return {(finding.code, finding.line) for finding in part.findings}


CASES = {
    "nothing": (axolotl("EleutherAI/gpt-neox-20b", "lora_target_modules: [q_proj]"), {("nothing", 3)}),
    "slip": (axolotl("Qwen/Qwen3-8B", "lora_target_modules:", "  - q_prj", "  - v_proj"), {("nothing", 4)}),
    "renamed": (
        axolotl("google/vit-base-patch16-224", "lora_target_modules: [attention.query, attention.value]"),
        {("renamed", 3)},
    ),
    "tower": (
        axolotl("Qwen/Qwen2.5-VL-7B-Instruct", "lora_target_modules: [q_proj, v_proj, qkv]"),
        {("tower", 3)},
    ),
    "stray": (
        axolotl("google/gemma-3-4b-it", "lora_target_modules: [q_proj, v_proj]"),
        {("stray", 3)},
    ),
    "head": (axolotl("Qwen/Qwen3-8B", "lora_target_modules: [q_proj, v_proj, lm_head]"), {("head", 3)}),
    "router": (
        axolotl("Qwen/Qwen1.5-MoE-A2.7B", "lora_target_modules: [q_proj, v_proj, shared_expert_gate]"),
        {("router", 3)},
    ),
    "blocks": (
        axolotl("Qwen/Qwen3-Next-80B-A3B-Instruct", "lora_target_modules: [q_proj, k_proj, v_proj, o_proj]"),
        {("blocks", 3)},
    ),
    "experts": (axolotl("mistralai/Mixtral-8x7B-v0.1", "lora_target_linear: true"), {("experts", 3)}),
    "tokens": (
        axolotl("Qwen/Qwen3-8B", "lora_target_modules: [q_proj, v_proj]", "tokens:", "  - <a>"),
        {("tokens", 4)},
    ),
    "saved": (
        axolotl("openai-community/gpt2", "lora_target_modules: [c_attn]", "lora_modules_to_save: [embed_tokens]"),
        {("saved", 4)},
    ),
    "no-targets": (axolotl("Qwen/Qwen3-Next-80B-A3B-Instruct"), {("no-targets", 1)}),
    "comma": (
        "trl sft --model_name_or_path Qwen/Qwen3-8B \\\n  --use_peft --lora_target_modules q_proj, v_proj\n",
        {("nothing", 2)},
    ),
    "single": (
        "model_name_or_path: Qwen/Qwen3-8B\nuse_peft: true\nlora_target_modules: [q_proj]\n",
        {("nothing", 3)},
    ),
    "frozen": (
        "model_name_or_path: Qwen/Qwen2-VL-7B-Instruct\nfinetuning_type: lora\nlora_target: q_proj,qkv\n",
        {("tower", 3)},
    ),
}


def name_of(text):
    """Return a file name with the ending of a text's form."""
    return "x.sh" if text.startswith("trl") else "x.yml"


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_named_with_its_line(checked, case):
    """And nothing else is."""
    text, expected = CASES[case]
    assert codes(checked(text, name_of(text))) >= expected
    assert {code for code, _ in codes(checked(text, name_of(text)))} == {code for code, _ in expected}


@pytest.mark.parametrize("case", CASES)
def test_the_targets_instead_have_no_fault(checked, case):
    """They are in the format of the file: put in its place, they are checked again."""
    text, _ = CASES[case]
    part = checked(text, name_of(text))
    assert part.snippet
    if text.startswith("trl"):
        mended = re.sub(r"--lora_target_modules .*", part.snippet.replace("\\", ""), text)
    else:
        keys = {line.partition(":")[0] for line in part.snippet.splitlines() if not line.startswith(" ")}
        kept, is_dropped = [], False
        for line in text.splitlines():
            is_dropped = line.partition(":")[0] in keys if not line.startswith(" ") else is_dropped
            kept += [] if is_dropped else [line]
        mended = "\n".join((*kept, part.snippet, ""))
    again = checked(mended, name_of(text))
    assert not again.findings
    assert again.matched


SOUND = [
    # freeze_vision_tower freezes towers of composite models alone
    "model_name_or_path: openai/whisper-small\nfinetuning_type: lora\nlora_target: q_proj,v_proj\n",
    axolotl("Qwen/Qwen3-8B", "lora_target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]"),
    axolotl(
        "Qwen/Qwen3-8B", "lora_target_linear: true", "tokens: [<a>]", "lora_modules_to_save: [embed_tokens, lm_head]"
    ),
    axolotl("Qwen/Qwen3-30B-A3B-Base", "lora_target_modules: [q_proj, v_proj, gate_proj, up_proj, down_proj]"),
    axolotl("Qwen/Qwen3-8B", "lora_target_modules: 'model.layers.(3|61).mlp.down_proj'"),
    axolotl("Qwen/Qwen3-8B", "lora_target_modules: [down_proj]", "peft_layers_to_transform: [0, 1]"),
    axolotl("openai/gpt-oss-20b", "lora_target_linear: true", "lora_target_parameters: [experts.down_proj]"),
    "model: Qwen/Qwen2.5-Omni-7B\ntuner_type: lora\n",
    "model_name_or_path: Qwen/Qwen2-VL-7B-Instruct\nfinetuning_type: lora\nresize_vocab: true\n",
    "pretrained_model_name_or_path: black-forest-labs/FLUX.1-dev\nlora_layers: to_q,to_k,to_v,to_out.0\nrank: 4\n",
    "model:\n  _component_: torchtune.models.gemma2.qlora_gemma2_2b\n  lora_attn_modules: [q_proj, output_proj]\n",
]


@pytest.mark.parametrize("text", SOUND)
def test_what_is_right_gets_no_finding(checked, text):
    """Deeper checkpoints, chosen blocks, converted experts and saved embeddings are no faults."""
    part = checked(text)
    assert part.matched
    assert not part.findings


def test_experts_are_found_by_their_earlier_names(checked):
    """As PEFT converts them: gate_proj and up_proj are one parameter of all experts now."""
    part = checked(axolotl("Qwen/Qwen3-30B-A3B-Base", "lora_target_modules: [gate_proj, up_proj]"))
    assert {part.matched} == {24}  # a parameter for each block of the default configuration


def test_the_converted_experts_are_those_of_the_installed_peft():
    """Types and names."""
    peft = pytest.importorskip("peft.utils.transformers_weight_conversion")
    types = peft._MODEL_TO_CONVERSION_PATTERN
    rules = {"mixtral": "w1", "qwen2_moe": "gate_proj"}
    for rule in read_facts("training_configs.toml")["converted"]:
        known = next(kind for kind, name in rules.items() if name in rule["names"])
        assert rule["names"] == peft._MOE_TARGET_MODULE_MAPPING[known]
        # A few of transformers' patterns are by class, or of types that no library version has.
        own = {name for name, kind in types.items() if kind == known and name.islower()}
        assert own == {*rule["types"]}


def test_a_guessed_model_that_does_not_fit_is_not_judged(checked):
    """A converted checkpoint keeps its name."""
    with pytest.raises(NotRegistered, match="name its architecture with --model") as caught:
        checked(axolotl("unsloth/Phi-4", "lora_target_modules: [q_proj, k_proj, v_proj]"))
    assert "\n" not in caught.value.message
    part = checked(axolotl("unsloth/Phi-4", "lora_target_modules: [q_proj, k_proj, v_proj]"), model="llama")
    assert part.reference == "transformers:llama"
    assert not part.findings


@pytest.mark.parametrize("base", ["org/never-heard-of-it", "/nowhere/at/all", "''"])
def test_an_unknown_model_gets_one_clear_line(checked, base):
    """With the way out."""
    with pytest.raises(NotRegistered, match="--model"):
        checked(axolotl(base, "lora_target_modules: [q_proj]"))


def test_a_regex_from_elsewhere_is_matched_in_linear_time(registry):
    """Python's own matcher would not come back from this one."""
    text = axolotl("Qwen/Qwen3-8B", "lora_target_modules: '(m|o|d|e|l|.)*(m|o|d|e|l|.)*(a|m|.)*X'")
    (part,) = check_text(registry, text, "x.yml").parts
    assert [finding.code for finding in part.findings] == ["nothing"]


def test_a_local_file_may_name_a_folder(tmp_path, own_registry):
    """The model's own configuration says what it is; the name of the folder says nothing."""
    assert own_registry
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text('{"model_type": "qwen3"}', "utf-8")
    file = tmp_path / "x.yml"
    file.write_text(axolotl("./mine", "lora_target_modules: [q_proj, v_proj]"), "utf-8")
    (part,) = check(file).parts
    assert part.reference == "transformers:qwen3"


def test_a_text_from_elsewhere_reads_no_folder(registry, tmp_path):
    """A service must not tell what is on its disk."""
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}', "utf-8")
    with pytest.raises(NotRegistered):
        check_text(registry, axolotl(str(tmp_path), "lora_target_modules: [q_proj]"), "x.yml")


def test_files_that_are_none_are_rejected(tmp_path):
    """In one line each."""
    with pytest.raises(InvalidConfig, match="cannot be read"):
        check(tmp_path / "missing.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidConfig, match="no text"):
        check(tmp_path / "binary.yml")


def test_the_document_shows_what_is_printed(tmp_path, monkeypatch, run_check):
    """docs/training/check.md: its configuration, and what the command prints of it."""
    text = DOCUMENT.read_text("utf-8")
    (config,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (printed,) = re.findall(r"```console\n\$ loradar check qlora.yml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "qlora.yml").write_text(config, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert run_check("qlora.yml") == (1, printed)


@pytest.fixture
def own_registry(monkeypatch, seeded):
    """The URL of the registry that the command and ``check`` open."""
    url = f"sqlite:///{seeded}"
    monkeypatch.setenv(DATABASE_URL_VARIABLE, url)
    return url


@pytest.fixture
def run_check(own_registry, capsys):
    """Return a function that runs the command."""
    assert own_registry

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["check", *arguments])
        return stopped.value.code, capsys.readouterr().out

    return run


def test_several_files_are_checked_each(tmp_path, run_check):
    """One that cannot be checked does not end the command, and sets the exit code."""
    good, bad, none = (tmp_path / name for name in ("good.yml", "bad.yml", "none.yml"))
    good.write_text(SOUND[0], "utf-8")
    bad.write_text(CASES["nothing"][0], "utf-8")
    none.write_text("a: 1\n", "utf-8")
    assert run_check(str(good))[0] == 0
    code, out = run_check(str(good), str(bad))
    assert code == 1
    assert "sound" in out
    assert "line 3" in out
    code, out = run_check("--json", str(none), str(good))
    assert code == 2
    assert '"is_sound": true' in out


def test_a_matcher_may_be_chosen(registry):
    """The command reads regexes as PEFT does, with lookarounds that RE2 has not."""
    text = axolotl("Qwen/Qwen3-8B", "lora_target_modules: '(?!.*mlp).*_proj'")
    (part,) = check_text(registry, text, "x.yml", matcher=TargetMatcher).parts
    assert part.matched == 4 * 32
