"""Target specs and PEFT's matching rule."""

import peft
import pytest
from peft.tuners.tuners_utils import check_target_module_exists

from loradar.domain.targets import TargetMatcher, TargetSpec
from loradar.errors import InvalidConfig
from loradar.schema import to_json

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
