"""Snippets run as they are, on small models; those of all tools are read back by the reader of configurations."""

import ast
import json
import shlex
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import diffusers
import pytest
import transformers
import yaml
from architectures import gpt_oss, mixtral
from architectures_seeing import llava, unet
from diffusers.loaders.peft import PeftAdapterMixin
from zoo import gpt2, llama

import loradar
from loradar.data import read_facts
from loradar.errors import InvalidRequest, MethodDoesNotFit, UnknownTool
from loradar.registry import Registry
from loradar.registry.checking import check_text
from loradar.registry.snippet_lookup import find_subject
from loradar.snippets import Subject, get_tool, list_tools, write_snippet
from loradar.training_configs import read_parts

pytestmark = pytest.mark.usefixtures("read_settings")

ROOT = Path(__file__).parents[2]
LANGUAGE = ("loradar", "peft", "trl", "axolotl", "llama-factory", "ms-swift", "unsloth")


@pytest.fixture
def registry(read_settings):
    """A registry that is read."""
    with Registry.open(read_settings) as opened:
        yield opened


READ_BACK = [
    ("Qwen/Qwen3-8B", "recommended"),
    ("gpt2", "default"),  # one name, which trl's own command reads as a regex
    ("mixtral", "recommended"),  # experts of another rank
    ("llava", "recommended"),  # an exclusion
    ("blip-2", "all-linear"),
    ("jamba", "recommended"),
    ("t5", "default"),
]


@pytest.mark.parametrize(
    ("reference", "preset", "tool"),
    [(*case, tool) for case in READ_BACK for tool in LANGUAGE if (case[0], tool) != ("t5", "axolotl")],
)
def test_what_a_snippet_states_is_read_back_and_accepted(registry, reference, preset, tool):
    """`loradar check` finds the same targets in it, and no error."""
    mapping = registry.lookup(reference, preset=preset)
    written = write_snippet(mapping, tool, subject=find_subject(registry, mapping))
    (part,) = read_parts(written.text, written.file)
    assert part.base.text == mapping.understood.given if mapping.understood else part.base
    spec = mapping.spec
    if isinstance(spec.target_modules, tuple) and not spec.exclude_modules:
        assert tuple(name.text for name in part.names) == spec.target_modules
    if "target_parameters" in get_tool(tool).states:
        assert tuple(name.text for name in part.parameters) == (spec.target_parameters or ())
    assert tuple(name.text for name in part.saved) == (spec.modules_to_save or ())
    check = check_text(registry, written.text, written.file, mapping.name)
    assert check.is_sound, check
    if not any("get no adapter" in note or "match others" in note for note in written.notes):
        assert check.parts[0].matched == mapping.matched


LOADERS = {
    "llama-factory": (("IMAGE_TEXT_TO_TEXT", "SEQ_TO_SEQ_CAUSAL_LM", "TEXT_TO_WAVEFORM", "CAUSAL_LM"), set()),
    "axolotl": (
        ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION"),
        {"VoxtralForConditionalGeneration"},
    ),
}
"""The auto classes with which a tool loads models, and the classes that it loads by name."""


@pytest.mark.parametrize("name", LOADERS)
def test_a_tool_gets_no_snippet_of_a_class_that_it_cannot_load(name):
    """LLaMA-Factory and axolotl load models with four auto classes, none of which has those for speech to text."""
    mappings = transformers.models.auto.modeling_auto
    autos, loaded = LOADERS[name]
    loaded = loaded | {one for auto in autos for one in getattr(mappings, f"MODEL_FOR_{auto}_MAPPING_NAMES").values()}
    every = map(json.loads, (ROOT / "data/catalog/transformers.jsonl").read_text("utf-8").splitlines())
    tool = replace(get_tool(name), unloaded=())
    classes = {row["class"] for row in every if "class" in row and not tool.find_misfit("transformers", row["class"])}
    assert set(get_tool(name).unloaded) == classes - loaded
    with pytest.raises(MethodDoesNotFit, match="loads no WhisperForConditionalGeneration"):
        loradar.snippet("whisper", name)


def run_on(specimen, snippet, folder):
    """Save a model where a snippet expects it, run the snippet, and return the adapted model."""
    specimen.model.save_pretrained(folder)
    names = {}
    exec(compile(snippet.text, snippet.file, "exec"), names)  # noqa: S102 - our own snippet
    return names["model"]


