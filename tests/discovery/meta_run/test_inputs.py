"""Inputs made from signatures, configurations and the data."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from discovery_zoo import ConvNet
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, Qwen2VLConfig, SplinterConfig

from loradar.discovery.meta_run.input_search import NAMES_ONLY, Failure, Search
from loradar.discovery.meta_run.input_shapes import Sizes
from loradar.discovery.meta_run.inputs import Inputs, Plan, Spec, input_spec

FACTS = tomllib.loads((Path(__file__).parents[3] / "data" / "inputs.toml").read_text("utf-8"))


class Takes(nn.Module):
    """Has a forward with the arguments of a multimodal model, and its configuration."""

    def __init__(self, config):
        """Keep a configuration."""
        super().__init__()
        self.config = config

    def forward(  # noqa: PLR0913, PLR0917 - models take more
        self,
        input_ids=None,
        attention_mask=None,
        pixel_values=None,
        image_grid_thw=None,
        position_ids=None,
        use_cache=None,
        **kwargs,
    ):
        """Take everything at once."""


class Plain(nn.Module):
    """A user's own class: one argument of an unknown name."""

    def __init__(self, layer):
        """Keep the layer that sees the argument first."""
        super().__init__()
        self.layer = layer

    def forward(self, thing):
        """Call the layer."""
        return self.layer(thing)


@pytest.fixture
def takes():
    """Arguments and configuration of qwen2_vl."""
    return Takes(Qwen2VLConfig(image_token_id=151655, vision_start_token_id=151652))


def shapes(values):
    """Return the shapes of the tensors among values."""
    return {name: tuple(value.shape) for name, value in values.items() if isinstance(value, torch.Tensor)}


def test_every_modality_is_given_at_once(takes):
    """So that every tower runs; switches of the forward are left out."""
    inputs = Inputs(takes)
    assert inputs.given(Plan()) == ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
    values = inputs.make(Plan())
    assert values["use_cache"] is False
    assert values["image_grid_thw"].tolist() == [[1, 4, 4]] * 2
    assert shapes(values)["pixel_values"] == (32, 3 * 2 * 14 * 14)


def test_patches_of_a_grid_may_be_squares_with_the_channels_last(takes):
    """One square of merged patches for each token, as Inkling 2 takes them: tried where rows of patches fail."""
    inputs = Inputs(takes)
    made = (inputs.make(Plan(picks={"pixel_values": n})) for n in range(len(inputs.choices["pixel_values"])))
    assert (32, 28, 28, 3) in [shapes(values).get("pixel_values") for values in made]


def test_a_text_holds_the_placeholders_of_its_images(takes):
    """As many as the grid has merged patches, after the token that starts an image."""
    row = Inputs(takes).make(Plan())["input_ids"][0].tolist()
    assert row.count(151655) == 4
    assert row[row.index(151655) - 1] == 151652
    without = Inputs(takes).make(Plan(picks={"pixel_values": len(Inputs(takes).choices["pixel_values"]) - 1}))
    assert 151655 not in without["input_ids"]


def test_no_other_word_is_a_placeholder():
    """A placeholder may be one of the first ids, which the rest of the text counts through."""
    row = Inputs(Takes(Qwen2VLConfig(image_token_id=19, vision_start_token_id=20))).make(Plan())["input_ids"][0]
    assert (row == 19).sum() == 4
    assert (row == 20).sum() == 1


def test_a_question_token_stands_in_the_text():
    """A text that a question belongs to holds the token of a question."""
    assert 104 in Inputs(Takes(SplinterConfig(question_token_id=104))).make(Plan())["input_ids"]


def test_small_inputs_are_known_and_large_ones_are_not(takes):
    """Ids and grids decide shapes; pixels never do."""
    values = Inputs(takes).make(Plan())
    assert values["input_ids"].device.type == values["image_grid_thw"].device.type == "cpu"
    assert values["pixel_values"].is_meta


def test_sizes_are_of_the_right_part():
    """A composite's hidden size is not the size of its images."""
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(vision_config=CLIPVisionConfig(image_size=64, patch_size=8).to_dict()))
    sizes = Sizes(model)
    assert sizes.shape(["height", "width", "patch"]) == (64, 64, 8)
    assert sizes.evaluate("grid_height * grid_width") == 64
    assert sizes.evaluate("2 * 3 + 4 / 5 - 1") == 1
    assert sizes.with_sizes(batch=7).get_size("batch") == 7


def test_an_undefined_size_is_an_error():
    """A misspelt word in the data must not pass."""
    with pytest.raises(KeyError, match="hieght"):
        Sizes(nn.Linear(1, 1)).get_size("hieght")


class Heterogeneous:
    """A configuration that refuses to give a field that differs between the layers, as those of transformers do."""

    model_type = "heterogeneous"
    hidden_size = 60
    num_attention_heads = 3

    @property
    def head_dim(self):
        """Raise what AmbiguousGlobalPerLayerAttributeError of transformers is."""
        raise RuntimeError


