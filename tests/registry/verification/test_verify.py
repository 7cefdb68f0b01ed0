"""Static verification: what makes a mapping dead, partial or unproven, and what it reaches."""

from dataclasses import replace

import pytest
from records_zoo import block_layers, layer, make_scan, paths_of, proposal

from loradar.domain.scans import Variant
from loradar.domain.targets import TargetSpec
from loradar.registry.verification.verify import Verifier


def verdict(scan, *targets, peft_type="LORA", **fields):
    """Return the verification of these targets on a scan."""
    modules = targets[0] if fields.pop("regex", False) else targets
    return Verifier(scan).verify(TargetSpec(target_modules=modules, **fields), peft_type)


@pytest.mark.parametrize(
    ("targets", "status"),
    [
        (("q_proj", "v_proj"), "unproven"),
        (("q_proj", "query"), "partial"),
        (("query", "value"), "dead"),
        (("input_layernorm",), "dead"),
        (("q_proj", "input_layernorm"), "partial"),
        (("self_attn",), "dead"),
        (("q_proj", "self_attn"), "partial"),
        (("embed_tokens",), "unproven"),
    ],
)
def test_status_follows_from_what_is_hit(targets, status):
    """Nothing adaptable is dead; a target that hits nothing, or nothing adaptable, makes it partial."""
    assert verdict(make_scan(), *targets).status == status


def test_counts_are_per_target_and_kind():
    """A target that hits nothing is counted with nothing, one that hits a container with ``module``."""
    found = verdict(make_scan(), "q_proj", "self_attn", "query", "input_layernorm")
    assert found.counts == {
        "q_proj": {"linear": 2},
        "self_attn": {"module": 2},
        "query": {},
        "input_layernorm": {"norm": 2},
    }


def test_a_regex_is_one_target():
    """It is matched against whole paths."""
    found = verdict(make_scan(), r"model\.layers\.0\..*_proj", regex=True)
    assert found.counts == {r"model\.layers\.0\..*_proj": {"linear": 6}}
    assert verdict(make_scan(), r"layers", regex=True).status == "dead"


def test_excluded_layers_are_not_hit():
    """``exclude_modules`` takes away."""
    found = verdict(make_scan(), "q_proj", exclude_modules=("layers.0.self_attn.q_proj",))
    assert found.counts == {"q_proj": {"linear": 1}}


def test_norms_are_adaptable_for_ln_tuning():
    """It trains what it is given; everything else needs a weight to imitate."""
    assert verdict(make_scan(), "input_layernorm", peft_type="LN_TUNING").status == "unproven"


def test_a_layer_that_is_never_called_does_not_count():
    """A traced scan knows that an adapter there would be dead."""
    layers = [replace(one, called="q_proj" not in one.path) for one in block_layers()]
    scan = make_scan(layers=layers)
    assert verdict(scan, "q_proj").status == "dead"
    assert verdict(scan, "q_proj", "v_proj").status == "partial"


def test_another_tower_than_the_scan_s_own_default_is_a_stray():
    """A suffix list that hits the vision tower as well is partial; one that goes where the default goes is not."""
    vision = [layer(f"vision.blocks.{n}.q_proj", tower="vision") for n in range(2)]
    inside = r"model\..*\.q_proj"
    default = replace(proposal(), target_modules=inside)
    scan = make_scan(layers=[*block_layers(), *vision], proposals=(default,))
    assert verdict(scan, "q_proj").status == "partial"
    assert verdict(scan, inside, regex=True).status == "unproven"
    assert verdict(replace(scan, proposals=()), "q_proj").status == "unproven"


def test_fused_experts_are_hit_by_target_parameters():
    """They are parameters and no modules."""
    experts = layer("model.layers.0.mlp.experts.gate_up_proj", "expert_parameter")
    scan = make_scan(layers=[*block_layers(), experts])
    found = verdict(scan, target_parameters=("experts.gate_up_proj", "experts.down_proj"))
    assert found.counts == {"experts.gate_up_proj": {"expert_parameter": 1}, "experts.down_proj": {}}
    assert found.status == "partial"


