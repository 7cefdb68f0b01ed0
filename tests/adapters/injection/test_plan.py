"""Every check comes before the first replacement: a refused model is the model it was."""

import copy
import math

import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from zoo import attention, convolutions, gpt2, llama, mlp, on_meta, words

from loradar.adapters import LoraConfig, inject
from loradar.adapters.injection.apply import LORA_LAYERS
from loradar.adapters.injection.host_model import survey_model
from loradar.adapters.injection.plan import make_plan
from loradar.adapters.layers.planned import PlannedAdapter
from loradar.discovery import FITTING_KINDS
from loradar.errors import InvalidConfig, NoAdaptableLayers, TargetsNotFound


def test_every_adaptable_kind_has_a_layer() -> None:
    """What the checks let through can be built."""
    assert set(LORA_LAYERS) == {*FITTING_KINDS, "multihead_attention", "expert_parameter"}


class Pooling(nn.Module):
    """Nothing to adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.act = nn.ReLU()


class Shifted(nn.Embedding):
    """An embedding that takes a mask and computes the ids itself, as OPT's positions do."""

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        """Look up running positions."""
        return super().forward(mask.cumsum(1))


class Odd(nn.Module):
    """One layer of each kind that cannot be adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.list = nn.ModuleList([nn.Linear(4, 4)])
        self.shifted = Shifted(8, 4)
        self.lazy = nn.LazyLinear(4)
        self.experts = nn.ParameterList([nn.Parameter(torch.zeros(2, 4, 4))])
        self.quantised = nn.Linear(4, 4)
        self.quantised.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
        self.good = nn.Linear(4, 4)


REFUSED = [
    (attention, {"target_modules": ["out_proj"]}, r"'attention.out_proj' .* MultiheadAttention, which never calls it"),
    (attention, {"target_modules": ["dense", "dropout"]}, r"'dropout' \(Dropout\) is no linear.* name it in exclude"),
    (attention, {"target_modules": ["norm"]}, r"'norm' \(LayerNorm\) is a normalisation"),
    (llama, {"target_modules": ["self_attn"]}, r"\(LlamaAttention\) .* Name the layers inside of it \('q_proj', 'k_p"),
    (lambda: convolutions(2), {"target_modules": ["grouped"], "r": 6}, r"groups=4, which do not divide the rank r=6"),
    (llama, {"target_parameters": ["w"]}, r"No parameter ends with 'w'"),
    (Odd, {"target_modules": ["good"], "modules_to_save": ["list"]}, r"\(ModuleList\) cannot be saved as a whole"),
    (attention, {"target_modules": ["dense"], "modules_to_save": ["dropout"]}, r"'dropout' .* no parameters to train"),
    (mlp, {"target_modules": ["seq.0"], "modules_to_save": ["seq.9"]}, r"No module ends with 'seq.9'"),
    (Odd, {"target_modules": ["good", "list"]}, r"'list' \(ModuleList\)"),
    (Odd, {"target_modules": ["good", "shifted"]}, r"'shifted' \(Shifted\) computes its ids in a forward of its own"),
    (Odd, {"target_modules": ["good", "lazy"]}, r"'lazy' \(LazyLinear\) does not know its shape yet"),
    (Odd, {"target_parameters": ["experts.0"]}, r"'experts' \(ParameterList\) is only a list, which is never called"),
    (Odd, {"target_modules": ["good"], "target_parameters": ["good.weight"]}, r"'good' \(Linear\) is targeted twice"),
    (Odd, {"target_parameters": ["good.bias"]}, r"'good.bias' has shape \(4,\), and is no matrix"),
    (mlp, {"target_modules": "all-linear"}, r"target_modules='all-linear' is a shorthand that cannot be resolved"),
]


@pytest.mark.parametrize(("build", "fields", "says"), REFUSED)
def test_refused_and_unchanged(build, fields, says) -> None:
    """The message names module, class and way out; the model keeps its modules and its gradient flags."""
    built = build()
    model = getattr(built, "model", None) if hasattr(built, "inputs") else built
    before = [(name, type(module)) for name, module in model.named_modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(InvalidConfig, match=says) as refused:
        inject(model, LoraConfig(**fields))
    assert "\n" not in str(refused.value)
    assert before == [(name, type(module)) for name, module in model.named_modules()]
    assert flags == [parameter.requires_grad for parameter in model.parameters()]


def test_a_model_without_adaptable_layers() -> None:
    """Where no target could ever match, the error says what the model is made of."""
    with pytest.raises(NoAdaptableLayers, match=r"Pooling has no layer that LoRA can adapt, only: .*LayerNorm"):
        inject(Pooling(), LoraConfig(target_modules=["q_proj"]))


def test_targets_that_match_nothing() -> None:
    """Where some could, the error names the closest."""
    with pytest.raises(TargetsNotFound, match=r"Closest: 'q_proj' \(2 layers\)"):
        inject(llama().model, LoraConfig(target_modules=["q_porj"]))


def test_an_adapted_model_is_not_adapted_again() -> None:
    """Neither the wrapper nor the model inside of it; after unloading it is."""
    model = mlp().model
    config = LoraConfig(target_modules=["seq.0"])
    adapted = inject(model, config)
    for again in (adapted, model):
        with pytest.raises(InvalidConfig, match=r"carries adapters already .* Call unload\(\)"):
            inject(again, config)
    inject(adapted.unload(), config)


@pytest.mark.parametrize("name", ["", "a.b", "keys"])
def test_adapter_names_that_cannot_be_keys(name: str) -> None:
    """A ``ModuleDict`` would raise halfway; the check comes first."""
    model = mlp().model
    with pytest.raises(InvalidConfig, match=f"adapter_name='{name}' is not usable"):
        inject(model, LoraConfig(target_modules=["seq.0"]), name)
    assert isinstance(model.seq[0], nn.Linear)


def test_unmatched_targets_are_named() -> None:
    """PEFT is silent when one target of several matches nothing."""
    with pytest.warns(UserWarning, match="No layer ends with 'v_porj': it is ignored"):
        inject(llama().model, LoraConfig(target_modules=["q_proj", "v_porj"]))


def test_unmatched_patterns_are_named() -> None:
    """A rank pattern without a layer is named, as in PEFT."""
    config = LoraConfig(target_modules=["q_proj"], rank_pattern={"q_porj": 4}, alpha_pattern={"zzz": 3})
    with pytest.warns(UserWarning, match="matches no adapted layer") as caught:
        inject(llama().model, config)
    assert sorted(str(each.message) for each in caught) == [
        "alpha_pattern: 'zzz' matches no adapted layer and is ignored.",
        "rank_pattern: 'q_porj' matches no adapted layer and is ignored.",
    ]


def test_shared_weights_are_named() -> None:
    """Tied embeddings: one of the two layers gets the adapter, and the user is told which stays as it is."""
    with pytest.warns(UserWarning, match="'transformer.wte' shares its weight with 'lm_head', which keeps it"):
        inject(gpt2().model, LoraConfig(target_modules=["wte"]))


def test_the_plan_is_plain_data() -> None:
    """Ranks, scalings and layouts are decided per layer before anything is built; here on a model without weights."""
    survey = survey_model(on_meta(gpt2))
    config = LoraConfig(target_modules=["c_attn"], r=4, lora_alpha=16, rank_pattern={"h.1.*": 9}, use_rslora=True)
    plan = make_plan(survey, config)
    first, second = plan.adapters
    path = "transformer.h.0.attn.c_attn"
    strength = {"r": 4, "scaling": 8.0, "lora_alpha": 16, "use_rslora": True}
    assert first == PlannedAdapter(path, path, path, "transposed_linear", **strength, fan_in_fan_out=True)
    assert (second.r, second.scaling) == (9, 16 / math.sqrt(9))


def test_planning_changes_nothing() -> None:
    """A plan can be made and thrown away."""
    model = words().model
    before = copy.deepcopy(model.state_dict())
    make_plan(survey_model(model), LoraConfig(target_modules=["emb", "head"]))
    assert before.keys() == model.state_dict().keys()


def test_a_saved_name_that_also_hits_an_empty_module_saves_the_other() -> None:
    """A timm hybrid has a head, and a backbone whose head was emptied."""
    model = nn.ModuleDict(
        {"body": nn.ModuleDict({"lin": nn.Linear(4, 4), "head": nn.Identity()}), "head": nn.Linear(4, 2)}
    )
    adapted = inject(model, LoraConfig(target_modules=["lin"], modules_to_save=["head"]))
    assert isinstance(adapted.base_model.model["body"]["head"], nn.Identity)
    assert isinstance(adapted.base_model.model["head"].modules_to_save["default"], nn.Linear)


@pytest.mark.parametrize("wanted", [0, [3], [0, 1]], ids=str)
def test_layers_of_a_shared_block_cannot_be_told_apart(wanted: int | list[int]) -> None:
    """ALBERT runs one block as all its layers: choosing among them is refused, in words that say so."""
    sizes = {"vocab_size": 50, "hidden_size": 16, "embedding_size": 8, "intermediate_size": 24}
    model = transformers.AlbertModel(transformers.AlbertConfig(**sizes, num_attention_heads=2, num_hidden_layers=4))
    config = LoraConfig(target_modules=["query"], layers_to_transform=wanted)
    with pytest.raises(InvalidConfig, match=r"'encoder.albert_layer_groups.0' is shared, 4 layers run on 1"):
        inject(model, config)
    inject(model, LoraConfig(target_modules=["query"]))


def test_layers_in_stages_are_not_taken_for_a_shared_block() -> None:
    """Two stages of two blocks are four layers, although no number is higher than one."""
    stages = [[nn.ModuleDict({"query": nn.Linear(4, 4)}) for _ in range(2)] for _ in range(2)]
    model = nn.Module()
    model.config = transformers.PreTrainedConfig(num_hidden_layers=4)
    model.encoder = nn.ModuleDict({"stages": nn.ModuleList(map(nn.ModuleList, stages))})
    adapted = inject(model, LoraConfig(target_modules=["query"], layers_to_transform=[1]))
    assert adapted.targeted_module_names == ["encoder.stages.1.0.query", "encoder.stages.1.1.query"]


class Mixer(nn.Module):
    """A bare matrix beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.bare = nn.Parameter(torch.randn(4, 4))
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Use both."""
        return self.layer(x @ self.bare)


def mixers() -> nn.Module:
    """Return a model with bare matrices below its root."""
    torch.manual_seed(0)
    return nn.Sequential(Mixer(), Mixer())


class Symmetric(nn.Module):
    """A parametrization."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Mirror the upper half."""
        return weight.triu() + weight.triu(1).mT


