"""``get_peft_model`` without a configuration: who decides, and that a wrong answer is never used silently."""

import logging
import re
import sqlite3
import sys
from dataclasses import replace

import peft
import pytest
import torch
from anonymise import anonymise
from discovery_zoo import Decoder, NoLayers, SparseDecoder
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    CLIPVisionModel,
    ElectraModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MobileBertModel,
    Olmo2Config,
    Qwen3MoeConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    SiglipForImageClassification,
    T5EncoderModel,
    ViTModel,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
    XLMRobertaModel,
)
from zoo import MLP

import loradar
from loradar import IA3Config, LoraConfig, get_peft_model
from loradar.adapters.targets import decide, decide_for, scan_known
from loradar.discovery import sources
from loradar.domain.architectures import Architecture
from loradar.domain.scans import Proposal
from loradar.domain.targets import Formula, TargetSpec, find_hits
from loradar.errors import InvalidConfig, NoAdaptableLayers, UnknownPreset
from loradar.references import Reference
from loradar.registry import Registry

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}

pytestmark = pytest.mark.usefixtures("seeded_settings")


def build(reference):
    """Build an architecture at its default size on the meta device."""
    return sources.build(Reference.parse(reference))


def small(config_class):
    """Build a small random causal model."""
    return AutoModelForCausalLM.from_config(config_class(**SMALL))


def test_the_registry_decides_what_peft_has_an_entry_for():
    """Mistral: PEFT's own targets, the same layers as peft finds."""
    model = small(MistralConfig)
    with torch.device("meta"):
        theirs = peft.get_peft_model(small(MistralConfig), peft.LoraConfig()).targeted_module_names
    adapted = get_peft_model(model)
    assert adapted.decision.step == "registry"
    assert adapted.decision.spec.target_modules == ("q_proj", "v_proj")
    assert adapted.peft_config["default"].r == 8
    assert adapted.targeted_module_names == theirs


def test_a_scan_decides_what_nobody_registered():
    """A user's own class has no entry and no relative."""
    adapted = get_peft_model(MLP())
    assert adapted.decision.step == "scan"
    assert adapted.targeted_module_names == ["seq.0", "seq.2"]


def test_the_registry_decides_once_a_scan_is_stored(registry):
    """What the scanner found is used from then on."""
    registry.add_scan(loradar.scan("olmo2"))
    adapted = get_peft_model(small(Olmo2Config), preset="all-linear")
    assert adapted.decision.step == "registry"
    assert "scanner" in adapted.decision.says
    assert len(adapted.targeted_module_names) == 14


def test_the_registry_decides_by_structure_for_a_renamed_architecture(registry):
    """A model type nobody knows, built like one that is registered."""
    registry.add_scan(loradar.scan("llama"))
    adapted = get_peft_model(LlamaForCausalLM(RenamedConfig(**SMALL)))
    assert adapted.decision.step == "fingerprint"
    assert "registry entry of transformers:" in adapted.decision.says
    assert len(adapted.targeted_module_names) == 4


class RenamedConfig(LlamaConfig):
    """llama under a model type nobody knows."""

    model_type = "renamed_llama"


def nameless_llama():
    """A small llama in which every module and parameter has another name."""
    original = LlamaForCausalLM(RenamedConfig(**SMALL))
    return anonymise(sys.modules[LlamaForCausalLM.__module__], 1).build_like(original)


def test_the_registry_decides_by_structure_alone_where_names_differ(registry):
    """An entry of llama's kin is said in the copy's names, slot by slot, and the decision tells whose it was."""
    registry.add_scan(loradar.scan("llama"))
    adapted = get_peft_model(nameless_llama())
    decision = adapted.decision
    assert decision.step == "structure"
    assert re.match(r"registry entry of transformers:\w+ \(peft 0.21.2\)", decision.says)
    assert "the same structure under other names" in decision.says
    assert "stands for model.layers.*.self_attn.q_proj (attention.query)" in decision.reasons[0]
    assert len(adapted.targeted_module_names) == 4
    targeted = set(adapted.targeted_module_names)
    roles = {layer.role for layer in loradar.scan(adapted.unload()).layers if layer.path in targeted}
    assert roles == {"attention.query", "attention.value"}


