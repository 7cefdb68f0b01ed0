"""Models of which no layer but the head takes an adapter: the head is trained in full, and everybody says so."""

import json

import peft
import pytest
import torch
from torch import nn

import loradar
from loradar.errors import InvalidRequest, NoAdaptableLayers, TargetsNotFound, UnknownPreset
from loradar.registry import Registry

SAYS = "no adapter: no layer but the head takes one, so that fc is trained in full"
TOKENS = torch.arange(10).reshape(2, 5)


class Tagger(nn.Module):
    """An LSTM over a table of embeddings, and one or several dense layers behind it."""

    def __init__(self, classes=3, *, is_tied=False, has_two=False):
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.lstm = nn.LSTM(32, 32, batch_first=True)
        self.fc = nn.Linear(32, classes)
        self.other = nn.Linear(32, 2) if has_two else None
        if is_tied:
            self.fc.weight = self.embed.weight

    def forward(self, tokens):
        """Return the scores of each head."""
        states = self.lstm(self.embed(tokens))[0]
        return self.fc(states) if self.other is None else (self.fc(states), self.other(states))


class Bag(nn.Module):
    """A table of embeddings, and a classifier of their mean."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, tokens):
        """Return scores."""
        return self.fc(self.embed(tokens).mean(1))


class Upscaler(nn.Module):
    """Transposed convolutions, which no adapter fits, and a dense layer over each pixel."""

    def __init__(self):
        super().__init__()
        self.up = nn.Sequential(nn.ConvTranspose2d(3, 16, 4, 2), nn.ReLU(), nn.ConvTranspose2d(16, 8, 4, 2))
        self.fc = nn.Linear(8, 1)

    def forward(self, image):
        """Return one value for each pixel."""
        return self.fc(self.up(image).movedim(1, -1))


@pytest.mark.parametrize(
    ("make", "fixed", "names"),
    [
        (Tagger, 99, ("fc",)),
        (Bag, 27, ("fc",)),
        (Upscaler, 9, ("fc",)),
        (lambda: Tagger(has_two=True), 99 + 66, ("fc", "other")),
        (lambda: Tagger(50), 33 * 50, ("fc",)),
    ],
    ids=["lstm", "bag", "upscaler", "two heads", "over the vocabulary"],
)
@pytest.mark.parametrize("method", ["auto", "names"])
def test_a_head_alone_is_trained_in_full(make, fixed, names, method):
    """For the presets that reach every layer, with its exact size and what is left out."""
    found = loradar.scan(make(), method=method)
    for preset in ("default", "recommended", "all-linear"):
        proposal = found.propose("LORA", preset)
        assert (proposal.matched, proposal.per_rank, proposal.fixed) == (0, 0, fixed)
        assert (proposal.target_modules, proposal.modules_to_save) == ("dummy-target-modules", names)
        assert proposal.reasons[0].endswith(f"so that {', '.join(names)} is trained in full")
    with pytest.raises(UnknownPreset, match="has: 'default', 'recommended', 'all-linear'"):
        found.propose("LORA", "mlp")


def test_what_no_adapter_is_for_is_named_with_its_share():
    """In the reasons of the scan, and of the decision for the model."""
    left = "left out: 1 LSTM, 83% of the weights: no adapter for it"
    assert left in loradar.scan(Tagger()).propose().reasons
    with pytest.warns(UserWarning, match=SAYS):
        adapted = loradar.get_peft_model(Tagger())
    assert left in adapted.decision.reasons


def test_nothing_changes_where_another_layer_takes_an_adapter_or_nothing_else_has_weights():
    """A single layer is the whole model, not its head."""
    with_inner = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    found = loradar.scan(with_inner, TOKENS)
    assert (found.propose().target_modules, found.propose().modules_to_save) == ("1", ("3",))
    assert loradar.scan(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 3))).propose().matched == 1


def test_the_model_trains_its_head_alone_and_says_so_in_one_line(caplog):
    """As a warning, in the log and in the decision."""
    with caplog.at_level("INFO", "loradar"), pytest.warns(UserWarning, match=SAYS):
        adapted = loradar.get_peft_model(Tagger())
    assert adapted.get_nb_trainable_parameters()[0] == 99
    assert not adapted.targeted_module_names
    assert adapted.decision.describe() == f"live scan, preset 'default'; {SAYS}"
    assert SAYS in caplog.text


@pytest.mark.filterwarnings("ignore:no adapter")
def test_its_file_loads_in_peft_and_here(tmp_path):
    """``target_modules`` is PEFT's own value for no targets."""
    base = Tagger().eval()
    start = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapted = loradar.get_peft_model(base)
    adapted(TOKENS).sum().backward()
    torch.optim.SGD(adapted.parameters(), lr=1).step()
    expected = adapted(TOKENS)
    adapted.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))
    assert config["target_modules"] == peft.utils.constants.DUMMY_TARGET_MODULES
    for load in (peft.PeftModel.from_pretrained, loradar.PeftModel.from_pretrained):
        other = Tagger().eval()
        other.load_state_dict(start)
        assert not torch.equal(other(TOKENS), expected)
        assert torch.equal(load(other, tmp_path)(TOKENS), expected)
    merged = adapted.merge_and_unload()
    assert torch.equal(merged(TOKENS), expected)


