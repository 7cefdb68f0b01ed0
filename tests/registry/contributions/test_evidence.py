"""The evidence on a statement: what it hits, what it leaves, what it says anew; and that no regex of its runs in re."""

import json
import re
from dataclasses import replace

import pytest
from records_zoo import block_layers, layer, make_scan, proposal

from loradar.domain.architectures import ArchitectureName
from loradar.domain.mappings import Mapping, Source
from loradar.domain.submissions import Statement, SubmissionEvidence
from loradar.domain.targets import TargetMatcher, TargetSpec, find_hits
from loradar.errors import InvalidStatement, MissingExtra
from loradar.registry import failure_of, gather_evidence
from loradar.registry.contributions.safe_regex import LinearMatcher, check_regexes, compile_regex
from loradar.schema import from_json, to_json

REGEX = r"model\.layers\.\d+\.self_attn\.(q|v)_proj"


def state(targets=("q_proj", "v_proj"), peft_type="LORA", preset="default", **fields):
    """Return a statement about the small decoder."""
    return Statement("transformers", "olmo2", peft_type, preset, targets, **fields)


def evidence(*args, scan=None, registered=(), method=None, **fields):
    """Return the evidence on a statement."""
    return gather_evidence(scan or make_scan(), state(*args, **fields), registered, method)


def registered_as(*targets, kind="peft", **fields):
    """Return a mapping on record."""
    spec = TargetSpec(targets, **fields)
    return Mapping(
        architecture=ArchitectureName("transformers", "olmo2"),
        peft_type="LORA",
        preset="default",
        **spec.values,
        id="sha256:1",
        source=Source(kind, "0.21.2"),
        revision=3,
    )


def test_what_a_statement_hits_is_told_by_kind_and_pattern():
    """Per target, per kind of layer, per pattern; and the blocks reached."""
    found = evidence(("q_proj", "v_proj"))
    assert found.verification.counts == {"q_proj": {"linear": 2}, "v_proj": {"linear": 2}}
    assert found.layers == {"model.layers.*.self_attn.q_proj": 2, "model.layers.*.self_attn.v_proj": 2}
    assert (found.matched, found.method, found.builds) == (4, "names", True)
    assert failure_of(found) is None


def test_evidence_survives_its_json_form():
    """It is stored, and read again."""
    scan = make_scan(layers=[*block_layers(), layer("vision.blocks.0.q_proj", tower="vision", role="attention.query")])
    found = evidence(("q_proj", "query"), scan=scan, registered=[registered_as("k_proj")])
    assert from_json(SubmissionEvidence, json.loads(json.dumps(to_json(found)))) == found


@pytest.mark.parametrize(
    ("targets", "fields"),
    [
        (("q_proj", "v_proj"), {}),
        (REGEX, {}),
        (r".*\.(q|v)_proj", {}),
        (r".*_proj", {"exclude_modules": r".*\.(k|o|up|down)_proj"}),
        (("self_attn.q_proj", "self_attn.v_proj"), {"exclude_modules": ("o_proj",)}),
    ],
    ids=["list", "regex", "loose regex", "regex and exclusion", "longer list"],
)
def test_the_spec_is_made_anew_from_the_layers(targets, fields):
    """However it was said: the same layers, the same shortest names."""
    found = evidence(targets, **fields)
    assert found.spec == TargetSpec(("q_proj", "v_proj"))
    assert found.matched == 4


def test_layers_that_only_numbers_tell_apart_get_a_generated_regex():
    """It hits the same in PEFT's engine as the contributor's did in RE2."""
    scan = make_scan(layers=block_layers(4))
    found = evidence(r".*\.[13]\.self_attn\.q_proj", scan=scan)
    assert found.matched == 2
    assert {x.path for x in find_hits(found.spec, scan.layers)} == {
        "model.layers.1.self_attn.q_proj",
        "model.layers.3.self_attn.q_proj",
    }


def test_experts_are_named_as_parameters():
    """A stack is no module; whatever else ends with its name is told apart."""
    stacks = [layer(f"model.layers.{n}.mlp.experts.down_proj", "expert_parameter", "expert.down") for n in (0, 1)]
    layers = [*block_layers(), *(replace(stack, shape=(8, 4, 4)) for stack in stacks)]
    found = evidence(None, scan=make_scan(layers=layers), target_parameters=("experts.down_proj",))
    assert found.verification.counts == {"experts.down_proj": {"expert_parameter": 2}}
    assert found.spec == TargetSpec(target_parameters=("down_proj",))


