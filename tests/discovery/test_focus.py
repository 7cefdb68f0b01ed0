"""The towers that proposals adapt follow from where the outputs come from."""

import pytest
from records_zoo import layer
from scan_cache import scan
from torch import nn
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    FastSpeech2ConformerHifiGanConfig,
    FastSpeech2ConformerWithHifiGan,
    FastSpeech2ConformerWithHifiGanConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlavaConfig,
    ViTConfig,
    ViTModel,
)

from loradar.discovery.focus import Focus, choose_in_focus, describe_focus
from loradar.domain.targets import find_hits

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
EYES = ViTConfig(**SIZES, image_size=16, patch_size=8)
MOUTH = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=64, n_positions=64, bos_token_id=1, eos_token_id=2)


class DualEncoder(nn.Module):
    """A causal text model beside an image model: neither reads the other."""

    def __init__(self):
        super().__init__()
        self.eyes, self.text = ViTModel(EYES), GPT2LMHeadModel(MOUTH)

    def forward(self, pixel_values, input_ids):
        """Score each image with each text."""
        images = self.eyes(pixel_values).last_hidden_state.mean(1)
        words = self.text.transformer(input_ids).last_hidden_state.mean(1)
        return images @ words.mT


class Captioner(nn.Module):
    """A causal text model without a head of its own, which reads an image first."""

    def __init__(self):
        super().__init__()
        self.eyes, self.text = ViTModel(EYES), GPT2Model(MOUTH)
        self.words = nn.Linear(16, 64)

    def forward(self, pixel_values):
        """Write the next word after each patch."""
        seen = self.eyes(pixel_values).last_hidden_state
        return self.words(self.text(inputs_embeds=seen).last_hidden_state)


def towers_of(found, preset="default"):
    """Return the towers that a preset adapts."""
    return {layer.tower for layer in find_hits(found.propose(preset=preset).spec, found.layers)}


def small_clip():
    """Return a small CLIP."""
    vision = {**SIZES, "image_size": 16, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config={**SIZES, "vocab_size": 64}, vision_config=vision, projection_dim=8))


@pytest.mark.parametrize("preset", ["default", "attention", "mlp", "all-linear"])
def test_a_dual_encoder_is_adapted_in_both_towers(preset):
    """CLIP writes no text: its loss comes from both."""
    assert towers_of(scan(small_clip()), preset) == {"language", "vision"}


def test_every_family_of_methods_is_adapted_in_both_towers():
    """IA3, LN_TUNING, OSF and BEFT propose for the same towers as LORA."""
    found = scan(small_clip())
    for proposal in found.proposals:
        projector = {"projector"} if proposal.preset == "everything" else set()
        towers = {layer.tower for layer in find_hits(proposal.spec, found.layers)}
        assert towers == {"language", "vision"} | projector


def test_the_reason_names_the_towers_and_what_is_left_alone():
    """Both are named, and the projections are."""
    says = "the language and vision towers are adapted, because each leads to an output; left alone: projector"
    assert says in scan(small_clip()).propose().reasons


@pytest.mark.parametrize(
    "name",
    ["siglip2", "owlvit", "grounding-dino", "sam3", "clap", "vision-text-dual-encoder", "pe_audio_video_encoder"],
)
def test_dual_encoders_and_detectors_are_adapted_in_every_tower(name):
    """By structure alone, without a forward."""
    found = scan(name, method="names")
    inside = {layer.tower for layer in found.layers if layer.depth} - {"projector"}
    assert len(inside) > 1
    assert towers_of(found) == inside


@pytest.mark.parametrize(
    "name", ["llava", "vision-encoder-decoder", "florence2", "modernvbert", "shieldgemma2", "colpali"]
)
def test_what_writes_text_is_adapted_in_its_language_tower(name):
    """By GenerationMixin, by a language head, or by a causal decoder that reads the images."""
    found = scan(name, method="names")
    assert towers_of(found) == {"language"}
    assert any(reason.startswith("only the language tower is adapted, because") for reason in found.propose().reasons)


def test_a_base_model_is_adapted_where_the_model_with_a_head_is():
    """LlavaModel has no head and no GenerationMixin: its text model is a causal decoder."""
    text, vision = {**SIZES, "vocab_size": 64, "model_type": "llama"}, {**SIZES, "model_type": "clip_vision_model"}
    vision |= {"image_size": 16, "patch_size": 8}
    base = AutoModel.from_config(LlavaConfig(text_config=text, vision_config=vision, image_token_id=3))
    assert towers_of(scan(base)) == {"language"}


def test_a_causal_decoder_beside_the_other_tower_is_an_encoder():
    """The forward shows that it reads nothing of the images, whatever its class could generate."""
    found = scan(DualEncoder())
    assert found.method == "dataflow"
    assert towers_of(found) == {"language", "vision"}


def test_a_causal_decoder_that_reads_the_other_tower_writes_text():
    """A user's own module around it, with a head of its own."""
    found = scan(Captioner())
    assert found.method == "dataflow"
    assert towers_of(found) == {"language"}
    reason = "only the language tower is adapted, because its language model is a causal decoder; left alone: "
    assert any(said.startswith(reason) for said in found.propose().reasons)


def test_a_tower_of_convolutions_is_adapted_beside_one_of_attention():
    """Each tower gets the layers a model of its own would get, and the reason says which."""
    found = scan("align", method="names")
    kinds = {(layer.tower, layer.kind) for layer in find_hits(found.propose().spec, found.layers)}
    assert {("language", "linear"), ("vision", "conv2d")} <= kinds
    assert any(said.startswith("language: query and value") for said in found.propose().reasons)


def test_a_vocoder_is_trained_apart():
    """It turns the spectrogram into sound, and the loss is of the spectrogram."""
    config = FastSpeech2ConformerWithHifiGanConfig()
    assert isinstance(config.vocoder_config, FastSpeech2ConformerHifiGanConfig)
    found = scan(FastSpeech2ConformerWithHifiGan(config), method="names")
    assert towers_of(found, "all-linear") == {"language"}
    assert "left alone: vocoder, which is trained apart from the model" in found.propose().reasons


def of(path, tower, depth=1):
    """Return a linear of a tower."""
    return layer(path, tower=tower, depth=depth)


def test_what_stands_around_the_models_of_a_users_module_is_left_alone_without_blocks():
    """A fresh layer over two encoders is no part of either; blocks of its own are adapted."""
    layers = [of("text.0", "language"), of("eyes.0", "vision"), of("join", "main", depth=0)]
    assert choose_in_focus(layers, layers, Focus()) == tuple(layers[:2])
    layers.append(of("fusion.0", "main"))
    assert choose_in_focus(layers, layers, Focus()) == (*layers[:2], layers[3])


def test_the_one_tower_of_a_model_needs_no_reason():
    """Nothing is left alone."""
    layers = [of("a.0", "vision")]
    assert describe_focus(layers, layers, Focus()) == []


def test_a_model_without_language_layers_is_adapted_in_what_it_has():
    """Whatever its output."""
    layers = [of("eyes.0", "vision"), of("ears.0", "audio")]
    assert choose_in_focus(layers, layers, Focus("the model generates text")) == tuple(layers)
