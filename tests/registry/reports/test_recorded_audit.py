"""The audit on record: kinds of findings, and the versions there are."""

import re
from pathlib import Path

import pytest

from loradar.domain.reports.audits import DEFECTS, find_defect
from loradar.errors import UnknownName
from loradar.registry import report_audit

TEXT = (Path(__file__).parents[3] / "docs/registry/audit.md").read_text("utf-8")
EXAMPLES = re.findall(r"\| `([^`|]+)` \| (?:defect|remark)", TEXT)

KINDS = {
    "w2 matches nothing": "no-match",
    "attn.proj_drop hits 12 modules no adapter can live on: blocks.*.attn.proj_drop": "no-weight",
    "input_layernorm hits 32 norm layers, which LORA does not adapt": "kind",
    "reaches 68 vision layers: q_proj, v_proj": "other-tower",
    "reaches the head: lm_head.dense": "outside",
    "leaves the experts: expert.gate_up (48), expert.down (48)": "experts",
    "feedforward w2 matches nothing": "feedforward",
    "q matches nothing on X of the default configuration; it is for Y": "no-match",
    "the scan ran out of time: what it did not see is not known": "cut-short",
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_finding_of_the_documents_has_a_kind(example):
    """There are a dozen; each is told by its text."""
    assert len(EXAMPLES) > 10
    assert find_defect(example) in DEFECTS


@pytest.mark.parametrize(("finding", "kind"), KINDS.items())
def test_a_finding_is_of_the_kind_it_says(finding, kind):
    """The first that its text matches."""
    assert find_defect(finding) == kind


def test_a_registry_without_verifications_checks_no_entry(registry):
    """Every entry is unchecked, which is no error; a version that is named must be there."""
    report = report_audit(registry)
    assert (report.library_version, {entry.verification for entry in report.entries}) == ("", {None})
    with pytest.raises(UnknownName, match="version of transformers '5'"):
        report_audit(registry, "5")
