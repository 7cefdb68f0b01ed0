"""Answers: what meta tensors cannot say."""

import pytest
import torch

from loradar.discovery.meta_run.fake_constants import Guess
from loradar.discovery.meta_run.fake_values import Answers
from loradar.discovery.meta_run.known_values import lift
from loradar.discovery.meta_run.shortcuts import find_result


def unknown(*shape, dtype=torch.float32):
    """A meta tensor nobody knows the values of."""
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.fixture
def answers():
    """The mode, entered."""
    with Answers() as mode:
        yield mode


@pytest.mark.usefixtures("answers")
def test_what_is_made_of_constants_is_answered_truly():
    """Grids and masks decide shapes: a wrong answer would break the forward."""
    grid = torch.tensor([[1, 4, 6], [1, 2, 2]])
    assert grid.is_meta
    assert grid.prod(1).tolist() == [24, 4]
    assert int(grid.max()) == 6
    assert [int(height) for _, height, _ in grid] == [4, 2]
    assert bool((grid > 0).all())


@pytest.mark.usefixtures("answers")
def test_unknown_values_are_answered_with_constants():
    """One number and one truth value stand for all that is unknown."""
    assert unknown(3).sum().item() == 1.0
    assert unknown(2, dtype=torch.long).tolist() == [1, 1]
    assert not unknown(dtype=torch.bool)
    assert list(range(unknown(dtype=torch.long))) == [0]
    assert f"expert_{unknown(dtype=torch.long)}" == "expert_1"
    assert unknown(2).numpy().tolist() == [1.0, 1.0]


def test_other_constants_can_be_chosen():
    """Where one constant leads nowhere another is tried."""
    with Answers(Guess(number=5, flag=True, wide=False)):
        assert unknown(dtype=torch.long).item() == 5
        assert unknown(dtype=torch.bool)
        assert unknown(4, 3).nonzero().shape == (1, 2)


@pytest.mark.usefixtures("answers")
def test_an_unknown_mask_selects_everything():
    """Selections by the same mask then have the same length, in whatever way they are made."""
    mask, values = unknown(4, 3, dtype=torch.bool), unknown(4, 3)
    rows, columns = torch.where(mask)
    assert rows.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert columns.tolist() == [0, 1, 2] * 4
    assert mask.nonzero().shape == (12, 2)
    assert values[mask].shape == values.masked_select(mask).shape == (12,)
    assert values[mask.any(-1)].shape == (4, 3)


@pytest.mark.usefixtures("answers")
def test_a_known_mask_selects_what_it_says():
    """The width is that of the real selection."""
    mask = torch.tensor([True, False, True])
    assert unknown(3, 5)[mask].shape == (2, 5)
    assert torch.arange(3)[mask].tolist() == [0, 2]


@pytest.mark.usefixtures("answers")
def test_writing_under_a_mask_changes_known_values():
    """Writing on meta is left out; what is known of the tensor is kept right, or forgotten."""
    values = torch.zeros(3, dtype=torch.long)
    values[torch.tensor([True, False, True])] = torch.tensor([7, 8])
    assert values.tolist() == [7, 0, 8]
    view = values[1:]
    view[0] = unknown(dtype=torch.long)
    assert values.tolist() == [1, 1, 1]


@pytest.mark.usefixtures("answers")
def test_repeats_and_splits_fit_together():
    """What was split by unknown sizes adds up; what is repeated unknown times has the length that is asked for."""
    states = unknown(10, 4)
    parts = states.split(unknown(3, dtype=torch.long).tolist())
    assert [len(part) for part in parts] == [4, 3, 3]
    repeated = torch.repeat_interleave(unknown(3), unknown(3, dtype=torch.long), dim=0, output_size=9)
    assert repeated.shape == (9,)
    assert torch.arange(2).repeat_interleave(torch.tensor([1, 2])).tolist() == [0, 1, 1]


@pytest.mark.usefixtures("answers")
def test_counts_and_uniques():
    """Everything differs; what is known is counted."""
    values, inverse = torch.unique(unknown(4), return_inverse=True)
    assert values.shape == inverse.shape == (4,)
    assert torch.unique(torch.tensor([3, 3, 1])).tolist() == [1, 3]
    assert torch.bincount(unknown(4, dtype=torch.long), minlength=6).shape == (6,)
    assert torch.nn.functional.one_hot(unknown(2, 3, dtype=torch.long), 5).shape == (2, 3, 5)


@pytest.mark.usefixtures("answers")
def test_devices_mix():
    """Models move things to the CPU, or hold plain tensors there."""
    assert unknown(3).to("cpu").is_meta
    assert unknown(3).cuda().is_meta
    assert torch.zeros(3, device="cpu").is_meta


def test_a_plain_tensor_on_the_cpu_joins_meta_tensors():
    """An attribute that is no buffer stays where it was made."""
    scale = torch.ones(3)
    with Answers():
        assert (unknown(2, 3) * scale).is_meta