def test_what_no_layer_stands_for_is_named_by_every_step():
    """A structure is that of its layers alone: matrices in a dictionary beside them are named as left out."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down, self.n = nn.Linear(8, 32), nn.Linear(32, 8), nn.LayerNorm(8)
            self.w = nn.ParameterDict({"q": torch.randn(8, 8), "k": torch.randn(8, 8)})

        def forward(self, x):
            x = x + (x @ self.w["q"] @ (x @ self.w["k"]).mT).softmax(-1) @ x
            return x + self.down(self.up(self.n(x)).relu())

    decision = get_peft_model(nn.Sequential(Mixed(), Mixed())).decision
    assert any(reason.startswith("left out: 4 matrices in containers") for reason in decision.reasons)
    assert decision.step == "structure"


def test_a_refuted_entry_decides_for_nobody_else(registry):
    """What is partial where it was stated is not said in another's names: the scan decides."""
    registry.add_scan(loradar.scan("llama"))
    with sqlite3.connect(registry.url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE verifications SET status = 'partial'")
    assert get_peft_model(nameless_llama()).decision.step == "scan"


def test_every_step_gives_its_reasons():
    """A scan's proposal says why, and so does a registered one."""
    assert any("every dense layer" in reason for reason in get_peft_model(MLP()).decision.reasons)


def test_an_entry_that_does_not_fit_is_named_and_not_used(registry):
    """The warning says what is wrong; an entry of the same structure decides instead."""
    store(registry, "olmo2", "c_attn")
    with pytest.warns(UserWarning, match="transformers:olmo2 .* is not used: 'c_attn' matches no layer") as told:
        adapted = get_peft_model(small(Olmo2Config))
    assert adapted.decision.step == "fingerprint"
    assert told[0].filename == __file__
    assert len(adapted.targeted_module_names) == 4


def store(registry, name, *targets):
    """Register targets that a scan of something else found."""
    found = loradar.scan(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=8))
    wrong = Proposal(
        peft_type="LORA",
        preset="default",
        target_modules=targets,
        matched=1,
        formula=Formula(1, 0),
        reasons=("a test says so",),
    )
    version = found.architecture.library_version
    architecture = Architecture("transformers", name, "X", version, "sha256:" + "1" * 64)
    registry.add_scan(replace(found, architecture=architecture, method="names", slots=(), proposals=(wrong,)))


def test_heads_to_save_are_those_of_this_model():
    """The registry's entry for bert knows no head; this task's class has a fresh one."""
    adapted = get_peft_model(BertForSequenceClassification(BertConfig(**SMALL)))
    assert adapted.decision.step == "registry"
    assert adapted.peft_config["default"].modules_to_save == ["classifier"]


def test_targets_in_the_configuration_decide():
    """Nothing else is asked."""
    adapted = get_peft_model(small(MistralConfig), LoraConfig(target_modules=["k_proj"]))
    assert adapted.decision.step == "config"
    assert all(name.endswith("k_proj") for name in adapted.targeted_module_names)


def test_a_configuration_without_targets_keeps_its_strength():
    """Rank and alpha are the user's, the targets are ours."""
    adapted = get_peft_model(small(MistralConfig), LoraConfig(r=3, lora_alpha=6))
    assert adapted.decision.step == "registry"
    assert adapted.peft_config["default"].r == 3


def test_all_linear_leaves_the_head_alone():
    """The shorthand is expanded on this model."""
    adapted = get_peft_model(GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=8)), ALL_LINEAR)
    assert len(adapted.targeted_module_names) == 8
    assert "lm_head" not in adapted.targeted_module_names


ALL_LINEAR = LoraConfig(target_modules="all-linear")


class Classifier(nn.Module):
    """A user's own module: an embedding, two linears in a row, and a last one of any width."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.hidden = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.classifier = nn.Linear(8, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return one value per class."""
        return self.classifier(self.hidden(self.words(ids)))


@pytest.mark.parametrize(("classes", "count"), [(3, 3), (11, 2)])
def test_all_linear_of_a_users_own_module(classes: int, count: int) -> None:
    """The last linear is adapted, as by PEFT, unless it writes one value per row of the embedding."""
    adapted = get_peft_model(Classifier(classes), ALL_LINEAR)
    assert len(adapted.targeted_module_names) == count
    theirs = peft.get_peft_model(Classifier(3), peft.LoraConfig(target_modules="all-linear"))
    assert {*adapted.targeted_module_names} <= {*theirs.targeted_module_names}
    assert len(theirs.targeted_module_names) == 3


def test_every_preset_can_be_asked_for():
    """A stored or a scanned one alike."""
    assert len(get_peft_model(Decoder(), preset="mlp").targeted_module_names) == 6


def test_the_decision_is_logged(caplog):
    """With logging on, the user reads in one line which step decided, and what is recommended beside it."""
    with caplog.at_level(logging.INFO, "loradar"):
        get_peft_model(MLP())
        get_peft_model(Decoder())
    said = [message for message in caplog.messages if message.startswith("torch:")]
    assert said[0].startswith("torch:zoo.MLP: live scan, preset 'default'; ")
    assert said[1].endswith("preset 'recommended' also adapts attention.key, attention.output, mlp.up, mlp.down")