def test_reached_is_the_share_of_the_block_weights():
    """Two of a block's seven layers; what stands outside the blocks does not count, nor does a layer hit twice."""
    assert verdict(make_scan(), "q_proj", "v_proj").reached == round(2 / 7, 6)
    assert verdict(make_scan(), "q_proj", "v_proj", "lm_head").reached == round(2 / 7, 6)
    assert verdict(make_scan(layers=[layer("0", depth=0)], proposals=()), "0").reached == 0


def test_tied_weights_count_once():
    """A layer that shares another's weight adds nothing."""
    layers = block_layers(1)
    tied = replace(layer("model.layers.0.self_attn.z_proj"), tied_to=layers[0].path)
    assert verdict(make_scan(layers=[*layers, tied]), "q_proj", "z_proj").reached == round(1 / 7, 6)


def test_a_scan_that_ran_out_of_time_proves_nothing_by_what_it_did_not_see():
    """Layers not called or missed are defects of a whole scan; a name that matches nothing is one of any."""
    layers = [replace(one, called="v_proj" not in one.path) for one in block_layers()]
    scan = make_scan(layers=layers, proposals=(proposal("q_proj", "v_proj", "up_proj"),))
    short = replace(scan, is_cut_short=True)
    says = "the scan ran out of time: what it did not see is not known"
    for targets, whole in ((("q_proj", "v_proj"), "partial"), (("v_proj",), "dead")):
        assert verdict(scan, *targets).status == whole
        found = verdict(short, *targets)
        assert (found.status, found.findings) == ("unproven", (says,))
    assert verdict(short, "q_proj", "query").status == "partial"
    assert verdict(short, "query").status == "dead"


def variant(says, *paths, is_class=False):
    """Return another build with these linears beside the blocks of the default one."""
    layers = [*block_layers(blocks=1)[:-1], *map(layer, paths)]
    return Variant(says, tuple(layers), paths_of(layers), is_class=is_class)


def test_a_name_that_is_for_another_configuration_is_no_defect():
    """It says on which build it matches nothing, and which one it is for; a norm there is nothing for LoRA."""
    t5, other = variant("Config(text_config=t5)", "decoder.SelfAttention.q"), variant("Config(parallel=False)")
    scan = replace(make_scan(), variants=(other, t5))
    found = verdict(scan, "q_proj", "q")
    assert found.status == "unproven"
    where = "on Olmo2ForCausalLM of the default configuration; it is for Config(text_config=t5)"
    assert found.findings == (f"q matches nothing {where}",)
    assert verdict(scan, "q_proj", "w").status == "partial"
    assert verdict(scan, "q").status == "dead"
    norm = replace(t5, layers=tuple(replace(one, kind="norm") for one in t5.layers))
    assert verdict(replace(scan, variants=(norm,)), "q_proj", "q").status == "partial"


def test_a_head_of_the_scanned_class_alone_is_no_defect():
    """An encoder's masked-LM head has a dense layer like its blocks; its classifier has none."""
    blocks = [layer(f"model.layers.{n}.dense", role="mlp.up") for n in range(2)]
    scan = make_scan(
        layers=[*blocks, layer("lm_head.dense", role="head", depth=0)], proposals=(proposal("layers.dense"),)
    )
    head = "reaches the head: lm_head.dense"
    assert (verdict(scan, "dense").status, verdict(scan, "dense").findings) == ("partial", (head,))
    for paths, status in ((("score",), "unproven"), (("lm_head.dense", "score"), "partial"), ((), "partial")):
        layers = [*blocks, *map(layer, paths)]
        other = Variant("Olmo2ForTokenClassification", tuple(layers), paths_of(layers), is_class=True)
        found = verdict(replace(scan, variants=(other,)), "dense")
        assert found.status == status, paths
    base = Variant("Olmo2Model", (layer("layers.0.dense"),), ("layers.0.dense",), is_class=True)
    assert verdict(replace(scan, variants=(base,)), "dense").status == "partial"
    says = "reaches the head of Olmo2ForCausalLM: lm_head.dense; another class of the type has no such layer"
    only = Variant("Other", (*blocks, layer("score")), ("model.layers.0.dense", "score"), is_class=True)
    assert verdict(replace(scan, variants=(only,)), "dense").findings == (says,)
