"""Branches of configurations: the reasons of a proposal name the settings it does not hold for."""

import pytest
from scan_cache import scan
from transformers import AutoConfig, AutoModel

from loradar.domain.targets import TargetMatcher

QUERY = "with DeepseekV2Config(q_lora_rank=None) it leaves out model.layers.*.self_attn.q_proj"
NEWER = "with FalconConfig(new_decoder_architecture=True) it leaves out transformer.h.*.ln_attn, transformer.h.*.ln_mlp"
SECOND = "with FalconConfig(parallel_attn=False) it leaves out transformer.h.*.post_attention_layernorm"
GATED = "with Dinov2Config(use_swiglu_ffn=True) it matches nothing"


@pytest.mark.parametrize(
    ("model_type", "peft_type", "preset", "expected"),
    [
        ("deepseek_v2", "LORA", "default", [QUERY]),
        ("dinov2", "LORA", "mlp", [GATED]),
        ("dinov2", "LORA", "default", []),
        ("falcon", "LN_TUNING", "default", [NEWER, SECOND]),
        ("llama", "LORA", "all-linear", []),
    ],
)
def test_a_proposal_names_the_branches_it_does_not_hold_for(model_type, peft_type, preset, expected):
    """DeepSeek-V2-Lite has no compressed query, DINOv2-giant a gated network; attention has the same names in both."""
    proposal = scan(f"transformers:{model_type}", method="names").propose(peft_type, preset)
    assert [reason for reason in proposal.reasons if reason.startswith("with ")] == expected


def test_a_named_branch_has_layers_that_the_targets_leave_out():
    """The model is built by transformers from the named setting, and matched by PEFT's rule."""
    spec = scan("transformers:deepseek_v2", method="names").propose("LORA", "default").spec
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64, "n_routed_experts": 4}
    model = AutoModel.from_config(AutoConfig.for_model("deepseek_v2", q_lora_rank=None, **sizes))
    paths = [path for path, _ in model.named_modules() if path.endswith("q_proj")]
    assert len(paths) == 2
    assert not any(TargetMatcher(spec.target_modules).find(path) for path in paths)


def test_a_configuration_at_hand_is_taken_as_it_is():
    """Whoever scans it asks about no other."""
    config = AutoConfig.for_model("dinov2", num_hidden_layers=2)
    reasons = [reason for proposal in scan(config, method="names").proposals for reason in proposal.reasons]
    assert not [reason for reason in reasons if reason.startswith("with ")]
