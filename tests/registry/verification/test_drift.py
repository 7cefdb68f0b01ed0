"""Drift: an older and a newer version of a library, made up, and what an audit of the newer one leads to."""

from dataclasses import replace

import pytest
from records_zoo import block_layers, layer, make_scan, proposal

from loradar.domain.identities import Actor
from loradar.domain.submissions import Checked, Statement, SubmissionEvidence
from loradar.domain.targets import TargetSpec
from loradar.registry import DRIFT, Proposals, find_drifts, find_earlier, find_renewals, names_to_scan

NEWER = "6.0.0"
ADA, BOB = Actor("ada", "contributor"), Actor("bob", "reviewer")


def seen(name, version=NEWER, *targets, live=True):
    """Return a scan whose layers were tried: LoRA's default is these targets."""
    layers = [replace(layer, live=live) for layer in block_layers()]
    proposals = (proposal(*(targets or ("q_proj", "v_proj"))),)
    return make_scan(name, layers=layers, proposals=proposals, library_version=version)


def audited(registry, *scans, names=()):
    """Return what drifted at the newer version, by what these scans of it found."""
    asked = [scan.architecture.name for scan in scans]
    mappings = [m for m in registry.list_mappings("transformers", None, NEWER) if m.name in (*asked, *names)]
    proposals = Proposals(mappings)
    outcomes = registry.audit(mappings, proposals.watch(zip(asked, scans, strict=True)), {*asked, *names})
    return find_drifts(outcomes, proposals)


def publish(registry, name, *targets, peft_type="LORA"):
    """Have the community state a mapping that was checked at an older version."""
    said = Statement("transformers", name, peft_type, "default", target_modules=targets)
    sent = registry.submissions.add(said, ADA)
    registry.submissions.record_check(
        sent.id, Checked(SubmissionEvidence("names", builds=True, spec=said.spec, matched=4))
    )
    return registry.backend(BOB).review(sent.id, "approve", "It is so.")


def test_an_entry_that_is_dead_now_has_drifted(registry):
    """PEFT's c_attn of gpt2, were gpt2 built otherwise one day; the scanner's proposal was seen to be live."""
    (drift,) = audited(registry, seen("gpt2"))
    said = drift.statement
    assert (said.reference, said.peft_type, said.preset) == ("transformers:gpt2", "LORA", "default")
    assert said.spec == TargetSpec(target_modules=("q_proj", "v_proj"))
    assert "On transformers 6.0.0, what peft 0.21.2, revision 1 says is dead: c_attn matches nothing." in said.rationale
    assert "proved live there, on 4 layers" in said.rationale
    assert drift.to_dict()["wrong"][0]["verdict"] == "dead"


def test_what_else_is_wrong_is_named_and_waits(registry):
    """One submission for an architecture, about LoRA's default; the methods that share its targets are named."""
    (drift,) = audited(registry, seen("gpt2"))
    assert len(drift.wrong) > 10
    assert drift.wrong[0].mapping.peft_type == "LORA"
    assert "Wrong as well: ADALORA, " in drift.statement.rationale
    assert drift.statement.rationale.endswith(" (dead).")


def test_without_lora_the_first_that_fails_is_asked(registry):
    """By name; here LoRA's own entry is sound."""
    vblora = publish(registry, "olmo2", "w_proj", peft_type="VBLORA")
    publish(registry, "olmo2", "w_proj", peft_type="ADALORA")
    (drift,) = audited(registry, seen("olmo2"))
    assert drift.statement.peft_type == "ADALORA"
    assert "Wrong as well: VBLORA (dead)." in drift.statement.rationale
    assert vblora.mapping_id in {outcome.mapping.id for outcome in drift.wrong}


def test_nothing_drifts_without_proof(registry):
    """A proposal that nobody tried is no better than the entry; what is live is none of our business."""
    assert audited(registry, seen("gpt2", live=None)) == ()
    assert audited(registry, seen("llama")) == ()


def test_nothing_drifts_that_was_not_scanned(registry):
    """An architecture that does not build any more tells nothing."""
    mappings = [m for m in registry.list_mappings("transformers", None, NEWER) if m.name == "gpt2"]
    proposals = Proposals(mappings)
    outcomes = registry.audit(mappings, proposals.watch([("gpt2", "It does not build.")]), {"gpt2"})
    assert find_drifts(outcomes, proposals) == ()
    assert {outcome.verdict for outcome in outcomes} == {"unscanned"}


