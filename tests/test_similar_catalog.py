"""Similarity over the whole catalog: neighbours a reader would name, told in words."""

import pytest

from loradar.registry.mappings.similar import list_differences


@pytest.fixture
def similar(registry):
    """Return a function that lists (name, differences) of the nearest of transformers."""

    def neighbours(name, limit=50):
        found = registry.list_similar("transformers", name, limit)
        return {
            reference: neighbour.differences
            for neighbour in found
            for reference in (neighbour.architecture.reference, *neighbour.also)
        }

    return neighbours


@pytest.mark.parametrize(
    ("name", "other", "difference"),
    [
        ("llama", "transformers:mistral", None),
        ("llama", "transformers:qwen3", "has norms in its attention: q_norm and k_norm"),
        ("qwen3", "transformers:llama", "has no norms in its attention where qwen3 has q_norm and k_norm"),
        ("mixtral", "transformers:granitemoe", "names block_sparse_moe.router where mixtral says mlp.gate"),
        ("gpt_neox", "transformers:mpt", "names attn.Wqkv where gpt_neox says attention.query_key_value"),
    ],
)
def test_relatives_are_near_and_their_difference_is_said(similar, name, other, difference):
    """In the words a person would use."""
    found = similar(name)
    assert other in found
    assert difference in found[other] if difference else not found[other]


def test_fusions_are_said_both_ways(registry):
    """phi3 is llama with its projections fused."""
    llama, phi3 = (registry.get_architecture("transformers", name).slots for name in ("llama", "phi3"))
    assert list_differences(llama, phi3, "llama") == (
        "fuses query, key and value into one projection where llama has three",
        "fuses gate and up into one projection where llama has two",
    )
    assert list_differences(phi3, llama, "phi3") == (
        "has three projections for query, key and value where phi3 fuses them into one",
        "has two projections for gate and up where phi3 fuses them into one",
    )


def test_no_architecture_is_near_to_itself(registry):
    """And everyone else is, once, as far as the limit goes."""
    found = registry.list_similar("timm", "resnet50", 50)
    names = [name for one in found for name in (one.architecture.reference, *one.also)]
    assert "timm:resnet50" not in names
    assert len(names) == len(set(names)) > 50
    assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
