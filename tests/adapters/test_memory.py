"""The memory of training: predicted on meta, against what torch allocates in a real step; and every bad request."""

import gc

import pytest
import torch
import transformers
from torch import nn

import loradar
from loradar.adapters.memory import parse_size
from loradar.errors import InvalidRequest, NoAdaptableLayers, ScanFailed, UnknownPreset

pytestmark = pytest.mark.usefixtures("read_settings")

TEXT = {
    "vocab_size": 500,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
SIGHT = {**{k: v for k, v in TEXT.items() if k != "vocab_size"}, "image_size": 64}


def llama(**changes):
    """Return a small llama."""
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**TEXT, **changes}))


MODELS = {
    "llama": llama,
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**TEXT)),
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**SIGHT)),
    "convolutions": lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(1)),
}


def measure_step(adapted, inputs):
    """Return the most bytes of a second step with AdamW, as torch's profiler counts each allocation."""
    optimizer = torch.optim.AdamW([parameter for parameter in adapted.parameters() if parameter.requires_grad])

    def step():
        outputs = adapted(**inputs) if isinstance(inputs, dict) else adapted(inputs)
        loss = getattr(outputs, "loss", None)
        if loss is None:
            logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
            loss = logits.float().square().mean()
        loss.backward()
        optimizer.step()

    step()
    optimizer.zero_grad()
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def make(name, shape):
    """Return numbers for an input."""
    return (
        torch.ones(shape, dtype=torch.long) if name in ("input_ids", "attention_mask", "labels") else torch.rand(shape)
    )


@pytest.mark.parametrize(
    ("name", "checkpointing"), [*((name, False) for name in MODELS), ("llama", True), ("vit", True)]
)
def test_the_peak_is_that_of_a_real_step(name, checkpointing):
    """Within 15%; parameters, file and weights to the byte."""
    model = MODELS[name]()
    sizes = {"presets": ["all-linear"], "ranks": [8], "batch": 4, "length": 64, "device": "cpu"}
    planned = loradar.plan(model, checkpointing=checkpointing, **sizes)
    choice = planned.choices[0]
    adapted = loradar.get_peft_model(model, preset="all-linear").train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    inputs = {name: make(name, shape) for name, shape in planned.inputs.items()}
    peak = measure_step(
        adapted, inputs if isinstance(model, transformers.PreTrainedModel) else next(iter(inputs.values()))
    )
    predicted = choice.peak - choice.base - choice.adapter - choice.optimizer
    assert predicted == pytest.approx(peak, rel=0.15)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    assert choice.parameters == sum(parameter.numel() for parameter in trained)
    assert choice.file == sum(tensor.nbytes for tensor in adapted.adapter_state().values())
    tensors = {id(t): t for t in (*adapted.parameters(), *adapted.buffers())}
    assert choice.base + choice.adapter == sum(tensor.nbytes for tensor in tensors.values())


def test_ranks_between_lie_above_their_own_peaks():
    """A peak is the largest of several sums that grow evenly with the rank."""
    between = loradar.plan(llama(), presets=["all-linear"], ranks=[8, 16, 32, 64], length=64)
    alone = loradar.plan(llama(), presets=["all-linear"], ranks=[32], length=64).choices[0]
    guessed = between.choices[2]
    assert (guessed.rank, guessed.parameters, guessed.file) == (32, alone.parameters, alone.file)
    assert alone.peak <= guessed.peak <= 1.1 * alone.peak


def test_the_largest_rank_of_the_first_preset_that_fits_is_chosen():
    """At the very bytes that a choice needs, it fits."""
    model = llama()
    every = loradar.plan(model, length=64, ranks=[8, 32])
    assert every.chosen is None
    needed = {(choice.preset, choice.rank): choice.needed for choice in every.choices}
    assert every.choices[0].preset == "recommended"
    assert every.assumed[0] == "recommended: the same layers as all-linear"
    for rank in (8, 32):
        fitting = loradar.plan(model, needed["recommended", rank], length=64, ranks=[8, 32])
        assert (fitting.chosen.preset, fitting.chosen.rank) == ("recommended", rank)
        assert "fits" in fitting.says


def test_experts_have_the_ranks_of_the_proposal():
    """Recommended is apart from all-linear where it gives experts a lower rank, and is measured at every rank."""
    sizes = {**TEXT, "num_experts": 8, "moe_intermediate_size": 64, "num_key_value_heads": 2, "num_hidden_layers": 2}
    model = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**sizes))
    planned = loradar.plan(model, presets=["recommended", "all-linear"], ranks=[8, 16], length=16)
    for choice in planned.choices:
        proposal = loradar.scan(model).propose("LORA", choice.preset, rank=choice.rank)
        assert choice.parameters == proposal.trainable
    assert {choice.preset for choice in planned.choices} == {"recommended", "all-linear"}


def test_what_does_not_fit_is_said_with_the_smallest_need():
    """With what would need less, and is not used yet."""
    planned = loradar.plan(llama(), "1MB", batch=4, length=64)
    least = min(planned.choices, key=lambda choice: choice.needed)
    assert planned.chosen is None
    assert not any(choice.fits for choice in planned.choices)
    assert planned.says.startswith(
        f"nothing fits in 1.0 MB: the smallest choice, {least.preset} at r={least.rank}, needs "
    )
    assert planned.says.endswith("less with checkpointing, quantize nf4, a batch below 4, a shorter length")