def test_what_the_community_says_drifts_too(registry):
    """Checked at an older version, renamed in the newer one."""
    publish(registry, "olmo2", "query_proj", "value_proj")
    (drift,) = audited(registry, seen("olmo2"))
    assert (
        "what community submission-1, revision 1 says is dead: query_proj matches nothing" in drift.statement.rationale
    )


def test_what_the_community_settled_has_not_drifted(registry):
    """PEFT's entry stays dead; where a sound one stands before it, for it or its family, nothing is to be done."""
    publish(registry, "gpt2", "q_proj", "v_proj")
    assert audited(registry, seen("gpt2")) == ()


def test_what_is_on_record_of_the_version_is_not_scanned_again(registry):
    """The proposals and their proof are those on record, too."""
    registry.add_scan(seen("gpt2"))
    mappings = [m for m in registry.list_mappings("transformers", None, NEWER) if m.name == "gpt2"]
    assert names_to_scan(mappings, {"gpt2"}) == []
    (drift,) = audited(registry, names=["gpt2"])
    assert drift.statement.spec == TargetSpec(target_modules=("q_proj", "v_proj"))


def test_what_is_to_be_scanned_is_known_and_not_checked_yet(registry):
    """Not what the library has no more; the scanner's own proposals of an older version are checked like others."""
    registry.add_scan(seen("olmo2", "5.0.0"))
    mappings = registry.list_mappings("transformers", None, NEWER)
    assert names_to_scan(mappings, {"gpt2", "olmo2", "llama"}) == ["gpt2", "llama", "olmo2"]


def test_what_the_scanner_says_drifts_too(registry):
    """Found dead at the newer version, by an audit or now, it is replaced there by a scan of that version."""
    older = make_scan("olmo2", layers=[layer("model.layers.0.query")], proposals=(proposal("query"),))
    registry.add_scan(replace(older, architecture=replace(older.architecture, library_version="5.0.0")))
    newer = seen("olmo2")
    for _ in range(2):
        mappings = [m for m in registry.list_mappings("transformers", None, NEWER) if m.name == "olmo2"]
        assert names_to_scan(mappings, {"olmo2"}) == ["olmo2"]
        proposals = Proposals(mappings)
        outcomes = registry.audit(mappings, proposals.watch([("olmo2", newer)]), {"olmo2"})
        assert find_drifts(outcomes, proposals) == ()
        (renewal,) = find_renewals(outcomes, proposals)
        assert [outcome.findings for outcome in renewal.wrong] == [("query matches nothing",)]
        assert registry.find("olmo2", library_version=NEWER) is None
    registry.add_scan(renewal.scan)
    assert registry.lookup("olmo2", library_version=NEWER).spec.target_modules == ("q_proj", "v_proj")
    assert registry.lookup("olmo2", library_version="5.0.0").spec.target_modules == ("query",)
    mappings = [m for m in registry.list_mappings("transformers", None, NEWER) if m.name == "olmo2"]
    assert names_to_scan(mappings, {"olmo2"}) == []


@pytest.mark.parametrize("decision", ["approve", "reject", None])
def test_what_was_submitted_is_not_submitted_again(registry, decision):
    """Not while it is open, and not after, whatever became of it."""
    (drift,) = audited(registry, seen("gpt2"))
    assert find_earlier(registry.submissions, drift.statement) is None
    sent = registry.submissions.add(drift.statement, DRIFT, origin="drift")
    assert find_earlier(registry.submissions, drift.statement).id == sent.id
    registry.submissions.record_check(
        sent.id, Checked(SubmissionEvidence("names", builds=True, spec=drift.statement.spec, matched=4))
    )
    if decision:
        registry.backend(BOB).review(sent.id, decision, "Seen.")
    other = replace(drift.statement, rationale="In other words.")
    assert find_earlier(registry.submissions, other).id == sent.id


def test_an_open_submission_of_anybody_comes_first(registry):
    """Somebody is at it already, and may say something else."""
    (drift,) = audited(registry, seen("gpt2"))
    said = replace(drift.statement, target_modules=("k_proj",))
    sent = registry.submissions.add(said, ADA)
    assert find_earlier(registry.submissions, drift.statement).id == sent.id
    registry.backend(ADA).withdraw(sent.id, "Mistaken.")
    assert find_earlier(registry.submissions, drift.statement) is None
