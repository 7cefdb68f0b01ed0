"""Each fact about a mapping is told in words, and only a defect makes it partial."""

from dataclasses import replace

import pytest
from records_zoo import block_layers, layer, make_scan, proposal

from loradar.domain.targets import TargetSpec
from loradar.registry.verification.verify import Verifier

IN_BLOCKS = r"model\..*\.(?:q_proj|v_proj)"


def verify(scan, *targets, peft_type="LORA", preset="default", **fields):
    """Return the verification of these suffixes on a scan."""
    return Verifier(scan).verify(TargetSpec(target_modules=targets, **fields), peft_type, preset)


def everything(*targets):
    """Return an ``all-linear`` proposal for these suffixes, beside the default for query and value."""
    return proposal("q_proj", "v_proj"), proposal(*targets, preset="all-linear")


def with_facts(name, **facts):
    """Return a scan in which the layers of this name have these facts, all others being live."""
    layers = [replace(one, **(facts if one.name == name else {"live": True})) for one in block_layers()]
    return make_scan(layers=layers)


def hybrid(default=("q_proj", "v_proj")):
    """Return a scan of four blocks of which one has attention, the others a mixer, with this default."""
    attention = block_layers(1)
    mixers = [layer(f"model.layers.{n}.in_proj", role="mixer.input") for n in (1, 2, 3)]
    layers = [replace(one, block=".".join(one.path.split(".")[:3]) if one.depth else None) for one in attention]
    layers += [replace(one, block=one.path.rpartition(".")[0]) for one in mixers]
    proposals = everything("q_proj", "k_proj", "v_proj", "o_proj", "in_proj")
    return make_scan(layers=layers, proposals=(proposal(*default), proposals[1]))


def test_a_mapping_is_live_when_every_layer_is():
    """One layer nobody proved keeps it unproven."""
    layers = [replace(one, live=True) for one in block_layers()]
    assert verify(make_scan(layers=layers), "q_proj", "v_proj").status == "live"
    layers[0] = replace(layers[0], live=None)
    found = verify(make_scan(layers=layers), "q_proj", "v_proj")
    assert (found.status, found.findings) == ("unproven", ())


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"live": False, "proof": "its output is dropped"}, "no gradient: its output is dropped"),
        ({"live": False}, "no gradient"),
        ({"called": False}, "never called"),
        (
            {"called": False, "bypassed": "modeling_x.py:210"},
            "weight read directly at modeling_x.py:210, never called",
        ),
    ],
)
def test_dead_layers_say_why(facts, says):
    """Alone they make it dead, beside live ones partial."""
    scan = with_facts("k_proj", **facts)
    assert verify(scan, "q_proj", "k_proj").findings == (f"k_proj is dead in 2 of 2 layers: {says}",)
    assert verify(scan, "q_proj", "k_proj").status == "partial"
    assert verify(scan, "k_proj").status == "dead"


def test_a_gradient_outranks_what_the_forward_showed():
    """A layer read elsewhere as well, yet live, is no fault."""
    found = verify(with_facts("k_proj", live=True, bypassed="modeling_x.py:210"), "k_proj")
    assert (found.status, found.findings) == ("live", ())


def test_a_kernel_that_bypasses_a_layer_is_a_defect():
    """The adapter is live here, and dead where the kernel runs."""
    found = verify(with_facts("o_proj", live=True, kernel="mamba_split at modeling_x.py:9"), "q_proj", "o_proj")
    assert found.findings == ("o_proj is bypassed in 2 layers under mamba_split at modeling_x.py:9",)
    assert found.status == "partial"


def test_modules_without_a_weight_are_named():
    """PEFT raises for them."""
    found = verify(make_scan(), "q_proj", "self_attn")
    assert found.findings == ("self_attn hits 2 modules no adapter can live on: model.layers.*.self_attn",)


def test_ln_tuning_takes_whole_modules():
    """PEFT copies any module for it; one that holds no layer it knows is no use."""
    found = verify(make_scan(), "mlp", peft_type="LN_TUNING")
    assert (found.status, found.counts) == ("unproven", {"mlp": {"module": 2}})
    assert verify(make_scan(), "mlp", peft_type="LORA").status == "dead"


def test_kinds_the_method_does_not_adapt_are_named():
    """A norm is for LN_TUNING."""
    found = verify(make_scan(), "q_proj", "input_layernorm")
    assert found.findings == ("input_layernorm hits 2 norm layers, which LORA does not adapt",)


def test_a_stray_reaches_another_tower():
    """A suffix that hits both towers is a defect; a target that goes there alone means to."""
    vision = [layer(f"vision.blocks.{n}.q_proj", tower="vision") for n in range(2)]
    vision += [layer("vision.blocks.0.fc", tower="vision")]
    default = replace(proposal(), target_modules=IN_BLOCKS)
    scan = make_scan(layers=[*block_layers(), *vision], proposals=(default,))
    stray = verify(scan, "q_proj", "v_proj")
    assert (stray.status, stray.findings) == ("partial", ("reaches 2 vision layers: q_proj",))
    meant = verify(scan, "self_attn.q_proj", "v_proj", "fc")
    assert (meant.status, meant.findings) == ("unproven", ("reaches 1 vision layer: fc",))


