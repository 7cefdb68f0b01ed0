"""The audit: what is on record or scanned, stored as verifications, told with what to put instead."""

from dataclasses import replace

import pytest
from records_zoo import VERSION, block_layers, make_scan, proposal

from loradar.domain.targets import TargetSpec
from loradar.registry import peft_report

QUERY_VALUE = TargetSpec(target_modules=("q_proj", "v_proj"))


def run(registry, scans, source="peft", known=("llama", "gpt2", "vit"), names=("llama", "gpt2", "chatglm")):
    """Audit the mappings of a few names against these scans, and return the outcomes by name and PEFT type."""
    mappings = registry.list_mappings("transformers", source, VERSION, names)
    return {(o.mapping.name, o.mapping.peft_type): o for o in registry.audit(mappings, scans, known)}


def live_scan(name):
    """Return a scan whose layers all got a gradient."""
    return make_scan(name, layers=[replace(layer, live=True) for layer in block_layers()])


def test_every_verdict_is_told(registry):
    """A mapping that fits, one that hits nothing, one not scanned, and one the library does not know."""
    found = run(registry, [("llama", live_scan("llama")), ("gpt2", make_scan("gpt2"))])
    assert found["llama", "LORA"].verdict == "live"
    assert (found["gpt2", "LORA"].verdict, found["gpt2", "LORA"].findings) == ("dead", ("c_attn matches nothing",))
    assert found["chatglm", "LORA"].verdict == "unknown"
    assert found["chatglm", "LORA"].findings == ("the installed transformers does not know it",)
    failed = run(registry, [("gpt2", "It does not build.")], names=("gpt2",), known=("gpt2",))
    assert failed["gpt2", "LORA"].verdict == "unscanned"
    assert failed["gpt2", "LORA"].findings == ("It does not build.",)


def test_outcomes_are_stored(registry):
    """As verifications of that library version; the same audit a second time changes nothing."""
    run(registry, [("gpt2", make_scan("gpt2"))])
    stored = {(m.name, m.peft_type): m for m in registry.list_mappings("transformers", "peft", VERSION)}
    assert stored["gpt2", "LORA"].verification.findings == ("c_attn matches nothing",)
    assert stored["llama", "LORA"].verification is None
    serial = registry.serial()
    run(registry, [("gpt2", make_scan("gpt2"))])
    assert registry.serial() == serial
    assert registry.list_mappings("transformers", "peft", "9.9.9")[0].verification is None


def test_what_is_on_record_needs_no_scan(registry):
    """It is told again, with the scanner's mapping on record as suggestion."""
    registry.add_scan(make_scan("gpt2"))
    found = run(registry, [], names=("gpt2",))
    assert found["gpt2", "LORA"].verdict == "dead"
    assert found["gpt2", "LORA"].suggestion == QUERY_VALUE


def test_suggestions_are_for_the_method(registry):
    """A method that shares LoRA's targets gets LoRA's; another one gets its own, or none."""
    own = proposal("k_proj", "v_proj", "down_proj", peft_type="IA3")
    scan = make_scan("gpt2", proposals=(proposal("q_proj", "v_proj"), own))
    found = run(registry, [("gpt2", scan)])
    assert found["gpt2", "VERA"].suggestion == QUERY_VALUE
    assert found["gpt2", "IA3"].suggestion == own.spec
    assert found["gpt2", "LN_TUNING"].suggestion is None
    assert run(registry, [("llama", live_scan("llama"))])["llama", "LORA"].suggestion is None, "nothing is wrong"


def test_a_suggestion_is_the_smallest_change(registry):
    """What is left of an entry without a name that hits nothing, not what the scanner would have proposed."""
    layers = [replace(one, path=one.path.replace("up_proj", "w1")) for one in block_layers()]
    scan = make_scan("qwen2", layers=layers, proposals=(proposal("q_proj", "v_proj"),))
    outcomes = run(registry, [("qwen2", scan)], known=("qwen2",), names=("qwen2",))
    found = outcomes["qwen2", "OSF"]
    assert found.verdict == "partial"
    assert set(found.findings) == {"gate_proj matches nothing", "up_proj matches nothing"}
    assert found.suggestion.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")


def test_a_proposal_that_keeps_the_sound_targets_comes_first(registry):
    """An entry that means every projection is not answered with two of them, nor without those renamed."""
    renamed = [replace(one, path=one.path.replace("down_proj", "fc2")) for one in block_layers()]
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "fc2")
    every = proposal(*names, preset="all-linear", peft_type="OSF")
    narrow = proposal("q_proj", "v_proj", peft_type="OSF")
    scan = make_scan("qwen2", layers=renamed, proposals=(narrow, every))
    found = run(registry, [("qwen2", scan)], known=("qwen2",), names=("qwen2",))["qwen2", "OSF"]
    assert found.verdict == "partial"
    assert found.suggestion == every.spec


def test_the_scanner_s_own_mappings_are_audited_too(registry):
    """A proposal that no longer holds is found out like any other."""
    registry.add_scan(make_scan("olmo2"))
    renamed = [replace(one, path=one.path.replace("q_proj", "query")) for one in block_layers()]
    scan = make_scan("olmo2", layers=renamed, proposals=(proposal("query", "v_proj"),))
    found = run(registry, [("olmo2", scan)], source="scanner", known=("olmo2",), names=("olmo2",))
    assert found["olmo2", "LORA"].findings == ("q_proj matches nothing",)
    assert found["olmo2", "LORA"].verdict == "partial"


def test_mappings_are_listed_by_source(registry):
    """In one order, of one library."""
    registry.add_scan(make_scan("olmo2"))
    registry.add_scan(make_scan("resnet", library="timm"))
    kinds = [m.source.kind for m in registry.list_mappings("transformers")]
    assert set(kinds) == {"peft", "scanner"}
    assert [m.name for m in registry.list_mappings("timm")] == ["resnet"]
    names = [m.name for m in registry.list_mappings("transformers", "peft")]
    assert names == sorted(names)


@pytest.fixture
def report(registry):
    """The report on entries of PEFT that are live, dead and unknown."""
    scans = [("llama", live_scan("llama")), ("gpt2", make_scan("gpt2"))]
    return peft_report([*run(registry, scans).values()], "transformers", VERSION)


def test_the_report_can_be_filed(report):
    """Table, entry, what it hits, what is wrong, what to write."""
    assert "| `TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING` | 3 | 1 | 0 | 0 | 1 | 0 | 1 | `gpt2` |" in report
    section = next(part for part in report.split("### ") if part.startswith("`gpt2` in ") and '["c_attn"]' in part)
    assert "tables: dead\n" in section
    for line in (
        '- Entry: `"gpt2": ["c_attn"]`',
        "- Hits today: `c_attn` nothing",
        "- Wrong: c_attn matches nothing",
        '- Suggested: `"gpt2": ["q_proj", "v_proj"]`',
    ):
        assert line in section.splitlines()
    assert "TRANSFORMERS_MODELS_TO_*_TARGET_MODULES_MAPPING` of ADALORA, ADAMSS, BOFT" in section
    assert "`TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING`" in report


def test_the_report_says_what_was_not_checked(report):
    """And why."""
    assert "| `chatglm` | 29 | the installed transformers does not know it |" in report.splitlines()


def test_the_report_is_the_same_in_any_order(registry):
    """It can be compared with the one in the repository."""
    outcomes = [*run(registry, [("gpt2", make_scan("gpt2"))]).values()]
    told = peft_report(outcomes, "transformers", VERSION)
    assert peft_report(outcomes[::-1], "transformers", VERSION) == told
