"""The importance of layers for a batch: true scores, targets within a budget, and a model that is left as it was."""

import pytest
import torch
import transformers
from torch import nn

import loradar
from loradar.domain.targets import find_hits
from loradar.errors import InvalidRequest, ScanFailed, UnknownPreset

pytestmark = pytest.mark.usefixtures("read_settings")

SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


def llama():
    """Return a small llama, the same each time."""
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))


def batches(count=2):
    """Return batches of text with labels, the same each time."""
    generator = torch.Generator().manual_seed(1)
    every = (torch.randint(0, 60, (2, 7), generator=generator) for _ in range(count))
    return [{"input_ids": ids, "labels": ids} for ids in every]


def gradients(model, batch):
    """Return the gradient of every weight, by path of its layer."""
    model.eval()
    model.zero_grad()
    model(**batch).loss.backward()
    return {name.removesuffix(".weight"): p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("method", "score"),
    [
        ("gradient", lambda _weight, gradient: gradient.square().mean().sqrt()),
        ("fisher", lambda _weight, gradient: gradient.square().mean()),
        ("sensitivity", lambda weight, gradient: (weight * gradient).abs().mean()),
    ],
)
def test_scores_are_those_of_the_whole_gradients(method, score):
    """As plain backward passes give them, averaged over the batches, and sorted."""
    model = llama()
    ranking = loradar.rank_layers(model, batches(), method)
    first, second = (gradients(model, batch) for batch in batches())
    weights = dict(model.named_modules())
    for layer in ranking.layers:
        weight = weights[layer.path].weight.detach()
        expected = (score(weight, first[layer.path]) + score(weight, second[layer.path])) / 2
        assert layer.score == pytest.approx(float(expected), rel=1e-4)
    assert ranking.batches == 2
    assert len(ranking.layers) == 3 * 7
    assert [layer.score for layer in ranking.layers] == sorted((x.score for x in ranking.layers), reverse=True)


def test_a_layer_that_the_loss_does_not_reach_comes_last_and_is_no_target():
    """With a score of zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    ranking = loradar.rank_layers(
        model, torch.rand(3, 4), loss=lambda outputs, _: outputs.sum() * 0 + model[0].weight.sum()
    )
    assert ranking.layers[0].path == "0"
    assert {layer.score for layer in ranking.layers[1:]} == {0.0}
    targets = ranking.targets(10_000, r=1)
    assert [layer.path for layer in find_hits(targets, ranking._scan.layers)] == ["0"]


@pytest.mark.parametrize("budget", [600, 1_000, 5_000, "2k", "5%", 10**9])
@pytest.mark.parametrize("r", [1, 4])
def test_targets_stay_within_the_budget(budget, r):
    """As counted on the adapted model, and no left out layer would fit besides."""
    model = llama()
    ranking = loradar.rank_layers(model, batches(1))
    spec = ranking.targets(budget, r)
    adapted = loradar.get_peft_model(llama(), loradar.LoraConfig(r=r).with_spec(spec))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    allowed = {"2k": 2_000, "5%": int(0.05 * total)}.get(budget, budget)
    chosen = set(adapted.targeted_module_names)
    assert trained == sum(r * layer.per_rank for layer in ranking.layers if layer.path in chosen)
    assert trained <= allowed
    assert all(trained + r * layer.per_rank > allowed for layer in ranking.layers if layer.path not in chosen)
    assert ranking.layers[0].path in chosen


def test_the_model_is_left_as_it_was():
    """Weights, gradients, flags, modes, buffers, hooks and random state."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 2))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad = False
    model[2].weight.grad = torch.ones_like(model[2].weight)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    chance = torch.get_rng_state()
    loradar.rank_layers(
        model, torch.rand(2, 3, 8, 8, generator=torch.Generator()), loss=lambda outputs, _: outputs.sum()
    )
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is given[name][0]
        assert parameter.grad is given[name][1]
        assert not parameter._backward_hooks
        assert not parameter._post_accumulate_grad_hooks
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), chance)


def test_a_failing_batch_leaves_the_model_as_it_was():
    """The error names it."""
    model = llama().train()
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(ScanFailed, match=r"^The forward of LlamaForCausalLM fails with a batch \(.*\)\."):
        loradar.rank_layers(model, [*batches(1), {"input_ids": "text"}])
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_gradient_is_held_at_a_time():
    """The others are gone when the next is there."""
    model = llama()
    held = []
    hooks = [
        parameter.register_hook(lambda _: held.append(sum(p.grad is not None for p in model.parameters())))
        for name, parameter in model.named_parameters()
        if "proj" in name
    ]
    loradar.rank_layers(model, batches(1))
    assert len(held) == len(hooks)
    assert max(held) == 0


def test_the_table_names_roles_and_paths():
    """The definition of the score stands above it."""
    lines = str(loradar.rank_layers(llama(), batches(1))).splitlines()
    assert (
        lines[0] == "transformers:llama: gradient, root mean square of the gradient of a weight, averaged over batches"
    )
    assert lines[-1] == "and 1 more"
    assert all(" model.layers." in line for line in lines[1:-1])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (
            {"method": "magic"},
            InvalidRequest,
            r"^Unknown method 'magic'\. Methods: 'gradient', 'fisher', 'sensitivity'\.$",
        ),
        ({"batches": []}, InvalidRequest, r"^batches has no batch"),
        (
            {"batches": torch.ones(1, 4, dtype=torch.long)},
            InvalidRequest,
            r"returns no loss that depends .* give labels",
        ),
        ({"loss": lambda outputs, _: outputs.loss * float("nan")}, InvalidRequest, r"it must be one finite number\.$"),
        ({"preset": "most"}, UnknownPreset, r"'default'"),
    ],
)
def test_bad_input_is_one_line(arguments, error, says):
    """Naming the value and the way out."""
    with pytest.raises(error, match=says):
        loradar.rank_layers(llama(), **{"batches": batches(1), **arguments})


def test_weights_without_values_are_named():
    """A model on meta has no gradients."""
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    with pytest.raises(InvalidRequest, match=r"q_proj\.weight' is on meta, without values"):
        loradar.rank_layers(model, batches(1))


def test_a_budget_below_every_layer_names_the_smallest():
    """In parameters."""
    ranking = loradar.rank_layers(llama(), batches(1))
    with pytest.raises(
        InvalidRequest, match=r"^budget=10 is too small for transformers:llama: .* at r=8 trains 512\.$"
    ):
        ranking.targets(10)
