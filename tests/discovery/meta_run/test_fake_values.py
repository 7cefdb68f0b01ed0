"""Values of meta tensors: known ones and fake ones."""

import pytest
import torch

from loradar.discovery.meta_run.fake_values import FakeValues
from loradar.discovery.meta_run.tensor_values import FakeConstants, lift


def unknown(*shape, dtype=torch.float32):
    """Return a meta tensor of unknown values."""
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.fixture
def fake_values():
    """The mode, entered."""
    with FakeValues() as mode:
        yield mode


@pytest.mark.usefixtures("fake_values")
def test_tensors_made_of_constants_have_their_true_values():
    """Grids and masks decide shapes: a wrong value would break the forward."""
    grid = torch.tensor([[1, 4, 6], [1, 2, 2]])
    assert grid.is_meta
    assert grid.prod(1).tolist() == [24, 4]
    assert int(grid.max()) == 6
    assert [int(height) for _, height, _ in grid] == [4, 2]
    assert bool((grid > 0).all())


@pytest.mark.usefixtures("fake_values")
def test_unknown_values_are_constants():
    """One number and one truth value replace every unknown value."""
    assert unknown(3).sum().item() == 1.0
    assert unknown(2, dtype=torch.long).tolist() == [1, 1]
    assert not unknown(dtype=torch.bool)
    assert list(range(unknown(dtype=torch.long))) == [0]
    assert f"expert_{unknown(dtype=torch.long)}" == "expert_1"
    assert unknown(2).numpy().tolist() == [1.0, 1.0]


def test_other_constants_can_be_chosen():
    """Where one constant leads nowhere another is tried."""
    with FakeValues(FakeConstants(number=5, flag=True, wide=False)):
        assert unknown(dtype=torch.long).item() == 5
        assert unknown(dtype=torch.bool)
        assert unknown(4, 3).nonzero().shape == (1, 2)


@pytest.mark.usefixtures("fake_values")
def test_an_unknown_mask_selects_everything():
    """Selections by the same mask have the same length, by every way to select."""
    mask, values = unknown(4, 3, dtype=torch.bool), unknown(4, 3)
    rows, columns = torch.where(mask)
    assert rows.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert columns.tolist() == [0, 1, 2] * 4
    assert mask.nonzero().shape == (12, 2)
    assert values[mask].shape == values.masked_select(mask).shape == (12,)
    assert values[mask.any(-1)].shape == (4, 3)


@pytest.mark.usefixtures("fake_values")
def test_a_known_mask_selects_its_true_elements():
    """The width is that of the real selection."""
    mask = torch.tensor([True, False, True])
    assert unknown(3, 5)[mask].shape == (2, 5)
    assert torch.arange(3)[mask].tolist() == [0, 2]


@pytest.mark.usefixtures("fake_values")
def test_writing_under_a_mask_changes_known_values():
    """Writing on meta is left out; known values of the tensor are updated, or unknown from then on."""
    values = torch.zeros(3, dtype=torch.long)
    values[torch.tensor([True, False, True])] = torch.tensor([7, 8])
    assert values.tolist() == [7, 0, 8]
    view = values[1:]
    view[0] = unknown(dtype=torch.long)
    assert values.tolist() == [1, 1, 1]


@pytest.mark.usefixtures("fake_values")
def test_repeats_and_splits_fit_together():
    """Parts of unknown sizes add up; repeats of an unknown number have the length that is given."""
    states = unknown(10, 4)
    parts = states.split(unknown(3, dtype=torch.long).tolist())
    assert [len(part) for part in parts] == [4, 3, 3]
    repeated = torch.repeat_interleave(unknown(3), unknown(3, dtype=torch.long), dim=0, output_size=9)
    assert repeated.shape == (9,)
    assert unknown(2, 4).repeat_interleave(torch.tensor([1, 4]), dim=0).shape == (5, 4)
    assert torch.arange(2).repeat_interleave(torch.tensor([1, 2])).tolist() == [0, 1, 1]


@pytest.mark.usefixtures("fake_values")
def test_counts_and_uniques():
    """Unknown elements all differ; known ones are counted."""
    values, inverse = torch.unique(unknown(4), return_inverse=True)
    assert values.shape == inverse.shape == (4,)
    assert torch.unique(torch.tensor([3, 3, 1])).tolist() == [1, 3]
    assert torch.bincount(unknown(4, dtype=torch.long), minlength=6).shape == (6,)
    assert torch.nn.functional.one_hot(unknown(2, 3, dtype=torch.long), 5).shape == (2, 3, 5)


@pytest.mark.usefixtures("fake_values")
def test_devices_mix():
    """Models move things to the CPU, or hold plain tensors there."""
    assert unknown(3).to("cpu").is_meta
    assert unknown(3).cuda().is_meta
    assert torch.zeros(3, device="cpu").is_meta


def test_a_plain_tensor_on_the_cpu_joins_meta_tensors():
    """An attribute that is no buffer stays where it was made."""
    scale = torch.ones(3)
    with FakeValues():
        assert (unknown(2, 3) * scale).is_meta


@pytest.mark.usefixtures("fake_values")
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

    with FakeValues():
        model = Strided()
    with FakeValues():
        assert model(unknown(12)).shape == (3, 4)


def test_lifting_keeps_few_values_only():
    """Large tensors are not computed with."""
    assert lift(torch.zeros(4)).is_meta
    with FakeValues() as mode:
        assert mode.find_value(lift(torch.zeros(4))) is not None
        assert mode.find_value(lift(torch.zeros(1 << 18))) is None


@pytest.mark.usefixtures("fake_values")
def test_a_forward_that_does_not_fit_raises_torch_error():
    """No wrong shape passes."""
    with pytest.raises(RuntimeError, match="reduction dim"):
        torch.nn.functional.linear(unknown(2, 3), unknown(5, 4))


@pytest.mark.usefixtures("fake_values")
def test_interpolation_has_the_shape_and_the_errors_of_torch():
    """Torch's own on meta is hundreds of calls, of which the deformable detectors make hundreds."""
    image, grid = unknown(2, 3, 8, 8).requires_grad_(), unknown(2, 5, 7, 2)
    sample = torch.nn.functional.grid_sample
    result = sample(image, grid=grid, align_corners=False)
    assert (result.shape, result.is_meta, result.requires_grad) == ((2, 3, 5, 7), True, True)
    assert sample(unknown(1, 3, 4, 8, 8), unknown(1, 2, 5, 7, 3), align_corners=False).shape == (1, 3, 2, 5, 7)
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        sample(image, unknown(1, 5, 7, 2), align_corners=False)


@pytest.mark.usefixtures("fake_values")
def test_vmap_goes_its_own_way():
    """Tensors inside vmap have another shape than they show."""
    result = torch.vmap(lambda row: row * 2 + 1)(unknown(4, 3))
    assert result.shape == (4, 3)


def test_calls_are_counted(fake_values):
    """How far a failing forward got is how many functions it called."""
    before = fake_values.calls
    torch.zeros(2) + 1
    assert fake_values.calls == before + 2
