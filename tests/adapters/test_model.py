"""The life of a ``PeftModel``: injected, trained, merged, disabled, unloaded."""

import copy
import inspect
import pickle
import warnings
from collections.abc import Callable

import peft
import pytest
import torch
from torch import nn
from transformers import DistilBertConfig, DistilBertForSequenceClassification
from zoo import MLP, Specimen, bert, convolutions, gpt2, llama, mlp, on_meta, t5, vit, words

import loradar
from loradar.adapters import IA3Config, LoraConfig, PeftModel, get_peft_model, inject
from loradar.adapters.layers.lora import LoraEmbedding, LoraLayer, LoraLinear
from loradar.domain.targets import TargetSpec
from loradar.errors import InvalidConfig

GUIDE = {"target_modules": ["seq.0", "seq.2"], "modules_to_save": ["seq.4"]}
CASES = [
    (mlp, GUIDE),
    (bert, {"target_modules": ["query", "dense"], "modules_to_save": ["classifier"]}),
    (gpt2, {"target_modules": ["c_attn", "c_proj"]}),
    (t5, {"target_modules": ["q", "wo"]}),
    (words, {"target_modules": ["emb"], "modules_to_save": ["head"]}),
    (lambda: convolutions(2), {"target_modules": ["plain"], "lora_dropout": 0.3}),
]


def shaken(specimen: Specimen, **fields: object) -> PeftModel:
    """Return the specimen's model with an adapter whose every trainable value is random."""
    model = inject(specimen.model, LoraConfig(**fields))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return model


def test_the_seed_guides_mlp(capsys: pytest.CaptureFixture[str]) -> None:
    """The line PEFT prints today; its guide counted the frozen copy of the head as trainable, 4,002 more."""
    model = inject(MLP(2000), LoraConfig(**GUIDE))
    model.print_trainable_parameters()
    assert capsys.readouterr().out == "trainable params: 52,162 || all params: 4,100,164 || trainable%: 1.2722\n"
    frozen_copy = sum(p.numel() for p in model.base_model.model.seq[4].original_module.parameters())
    assert (frozen_copy, 52_162 + frozen_copy) == (4_002, 56_164)
    assert model.targeted_module_names == ["seq.0", "seq.2"]


@pytest.mark.parametrize(("build", "fields"), CASES)
def test_fresh_adapters_change_nothing(build, fields) -> None:
    """Before training the outputs are the base model's, to the bit."""
    specimen = build()
    before = specimen()
    assert torch.equal(specimen(inject(specimen.model, LoraConfig(**fields))), before)


