"""Ways to an architecture without its exact name: by any spelling, by a layer, by properties."""

import pytest

from loradar.data import read_facts
from loradar.errors import UnknownName
from loradar.registry import Registry
from loradar.registry.mappings.listing import find_task


@pytest.fixture
def opened(read_settings):
    """An open registry that is only read."""
    with Registry.open(read_settings) as registry:
        yield registry


@pytest.mark.parametrize(
    ("text", "name", "how", "model"),
    [
        ("Qwen/Qwen3-8B", "qwen3", "checkpoint", "Qwen/Qwen3-8B"),
        ("LlamaForCausalLM", "llama", "class", None),
        ("sdxl", "UNet2DConditionModel", "nickname", None),
        ("resnet50.a1_in1k", "resnet50", "checkpoint", None),
        ("Wqkv", "pe_audio_video", "layer", None),
        ("lama", "llama", "near name", None),
    ],
)
def test_the_first_result_is_what_the_text_means(opened, text, name, how, model):
    """With the reason, and the checkpoint that it names."""
    first = opened.browsing.search(text).results[0]
    assert (first.name, first.how, first.model) == (name, how, model)
    assert first.is_guess == (how == "near name")


def test_a_layer_is_found_by_its_whole_name_in_its_case(opened):
    """Wildcards of SQL are plain characters."""
    assert {one.name for one in opened.browsing.search("Wqkv").results} >= {"mpt", "dbrx", "modernbert"}
    for text in ("qkv_does_not_exist", "wqkv", "W%kv", "W_kv"):
        assert not [one for one in opened.browsing.search(text).results if one.how == "layer"]
    found = opened.browsing.search("self_attn.q_proj", limit=5)
    assert (len(found.results), found.total > 300) == (5, True)
    assert "named 'self_attn.q_proj': attention.query" in found.results[0].because


def test_a_message_is_explained(opened):
    """With what its traceback names."""
    text = "model = Qwen3ForCausalLM(config)\nValueError: Please specify `target_modules` in `peft_config`"
    answer = opened.browsing.search(text)
    assert answer.says.startswith("PEFT has no default targets")
    assert [one.name for one in answer.results] == ["qwen3"]


def test_nothing_is_found_for_nothing(opened):
    """Nor for what is no name."""
    for text in ("", "   ", "?!", "\x00", "x" * 5000, "//", "@"):
        assert opened.browsing.search(text).results == ()


def test_a_summary_says_what_a_lookup_says(opened):
    """Its status, for one in thirty of all architectures."""
    every = opened.list_architectures()
    for summary in every[::30]:
        own = summary.architecture
        found = opened.find(own.name, library=own.library)
        expected = found and (found.verification.status if found.verification else "unproven")
        assert summary.status == expected, own.reference
    llama = next(one for one in every if one.architecture.reference == "transformers:llama")
    assert (llama.task, llama.status, llama.peft, llama.towers) == ("text generation", "live", "live", ("language",))
    assert llama.engines == ("vllm", "sglang", "llama_cpp")


def test_each_task_is_one_of_an_architecture(opened):
    """No entry of the data is idle."""
    found = {one.task for one in opened.list_architectures()}
    assert found == {task["name"] for task in read_facts("tasks.toml")["task"]}
    assert find_task("torch", None) == "other"


def test_properties_narrow_the_list(opened):
    """Each alone and together, by pages that cover everything once."""
    wanted = {"library": "transformers", "engine": "vllm", "status": "live"}
    found = opened.browsing.browse(wanted, limit=1000)
    assert 100 < found.total == len(found.page)
    assert all(("vllm" in one.engines, one.status) == (True, "live") for one in found.page)
    pages, after = [], None
    while page := opened.browsing.browse(wanted, after=after, limit=50).page:
        pages += page
        after = page[-1].architecture.reference
    assert tuple(pages) == found.page
    assert [one.architecture.name for one in opened.browsing.browse({}, q="NLLB").page] == ["nllb-moe"]
    assert {one.architecture.name for one in opened.browsing.browse({}, layer="Wqkv").page} >= {"mpt", "dbrx"}


def test_counts_say_what_one_more_filter_would_leave(opened):
    """Of a property in use, what another value would."""
    found = opened.browsing.browse({"library": "timm"})
    assert found.counts["library"]["transformers"] > 800
    for name, value in (("task", "image features"), ("tower", "vision"), ("status", "live")):
        assert found.counts[name][value] == opened.browsing.browse({"library": "timm", name: value}).total
    assert sum(found.counts["status"].values()) == found.total


def test_a_value_that_no_architecture_has_is_no_error(opened):
    """A registry without classes of a user's own has none of library torch."""
    found = opened.browsing.browse({"library": "torch"})
    assert (found.total, found.page) == (0, ())


@pytest.mark.parametrize("wanted", [{"colour": "red"}, {"task": "cooking"}, {"engine": "tgi"}])
def test_unknown_properties_are_rejected(opened, wanted):
    """With those there are."""
    with pytest.raises(UnknownName):
        opened.browsing.browse(wanted)