@pytest.mark.filterwarnings("ignore:no adapter")
def test_the_installed_peft_trains_the_same():
    """Through a configuration of its own, and with the targets filled in."""
    config = loradar.auto_config(Tagger())
    adapted = [peft.get_peft_model(Tagger(), config)]
    with loradar.enable_peft_defaults():
        adapted.append(peft.get_peft_model(Tagger(), peft.LoraConfig()))
    for model in adapted:
        assert {n for n, p in model.named_parameters() if p.requires_grad} == {
            f"base_model.model.fc.modules_to_save.default.{name}" for name in ("weight", "bias")
        }


def test_the_shorthand_for_every_dense_layer_trains_it_too():
    """PEFT's own would adapt the head."""
    with pytest.warns(UserWarning, match=SAYS):
        adapted = loradar.get_peft_model(Tagger(), target_modules="all-linear")
    assert adapted.get_nb_trainable_parameters()[0] == 99


def test_a_head_tied_to_the_embeddings_is_untied_with_a_warning():
    """A copy of it is trained."""
    with pytest.warns(UserWarning, match="shares its weight with 'embed'|no adapter"):
        adapted = loradar.get_peft_model(Tagger(50, is_tied=True))
    assert adapted.get_nb_trainable_parameters()[0] == 33 * 50


def test_the_registry_answers_the_same(seeded_settings):
    """A stored scan of it is looked up, and decides for the model."""
    found = loradar.scan(Tagger())
    name = found.architecture.name
    with Registry.open(seeded_settings) as registry:
        registry.add_scan(found)
        mapping = registry.lookup(name, library="torch", preset="recommended")
    assert mapping.reasons[0] == SAYS
    assert (mapping.trainable, mapping.matched, mapping.modules_to_save) == (99, 0, ("fc",))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: loradar.scan(m).propose(budget=50), InvalidRequest, "its smallest adapter trains 99 parameters"),
        (lambda m: loradar.scan(m).propose(towers="main"), InvalidRequest, "no layer that takes an adapter"),
        (lambda m: loradar.rank_layers(m, [TOKENS]), NoAdaptableLayers, f"has no layers to rank: {SAYS}"),
        (
            lambda m: loradar.get_peft_model(m, target_modules="dummy-target-modules"),
            TargetsNotFound,
            "adapts nothing: name what is trained in full in modules_to_save",
        ),
    ],
)
def test_what_needs_a_layer_is_rejected_in_one_line(call, error, says):
    """With what there is."""
    with pytest.raises(error, match=says) as caught:
        call(Tagger())
    assert "\n" not in caught.value.message


def test_a_budget_of_its_size_trains_it():
    """And is named."""
    proposal = loradar.scan(Tagger()).propose(budget=1000)
    assert proposal.trainable == 99
    assert proposal.reasons[0].startswith("budget of 1,000: preset 'recommended'")


def test_other_methods_of_loras_family_train_it_too():
    """The head is the same for all."""
    proposal = loradar.scan(Tagger()).propose("OFT")
    assert (proposal.peft_type, proposal.modules_to_save, proposal.trainable) == ("OFT", ("fc",), 99)
    assert proposal.reasons[:2] == ("OFT shares LORA's targets", SAYS)