def test_a_field_that_differs_between_layers_is_as_if_it_were_not_there():
    """The other fields are read."""
    sizes = Sizes(Takes(Heterogeneous()))
    assert (sizes.get_size("heads"), sizes.get_size("head_width")) == (3, 20)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(5, 8, 3), (2, 5, 224, 224)),
        (nn.Conv1d(4, 8, 3), (2, 4, 200)),
        (nn.Linear(33, 8), (2, 17, 33)),
        (nn.LayerNorm(21), (2, 17, 21)),
        (nn.Embedding(10, 4), (2, 17)),
    ],
)
def test_an_unknown_argument_has_the_shape_of_the_first_layers_input(layer, shape):
    """A user's own class has no configuration."""
    assert tuple(Inputs(Plain(layer)).make(Plan())["thing"].shape) == shape


def test_a_number_for_each_sample_is_the_last_guess_beside_a_configuration():
    """Of a model without one it is the first guess for a later argument, which may be a time."""

    class Later(Plain):
        def forward(self, pixel_values, features):
            """Call the layer."""
            return self.layer(pixel_values) + features

    single = Spec(("batch",))
    guesses = Inputs(Later(nn.Linear(8, 8))).choices["features"]
    assert guesses.index(single) == 0
    declared = Later(nn.Linear(8, 8))
    declared.config = CLIPVisionConfig()
    guesses = Inputs(declared).choices["features"]
    assert guesses.index(single) > guesses.index(Spec(("batch", "1"))) > 0


def test_placeholders_go_as_far_as_there_is_room(takes):
    """One id for each sample has no room for those of an image."""
    inputs = Inputs(takes)
    placed = Plan().repairing("input_ids", Spec(("batch",), "tokens"))
    assert inputs.make(placed)["input_ids"].shape == (2,)


def test_input_spec_keeps_the_sizes_a_layer_does_not_decide():
    """Sizes that were right are kept."""
    assert input_spec(nn.Linear(8, 2), (4, 9, 5)) == Spec(("4", "9", "8"))
    assert input_spec(nn.Linear(8, 2), (4, 3, 16, 16)) == Spec(("4", "tokens", "8"))
    assert input_spec(nn.Conv2d(3, 2, 1), (4, 9, 16, 20)) == Spec(("4", "3", "16", "20"))
    assert input_spec(nn.ReLU()) is None


def test_the_input_of_a_failing_layer_is_tried_next():
    """The input that reached it gets its width."""
    search = Search(inputs := Inputs(Plain(nn.Sequential(nn.ReLU(), nn.Linear(33, 8)))), Plan())
    first = search.next_plan()
    search.learn(Failure("do not fit", 5, nn.Linear(40, 8), tuple(inputs.make(first)["thing"].shape)))
    assert inputs.make(search.next_plan())["thing"].shape[-1] == 40


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The size of tensor a (17) must match the size of tensor b (12) at non-singleton dimension 1", 12),
        ("a dimension of length 12 at -2! [12, 8]); but expected shape should be broadcastable to [2, 17, 8]", 12),
        ("mat1 and mat2 shapes cannot be multiplied (2x34 and 64x5)", 32),
        ("The size of tensor a (18) must match the size of tensor b (13) at non-singleton dimension 1", 12),
    ],
    ids=["positions", "positions on meta", "all positions at once", "positions and a class"],
)
def test_a_length_is_found_that_agrees_with_the_size_a_model_is_made_for(text, tokens):
    """A table of positions, or a layer that reads all of them, holds for one length."""
    search = Search(inputs := Inputs(Plain(nn.Linear(8, 8))), Plan())
    assert inputs.make(search.next_plan())["thing"].shape == (2, 17, 8)
    search.learn(Failure(f"RuntimeError: {text}", 3))
    tried = [inputs.make(plan)["thing"].shape for _ in range(4) if (plan := search.next_plan())]
    assert (2, tokens, 8) in tried