@pytest.mark.usefixtures("answers")
def test_numbers_in_tensors_serve_as_sizes():
    """A kernel size in a buffer is unknown when the model was built on meta."""
    assert torch.nn.functional.pad(unknown(2, 8), (unknown(dtype=torch.long), torch.tensor(2))).shape == (2, 11)


def test_values_of_a_model_built_inside_are_kept():
    """A buffer made by a constructor knows its values on meta."""

    class Strided(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("stride", torch.tensor(4))

        def forward(self, signal):
            return signal.unfold(0, int(self.stride), int(self.stride))

    with Answers():
        model = Strided()
    with Answers():
        assert model(unknown(12)).shape == (3, 4)


def test_lifting_keeps_few_values_only():
    """Large tensors are not computed with."""
    assert lift(torch.zeros(4)).is_meta
    with Answers() as mode:
        assert mode.find_value(lift(torch.zeros(4))) is not None
        assert mode.find_value(lift(torch.zeros(1 << 18))) is None


OPERANDS = [(2, 3, 4), (3, 1), (4,), (1, 1, 1)]


@pytest.mark.parametrize("name", ["add", "mul", "sub", "div", "eq", "pow", "maximum"])
@pytest.mark.parametrize("right", [*OPERANDS, 2, 2.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_shortcut_agrees_with_torch(name, right, dtype):
    """The same shape and dtype as torch makes of the same operands, or no answer."""
    left = torch.ones(2, 3, 4, dtype=dtype)
    other = torch.ones(right) if isinstance(right, tuple) else right
    function = getattr(torch, name)
    try:
        expected = function(left, other)
    except (RuntimeError, TypeError):
        return
    on_meta = other.to("meta") if isinstance(other, torch.Tensor) else other
    found = find_result(name, (left.to("meta"), on_meta), {})
    assert found is None or (found.shape == expected.shape and found.dtype == expected.dtype)


FUNCTIONS = [
    (torch.nn.functional.linear, ((2, 3, 4), (5, 4), (5,))),
    (torch.matmul, ((2, 3, 4), (4, 5))),
    (torch.matmul, ((2, 1, 3, 4), (6, 4, 5))),
    (torch.nn.functional.scaled_dot_product_attention, ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 6))),
    (torch.nn.functional.batch_norm, ((2, 3, 4, 4), (3,), (3,))),
    (torch.nn.functional.gelu, ((2, 3),)),
]


@pytest.mark.parametrize(("function", "shapes"), FUNCTIONS)
def test_a_shortcut_for_a_layer_agrees_with_torch(function, shapes):
    """Layers make up most of a forward."""
    expected = function(*(torch.ones(shape) for shape in shapes))
    found = find_result(function.__name__, [unknown(*shape) for shape in shapes], {})
    assert found is not None
    assert (found.shape, found.dtype, found.device.type) == (expected.shape, expected.dtype, "meta")


def test_reductions_and_joins_agree_with_torch():
    """Dimensions may be negative, and kept."""
    assert find_result("mean", (unknown(2, 3, 4), -1), {}).shape == (2, 3)
    assert find_result("mean", (unknown(2, 3, 4), (0, -1)), {"keepdim": True}).shape == (1, 3, 1)
    assert find_result("cat", ([unknown(2, 3), unknown(2, 5)],), {"dim": -1}).shape == (2, 8)
    assert find_result("softmax", (unknown(2, 3), -1), {"dtype": torch.float64}).dtype == torch.float64
    assert find_result("layer_norm", (unknown(2, 3), (3,)), {}).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("linear", (unknown(2, 3), unknown(5, 4))),
        ("matmul", (unknown(2, 3), unknown(4, 5))),
        ("add", (unknown(2, 3), unknown(4))),
        ("cat", ([unknown(2, 3), unknown(3, 4)],)),
        ("layer_norm", (unknown(2, 3), (4,))),
        ("scaled_dot_product_attention", (unknown(1, 2, 3, 4), unknown(1, 2, 3, 5), unknown(1, 2, 3, 4))),
        ("sort", (unknown(2),)),
    ],
)
def test_a_shortcut_that_is_not_sure_says_nothing(name, arguments):
    """Then torch raises its own error."""
    assert find_result(name, arguments, {}) is None


@pytest.mark.usefixtures("answers")
def test_a_forward_that_does_not_fit_raises_torch_error():
    """A shortcut must not let a wrong shape pass."""
    with pytest.raises(RuntimeError, match="reduction dim"):
        torch.nn.functional.linear(unknown(2, 3), unknown(5, 4))


@pytest.mark.usefixtures("answers")
def test_vmap_goes_its_own_way():
    """What vmap hands around has another shape than it shows."""
    result = torch.vmap(lambda row: row * 2 + 1)(unknown(4, 3))
    assert result.shape == (4, 3)


def test_calls_are_counted(answers):
    """How far a failing forward got is how many functions it called."""
    before = answers.calls
    torch.zeros(2) + 1
    assert answers.calls == before + 2
