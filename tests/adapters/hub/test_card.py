"""Model cards: what the model knows, in full, and nothing it does not know."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from transformers import MixtralConfig, MixtralForCausalLM
from zoo import MLP, llama

import loradar
from loradar import LoraConfig, PeftModel, get_peft_model
from loradar.adapters import card_of, inject
from loradar.errors import AdapterUnreadable

GOLDEN = Path(__file__).parents[2] / "golden" / "model_card.md"
TEMPLATE = Path(__file__).parents[3] / "data" / "model_card.md.jinja"


def without_versions(card):
    """Return a card as it is whatever is installed."""
    card = re.sub(r"^- (\S+) \d\S*$", r"- \1 VERSION", card, flags=re.MULTILINE)
    return re.sub(r"[0-9a-f]{16} -->", "DIGEST -->", card)


@pytest.mark.usefixtures("read_settings")
def test_the_whole_card():
    """Of a llama whose targets the registry knows, as pushed to a branch: word for word."""
    model = get_peft_model(llama().model, LoraConfig(base_model_name_or_path="org/tiny-llama", lora_dropout=0.1))
    assert without_versions(card_of(model, "hub:alice/poems@v1")) == GOLDEN.read_text("utf-8")


@pytest.mark.usefixtures("read_settings")
def test_what_a_scan_says_is_of_the_adapted_layers_alone():
    """`seq.*` is also the pattern of the head, which is not adapted: its role is not told."""
    card = card_of(get_peft_model(MLP(8)))
    assert "Step `scan`: live scan, preset 'default'." in card
    assert r"- seq.\* (2 layers)" in card
    assert "| `seq.*` | 2 | other |" in card
    assert "| `modules_to_save` | `seq.4` |" in card
    assert "- `seq.*`: nothing known says what '0' does (names)\n" in card
    assert "| head |" not in card


@pytest.mark.usefixtures("read_settings")
def test_fused_experts_are_layers_too():
    """Bare parameters stand in the table with their roles, as modules do."""
    config = MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    card = card_of(get_peft_model(MixtralForCausalLM(config), preset="experts"))
    assert "| `model.layers.*.mlp.experts.gate_up_proj` | 2 | expert.gate_up |" in card
    assert "| `model.layers.*.mlp.experts.down_proj` | 2 | expert.down |" in card


def test_given_targets_have_no_roles():
    """Nobody scanned the model, so nothing is said of what the layers do; settings that are not defaults are told."""
    config = LoraConfig(target_modules=r".*\.(q|v)_proj", rank_pattern={"q_proj": 3}, use_rslora=True)
    card = card_of(get_peft_model(llama().model, config))
    assert "Step `config`: targets given in the configuration." in card
    assert "| layers (`*`: any index) | how many |\n| --- | --- |\n| `model.layers.*.self_attn.q_proj` | 2 |\n" in card
    assert "scan" not in card
    assert r"| `target_modules` | `.*\.(q\|v)_proj` |" in card
    assert "| `rank_pattern` | `{'q_proj': 3}` |" in card
    assert "| `use_rslora` | `True` |" in card


def test_a_loaded_adapter_does_not_invent_its_origin(tmp_path):
    """Its files do not say who decided; they do say of which size it is, though nothing trains."""
    inject(MLP(8), LoraConfig(target_modules=["seq.0"])).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(MLP(8), tmp_path)
    card = card_of(model)
    assert "loaded from files, which do not record where its targets came from." in card
    size, total = 8 * (20 + 8), sum(parameter.numel() for parameter in model.parameters())
    assert f"| parameters of the adapter | {size:,} of {total:,} ({size / total:.2%}) |" in card


def test_the_front_matter_is_what_the_hub_reads():
    """The library that loads it, the method and the base model."""
    config = LoraConfig(target_modules=["seq.0"], base_model_name_or_path="org/mlp", revision="v2")
    data = ModelCard(card_of(inject(MLP(8), config))).data
    assert data.to_dict() == {"base_model": "org/mlp", "library_name": "peft", "tags": ["lora", "loradar"]}


@pytest.mark.parametrize("name", ["`x`\n# Free money\n", "a|b", "/home/me/model", "---\nlicense: mit", "a/b/c", ""])
def test_a_name_no_repo_can_have_is_not_told(name):
    """A path says nothing to others, and the hub refuses it; markup in it changes nothing."""
    card = card_of(inject(MLP(8), LoraConfig(target_modules=["seq.0"], base_model_name_or_path=name)))
    assert card == card_of(inject(MLP(8), LoraConfig(target_modules=["seq.0"])))


def test_markup_in_a_configuration_is_no_markup():
    """Patterns of the user's stay in their cell, as code; the sections are those of the template."""
    hostile = r"seq\.0|x`y\n# Free money <script>alert(1)</script>"
    config = LoraConfig(target_modules=hostile, exclude_modules=["`|`", "![x](y)"])
    text = ModelCard(card_of(inject(MLP(8), config))).text
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    codes = [child.content for token in tokens for child in token.children or () if child.type == "code_inline"]
    assert {hostile.replace("\n", r"\n"), "`|`", "![x](y)"} <= set(codes)
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    assert titles == ["LORA adapter for MLP", *re.findall(r"^## (.*)$", TEMPLATE.read_text("utf-8"), re.MULTILINE)]
    assert [token.content for token in tokens if token.type.startswith("html")] == [tokens[-1].content]


def test_the_code_of_a_card_runs(tmp_path, monkeypatch):
    """What it says under "How to load it", from its own folder, once the base model is there."""
    model = inject(MLP(8), LoraConfig(target_modules=["seq.0"], init_lora_weights=False))
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("path/to/this/folder")
    card = Path("path/to/this/folder/README.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2
    for code in blocks:
        names = {"base": MLP(8)}
        exec(compile(code.replace("...  #", "base  #"), "README.md", "exec"), names)  # noqa: S102 - our own card
        assert names["model"].active_adapters == ["default"]


def test_a_card_of_ones_own_is_kept(tmp_path):
    """What loradar wrote is replaced when saved again; one that was edited, or was there before, is not."""
    model, path = inject(MLP(8), LoraConfig(target_modules=["seq.0"])), tmp_path / "README.md"
    model.save_pretrained(tmp_path)
    inject(MLP(8), LoraConfig(target_modules=["seq.2"])).save_pretrained(tmp_path)
    assert "| `target_modules` | `seq.2` |" in path.read_text("utf-8")
    for text in (path.read_text("utf-8").replace("MLP", "my MLP"), "# Mine\n", ""):
        path.write_text(text, "utf-8")
        model.save_pretrained(tmp_path)
        assert path.read_text("utf-8") == text


def test_a_card_that_cannot_be_written(tmp_path):
    """Named, like every file."""
    (tmp_path / "README.md").mkdir()
    with pytest.raises(AdapterUnreadable, match=r"README\.md cannot be written: Is a directory"):
        inject(MLP(8), LoraConfig(target_modules=["seq.0"])).save_pretrained(tmp_path)


def test_the_versions_are_those_installed():
    """loradar, torch and the library of the base model; a class of one's own has none."""
    config = LoraConfig(target_modules=["q_proj"])
    assert f"- loradar {loradar.__version__}\n" in card_of(inject(llama().model, config))
    assert re.findall(r"^- (\S+) \d", card_of(inject(llama().model, config)), re.MULTILINE)[-1] == "transformers"
    own = card_of(inject(MLP(8), LoraConfig(target_modules=["seq.0"])))
    assert re.findall(r"^- (\S+) \d", own, re.MULTILINE) == ["loradar", "torch"]
