"""The runner of PEFT's own tests: what it judges, and that its rules are documented. With PEFT's tests, it judges."""

import os
from pathlib import Path

import peft_suite
import pytest

DIFFERENCES = Path(__file__).parents[1] / "docs/training/peft-differences.md"
SAMPLE = """
import pytest
from peft import IA3Config, LoraConfig, LoHaConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTuner

@pytest.mark.parametrize("config_cls", [LoraConfig, IA3Config, LoHaConfig])
def test_module(config_cls):
    assert config_cls.__module__.startswith("loradar")

def test_functions():
    assert get_peft_model.__module__.startswith("loradar") and BaseTuner.__module__.startswith("peft")
    LoraConfig(r=0)
"""


def test_the_names_in_the_files_are_loradars_and_other_methods_are_left_out(tmp_path):
    """A case is judged by LoRA and IA3 alone; of PEFT's names, those that loradar has are loradar's."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "test_sample.py").write_text(SAMPLE)
    outcomes = peft_suite.run(folder, ["test_sample.py"])
    assert [(each["case"].partition("[")[2], each["outcome"]) for each in outcomes] == [
        ("LoraConfig]", "passed"),
        ("IA3Config]", "passed"),
        ("", "failed"),
    ]
    assert "r=0 is not a rank" in outcomes[-1]["message"]


def test_a_failure_is_by_design_only_under_a_documented_rule():
    """There are at most twelve, each with a line of its own."""
    text = DIFFERENCES.read_text("utf-8")
    rules = [line.partition("**")[2].partition("**")[0] for line in text.splitlines() if line.startswith("- **")]
    assert {*peft_suite.BY_DESIGN} <= {*rules}
    assert len(rules) <= 12


def test_a_failure_without_a_rule_is_a_failure():
    """An error that no rule explains counts, and its message is in the table."""
    lacking = "InvalidConfig: use_qalora=True is a feature of PEFT that loradar lacks: use peft."
    variant = {"case": "t.py::test_save", "outcome": "failed", "message": lacking}
    other = {"case": "t.py::b", "outcome": "failed", "message": "AssertionError: 1 != 2"}
    assert peft_suite.classify(variant) == ("by design", "variants of LoRA")
    assert peft_suite.classify(other) == ("failed", "AssertionError: 1 != 2")
    assert "| t.py | 0 | 1 | 1 | 0 | 0 | 0 | 0.0% |" in peft_suite.describe([variant, other])
    assert "| of these, saving, loading and names | 0 | 1 | 0 |" in peft_suite.describe([variant, other])


@pytest.mark.skipif("LORADAR_PEFT_TESTS" not in os.environ, reason="LORADAR_PEFT_TESTS names no folder of PEFT's tests")
def test_no_case_of_lora_and_ia3_fails_outside_the_rules():
    """The judgement: minutes, on the files that need no download."""
    assert peft_suite.main([os.environ["LORADAR_PEFT_TESTS"]]) == 0
