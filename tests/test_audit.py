"""The audit finds by itself what is wrong with PEFT's tables on the installed libraries, and nothing with our own."""

import pytest
from scan_cache import scan

from loradar.discovery import scan_each
from loradar.registry import load_constants, verify
from loradar.registry.peft_constants.reading import entries_of_constants
from loradar.registry.verification.verify import Verifier
from loradar.sandbox import Bounds, Sandbox

ENTRIES = {(entry.name, entry.peft_type): entry for entry in entries_of_constants(load_constants())}
OURS = [
    *(f"transformers:{name}" for name in ("llama", "bert", "t5", "mixtral", "llava", "vit", "nemotron_h", "jamba")),
    *(f"transformers:{name}" for name in ("qwen3_next", "deepseek_v3", "swin", "flaubert", "d_fine", "wav2vec2")),
    *(f"timm:{name}" for name in ("resnet18", "vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224")),
]


@pytest.mark.parametrize(
    ("name", "peft_type", "status", "finding"),
    [
        ("mixtral", "IA3", "partial", "w2 matches nothing"),
        ("mixtral", "OSF", "partial", "gate_proj matches nothing"),
        ("phi", "OSF", "partial", "o_proj matches nothing"),
        ("vit", "FROD", "dead", "query matches nothing"),
        ("vit", "ADAMSS", "dead", "value matches nothing"),
        ("dinov2", "PVERA", "dead", "query matches nothing"),
        ("llama4", "LORA", "partial", "reaches 68 vision layers: q_proj, v_proj"),
        ("roberta", "ADALORA", "partial", "reaches the head: lm_head.dense"),
        ("bert", "IA3", "unproven", "feedforward output.dense hits 12 attention.output layers"),
    ],
)
def test_known_faults_of_peft_s_tables_are_found(name, peft_type, status, finding):
    """Without a word about them anywhere in the code."""
    entry = ENTRIES[name, peft_type]
    found = verify(scan(f"transformers:{name}"), entry.spec, entry.peft_type)
    assert (found.status, finding in found.findings) == (status, True)


def test_a_hybrid_that_is_barely_reached_is_told():
    """nemotron_h has its attention in one of its four kinds of block, and PEFT's entry goes nowhere else."""
    entry = ENTRIES["nemotron_h", "LORA"]
    (finding,) = verify(scan("transformers:nemotron_h"), entry.spec, "LORA").findings
    assert finding.startswith("reaches 1 of 4 blocks; the others hold ")
    assert "mixer.input (1)" in finding


def test_sound_entries_have_no_findings():
    """llama, mistral and bert are what their names say."""
    for name in ("llama", "mistral", "bert"):
        found = verify(scan(f"transformers:{name}"), ENTRIES[name, "LORA"].spec, "LORA")
        assert (found.status, found.findings) == ("unproven", ()), name


@pytest.mark.parametrize("reference", OURS)
def test_the_scanner_s_proposals_have_no_defect(reference):
    """Neither partial nor dead, whatever the preset."""
    found = scan(reference)
    verifier = Verifier(found)
    checks = {p.preset: verifier.verify(p.spec, p.peft_type, p.preset) for p in found.proposals}
    assert checks
    assert {preset: check for preset, check in checks.items() if check.status not in ("live", "unproven")} == {}


def test_scans_come_with_their_names_and_failures_with_reasons():
    """In worker processes, as they come; one that does not build stops nobody."""
    with Sandbox(Bounds(workers=2), nice=0) as sandbox:
        found = dict(scan_each("timm", ["resnet18", "no_such_model"], sandbox.run_each))
    assert found["resnet18"].architecture.name == "resnet18"
    assert "no_such_model" in found["no_such_model"]
    assert dict(scan_each("timm", [], pytest.fail)) == {}
