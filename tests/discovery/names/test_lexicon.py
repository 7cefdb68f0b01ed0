"""The lexicon: every belief holds for its own example."""

import pytest

from loradar.data import read_facts
from loradar.discovery.facts.model_facts import ModelFacts
from loradar.discovery.facts.towers import TowerMap
from loradar.discovery.names.lexicon import context_of, words_of
from loradar.discovery.names.static_roles import label_layers
from loradar.discovery.names.surroundings import Surroundings
from loradar.domain.architectures import Architecture
from loradar.domain.layers import Layer

FACTS = ModelFacts(
    Architecture("transformers", "example"), (), frozenset(), frozenset(), frozenset(), is_vision_library=False
)
BELIEFS = read_facts("lexicon.toml")["belief"]
CONTEXTS = read_facts("lexicon.toml")["context"]


def surroundings(entry):
    """Stand an example in a model of its own, beside the siblings its belief asks for."""
    example = entry["example"]
    layer = Layer(
        path=example["path"],
        kind=example.get("kind", "linear"),
        class_name="Linear",
        shape=(8, 8),
        in_features=8,
        out_features=8,
        owner=example["owner"],
        depth=1,
    )
    parent = layer.path.rpartition(".")[0]
    siblings = [f"{parent}.{name}" for name in entry.get("sibling", ())[:1]]
    return Surroundings(FACTS, TowerMap((), "main"), (layer.path, *siblings), (layer,))


@pytest.mark.parametrize("entry", BELIEFS, ids=lambda entry: f"{entry['role']} {entry['example']['path']}")
def test_a_belief_gives_its_example_its_role(entry):
    """The scanner labels the example by the belief, and gives its reason."""
    (layer,) = label_layers(surroundings(entry))
    assert layer.role == entry["role"]
    assert entry["reason"] in layer.evidence[-1].says


@pytest.mark.parametrize("entry", CONTEXTS, ids=lambda entry: entry["name"])
def test_a_context_is_found_in_its_example(entry):
    """The words around the example name the context."""
    around = surroundings(entry)
    assert around.context_name(around.layers[0]) == entry["name"]


def test_shared_experts_are_no_experts():
    """A shared expert always runs: it is a feed-forward network beside the experts."""
    assert context_of(("Qwen2MoeMLP", "shared_experts", "mlp")).name == "mlp"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Olmo2Attention", {"olmo", "2", "attention", "olmo2attention"}),
        ("self_attn", {"self", "attn", "self_attn"}),
        ("EncDecAttention", {"enc", "dec", "attention", "encdecattention"}),
        ("MLPBlock", {"mlp", "block", "mlpblock"}),
    ],
)
def test_names_fall_into_words(name, words):
    """CamelCase and snake_case alike."""
    assert words_of(name) == words