def test_quantised_linears_are_packed_and_heads_are_not():
    """4.127 bits a weight in the blocks; the head stays."""
    plain, packed = (
        loradar.plan(llama(), presets=["default"], ranks=[8], length=64, dtype="bf16", quantize=how).choices[0]
        for how in (None, "nf4")
    )
    linears = 3 * (4 * 128 * 128 + 3 * 128 * 256)
    assert plain.base - packed.base == pytest.approx(linears * (2 - 4.127 / 8), abs=100)


def test_optimizers_differ_by_their_state():
    """AdamW keeps two tensors for each parameter, in eight bits a quarter of that."""
    states = {
        name: loradar.plan(llama(), presets=["all-linear"], ranks=[64], length=16, optimizer=name).choices[0]
        for name in ("adamw", "adamw8bit", "sgd")
    }
    adapter = states["sgd"].adapter
    assert [states[name].optimizer for name in ("adamw", "sgd")] == [2 * adapter, 0]
    assert states["adamw8bit"].optimizer == pytest.approx(adapter / 4 * 2.03125)


def test_a_fused_attention_stores_no_scores_and_an_eager_one_does():
    """Of every layer and head, in single precision; the fused one keeps its outputs instead."""
    model = llama()
    fused = loradar.plan(model, presets=["default"], ranks=[8], length=512)
    model.set_attn_implementation("eager")
    eager = loradar.plan(model, presets=["default"], ranks=[8], length=512)
    scores = 0.9 * 3 * 4 * 512 * 512 * 4
    assert eager.choices[0].activations - fused.choices[0].activations >= scores
    assert any("one kernel" in line for line in fused.assumed)
    assert not any("one kernel" in line for line in eager.assumed)


def test_a_live_model_is_left_as_it_was():
    """Its modules, weights, gradients, flags and hooks."""
    model = llama().train()
    model.lm_head.weight.requires_grad = False
    before = {name: (id(p), p.detach().clone(), p.requires_grad, p.grad) for name, p in model.named_parameters()}
    modules = {name: id(module) for name, module in model.named_modules()}
    loradar.plan(model, ranks=[8], length=16, quantize="nf4", checkpointing=True, dtype="bf16")
    assert modules == {name: id(module) for name, module in model.named_modules()}
    assert model.training
    for name, parameter in model.named_parameters():
        identity, values, requires_grad, gradient = before[name]
        assert id(parameter) == identity
        assert torch.equal(parameter, values)
        assert (parameter.requires_grad, parameter.grad) == (requires_grad, gradient)
    assert not any(module._forward_hooks or "forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24 * 10**9), ("24 GiB", 24 * 2**30), ("80000mb", 8 * 10**10), (123, 123), ("1.5kB", 1500), (1e9, 10**9)],
)
def test_sizes_are_read(text, size):
    """Powers of 1000, or of 1024 with an i."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "24XB", "24", "0MB", "a lot", "nan", 0, float("inf")])
def test_a_memory_that_is_no_size_is_named(text):
    """Before anything is built."""
    with pytest.raises(InvalidRequest, match=r"is no size\. Give a number with a unit: 24GB, 24GiB or 80000MB\.$"):
        loradar.plan("llama", text)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"quantize": "int3"}, r"quantize='int3' is unknown\. Choices: 'nf4', 'int8'\.$"),
        ({"optimizer": "lion"}, r"optimizer='lion' is unknown\. Choices: 'adamw', 'adamw8bit', 'sgd'\.$"),
        ({"dtype": "int7"}, r"dtype='int7' is unknown\. Choices: 'bf16'"),
        ({"device": "tpu"}, r"device='tpu' is unknown\. Choices: 'cuda', 'cpu'\.$"),
        ({"batch": 0}, r"batch=0 is no count: give 1 or more\.$"),
        ({"length": 2.5}, r"length=2\.5 is no count: give 1 or more\.$"),
        ({"ranks": []}, r"ranks=\[\] names no rank"),
        ({"ranks": [0]}, r"ranks=0 is not a rank"),
        ({"gpus": 2}, r"plan has no argument 'gpus'\. Settings: 'batch'"),
    ],
)
def test_a_setting_without_a_meaning_is_named(setting, says):
    """With the choices, before anything is built."""
    with pytest.raises(loradar.LoradarError, match=says):
        loradar.plan("llama", **setting)


def test_an_unknown_preset_is_named_with_those_there_are():
    """As everywhere."""
    with pytest.raises(UnknownPreset, match="'default'"):
        loradar.plan(llama(), presets=["most"])


def test_a_model_that_runs_on_no_made_inputs_asks_for_some():
    """And runs with those given."""

    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, state):
            return self.second(self.first(state["x"]))

    with pytest.raises(ScanFailed, match=r"^No forward of torch:.*Picky runs \(.*\)\. Give example_inputs\.$"):
        loradar.plan(Picky())
    planned = loradar.plan(Picky(), example_inputs=({"x": torch.rand(3, 4)},))
    assert planned.choices


def test_a_model_without_a_layer_for_lora_is_named():
    """As a scan of it is."""
    with pytest.raises(NoAdaptableLayers):
        loradar.plan(nn.Sequential(nn.LayerNorm(4)))