@pytest.mark.parametrize(
    ("role", "part"), [("head", "head"), ("moe.router", "router"), ("embedding.token", "embedding"), ("projector",) * 2]
)
def test_a_stray_reaches_the_head_or_a_router(role, part):
    """The same for every part no preset adapts."""
    scan = make_scan(layers=[*block_layers(), layer("top.o_proj", role=role, depth=0)])
    stray = verify(scan, "q_proj", "v_proj", "o_proj")
    assert (stray.status, stray.findings) == ("partial", (f"reaches the {part}: top.o_proj",))
    meant = verify(scan, "q_proj", "v_proj", "top.o_proj")
    assert (meant.status, meant.findings) == ("unproven", (f"reaches the {part}: top.o_proj",))


def test_layers_of_a_role_that_are_missed_are_named():
    """Who adapts the queries of one stack adapts those of the other."""
    other = [layer(f"model.other.{n}.query", role="attention.query") for n in range(3)]
    scan = make_scan(layers=[*block_layers(), *other], proposals=(proposal("q_proj", "query", "v_proj"),))
    found = verify(scan, "q_proj", "v_proj")
    assert found.findings == ("covers attention.query in 2 of 5 layers; missed: model.other.*.query",)
    assert found.status == "partial"


def test_a_role_that_the_proposal_itself_adapts_in_part_is_no_defect():
    """The mixers' queries have the names of the attention's, and their values have others."""
    mixers = [layer(f"model.mixers.{n}.{name}", role="mixer.input") for n in range(3) for name in ("q_proj", "x_proj")]
    scan = make_scan(layers=[*block_layers(), *mixers], proposals=everything("q_proj", "v_proj", "x_proj"))
    found = verify(scan, "q_proj", "v_proj")
    assert found.findings == ("covers mixer.input in 3 of 6 layers; missed: model.mixers.*.x_proj",)
    assert found.status == "unproven"
    assert verify(scan, "self_attn.q_proj", "v_proj", "x_proj").status == "partial"


def test_skipped_blocks_of_a_hybrid_are_told():
    """They are a remark where the scan's own default stays there too, and a defect where it goes further."""
    says = "reaches 1 of 4 blocks; the others hold mixer.input (3)"
    same, further = hybrid(), hybrid(("q_proj", "v_proj", "in_proj"))
    assert verify(same, "q_proj", "v_proj").findings == (says,)
    assert verify(same, "q_proj", "v_proj").status == "unproven"
    assert verify(further, "q_proj", "v_proj").findings == (says,)
    assert verify(further, "q_proj", "v_proj").status == "partial"
    assert verify(same, "q_proj", "v_proj", preset="attention").findings == ()


def test_experts_left_out_are_told():
    """A name that hits the shared expert passes the fused ones by."""
    experts = [layer(f"model.layers.{n}.mlp.experts.up", "expert_parameter", "expert.up") for n in range(2)]
    proposals = everything("q_proj", "v_proj", "up_proj", "down_proj")
    spec = replace(proposals[1].spec, target_parameters=("experts.up",))
    scan = make_scan(layers=[*block_layers(), *experts], proposals=(proposals[0], replace(proposals[1], **spec.values)))
    assert verify(scan, "q_proj", "up_proj").findings == ("leaves the experts: expert.up (2)",)
    assert verify(scan, "q_proj", "v_proj").findings == ()


def test_feedforward_modules_are_checked():
    """Each is one of the targets and hits what it says; attention among them is worth knowing."""
    scan = make_scan()
    assert verify(scan, "k_proj", "w2", peft_type="IA3", feedforward_modules=("w2",)).findings == (
        "w2 matches nothing",
        "feedforward w2 matches nothing",
    )
    refused = verify(scan, "k_proj", peft_type="IA3", feedforward_modules=("down_proj",))
    assert refused.findings == ("feedforward down_proj is none of the targets, which PEFT refuses",)
    assert refused.status == "partial"
    attention = verify(scan, "k_proj", "o_proj", peft_type="IA3", feedforward_modules=("o_proj",))
    assert attention.findings == ("feedforward o_proj hits 2 attention.output layers",)
    assert attention.status == "unproven"
    good = verify(scan, "k_proj", "down_proj", peft_type="IA3", feedforward_modules=("down_proj",))
    assert (good.status, good.findings) == ("unproven", ())


def test_the_scan_s_own_proposal_has_no_defect():
    """It is measured by itself: a scan that finds fault with its own answer contradicts itself."""
    for scan in (make_scan(), hybrid(), hybrid(("in_proj",))):
        for own in scan.proposals:
            assert Verifier(scan).verify(own.spec, own.peft_type, own.preset).status == "unproven"


def test_a_method_s_own_proposals_are_the_measure():
    """What LoRA would reach says nothing of a method that has proposals of its own."""
    layers = [replace(one, block=one.path.rsplit(".", 2)[0] if one.depth else None) for one in block_layers()]
    own = proposal("layers.0.mlp.down_proj", peft_type="IA3")
    scan = make_scan(layers=layers, proposals=(*everything("q_proj", "v_proj", "down_proj"), own))
    assert verify(scan, "layers.0.mlp.down_proj", peft_type="IA3").findings == ()
    assert verify(scan, "layers.0.mlp.down_proj", peft_type="OSF").status == "partial"
