"""What resolving promises beside the order of candidates."""

import json
from importlib import import_module, metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from loradar.data import read_facts
from loradar.errors import InvalidReference
from loradar.references.knowledge import load
from loradar.references.local import find_configuration
from loradar.references.resolver import resolve
from loradar.references.words import key_of, stem_of, words_of

ROOT = Path(__file__).parent.parent.parent


def test_ambiguity_is_shown():
    """An architecture of timm, and the type of transformers that its name begins with."""
    first, *others = resolve("resnet50")
    assert (first.reference, first.how, first.is_guess) == ("timm:resnet50", "spelling", False) or first.how == "exact"
    assert "transformers:resnet" in [one.reference for one in others]


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("timm:resnet50", "exact"),
        ("GPT-2", "spelling"),
        ("LlamaForCausalLM", "class"),
        ("Qwen/Qwen3-8B", "checkpoint"),
        ("sdxl", "nickname"),
        ("somebody/Llama-3.1-8B-tuned", "by name"),
        ("lama", "near name"),
    ],
)
def test_each_candidate_says_how_it_was_understood(text, how):
    """Only what is known offline is no guess."""
    first = resolve(text)[0]
    assert first.how == how
    assert first.is_guess == (how in {"by name", "near name"})
    assert first.because in first.explain() or how == "exact"


@pytest.mark.parametrize("text", ["somebody/something", "qqqqzzzz", "org/zzxxyy-13B-v2"])
def test_what_is_like_nothing_has_no_sure_candidate(text):
    """A repository is never taken for another one without a word for it."""
    assert all(one.is_guess for one in resolve(text))


@pytest.mark.parametrize("text", ["llama;x=1", "llama' OR '1'='1", "ll\u0430ma", "llama\u0301", "llama%00"])
def test_other_characters_than_those_of_names_are_never_understood(text):
    """They may be an attack, or look like another name."""
    assert resolve(text) == ()


def test_a_repository_of_another_organisation_is_a_guess():
    """It has the name of a known checkpoint; it may hold anything."""
    assert resolve("somebody/Qwen3-8B")[0].how == "by name"


def test_a_tag_of_timm_is_kept_and_an_unknown_one_is_no_checkpoint():
    """``resnet50.a1_in1k`` exists."""
    assert (resolve("resnet50.a1_in1k")[0].tag, resolve("resnet50.a1_in1k")[0].how) == ("a1_in1k", "checkpoint")
    assert resolve("timm/resnet50.no_such_tag")[0].how == "spelling"


def test_a_library_restricts_the_candidates():
    """By its prefix, or as an argument."""
    assert {one.library for one in resolve("timm:convnext")} == {"timm"}
    assert {one.library for one in resolve("resnet50", "transformers")} == {"transformers"}


def test_architectures_of_a_registry_are_found():
    """A class of the user's own, in another spelling."""
    assert resolve("my-own net", registered=("torch:my_own.Net",))[0].reference == "torch:my_own.Net"


@pytest.mark.parametrize("text", ["", "  ", "---", "llama/", "//llama", "a/b/c", "keras:llama", "x" * 600])
def test_what_is_no_reference_is_rejected(text):
    """In one line that names it."""
    with pytest.raises(InvalidReference):
        resolve(text)


def test_sizes_are_no_words_but_active_parameters_are():
    """A mixture of experts is another architecture."""
    assert words_of("Qwen3-VL-30B-A3B-Instruct") == ["qwen", "3", "vl", "moe", "instruct"]
    assert stem_of("Llama-3.2-90B-Vision-Instruct") == "llama32vision"


@pytest.mark.parametrize(
    ("text", "reference", "how"),
    [
        ("unsloth/gemma-3-1b-it-unsloth-bnb-4bit", "transformers:gemma3_text", "by name"),
        ("google/gemma-3-12b-it", "transformers:gemma3", "by name"),
        ("zai-org/GLM-4-9B-0414", "transformers:glm4", "by name"),
        ("THUDM/glm-4-9b-chat-hf", "transformers:glm", "by name"),
        ("upstage/SOLAR-10.7B-Instruct-v1.0", "transformers:llama", "by name"),
    ],
)
def test_a_size_counts_where_it_is_part_of_a_name(text, reference, how):
    """The smallest Gemma 3 have no vision, and another type."""
    first = resolve(text)[0]
    assert (first.reference, first.how) == (reference, how)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("Salesforce/instructblip-vicuna-7b", "transformers:instructblip"),
        ("microsoft/trocr-base-handwritten", "transformers:vision-encoder-decoder"),
        ("naver-clova-ix/donut-base", "transformers:vision-encoder-decoder"),
        ("xception", "timm:legacy_xception"),
    ],
)
def test_a_name_that_several_architectures_state_is_of_the_whole(text, reference):
    """Docstrings of video and of parts of a model load the checkpoints of others; timm's former names are known."""
    first = resolve(text)[0]
    assert first.reference == reference
    assert not first.is_guess


