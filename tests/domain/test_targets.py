"""Target specs and PEFT's matching rule."""

import peft
import pytest
from peft.tuners.tuners_utils import check_target_module_exists

from loradar.domain.layers import Layer
from loradar.domain.mappings import Mapping
from loradar.domain.scans import Proposal
from loradar.domain.targets import TargetMatcher, TargetSpec, find_hits, resolve_blocks
from loradar.errors import InvalidConfig
from loradar.schema import from_json, to_json

PATHS = [
    "",
    "q_proj",
    "a.q_proj",
    "a.relative_q_proj",
    "layers.0.attn.q_proj",
    "layers.10.attn.q_proj",
    "seq.0",
    "x.seq.0",
]


@pytest.mark.parametrize(
    "targets",
    [("q_proj",), ("attn.q_proj",), ("seq.0", "q_proj"), ("0.attn.q_proj",), ("nothing",), r".*\.q_proj", r"seq\.\d+"],
)
def test_matches_what_peft_matches(targets):
    """Suffixes by whole segments, a regex from end to end."""
    config = peft.LoraConfig(target_modules=list(targets) if isinstance(targets, tuple) else targets)
    matcher = TargetMatcher(targets)
    for path in PATHS[1:]:
        assert bool(matcher.find(path)) == bool(check_target_module_exists(config, path)), path


def test_the_target_that_matched_is_returned():
    """A report can say which name hit a layer."""
    assert TargetMatcher(("k", "attn.q")).find("layers.0.attn.q") == "attn.q"


def test_a_broken_regex_is_an_error_of_the_configuration():
    """It names the regex and what is wrong with it."""
    with pytest.raises(InvalidConfig, match="does not compile"):
        TargetMatcher("(q_proj").find("q_proj")


def test_a_spec_survives_json():
    """Lists become tuples again, a regex stays a string."""
    spec = TargetSpec(("q",), r".*\.x", ("head",), None, ("down",))
    assert TargetSpec.from_dict(to_json(spec)) == spec
    assert to_json(spec)["target_modules"] == ["q"]


LAST = ("layer.[-1 of 12].value",)


@pytest.mark.parametrize("excluded", [None, ("out.dense", "norm"), r".*\.(?:out|norm)"])
def test_a_record_names_the_blocks_left_alone_twice(excluded):
    """For PEFT at the scanned depth, and for any depth; the spec behind it has them once."""
    spec = TargetSpec(("value",), excluded, exclude_blocks=LAST)
    record = Proposal(peft_type="LORA", preset="default", **spec.values, matched=11, formula=None, reasons=())
    assert TargetMatcher(record.exclude_modules).find("layer.11.value")
    assert not TargetMatcher(record.exclude_modules).find("layer.10.value")
    assert record.exclude_blocks == LAST
    assert from_json(Proposal, to_json(record)).spec == record.spec == spec


@pytest.mark.parametrize("depth", [1, 2, 12, 30])
def test_blocks_left_alone_are_those_of_the_model_at_hand(depth):
    """The last one, whatever its index."""
    layers = [Layer(f"encoder.layer.{index}.value", "linear", "Linear", (8, 8)) for index in range(depth)]
    spec = TargetSpec(("value",), exclude_blocks=LAST)
    assert find_hits(spec, layers) == tuple(layers[:-1])
    resolved = resolve_blocks(spec, [layer.path for layer in layers])
    assert (resolved.exclude_modules, resolved.exclude_blocks) == ((layers[-1].path,), None)


def test_a_spec_without_blocks_is_stored_as_before():
    """Ids are digests of it; the field is additional."""
    assert "exclude_blocks" not in TargetSpec(("q",)).stored
    assert TargetSpec(("q",), exclude_blocks=LAST).stored["exclude_blocks"] == LAST
    assert {"exclude_blocks"} <= {*TargetSpec(("q",)).values} & {*Mapping.__dataclass_fields__}