def test_ia3_scales_the_same_layers_at_the_input():
    """A regex of feed-forward layers is made anew too."""
    found = evidence(("k_proj", "down_proj"), "IA3", feedforward_modules=r".*down_proj")
    assert found.spec == TargetSpec(("k_proj", "down_proj"), feedforward_modules=("down_proj",))
    assert (found.per_rank, found.fixed) == (0, 16)


def test_what_is_outside_the_blocks_is_told():
    """Heads, routers and embeddings by their part, other towers by their name."""
    extra = [
        layer("model.layers.0.mlp.gate", "other", "moe.router"),
        layer("vision.blocks.0.q_proj", role="attention.query", tower="vision"),
        layer("vision.blocks.1.q_proj", role="attention.query", tower="vision"),
    ]
    scan = make_scan(layers=[*block_layers(), *extra], proposals=(proposal("self_attn.q_proj", "v_proj"),))
    found = evidence(("q_proj", "lm_head", "embed_tokens", "gate"), scan=scan)
    assert found.outside == {
        "head": ("lm_head",),
        "embedding": ("model.embed_tokens",),
        "router": ("model.layers.*.mlp.gate",),
        "vision": ("vision.blocks.*.q_proj",),
    }


def test_near_names_are_told_for_what_hits_nothing():
    """By spelling, by the end of a longer name, by what a layer does, and for the words of a regex."""
    near = evidence(("q_proj", "k_porj", "attn.v_porj", "query", "zzz")).near
    assert near["k_porj"][0] == "k_proj"
    assert near["attn.v_porj"][0] == "self_attn.v_proj"
    assert near["query"] == ("q_proj",)
    assert near["zzz"] == ()
    assert "q_proj" not in near
    assert evidence(r".*\.q_porj|.*\.v_proj_").near[r".*\.q_porj|.*\.v_proj_"][0] == "q_proj"


@pytest.mark.parametrize("targets", [("q_proj",), r".*\.q_proj"], ids=["name", "regex"])
def test_what_is_excluded_is_not_taken_for_a_slip(targets):
    """The name is there: it is not told that something like it would do."""
    none = evidence(targets, exclude_modules=("self_attn.q_proj",))
    assert none.near == {}
    assert failure_of(none).endswith("exclude_modules excludes all that it names.")
    some = evidence(("q_proj", "k_proj", "v_porj"), exclude_modules=("q_proj",))
    assert some.near == {"v_porj": ("v_proj", "q_proj", "o_proj")}


def test_a_module_to_save_that_is_not_there_is_a_finding():
    """It is left out of the spec; one that is there stays."""
    found = evidence(("q_proj",), modules_to_save=("lm_head", "clasifier"))
    assert found.verification.status == "partial"
    assert found.verification.findings[-1] == "modules_to_save clasifier matches nothing"
    assert found.spec.modules_to_save == ("lm_head",)
    assert found.near == {"clasifier": ()}


@pytest.mark.parametrize(
    ("targets", "fields"),
    [(("q_proj", "v_proj", "q_porj"), {}), (REGEX, {"modules_to_save": ("clasifier",)}), (("self_attn", "q_proj"), {})],
    ids=["a name", "a module to save", "no layer"],
)
def test_what_hits_nothing_is_no_fault_of_the_spec_made_anew(targets, fields):
    """It is left out; the spec is verified by itself, by its own names."""
    found = evidence(targets, **fields)
    assert found.verification.status == "partial"
    assert (found.spec_verification.status, found.spec_verification.findings) == ("unproven", ())
    assert {*found.spec_verification.counts} == {*found.spec.target_modules}


def test_differences_tell_which_layers_more_and_which_less():
    """From each answer on record, and from the scanner's own."""
    registered = [registered_as("q_proj", "v_proj"), registered_as("k_proj", kind="scanner")]
    found = evidence(("q_proj", "k_proj"), registered=registered)
    peft, scanner, proposed = found.differences
    assert (peft.against, peft.mapping_id) == ("peft 0.21.2, revision 3", "sha256:1")
    assert peft.more == {"model.layers.*.self_attn.k_proj": 2}
    assert peft.less == {"model.layers.*.self_attn.v_proj": 2}
    assert scanner.more == {"model.layers.*.self_attn.q_proj": 2}
    assert scanner.less == {}
    assert (proposed.against, proposed.mapping_id) == ("the scanner's proposal", None)