@pytest.mark.parametrize(("build", "fields"), CASES)
def test_merging_keeps_the_outputs(build, fields) -> None:
    """Merged, unmerged, merged and unloaded: the same outputs, and no wrapper is left at the end."""
    specimen = build()
    names = specimen.model.state_dict().keys()
    model = shaken(specimen, **fields)
    expected = specimen(model)
    model.merge_adapter()
    torch.testing.assert_close(specimen(model), expected, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(specimen(model), expected, rtol=1e-4, atol=1e-5)
    merged = model.merge_and_unload()
    torch.testing.assert_close(specimen(merged), expected, rtol=1e-4, atol=1e-5)
    assert merged is specimen.model
    assert merged.state_dict().keys() == names


@pytest.mark.parametrize(("build", "fields"), CASES)
@pytest.mark.parametrize("merge", [False, True])
def test_unloading_restores_the_model(build, fields, merge) -> None:
    """The same modules, the same weights, and the gradient flags as they were, one frozen by the user included."""
    specimen = build()
    next(specimen.model.parameters()).requires_grad = False
    modules = dict(specimen.model.named_modules())
    weights = copy.deepcopy(specimen.model.state_dict())
    flags = {name: p.requires_grad for name, p in specimen.model.named_parameters()}
    model = shaken(specimen, **fields)
    if merge:
        model.merge_adapter()
    unloaded = model.unload()
    assert dict(unloaded.named_modules()) == modules
    assert {name: p.requires_grad for name, p in unloaded.named_parameters()} == flags
    torch.testing.assert_close(dict(unloaded.state_dict()), dict(weights))


@pytest.mark.parametrize(("build", "fields"), CASES)
def test_merge_and_unload_restores_the_flags(build, fields) -> None:
    """A merged model trains as the base model did."""
    specimen = build()
    flags = {name: p.requires_grad for name, p in specimen.model.named_parameters()}
    merged = shaken(specimen, **fields).merge_and_unload()
    assert {name: p.requires_grad for name, p in merged.named_parameters()} == flags


@pytest.mark.parametrize(("build", "fields"), CASES)
def test_disabled_answers_as_the_base_model(build, fields) -> None:
    """Within the block the base model answers, merged or not, nested or not; afterwards all is as before."""
    specimen = build()
    plain = specimen()
    model = shaken(specimen, **fields)
    adapted = specimen(model)
    with model.disable_adapter():
        assert torch.equal(specimen(model), plain)
        with model.disable_adapter():
            assert torch.equal(specimen(model), plain)
        assert torch.equal(specimen(model), plain)
    assert torch.equal(specimen(model), adapted)
    model.merge_adapter()
    with model.disable_adapter():
        torch.testing.assert_close(specimen(model), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(specimen(model), adapted, rtol=1e-4, atol=1e-5)


def test_the_switch_comes_back_after_an_error() -> None:
    """An exception inside of the block does not leave the adapter off."""
    specimen = mlp(8)
    model = shaken(specimen, **GUIDE)
    adapted = specimen(model)
    with pytest.raises(RuntimeError, match="inside"), model.disable_adapter():
        raise RuntimeError("inside")
    assert torch.equal(specimen(model), adapted)


def test_trained_biases_are_not_hidden() -> None:
    """Biases are trained in place, so disabling cannot bring the base model back; the user is told."""
    model = shaken(mlp(8), target_modules=["seq.0"], bias="all")
    assert model.base_model.model.seq[2].bias.requires_grad
    assert not model.base_model.model.seq[2].weight.requires_grad
    with pytest.warns(UserWarning, match="Biases trained with bias='all' stay"), model.disable_adapter():
        pass


@pytest.mark.parametrize("build", [gpt2, bert, llama, t5, mlp, words, lambda: convolutions(3)])
def test_meta_models(build) -> None:
    """A model without weights gets an adapter without weights, with the counts of the real one."""
    fields = {
        "target_modules": r".*(c_attn|query|q_proj|\.q|seq\.0|plain)|emb",
        "modules_to_save": ["classifier"] if build is bert else None,
    }
    real, meta = inject(build().model, LoraConfig(**fields)), inject(on_meta(build), LoraConfig(**fields))
    assert meta.get_nb_trainable_parameters() == real.get_nb_trainable_parameters()
    assert all(parameter.is_meta for parameter in meta.parameters())


def test_a_meta_model_that_gets_its_weights_later() -> None:
    """Given storage and initialised, it trains, and unloading still restores its flags."""
    specimen = mlp(8)
    model = inject(on_meta(lambda: mlp(8)), LoraConfig(target_modules=["seq.0"]))
    model.to_empty(device="cpu")
    model.reset_adapter()
    assert specimen(model).shape == (3, 2)
    assert all(parameter.requires_grad for parameter in model.unload().parameters())


@pytest.mark.parametrize("build", [llama, gpt2, bert])
def test_bfloat16(build) -> None:
    """A bf16 model computes in bf16; only the adapter is in fp32."""
    specimen = build()
    specimen.model.to(torch.bfloat16)
    model = shaken(specimen, target_modules=r".*(c_attn|query|q_proj)")
    expected = specimen(model)
    assert expected.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert (specimen(model.merge_and_unload()) - expected).abs().max() < 0.1


def test_training_moves_only_the_adapter() -> None:
    """Steps lower the loss and leave every base weight alone."""
    torch.manual_seed(0)
    specimen = mlp(32)
    model = inject(specimen.model, LoraConfig(**{**GUIDE, "r": 4})).train()
    before = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(10):
        loss = nn.functional.nll_loss(model(**specimen.inputs), torch.tensor([0, 1, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters() if not p.requires_grad)


def test_adapters_follow_the_models_mode() -> None:
    """Injected into a model in eval mode, dropout is off at once (peft 0.21.2 leaves it on)."""
    specimen = mlp(8)
    model = shaken(specimen, target_modules=["seq.0"], lora_dropout=0.5)
    assert not any(module.training for module in model.modules())
    assert torch.equal(specimen(model), specimen(model))
    assert all(module.training for module in inject(MLP(8), LoraConfig(target_modules=["seq.0"])).modules())


def test_keys_are_pefts() -> None:
    """The user's model is ``base_model.model``, and paths in it keep their names."""
    model = inject(mlp(8).model, LoraConfig(**GUIDE))
    assert "base_model.model.seq.0.base_layer.weight" in model.state_dict()
    assert "base_model.model.seq.2.lora_A.default.weight" in model.state_dict()
    assert "base_model.model.seq.4.modules_to_save.default.weight" in model.state_dict()
    assert model.get_base_model() is model.base_model.model
    assert (model.active_adapter, model.active_adapters, list(model.peft_config)) == (
        "default",
        ["default"],
        ["default"],
    )


def test_the_wrapper_answers_for_the_model() -> None:
    """Whatever the wrapper lacks is the model's: configuration, device, signature."""
    model = inject(llama().model, LoraConfig(target_modules=["q_proj"]))
    assert model.config.model_type == "llama"
    assert model.device.type == "cpu"
    assert "input_ids" in inspect.signature(model.forward).parameters
    with pytest.raises(AttributeError, match="nonsense"):
        _ = model.nonsense


def test_generates() -> None:
    """Generation runs through the adapter, with the cache, as it does after merging."""
    specimen = llama()
    model = shaken(specimen, target_modules=["q_proj", "v_proj", "down_proj"])
    ids = model.generate(**specimen.inputs, max_new_tokens=4, do_sample=False)
    assert ids.shape == (2, 11)
    assert torch.equal(model.merge_and_unload().generate(**specimen.inputs, max_new_tokens=4, do_sample=False), ids)


@pytest.mark.parametrize("build", [llama, vit])
@pytest.mark.parametrize("first", ["checkpointing", "injection"])
def test_gradient_checkpointing(build, first: str) -> None:
    """Checkpointed blocks over frozen embeddings still pass gradients to the adapter."""
    specimen = build()
    reentrant = {"use_reentrant": first == "checkpointing"}
    if first == "checkpointing":
        specimen.model.activation_checkpointing_enable(activation_checkpointing_kwargs=reentrant)
    hooks = count_hooks(specimen.model)
    model = inject(specimen.model, LoraConfig(target_modules=["q_proj"]))
    if first == "injection":
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=reentrant)
        hooks = count_hooks(specimen.model)
    model.train()(**specimen.inputs)[0].square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert count_hooks(model.unload()) == hooks


def count_hooks(model: nn.Module) -> int:
    """Return how many forward hooks a model has."""
    return sum(len(module._forward_hooks) for module in model.modules())


def test_copies_and_pickles() -> None:
    """A copy is independent, a pickle comes back, both answer alike."""
    specimen = mlp(8)
    model = shaken(specimen, **GUIDE)
    expected = specimen(model)
    twin, back = copy.deepcopy(model), pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    twin.unload()
    assert torch.equal(specimen(model), expected)
    assert torch.equal(specimen(back), expected)
    assert isinstance(model.base_model.model.seq[0], LoraLinear)


def test_tied_embeddings_are_untied_by_merging_and_tied_again() -> None:
    """The output layer keeps the weight it has: merging must not change what it answers."""
    specimen = gpt2()
    with pytest.warns(UserWarning, match="shares its weight"):
        model = shaken(specimen, target_modules=["wte"])
    base = model.get_base_model()
    expected = specimen(model)
    assert isinstance(base.transformer.wte, LoraEmbedding)
    model.merge_adapter()
    torch.testing.assert_close(specimen(model), expected)
    model.unmerge_adapter()
    assert base.transformer.wte.weight is base.lm_head.weight
    with pytest.warns(UserWarning, match="no longer tied"):
        merged = model.merge_and_unload()
    assert merged.config.tie_word_embeddings is False
    torch.testing.assert_close(specimen(merged), expected)


def test_a_saved_tied_head_survives_saving_and_reloading(tmp_path) -> None:
    """The merged model says that its embeddings are no longer tied, so reloading does not overwrite the head."""
    specimen = gpt2()
    with pytest.warns(UserWarning, match="'lm_head' shares its weight with 'transformer.wte'"):
        model = shaken(specimen, target_modules=["c_attn"], modules_to_save=["lm_head"])
    expected = specimen(model)
    with pytest.warns(UserWarning, match="no longer tied"):
        merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path)
    torch.testing.assert_close(specimen(type(merged).from_pretrained(tmp_path)), expected)


def test_grouped_convolutions_are_not_merged() -> None:
    """PEFT's update for groups is no grouped kernel; nothing is merged, the plain layers neither."""
    specimen = convolutions(2)
    model = shaken(specimen, target_modules=["plain", "grouped"])
    with pytest.raises(InvalidConfig, match=r"'grouped' has groups=4: .* cannot be merged"):
        model.merge_adapter()
    assert not model.base_model.model.plain.merged


def test_heads_of_a_task_are_saved() -> None:
    """With a task type the head is trained in full without being named, as in PEFT, but only heads that exist."""
    model = inject(bert().model, LoraConfig(target_modules=["query"], task_type="SEQ_CLS"))
    assert model.active_peft_config.modules_to_save == ["classifier"]
    assert all(p.requires_grad for p in model.classifier.modules_to_save["default"].parameters())


def test_heads_of_a_task_are_found_by_their_ending() -> None:
    """DistilBERT classifies by two new layers, ``pre_classifier`` and ``classifier``; PEFT trains both."""
    sizes = {"vocab_size": 16, "dim": 8, "hidden_dim": 8, "n_layers": 1, "n_heads": 2}
    fields = {"target_modules": ["q_lin"], "task_type": "SEQ_CLS"}
    trainable = []
    for library in (loradar, peft):
        model = DistilBertForSequenceClassification(DistilBertConfig(**sizes))
        adapted = library.get_peft_model(model, library.LoraConfig(**fields))
        trainable.append({name for name, each in adapted.named_parameters() if each.requires_grad})
    assert trainable[0] == trainable[1]


def test_a_name_that_peft_takes_for_more_modules_is_warned_of() -> None:
    """PEFT compares endings: ``norm`` would train the norms of all blocks."""
    with pytest.warns(UserWarning, match=r"'norm' is a whole name here, and PEFT trains .*input_layernorm' and 3 more"):
        model = inject(llama().model, LoraConfig(target_modules=["q_proj"], modules_to_save=["norm"]))
    assert sum("modules_to_save" in name for name, _ in model.named_parameters()) == 1


def test_all_linear_is_resolved_by_the_caller() -> None:
    """The hook gets the model, its answer is what the configuration keeps."""
    seen = []

    def expand(model: nn.Module, shorthand: str) -> TargetSpec:
        seen.append((type(model), shorthand))
        return TargetSpec(target_modules=("seq.0",), modules_to_save=("seq.4",))

    model = inject(MLP(8), LoraConfig(target_modules="All-Linear"), expand=expand)
    assert seen == [(MLP, "all-linear")]
    assert model.active_peft_config.target_modules == {"seq.0"}


def test_frozen_for_inference() -> None:
    """``inference_mode`` trains nothing."""
    model = inject(MLP(8), LoraConfig(**GUIDE, inference_mode=True))
    assert model.get_nb_trainable_parameters()[0] == 0


def test_a_plain_injection_warns_of_nothing() -> None:
    """Nothing to say where nothing is odd: ``Conv1D`` needs no flag, as it does in PEFT."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = inject(gpt2().model, LoraConfig(target_modules=["c_attn"]))
    assert model.active_peft_config.fan_in_fan_out


@pytest.mark.parametrize("targets", [["linear1"], ["self_attn"], ["self_attn", "linear2"]])
@pytest.mark.parametrize("norm_first", [True, False])
def test_pytorchs_fast_path_does_not_pass_adapters_by(targets: list[str], *, norm_first: bool) -> None:
    """Without gradients its encoder reads weights and calls nobody, and packs padding; not with adapters in it."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
    model = inject(nn.ModuleDict({"encoder": encoder}), LoraConfig(target_modules=targets, init_lora_weights=False))
    adapted = model.eval().base_model.model["encoder"]
    x, padding = torch.randn(2, 5, 16), torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    for mask in (None, padding):
        kept = torch.ones_like(padding) if mask is None else ~mask
        expected = adapted(x, src_key_padding_mask=mask)[kept]
        with torch.no_grad():
            torch.testing.assert_close(adapted(x, src_key_padding_mask=mask)[kept], expected, rtol=1e-4, atol=1e-5)
            with model.disable_adapter():
                assert not torch.allclose(adapted(x, src_key_padding_mask=mask)[kept], expected)
    model.unload()
    assert encoder.use_nested_tensor is not norm_first
    assert not any(module._forward_hooks for module in encoder.modules())


class Quantised(nn.Module):
    """A linear with packed weights, as quantisation libraries make them: features, a buffer, a forward."""

    def __init__(self, read: int, written: int) -> None:
        super().__init__()
        self.in_features, self.out_features = read, written
        self.register_buffer("qweight", torch.randint(-8, 8, (written, read), dtype=torch.int8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Unpack and apply."""
        return x @ (self.qweight.to(x.dtype) / 8).T


def test_quantised_linears_are_adapted_and_not_merged() -> None:
    """They are known by what they have; the update goes beside them, and cannot go into them."""
    model = inject(nn.Sequential(Quantised(6, 8)), LoraConfig(target_modules=["0"], init_lora_weights=False))
    x = torch.randn(3, 6)
    layer = model.base_model.model[0]
    torch.testing.assert_close(model(x), layer.base_layer(x) + x @ layer.get_delta_weight("default").T)
    with pytest.raises(InvalidConfig, match=r"'0' \(Quantised\) has weights \(packed\) that no update"):
        model.merge_adapter()


class Clipping(nn.Module):
    """A module that wraps one linear and clips around it, as Gemma 4's vision tower has them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Clip, apply, clip."""
        return self.linear(x.clamp(-1, 1)).clamp(-1, 1)


def test_a_wrapped_linear_is_adapted_inside() -> None:
    """Whether the wrapper is named or what it wraps."""
    for target in ("q_proj", "linear"):
        model = inject(nn.ModuleDict({"q_proj": Clipping()}), LoraConfig(target_modules=[target]))
        assert model.targeted_module_names == ["q_proj.linear"]
        assert isinstance(model.base_model.model["q_proj"].linear, LoraLinear)


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight, as timm's ``StdConv2d`` does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Standardise, then convolve."""
        weight = self.weight / self.weight.std((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias)


class Paired(nn.Linear):
    """A linear that returns a second thing beside, as I-BERT's do."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Apply, with nothing beside."""
        return super().forward(x), None


def test_ia3_on_layers_of_their_own_kind() -> None:
    """A factor that standardising would take out again is not merged; of a tuple, the first is scaled."""
    model = inject(nn.Sequential(Standardised(4, 6, 1)), IA3Config(target_modules=["0"]))
    with pytest.raises(InvalidConfig, match=r"'0' \(Standardised\) has a forward of its own: IA3 on it"):
        model.merge_adapter()
    paired = inject(nn.Sequential(Paired(4, 6)), IA3Config(target_modules=["0"], init_ia3_weights=False))
    layer, x = paired.base_model.model[0], torch.randn(2, 4)
    torch.testing.assert_close(layer(x)[0], layer.base_layer(x)[0] * layer.ia3_l["default"].flatten())


def test_the_model_s_own_name_is_recorded_over_that_of_a_reused_configuration() -> None:
    """As in PEFT: the file is for the model at hand."""
    model = llama().model
    model.__dict__["name_or_path"] = "org/new"
    with pytest.warns(UserWarning, match="names the base model 'org/old', and this model is 'org/new', which is rec"):
        adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], base_model_name_or_path="org/old"))
    assert adapted.peft_config["default"].base_model_name_or_path == "org/new"


@pytest.mark.parametrize("case", CASES[:2] + CASES[4:])
def test_a_changed_scaling_takes_effect_at_once(case: tuple[Callable[[], Specimen], dict[str, object]]) -> None:
    """``layer.scaling`` is what the forward reads, as in PEFT; so does a merge."""
    build, fields = case
    specimen = build()
    adapted = shaken(specimen, **{**fields, "modules_to_save": None}).eval()
    layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    with torch.no_grad():
        full = specimen(adapted)
        with adapted.disable_adapter():
            base = specimen(adapted)
        for layer in layers:
            layer.scaling["default"] *= 0
        assert torch.equal(specimen(adapted), base)
        for layer in layers:
            layer.set_scale("default", 2.0)
            layer.unscale_layer(4.0)
            layer.scale_layer(2.0)
            layer.set_scale("another", 5.0)
        torch.testing.assert_close(specimen(adapted), full)
        for layer in layers:
            layer.scale_layer(0.25)
        quarter = specimen(adapted)
        adapted.merge_adapter()
        torch.testing.assert_close(specimen(adapted), quarter, rtol=1e-4, atol=1e-5)
        adapted.unmerge_adapter()
        for layer in layers:
            layer.unscale_layer()
        torch.testing.assert_close(specimen(adapted), full)


def test_exclusions_that_match_nothing_are_told() -> None:
    """A misspelt one would adapt what it was meant to leave out; one of other layers than the targets' is fine."""
    config = LoraConfig(target_modules=["q_proj"], exclude_modules=["0.self_attn.q_porj", "lm_head"])
    with pytest.warns(UserWarning, match=r"no layer is named '0.self_attn.q_porj', .* Closest: '0.self_attn") as told:
        adapted = get_peft_model(llama().model, config)
    assert len(told) == 1
    with pytest.warns(UserWarning, match=r"exclude_modules: no layer is named 'nothing\\\\..\*'"):
        adapted.add_adapter("b", LoraConfig(target_modules=["q_proj"], exclude_modules=r"nothing\..*"))
