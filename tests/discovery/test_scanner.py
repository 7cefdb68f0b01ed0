"""The scan as a whole: its subjects, its JSON, its refusals, and that it only reads."""

import json

import pytest
import torch
from discovery_zoo import Decoder, NoLayers
from torch import nn
from transformers import LlamaConfig
from zoo import MLP

import loradar
from loradar.discovery import scan
from loradar.errors import InvalidReference, InvalidRequest, NoAdaptableLayers, ScanFailed, UnknownArchitecture

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_the_json_is_the_contract():
    """Every key that programs may rely on, and nothing that JSON cannot hold."""
    data = json.loads(json.dumps(scan("olmo2").to_dict()))
    assert data["architecture"]["library"] == "transformers"
    assert data["architecture"]["class"] == "Olmo2ForCausalLM"
    assert data["architecture"]["fingerprint"].startswith("sha256:")
    assert (data["method"], data["untraced"]) == ("dataflow", [])
    assert data["towers"] == {"language": ["model"], "vision": [], "audio": [], "projector": []}
    layer = next(entry for entry in data["layers"] if entry["path"] == "model.layers.0.self_attn.q_proj")
    assert layer["kind"] == "linear"
    assert layer["shape"] == [4096, 4096]
    assert (layer["role"], layer["tower"], layer["called"]) == ("attention.query", "language", True)
    assert [item["by"] for item in layer["evidence"]] == ["dataflow", "names"]
    assert (layer["confidence"], layer["layout"], layer["bypassed"]) == ("high", None, None)
    default = data["proposals"][0]
    assert (default["peft_type"], default["preset"]) == ("LORA", "default")
    assert default["target_modules"] == ["q_proj", "v_proj"]
    assert (default["matched"], default["trainable"]) == (64, 4_194_304)
    nothing = ("exclude_modules", "modules_to_save", "target_parameters", "feedforward_modules")
    assert [default[name] for name in nothing] == [None] * 4


def test_a_configuration_is_scanned_and_left_as_it_was():
    """The user's config object may be used to build the real model afterwards."""
    config = LlamaConfig(vocab_size=64, **SMALL)
    before = config.to_dict()
    assert scan(config).propose().matched == 4
    assert config.to_dict() == before


def test_a_live_model_is_left_as_it_was():
    """State, gradient flags, training mode and the random state are the same."""
    model = Decoder()
    model.embed.weight.requires_grad_(requires_grad=False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    seed = torch.get_rng_state()
    scan(model)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert torch.equal(torch.get_rng_state(), seed)


@pytest.mark.parametrize(
    ("subject", "library", "name"),
    [
        ("timm:resnet18", "timm", "resnet18"),
        ("timm:resnet18.a1_in1k", "timm", "resnet18"),
        ("torch:zoo:MLP", "torch", "zoo.MLP"),
        (MLP(), "torch", "zoo.MLP"),
    ],
)
def test_the_architecture_is_named_by_its_library(subject, library, name):
    """A tag is no part of a name; a user's class goes by its qualified name."""
    architecture = scan(subject).architecture
    assert (architecture.library, architecture.name) == (library, name)


@pytest.mark.parametrize(
    ("subject", "error", "words"),
    [
        ("olmo22", UnknownArchitecture, "Unknown architecture 'olmo22'. Closest: 'olmo2'"),
        ("timm:resnet51", UnknownArchitecture, "Closest: .*'resnet50'"),
        ("torch:discovery_zoo", InvalidReference, "needs a callable"),
        ("torch:discovery_zoo:Missing", InvalidReference, "cannot be imported"),
        ("torch:no_such_module:X", InvalidReference, "PYTHONPATH"),
        ("torch:builtins:dict", ScanFailed, "returned dict, not a torch.nn.Module"),
        ("torch:torch.nn:Linear", ScanFailed, "could not be built .*TypeError"),
        ("gopher:x", InvalidReference, "Unknown scheme 'gopher'"),
        ("", InvalidReference, "needs a name"),
        (NoLayers(), NoAdaptableLayers, "no layer an adapter could sit on"),
        (nn.Identity(), NoAdaptableLayers, "no layer an adapter could sit on"),
        (42, InvalidReference, "Cannot scan a int"),
    ],
)
def test_bad_subjects_are_refused_in_one_line(subject, error, words):
    """The message names the subject, the cause and the way out."""
    with pytest.raises(error, match=words) as caught:
        scan(subject)
    assert "\n" not in caught.value.message


def test_a_configuration_that_does_not_build_names_its_cause():
    """The first line of the library's own error is passed on."""
    with pytest.raises(ScanFailed, match=r"transformers:llama could not be built .*no such activation"):
        scan(LlamaConfig(hidden_act="no such activation"))


def test_an_unknown_method_is_refused():
    """The message lists those there are."""
    with pytest.raises(InvalidRequest, match=r"Unknown method 'magic'\. Methods: 'auto', 'dataflow', 'names'"):
        scan("olmo2", method="magic")


def test_names_run_nothing():
    """By names, no layer is known to be called, and every verdict says it is of low confidence or declared."""
    found = scan("olmo2", method="names")
    assert (found.method, found.untraced) == ("names", ("language",))
    assert {layer.called for layer in found.layers} == {None}


def test_the_public_name_is_the_scanner():
    """``loradar.scan`` is one hop from the function."""
    assert loradar.scan is scan


class OddGetters(nn.Module):
    """A user's own module whose methods are only called like transformers' and timm's."""

    def __init__(self) -> None:
        """Own two layers."""
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def get_classifier(self, name: str) -> nn.Module:
        """Return a part by name."""
        return getattr(self, name)

    def get_output_embeddings(self) -> nn.Module:
        """Leave it to whoever subclasses this."""
        raise NotImplementedError


def test_methods_that_only_sound_like_head_getters_declare_no_head():
    """One takes arguments, one is left undefined; the last layer is the head all the same."""
    assert scan(OddGetters()).propose().spec.modules_to_save == ("second",)
