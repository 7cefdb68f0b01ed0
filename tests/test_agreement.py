"""docs/evidence/peft-agreement.md: every difference from PEFT's tables has its rule, and the page is up to date."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from records_zoo import block_layers, make_scan, proposal

from loradar.domain.targets import TargetSpec

PATH = Path(__file__).parent.parent / "docs/scripts/agreement.py"


@pytest.fixture(scope="module")
def agreement():
    """The script, imported."""
    spec = importlib.util.spec_from_file_location("agreement", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["agreement"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["agreement"]


def test_no_difference_is_unexplained_and_the_page_is_current(agreement):
    """All of PEFT's entries for the four families, compared again."""
    comparisons = [item for item in agreement.compare_all() if not isinstance(item, str)]
    assert len(comparisons) > 80
    unexplained = {
        f"{item.name} {item.peft_type}": sorted(layer.path for layer in agreement.explain(item)[1])[:3]
        for item in comparisons
    }
    assert not {name: paths for name, paths in unexplained.items() if paths}
    assert agreement.OUT.read_text("utf-8") == agreement.render(), "run: python docs/scripts/agreement.py"


def test_a_difference_without_a_rule_is_found(agreement):
    """An entry that adapts the head is no kind of difference there is a rule for."""
    scan = make_scan(layers=block_layers(), proposals=(proposal("q_proj", "v_proj"),))
    theirs = TargetSpec(target_modules=("q_proj", "v_proj", "lm_head", "k_proj"))
    lines, unexplained = agreement.explain(agreement.compare(scan, "olmo2", "LORA", theirs))
    assert [layer.path for layer in unexplained] == ["lm_head"]
    assert "also adapts `attention.key`" in lines[0]
    same = agreement.compare(scan, "olmo2", "LORA", replace(theirs, target_modules=("q_proj", "v_proj")))
    assert (same.theirs, same.ours) == (frozenset(), frozenset())