def test_sizes_are_the_proposals_where_the_layers_are():
    """Else they are counted, or not told where the scan does not know enough."""
    assert (evidence(("v_proj", "q_proj")).per_rank, evidence(("q_proj", "v_proj")).fixed) == (16, 0)
    assert evidence(("q_proj",)).per_rank == 2 * (4 + 4)
    assert evidence(("q_proj",), modules_to_save=("lm_head",)).per_rank is None
    assert evidence(("input_layernorm",), "LN_TUNING").per_rank is None
    assert evidence(("q_proj",), "VERA").per_rank is None


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (("q_porj",), "It matches nothing of this architecture. Closest: 'q_proj'"),
        (r"nothing\.at\.all", "It matches nothing of this architecture."),
        (("input_layernorm",), "It matches nothing that an adapter fits: input_layernorm hits 2 norm layers"),
        (("self_attn",), "It matches nothing that an adapter fits: self_attn hits 2 modules no adapter can live on"),
        (("dead_proj",), "It matches only dead layers: dead_proj is dead in 1 of 1 layer: no gradient: none came"),
    ],
)
def test_what_cannot_work_fails(targets, says):
    """In one sentence, which names what was hit."""
    dead = replace(layer("model.layers.0.dead_proj"), live=False, proof="none came")
    found = evidence(targets, scan=make_scan(layers=[*block_layers(), dead]))
    assert failure_of(found).startswith(says)
    assert (found.verification is None) == ("matches nothing of" in says)


def test_a_listing_is_unproven():
    """However its layers are known is told."""
    found = evidence(("q_proj",), method="listing")
    assert (found.method, found.builds, found.verification.status) == ("listing", False, "unproven")


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "feedforward_modules"])
@pytest.mark.parametrize(
    "regex",
    [r"(a)\1", r"(?!x)q_proj", r"(?<=x)q_proj", "(", "a{1001}", "((a{100}){100}){100}", r"(?P<n>a)(?P=n)", "q" * 4097],
)
def test_what_re2_leaves_out_is_refused(field, regex):
    """With the field, the reason and the way out; before anything is matched."""
    statement = replace(state(), **{field: regex})
    with pytest.raises(InvalidStatement, match=rf"^{field}.*(RE2|4096)") as caught:
        check_regexes(statement)
    assert caught.value.details["field"] == field


@pytest.mark.parametrize("regex", [r"(x+x+)+y", r"(.*.*.*.*)*_", r"([a-z.0-9_]+)+!", r"(\w|\w\w)*$x"])
def test_a_catastrophic_regex_ends(regex, monkeypatch):
    """It is matched in linear time, and never by re."""

    def refuse(*_):
        pytest.fail("a contributor's regex ran in re")

    layers = [layer(f"model.layers.{n}.{'x' * 200}", depth=1) for n in range(500)]
    scan = make_scan(layers=[*block_layers(), *layers])
    monkeypatch.setattr(TargetMatcher, "_regex", property(refuse))
    gather_evidence(scan, state(regex), (), None)  # going back, none of these would end


@pytest.mark.parametrize("regex", [REGEX, r".*proj", r"model\..*", r"(?i).*Q_PROJ", r"[^.]+"])
def test_re2_matches_as_peft_does(regex):
    """For what both know, the whole path decides."""
    paths = make_scan().module_paths
    ours = [path for path in paths if LinearMatcher(regex).find(path)]
    assert ours == [path for path in paths if re.fullmatch(regex, path)]


def test_a_spec_that_takes_pages_is_refused():
    """Layers that nothing but their numbers tell apart, by the thousand."""
    layers = [layer(f"model.layers.{n}.q_proj") for n in range(8000)]
    scan = make_scan(layers=layers, proposals=())
    with pytest.raises(InvalidStatement, match="characters to name, more than 16384"):
        evidence(r".*\.\d*[028]\.q_proj", scan=scan)


def test_many_patterns_are_counted():
    """Two hundred are told, the rest is one number."""
    names = [f"{a}{b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst"]
    scan = make_scan(layers=[layer(f"model.{name}.q_proj") for name in names], proposals=())
    found = evidence(("q_proj",), scan=scan)
    assert found.layers["(200 other patterns)"] == 200
    assert sum(found.layers.values()) == found.matched == 400


def test_without_re2_lists_are_weighed_all_the_same(monkeypatch):
    """Only a regex needs the extra."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda name: None if name == "re2" else name)
    assert evidence(("q_proj",)).matched == 2
    with pytest.raises(MissingExtra, match="re2"):
        compile_regex("q_proj")


def test_of_hundreds_of_misspelt_names_few_are_looked_up():
    """The first few have near names; the others are told to hit nothing all the same."""
    scan = make_scan(layers=[layer(f"model.part_{n}.proj_{n}") for n in range(3000)], proposals=())
    found = evidence(tuple(f"porj_{n}" for n in range(512)), scan=scan)
    assert len(found.near) == 512
    assert found.near["porj_7"][0].startswith("proj_")
    assert found.near["porj_400"] == ()
