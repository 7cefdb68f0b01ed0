"""A lookup by a reference in any spelling: what was understood, and what is said where nothing was."""

import json

import pytest
from records_zoo import make_scan

from loradar.errors import NotRegistered
from loradar.registry import Registry, lookup

SPELLED = {
    "timm:resnet50": ("timm:resnet50", None),
    "resnet50": ("timm:resnet50", "exact"),
    "LlamaForCausalLM": ("transformers:llama", "class"),
    "Qwen/Qwen3-8B": ("transformers:qwen3", "checkpoint"),
    "hub:Qwen/Qwen3-8B": ("transformers:qwen3", "checkpoint"),
    "SDXL": ("diffusers:UNet2DConditionModel", "nickname"),
    "somebody/llama-3-tuned": ("transformers:llama", "by name"),
}


@pytest.mark.usefixtures("read_settings")
def test_a_lookup_takes_any_spelling_and_says_how_it_was_read(monkeypatch):
    """Without opening the registry by SQLAlchemy; a guess is marked."""
    monkeypatch.setattr(Registry, "open", lambda *_: pytest.fail("opened the registry"))
    for text, (reference, how) in SPELLED.items():
        found = lookup(text)
        understood = found.understood
        assert f"{found.library}:{found.name}" == reference
        assert (understood and understood.how) == how
        if understood:
            assert (understood.given, understood.is_guess) == (text, how == "by name")


@pytest.mark.usefixtures("read_settings")
def test_ambiguity_is_part_of_the_answer():
    """The type of transformers that the name begins with."""
    assert "transformers:resnet" in lookup("resnet50").understood.also


def test_the_registry_understands_as_the_lookup_does(registry):
    """SQLAlchemy's queries and the standard library's."""
    for text in SPELLED:
        assert registry.lookup(text) == lookup(text)
    assert registry.lookup("LlamaForCausalLM", rank=16).understood.how == "class"


def test_an_architecture_of_the_registry_s_own_is_understood(registry):
    """It is in no packaged file."""
    registry.add_scan(make_scan("my_pkg.OwnNet", library="torch"))
    assert lookup("my-pkg.ownnet").understood.because == "my_pkg.OwnNet"


MISSES = {
    "lama": "Closest: 'llama'",
    "reznet50": "'timm:resnet50'",
    "qqqqzzzz": "loradar list",
    "somebody/qqqqzzzz": "loradar scan hub:somebody/qqqqzzzz",
}


@pytest.mark.parametrize(("text", "words"), MISSES.items())
def test_a_miss_gives_near_names_or_a_command(registry, text, words):
    """A near name is never looked up in its stead; of a repository it is said what the hub would be asked for."""
    with pytest.raises(NotRegistered) as caught:
        lookup(text)
    assert words in caught.value.message
    assert "--store" not in caught.value.message
    assert ("config.json" in caught.value.message) == ("/" in text)
    near = caught.value.near
    if near:
        assert caught.value.details["command"] == f"loradar lookup {near[0]}"
        assert registry.lookup(near[0])


@pytest.mark.usefixtures("read_settings")
def test_a_library_is_kept_to():
    """Only its names count; a scheme that there is not is rejected."""
    assert lookup("resnet", library="transformers").understood is None
    with pytest.raises(NotRegistered):
        lookup("sdxl", library="timm")
    with pytest.raises(NotRegistered, match="Unknown scheme 'keras'"):
        lookup("keras:llama")


@pytest.mark.usefixtures("read_settings")
def test_a_folder_on_this_machine_is_read_by_its_configuration(tmp_path):
    """The registry of a service never reads one."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    found = lookup(str(tmp_path))
    assert (found.name, found.understood.how) == ("qwen3", "configuration")
