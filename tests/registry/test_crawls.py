"""What crawls found: stored once for each repo, and counted by architecture."""

from dataclasses import replace

import pytest

from loradar.domain.crawls.crawled import CrawledAdapter, CrawledRepo, Structure
from loradar.errors import UnknownArchitecture
from loradar.registry import Registry

HUB = "https://hub.example"
LLAMA = Structure("transformers", "llama", "LlamaForCausalLM", ("model.layers.*.self_attn.q_proj 2",))
HEADLESS = replace(LLAMA, class_name="LlamaModel", layers=("layers.*.self_attn.q_proj 2",))
FLUX = Structure("diffusers", "FluxTransformer2DModel", None, ("blocks.*.attn.to_q 2",))
CLIP = Structure("transformers", "clip_text_model", "CLIPTextModel", ("layers.*.k_proj 2",))


def model(name, *parts, commit="1"):
    """Return a repo of models."""
    named = tuple(part if isinstance(part, tuple) else ("", part) for part in parts)
    return CrawledRepo(name, commit, None, "model", models=named)


def adapter(name, base, *targets, known=None):
    """Return a repo of an adapter."""
    return CrawledRepo(name, "1", None, "adapter", adapter=CrawledAdapter(base, known, "LORA", targets))


def test_repos_are_counted_by_structure(any_registry):
    """Most frequent first, with examples; other architectures do not count."""
    repos = [model("a/one", LLAMA), model("a/two", LLAMA), model("b/three", HEADLESS), model("c/clip", CLIP)]
    assert any_registry.crawls.add(HUB, repos) == 3
    found = any_registry.crawls.get_usage("transformers", "llama")
    counted = [(one.class_name, one.repos, one.examples, one.layers) for one in found.structures]
    assert counted == [
        ("LlamaForCausalLM", 2, ("a/one", "a/two"), LLAMA.layers),
        ("LlamaModel", 1, ("b/three",), HEADLESS.layers),
    ]
    assert (found.repos, found.adapters, found.crawled) == (3, 0, 4)


def test_a_repo_that_changed_counts_once(any_registry):
    """A second visit takes the place of the first, also if the repo holds something else now."""
    any_registry.crawls.add(HUB, [model("a/one", LLAMA), model("a/two", LLAMA)])
    assert any_registry.crawls.add(HUB, [model("a/one", CLIP, commit="2")]) == 1
    assert any_registry.crawls.add(HUB, [model("a/one", CLIP, commit="2")]) == 0
    assert any_registry.crawls.list_visited(HUB, ["a/one", "a/none"]) == {"a/one": ("2", "model")}
    assert any_registry.crawls.list_visited("https://other.example", ["a/one"]) == {}
    assert [any_registry.crawls.get_usage("transformers", name).repos for name in ("llama", "clip_text_model")] == [
        1,
        1,
    ]


def test_adapters_count_for_the_architecture_of_their_base(any_registry):
    """By the base as crawled; else as it is known offline. A pipeline's adapter is one of its denoiser."""
    any_registry.crawls.add(
        HUB,
        [
            model("a/base", LLAMA),
            model("f/flux", ("transformer", FLUX), ("text_encoder", CLIP)),
            adapter("x/one", "a/base", "q_proj", "v_proj"),
            adapter("x/two", "a/base", "q_proj", "v_proj", known=("transformers", "opt")),
            adapter("x/three", "meta/gated", "q_proj", known=("transformers", "llama")),
            adapter("x/four", None, "q_proj"),
            adapter("y/five", "f/flux", "to_q"),
        ],
    )
    llama = any_registry.crawls.get_usage("transformers", "llama")
    assert llama.adapters == 3
    assert [(one.targets, one.adapters, one.examples) for one in llama.targets] == [
        (("q_proj", "v_proj"), 2, ("x/one", "x/two")),
        (("q_proj",), 1, ("x/three",)),
    ]
    flux, clip, opt = (
        any_registry.crawls.get_usage(*name)
        for name in (("diffusers", FLUX.name), ("transformers", CLIP.name), ("transformers", "opt"))
    )
    assert (flux.adapters, clip.adapters, opt.adapters) == (1, 0, 0)


def test_a_usage_nobody_counted_is_empty_or_unknown(registry):
    """Zero for what is registered; an error with near names for what is not."""
    found = registry.crawls.get_usage("transformers", "llama")
    assert (found.repos, found.structures, found.targets, found.crawled) == (0, (), (), 0)
    with pytest.raises(UnknownArchitecture, match="Closest: 'llama'"):
        registry.crawls.get_usage("transformers", "lama")


def test_a_batch_is_stored_whole_or_not_at_all(registry, monkeypatch):
    """A crash between the repos and their models leaves neither."""
    monkeypatch.setattr("loradar.registry.crawls._adapter_row", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        registry.crawls.add(HUB, [model("a/one", LLAMA), adapter("x/one", "a/one", "q_proj")])
    assert registry.crawls.list_visited(HUB, ["a/one", "x/one"]) == {}
    monkeypatch.undo()
    assert registry.crawls.add(HUB, [model("a/one", LLAMA)]) == 1, "the structure was not stored with the failed batch"


def test_two_registries_share_structures(settings, registry):
    """Of two processes that crawl into one database, the second takes the structures of the first."""
    registry.crawls.add(HUB, [model("a/one", LLAMA)])
    with Registry.open(settings) as other:
        assert other.crawls.add(HUB, [model("a/two", LLAMA)]) == 0
        assert registry.crawls.get_usage("transformers", "llama").repos == 2