COMPUTED = {
    "parametrize": lambda module, name: parametrize.register_parametrization(module, name, Symmetric()),
    "weight norm": parametrizations.weight_norm,
    "pruning": lambda module, name: prune.l1_unstructured(module, name, 0.5),
}


@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
def test_computed_weights_are_no_bare_parameters(compute) -> None:
    """The error said that no parameter has the name, which the model's author does not believe."""
    model = mixers()
    compute(model[0], "bare")
    with pytest.raises(InvalidConfig, match=r"'0.bare' is no parameter, but computed .*: leave it out, or remove"):
        inject(model, LoraConfig(target_parameters=["0.bare"]))
    compute(model[1].layer, "weight")
    with pytest.raises(InvalidConfig, match=r"'1.layer.weight' is no parameter.*: name '1.layer' in target_modules"):
        inject(model, LoraConfig(target_parameters=["layer.weight"]))


@pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED)
def test_a_layer_with_a_computed_weight_trains_but_does_not_merge(compute) -> None:
    """The update is added to its output; PEFT merges into a weight that the next forward computes again."""
    model = mixers()
    compute(model[0].layer, "weight")
    x = torch.randn(2, 4)
    before = model(x)
    adapted = inject(model, LoraConfig(target_modules=["0.layer"], init_lora_weights=False))
    assert not torch.allclose(adapted(x), before)
    with pytest.raises(InvalidConfig, match=r"weights \(computed\) .* remove the parametrization"):
        adapted.merge_adapter()


def test_a_module_that_cannot_be_copied_is_not_trained_in_full() -> None:
    """Hooks leave a tensor in it that torch does not copy."""
    model = mixers()
    prune.l1_unstructured(model[1].layer, "weight", 0.5)
    with pytest.raises(InvalidConfig, match=r"'1' \(Mixer\) cannot be copied.* Remove its weight norm or pruning"):
        inject(model, LoraConfig(target_modules=["0.layer"], modules_to_save=["1"]))