def test_fused_experts_are_decided_on_as_parameters():
    """Beside modules, and where there is nothing else: a decoder whose very projections are stacks."""
    assert decide(SparseDecoder(), "all-linear").spec.target_parameters == ("gate_up_proj", "down_proj")
    alone = decide(build("moshi_depth")).spec
    assert alone.target_modules is None
    assert alone.target_parameters == ("q_proj.linear.weight", "v_proj.linear.weight")


def test_other_methods_are_decided_on_too():
    """IA3 has targets of its own, a part of which it scales at the input."""
    spec = decide(small(Olmo2Config), peft_type="IA3").spec
    assert spec.target_modules == ("k_proj", "v_proj", "down_proj")
    assert spec.feedforward_modules == ("down_proj",)


DEAD = [
    ("mimi", r"encoder\..*", 48),
    ("clvp", r"conditioning_encoder\..*|speech_decoder_model\..*", 80),
    ("neucodec", r"semantic_encoder\..*", 24),
    ("detr", r"model\.decoder\.layers\.0\.self_attn\.v_proj", 147),
    ("vitpose", r"backbone\.encoder\.layer\.(?:[4-9]|1\d)\..*", 8),
]


@pytest.mark.parametrize(("reference", "dead", "count"), DEAD, ids=[row[0] for row in DEAD])
def test_what_was_proved_dead_gets_no_adapter(reference, dead, count):
    """No forward on meta tells it; the proof on record is of this very model, so that it holds."""
    adapted = get_peft_model(build(reference))
    assert adapted.decision.step == "registry"
    assert len(adapted.targeted_module_names) == count
    assert not [path for path in adapted.targeted_module_names if re.fullmatch(dead, path)]


def test_where_nothing_learns_there_is_nothing_to_adapt():
    """Every layer of this tokenizer stands before the codes it returns."""
    with pytest.raises(NoAdaptableLayers, match=r"has no layer that LORA can adapt\. .* No gradient comes to \d+ of"):
        get_peft_model(build("diffusers:AceStepAudioTokenizer"))


def test_the_proof_of_another_configuration_is_not_believed():
    """By default this model reads the fourth of its twelve blocks; here it reads the last."""
    every = VitPoseConfig(backbone_config=VitPoseBackboneConfig(out_features=["stage12"]))
    with torch.device("meta"):
        model = VitPoseForPoseEstimation(every)
    with pytest.warns(UserWarning, match="transformers:vitpose .* is not used: covers attention.query in 4 of 12"):
        assert len(get_peft_model(model).targeted_module_names) == 24


def test_an_entry_that_does_not_know_a_layer_of_this_model_is_not_used():
    """Its first block is dense, which no block was when the entry was made; nothing it knew is missing."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen3MoeConfig(mlp_only_layers=[0], num_hidden_layers=3))
    with pytest.warns(UserWarning, match=r"does not match model\.layers\.\*\.mlp\.down_proj, .* selects in this"):
        spec = decide(model, "all-linear").spec
    hit = {layer.path for layer in find_hits(spec, loradar.scan(model).layers)}
    assert {f"model.layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")} < hit
    assert decide(model).step == "registry"


def test_a_base_model_is_no_other_model():
    """Its paths are shorter than those of the class with a head, of which the entry is."""
    with torch.device("meta"):
        model = AutoModel.from_config(Qwen3MoeConfig(num_hidden_layers=2))
    assert {decide(model, preset).step for preset in ("default", "all-linear", "experts")} == {"registry"}


OTHER_HEADS = [
    BertModel,
    RobertaModel,
    XLMRobertaModel,
    MobileBertModel,
    ElectraModel,
    ViTModel,
    CLIPVisionModel,
    T5EncoderModel,
    RobertaForSequenceClassification,
    SiglipForImageClassification,
]


@pytest.mark.filterwarnings("ignore:The registry's entry for transformers.siglip .* is not used")  # one tower of two
@pytest.mark.parametrize("model_class", OTHER_HEADS)
def test_the_pooler_of_a_model_with_another_head_is_left_alone(model_class):
    """A registered name that hits the layers meant in one class of an architecture hits a pooler in another."""
    with torch.device("meta"):
        model = model_class(model_class.config_class())
    found = scan_known(model)
    meant = (p for p in found.proposals if p.peft_type in ("LORA", "IA3") and p.preset != "everything")
    for proposal in meant:
        decision = decide_for(found, proposal.peft_type, proposal.preset)
        assert decision.step != "scan"
        assert all(layer.depth for layer in find_hits(decision.spec, found.layers))


def test_what_an_entry_leaves_out_is_told():
    """The layers of the entry are adapted, and no warning is needed; both ways of excluding can be joined."""
    adapted = get_peft_model(BertModel(BertConfig(**SMALL)), preset="mlp")
    assert adapted.decision.step == "registry"
    assert "pooler.dense" in adapted.peft_config["default"].exclude_modules
    assert "left out: pooler.dense, where the entry knew no layer" in adapted.decision.reasons
    assert len(adapted.targeted_module_names) == 4
    whole = get_peft_model(BertModel(BertConfig(**SMALL)), preset="all-linear")
    assert isinstance(whole.peft_config["default"].exclude_modules, str)
    assert len(whole.targeted_module_names) == 12


def test_a_method_without_exclusions_gets_none():
    """VeRA's configuration has no such field: the pooler is left out by the targets themselves."""
    found = scan_known(BertModel(BertConfig(**SMALL)))
    lora, vera = (decide_for(found, peft_type, "mlp").spec for peft_type in ("LORA", "VERA"))
    assert vera.exclude_modules is None
    assert find_hits(vera, found.layers) == find_hits(lora, found.layers)