def test_the_side_of_an_image_is_found_by_the_number_of_its_patches():
    """65 positions, one of them of the class, are 8 x 8 patches."""
    search = Search(inputs := Inputs(Plain(nn.Conv2d(3, 8, 6, 6))), Plan())
    side = inputs.make(search.next_plan())["thing"].shape[-1]
    text = f"The size of tensor a ({(side // 6) ** 2 + 1}) must match the size of tensor b (65) at dimension 1"
    search.learn(Failure(text, 3))
    tried = [inputs.make(plan)["thing"].shape for _ in range(3) if (plan := search.next_plan())]
    assert any(shape[-1] // 6 == 8 for shape in tried)


def test_an_argument_named_by_an_error_is_tried_first(takes):
    """Libraries name the missing argument."""
    search = Search(inputs := Inputs(takes), Plan())
    search.next_plan()
    search.learn(Failure("ValueError: you have to specify position_ids", 3))
    assert "position_ids" in inputs.given(search.next_plan())


def test_what_an_error_calls_none_is_given_next(takes):
    """Models may need an argument that they let out by default."""
    search = Search(inputs := Inputs(takes), Plan())
    without = inputs.given(search.next_plan())
    search.learn(Failure("TypeError: layer_norm(): argument 'input' must be Tensor, not NoneType", 3))
    assert set(inputs.given(search.next_plan())) - set(without) == {"position_ids"}


def test_the_names_of_fields_are_asked_for_as_values():
    """A model that unpacks the result of another one takes no named result."""

    class Unpacks(Plain):
        def forward(self, thing, *, return_dict=True):
            """Return fields by their names, or a tuple."""
            return self.layer(thing), return_dict

    search = Search(inputs := Inputs(Unpacks(nn.Linear(8, 8))), Plan())
    assert inputs.make(search.next_plan())["return_dict"] is True
    search.learn(Failure(NAMES_ONLY, 3))
    assert inputs.make(search.next_plan())["return_dict"] is False


def test_a_repaired_size_still_becomes_smaller():
    """What did not fit is one length: the others are those of the configuration, and batches of one."""
    search = Search(inputs := Inputs(Plain(nn.Conv2d(5, 8, 3))), Plan())
    search.learn(Failure("do not fit", 5, nn.Conv2d(4, 8, 3), shapes(inputs.make(search.next_plan()))["thing"]))
    plan = replace(search.next_plan(), batch=1, divisors={"space": 2})
    assert shapes(inputs.make(plan))["thing"] == (1, 4, 112, 112)


def test_a_convolution_gets_an_input_of_its_rank():
    """A film where an image did not fit, in the sizes that are known of it."""

    class Film(Plain):
        def forward(self, hidden_states, timestep):
            """Convolve a film."""
            return self.layer(hidden_states) + timestep

    film = Film(layer := nn.Conv3d(3, 8, 3))
    film.config = CLIPVisionConfig()
    search = Search(inputs := Inputs(film), Plan())
    first = shapes(inputs.make(search.next_plan()))["hidden_states"]
    search.learn(Failure("Invalid channel dimensions", 5, layer, first))
    assert (len(first), shapes(inputs.make(search.next_plan()))["hidden_states"]) == (4, (2, 3, 4, 32, 32))


def test_values_may_start_at_a_place():
    """Rows of several kinds follow each other in one sequence."""
    inputs = Inputs(nn.Linear(1, 1))
    sizes = Sizes(nn.Linear(1, 1))
    assert inputs.value(Spec(("3",), "from text"), sizes, []).tolist() == [17, 18, 19]
    assert inputs.value(Spec(("1", "3"), "after 2"), sizes, []).tolist() == [[False, False, True]]
    first = inputs.value(Spec(constant=[]), sizes, [])
    first.append(1)  # a model may keep and change what it is given
    assert inputs.value(Spec(constant=[]), sizes, []) == []


def test_a_search_ends(takes):
    """Plans that get no further are not tried for ever, and none twice."""
    search, plans = Search(Inputs(takes), Plan()), []
    while (plan := search.next_plan()) is not None:
        assert plan not in plans
        plans.append(plan)
        search.learn(Failure("no", 1))
    assert 5 < len(plans) < 20


def test_a_signature_that_cannot_be_read_gives_no_arguments():
    """A module whose forward is no Python function."""
    model = ConvNet()
    model.forward = dict.fromkeys
    assert isinstance(Inputs(model).make(Plan()), dict)


@pytest.mark.parametrize("entry", FACTS["input"], ids=lambda entry: entry["names"][0])
def test_every_entry_can_be_made(entry):
    """Its shape is written in sizes that exist and its values are known words."""
    sizes = Sizes(nn.Linear(1, 1)).with_sizes(tokens=17)
    assert all(size > 0 for size in sizes.shape(entry.get("shape", ())))
    assert all(size > 0 for row in entry.get("rows", ()) for size in sizes.shape(row))
    known = {
        "rows",
        "complex",
        "float",
        "ids",
        "tokens",
        "modalities",
        "ones",
        "zeros",
        "range",
        "true",
        "false",
        "none",
    }
    values = entry.get("values", "float")
    assert values in known or sizes.evaluate(values.removeprefix("from ").removeprefix("after "))
    assert set(entry) <= {
        "names",
        "shape",
        "values",
        "rows",
        "repeat",
        "beside",
        "unless",
        "fields",
        "give",
        "partners",
        "number",
        "parts",
        "enabled",
        "undeclared",
        "value",
    }
    assert entry.get("give", "always") in ("always", "with", "on_demand")
    assert ("partners" in entry) == (entry.get("give") in ("with", "on_demand"))