@pytest.mark.parametrize(
    ("build", "reference", "preset"),
    [
        (llama, "llama", "recommended"),
        (gpt2, "gpt2", "all-linear"),
        (mixtral, "mixtral", "recommended"),
        (gpt_oss, "gpt_oss", "experts"),
        (llava, "llava", "recommended"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:The following .* keys did not match any targeted module"
)  # of parameters, in 0.21.2
def test_loradar_and_peft_run_and_adapt_the_same(build, reference, preset, tmp_path, capsys):
    """The same layers with as many parameters, and of several towers the one that is meant."""
    specimen = build()
    found = {}
    for tool in ("loradar", "peft"):
        written = loradar.snippet(reference, tool, preset=preset, rank=4, model=str(tmp_path))
        model = run_on(specimen, written, tmp_path)
        trained = {name for name, values in model.named_parameters() if values.requires_grad}
        found[tool] = {name.replace(".base_layer", "").partition(".lora_")[0] for name in trained}
        assert found[tool]
        assert not any("vision" in name for name in trained)
    assert found["loradar"] == found["peft"]
    ours, theirs = capsys.readouterr().out.strip().splitlines()[-2:]
    assert ours == theirs


def test_a_snippet_of_ia3_runs(tmp_path):
    """Of both packages, with the layers that it scales at the input."""
    for tool in ("loradar", "peft"):
        written = loradar.snippet("llama", tool, "IA3", model=str(tmp_path))
        assert 'feedforward_modules=["down_proj"]' in written.text
        assert "lora_alpha" not in written.text
        run_on(llama(), written, tmp_path)


@pytest.mark.parametrize("tool", ["loradar", "peft"])
def test_a_snippet_for_timm_runs(tool):
    """Without the weights, which are downloaded."""
    written = loradar.snippet("timm:resnet50", tool)
    names = {}
    exec(written.text.replace("pretrained=True", "pretrained=False"), names)  # noqa: S102 - our own snippet
    assert names["model"].targeted_module_names if tool == "loradar" else names["model"].base_model


@pytest.mark.parametrize("tool", ["loradar", "peft", "diffusers"])
def test_a_snippet_for_diffusers_runs(tool, tmp_path):
    """From the folder of the model in a pipeline."""
    written = loradar.snippet("UNet2DConditionModel", tool, model=str(tmp_path))
    model = run_on(unet(), written, tmp_path / "unet")
    assert any("lora_" in name for name, _ in model.named_parameters())


def test_a_class_of_diffusers_without_add_adapter_gets_its_layers_from_peft(tmp_path):
    """As an autoencoder."""
    names = read_facts("snippets/tools.toml")["adapted_by_diffusers"]["classes"]
    known = [name for name in dir(diffusers) if name.endswith("Model") and hasattr(diffusers, name)]
    adapted = {name for name in known if issubclass(getattr(diffusers, name), PeftAdapterMixin)}
    assert adapted & set(names) == {name for name in names if name in known}
    written = loradar.snippet("AutoencoderTiny", "diffusers", preset="everything", model=str(tmp_path))
    assert "inject_adapter_in_model(config, model)" in written.text
    ast.parse(written.text)


@pytest.mark.parametrize("tool", [tool for tool in list_tools() if tool.package], ids=lambda tool: tool.name)
def test_the_version_that_a_template_states_is_the_installed_one(tool):
    """A new version of it is read before the snippets say so."""
    assert tool.version == version(tool.package)
    written = write_snippet(loradar.lookup("sdxl"), tool.name)
    assert f"{tool.label} {tool.version}" in written.text.splitlines()[0]


def test_what_a_tool_cannot_state_is_a_note_and_a_comment():
    """Experts and their ranks, and names that match layers of another tower."""
    written = loradar.snippet("mixtral", "llama-factory", preset="recommended")
    assert written.notes == (
        "LLaMA-Factory has no key for target_parameters: gate_up_proj, down_proj get no adapter here",
    )
    assert f"# Note: {written.notes[0]}." in written.text
    ranks = loradar.snippet("mixtral", "ms-swift", preset="recommended").notes
    assert (
        ranks[0]
        == "ms-swift has no key for rank_pattern: these layers would have another rank, gate_up_proj: 4, down_proj: 4"
    )
    regex = replace(loradar.lookup("llama"), target_modules=r".*\.[13]\.self_attn\.q_proj")
    assert "cannot state them" in write_snippet(regex, "llama-factory").notes[0]
    with Registry.open() as registry:
        subject = find_subject(registry, regex)
    (note,) = write_snippet(regex, "llama-factory", subject=subject).notes
    assert note == (
        "LLaMA-Factory takes names of layers alone, and these match others too: model.layers.*.self_attn.q_proj"
    )


def test_towers_are_left_alone_or_adapted_by_the_keys_of_llama_factory():
    """Whatever its defaults are."""
    written = yaml.safe_load(loradar.snippet("llava", "llama-factory", towers="vision").text)
    assert written["freeze_vision_tower"] is False
    assert written["freeze_language_model"] is True


def test_alphas_of_single_layers_follow_the_common_one():
    """In proportion; one that takes integers alone gets the nearest, and says so."""
    mapping = loradar.lookup("mixtral", preset="recommended", rank=6)
    assert loradar.snippet("mixtral", "peft", preset="recommended", rank=16).text.count(": 16") == 2
    written = write_snippet(mapping, "axolotl", alpha=3)
    stated = yaml.safe_load(written.text)
    assert all(isinstance(alpha, int) for alpha in stated["lora_alpha_pattern"].values())
    assert any("takes integers" in note for note in written.notes)


HOSTILE = """a"b'c`$(touch x)\\#: {%- {{ 1 }} -%} </script>"""


@pytest.mark.parametrize("tool", LANGUAGE)
def test_the_name_of_a_model_stays_text(tool, registry):
    """In every form, whatever is in it."""
    mapping = registry.lookup("llama")
    written = write_snippet(mapping, tool, HOSTILE, subject=find_subject(registry, mapping))
    if written.form == "yaml":
        assert HOSTILE in yaml.safe_load(written.text).values()
    elif written.form == "shell":
        assert HOSTILE in shlex.split(written.text, comments=True)
    else:
        assert HOSTILE in [node.value for node in ast.walk(ast.parse(written.text)) if isinstance(node, ast.Constant)]


@pytest.mark.parametrize("model", ["", "a\nimport os", "a" * 600])
def test_a_model_with_hidden_characters_or_too_many_is_rejected(model):
    """A comment or a line of its own would be code."""
    with pytest.raises(InvalidRequest, match="Invalid model"):
        loradar.snippet("llama", "peft", model=model)


def test_a_tool_that_does_not_train_such_a_model_names_those_that_do():
    """By library, class and method."""
    with pytest.raises(MethodDoesNotFit, match=r"not of timm\. Tools for it: loradar, peft"):
        loradar.snippet("timm:resnet50", "axolotl")
    with pytest.raises(MethodDoesNotFit, match="does not train a BertForMaskedLM"):
        loradar.snippet("bert", "trl")
    with pytest.raises(MethodDoesNotFit, match=r"none of IA3\. Tools for it: loradar, peft, trl"):
        loradar.snippet("llama", "unsloth", "IA3")
    with pytest.raises(UnknownTool, match="Closest: 'axolotl'"):
        loradar.snippet("llama", "axolotel")
    assert get_tool("LLaMA Factory").name == "llama-factory"


def test_a_class_of_your_own_is_imported_from_its_module(registry):
    """Names that are no module are left to the reader."""
    mapping = registry.lookup("llama")
    own = replace(mapping, architecture=replace(mapping.architecture, library="torch", name="my.models.Net"))
    assert "from my.models import Net\n" in write_snippet(own, "peft").text
    odd = replace(own, architecture=replace(own.architecture, name="x; import os.Net"))
    assert "model = build_model()  # yours" in write_snippet(odd, "peft", subject=Subject("x()")).text


def test_classes_of_snippets_can_be_imported(registry):
    """Those that transformers does not export are loaded by their type."""
    mapping = registry.lookup("llama")
    names = {one.architecture.class_name for one in registry.list_architectures("transformers")} - {None}
    assert len(names) > 500
    lines = {write_snippet(mapping, "peft", subject=Subject(name)).text.splitlines()[2] for name in names}
    imported = {line.removeprefix("from transformers import ") for line in lines}
    assert "AutoModel" in imported
    exported = {name for names in transformers._import_structure.values() for name in names}
    assert all(hasattr(transformers, name) for name in imported - exported)