IA3_TYPES = ["bert", "gpt2", "t5", "opt", "bloom", "falcon", "swin", "whisper", "convnextv2", "mixtral"]


@pytest.mark.parametrize("name", IA3_TYPES)
def test_ia3_needs_no_targets_either(name):
    """The feed-forward layers are scaled at what they read, and nothing outside the blocks is scaled."""
    model = build(name)
    with_roles = {layer.path: layer for layer in scan_known(model).layers}
    adapted = get_peft_model(model, IA3Config())
    config = adapted.peft_config["default"]
    hits = [with_roles[path] for path in adapted.targeted_module_names]
    assert hits
    assert all(layer.depth for layer in hits)
    scaled = {layer.path for layer in find_hits(TargetSpec(config.feedforward_modules), hits)}
    assert {layer.path for layer in hits if layer.role.startswith("mlp.")} <= scaled
    assert not [layer for layer in hits if layer.path in scaled and layer.role in ("attention.key", "attention.value")]


def test_an_unusable_registry_does_not_stop_a_training(home):
    """It is named in a warning, kept, and the live scan decides."""
    path = home / "registry.sqlite3"
    path.write_bytes(b"somebody's notes" * 100)
    with pytest.warns(UserWarning, match="The registry is not used: "):
        adapted = get_peft_model(MLP())
    assert adapted.decision.step == "scan"
    assert path.read_bytes() == b"somebody's notes" * 100


@pytest.mark.parametrize(
    ("model", "arguments", "error", "words"),
    [
        (NoLayers, {}, NoAdaptableLayers, "no layer an adapter could sit on"),
        (lambda: nn.ModuleList([nn.MultiheadAttention(4, 2, kdim=3)]), {}, NoAdaptableLayers, "no layer"),
        (lambda: nn.Linear(4, 4), {}, NoAdaptableLayers, "It holds: Linear"),
        (MLP, {"preset": "defualt"}, UnknownPreset, "Closest: 'default'"),
        (MLP, {"preset": "attention"}, UnknownPreset, "has: 'default', 'recommended', 'all-linear'"),
        (MLP, {"peft_config": {"r": 8}}, InvalidConfig, "config is of class dict"),
        (MLP, {"config": {"r": 8}}, InvalidConfig, "Closest: .*'peft_config'"),
        (MLP, {"peft_config": peft.OFTConfig()}, InvalidConfig, "OFT"),
    ],
)
def test_what_cannot_be_decided_is_refused_and_the_model_kept(model, arguments, error, words):
    """One clear line; no module is replaced and no gradient flag changed."""
    subject = model()
    before = [(name, type(module), id(module)) for name, module in subject.named_modules()]
    with pytest.raises(error, match=words):
        get_peft_model(subject, **arguments)
    assert [(name, type(module), id(module)) for name, module in subject.named_modules()] == before
    assert all(parameter.requires_grad for parameter in subject.parameters())


@pytest.mark.first_use
def test_the_registry_is_made_on_first_use(home):
    """Nobody has to run anything before the first call."""
    (home / "registry.sqlite3").unlink()
    assert get_peft_model(small(MistralConfig)).decision.step == "registry"
    with Registry.open() as registry:
        assert registry.serial() >= 1


def test_a_model_with_an_adapter_is_refused_at_once():
    """Before anybody is asked: what would be looked up is not what is there."""
    adapted = get_peft_model(small(MistralConfig))
    with pytest.raises(InvalidConfig, match="carries adapters already"):
        get_peft_model(adapted)