def test_a_class_of_many_architectures_is_a_guess():
    """Of hundreds that timm builds of one class, that with the most checkpoints comes first, of those named like it."""
    first, second, *_ = resolve("MobileNetV3")
    assert (first.reference, first.how, first.is_guess) == ("timm:mobilenetv3_large_100", "class of many", True)
    assert second.library == "timm"
    assert [one.how for one in resolve("ResNet")].count("class of many") == 0


def test_families_are_known_architectures_and_no_two_share_a_name():
    """A name with two meanings would be understood by the order in a file."""
    meanings: dict[str, set[str]] = {}
    for family in read_facts("families.toml")["family"]:
        assert family["reference"] in load().names
        assert family["source"]
        for name in family["names"]:
            meanings.setdefault(key_of(name), set()).add(family["reference"])
    assert {key: found for key, found in meanings.items() if len(found) > 1} == {}


def test_the_names_are_of_the_installed_libraries():
    """``make names`` follows the versions in pyproject.toml."""
    assert load().versions == {name: metadata.version(name) for name in ("transformers", "timm", "diffusers")}


@pytest.fixture(scope="module")
def known_names():
    """The script that writes ``data/names``."""
    spec = spec_from_file_location("known_names", ROOT / "docs/scripts/known_names.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SAMPLE = ("llama", "clip", "qwen3_vl", "deberta_v2", "blip_2", "whisper", "gemma3", "sam")


def test_a_sample_of_the_classes_is_found_again(known_names):
    """The folders of some types are read anew."""
    root = known_names.folder_of("transformers") / "models"
    types = known_names.config_types(root)
    stored = json.loads((ROOT / "data/names/transformers.json").read_text("utf-8"))["names"]
    assert set(types) == set(stored)
    for folder in SAMPLE:
        configs = known_names.types_in(root / folder / f"configuration_{folder}.py", types)
        for name, kind in known_names.models_in(root / folder / f"modeling_{folder}.py", configs).items():
            assert name in stored[kind]["classes"]
        for node in known_names.classes_in(root / folder / f"configuration_{folder}.py"):
            named = {repo for column in stored.values() for repo in column.get("checkpoints", ())}
            assert known_names.decorated(node) <= named


def test_a_sample_of_the_tags_is_found_again():
    """The register of timm is asked."""
    registry = import_module("timm.models._registry")
    names = registry.list_models()[::40]
    for name in names:
        tags = {one.partition(".")[2] for one in registry.list_pretrained() if one.partition(".")[0] == name} - {""}
        assert load().tags.get(name, frozenset()) == tags


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        ({"model_type": "qwen3"}, "transformers:qwen3"),
        ({"_class_name": "FluxTransformer2DModel"}, "diffusers:FluxTransformer2DModel"),
        ({"architecture": "resnet50", "num_classes": 1000}, "timm:resnet50"),
    ],
)
def test_a_folder_is_read_by_its_configuration(tmp_path, config, reference):
    """As each library writes it."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = find_configuration(str(tmp_path))
    assert (found.reference, found.how) == (reference, "configuration")
    assert find_configuration(f"file:{tmp_path}/config.json") == found


@pytest.mark.parametrize("content", ["{}", "[", "[1]", '{"model_type": 3}'])
def test_a_configuration_that_names_nothing_is_rejected(tmp_path, content):
    """With its path."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InvalidReference, match=r"config\.json"):
        find_configuration(str(tmp_path))


def test_a_text_that_is_no_path_is_left_alone(tmp_path, monkeypatch):
    """Only ``file:`` has to exist."""
    monkeypatch.chdir(tmp_path)
    assert find_configuration("Qwen/Qwen3-8B") is None
    with pytest.raises(InvalidReference):
        find_configuration("file:nowhere")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("mistralai/Magistral-Small-2506", "transformers:mistral"),  # not funnel-transformer/small
        ("somebody/Zzyx-Small-2507", None),
        ("microsoft/Florence-2-large", "transformers:florence2"),  # timm takes the weights of its tower alone
        ("somebody/internlm2-7b", None),  # not internlm3
        ("moonshotai/Kimi-K2-Instruct", "transformers:deepseek_v3"),
        ("nvidia/Nemotron-3-Super-120B-A12B", "transformers:nemotron_h"),
    ],
)
def test_words_of_size_numbers_and_towers_lead_to_no_other_model(text, reference):
    """A repository's name is no slip: another number is another model, and its size is of no family."""
    assert next((one.reference for one in resolve(text)), None) == reference


def test_a_near_name_gives_way_to_the_better_reason_for_the_same():
    """`meta llama` is the beginning of the name, and near to it."""
    assert resolve("meta-llama/Meta-Llama-3-8B")[0].how == "by name"
