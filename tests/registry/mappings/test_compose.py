"""Composite architectures: for which make-up an answer holds, and answers composed for another one."""

import re
from dataclasses import replace

import pytest
from records_zoo import VERSION, layer, make_scan, proposal

from loradar.domain.architectures import ModelPart
from loradar.domain.patterns import pattern_of
from loradar.domain.targets import find_hits
from loradar.errors import InvalidRequest, NotRegistered, UnknownArchitecture, UnknownName
from loradar.registry import Registry

PARTS = (
    ModelPart("text", "decoder", True, "language_model", "DecoderForCausalLM", False),  # noqa: FBT003
    ModelPart("vision", "eye", False, "vision_model", "EyeModel"),  # noqa: FBT003
)


def scan_of(name, towers, named, **changes):
    """Return a scan whose layers have these roles by path, with the slots they make."""
    layers = [layer(path, role=role, tower=tower) for path, (role, tower) in named.items()]
    made = make_scan(name, layers=layers, **changes)
    slots = {pattern_of(one.path): one for one in layers}
    counts = {pattern: sum(pattern_of(one.path) == pattern for one in layers) for pattern in slots}
    return replace(
        made,
        towers=towers,
        slots=tuple(
            replace(make_scan().slots[0], tower=one.tower, role=one.role, pattern=pattern, count=counts[pattern])
            for pattern, one in slots.items()
        ),
    )


def blocks(start, names, tower="language"):
    """Return the roles of layers in two blocks, by path."""
    return {f"{start}.{n}.{name}": (role, tower) for n in range(2) for name, role in names.items()}


DECODER = {"attn.q_proj": "attention.query", "attn.v_proj": "attention.value", "mlp.up_proj": "mlp.up"}
SEQ = {"att.q": "attention.query", "att.v": "attention.value", "ff.wi": "mlp.up"}
EYE = {"attn.q_proj": "attention.query", "attn.v_proj": "attention.value"}
HEAD = {"lm_head": ("head", "language")}


def composite(**changes):
    """Return the scan of a model that sees and speaks, whose decoder is of any type."""
    named = {
        **blocks("vision_model.layers", EYE, "vision"),
        **blocks("language_model.model.layers", DECODER),
        "language_model.lm_head": ("head", "language"),
    }
    towers = {"language": ("language_model",), "vision": ("vision_model",)}
    regex = r"language_model\..*\.(?:q_proj|v_proj)"
    proposals = (
        replace(proposal(), target_modules=regex),
        replace(proposal(preset="mlp"), target_modules=("up_proj",)),
    )
    return replace(scan_of("seer", towers, named, proposals=proposals, **changes), parts=PARTS)


@pytest.fixture
def filled(registry):
    """A registry that knows the composite, its decoder, two other language models and one that only sees."""
    mlp = proposal("up_proj", preset="mlp")
    decoder = {**blocks("model.layers", DECODER), **HEAD}
    registry.add_scan(
        scan_of("decoder", {"language": ("model",)}, decoder, proposals=(proposal("q_proj", "v_proj"), mlp))
    )
    seq = {**blocks("encoder.block", SEQ), **HEAD}
    keyed = replace(proposal(peft_type="IA3"), target_modules=("v", "wi"), feedforward_modules=("wi",))
    registry.add_scan(scan_of("seq", {"language": ("",)}, seq, proposals=(proposal("q", "v"), keyed)))
    clash = {**blocks("net.h", EYE), **HEAD}
    registry.add_scan(scan_of("clash", {"language": ("net",)}, clash, proposals=(proposal("q_proj", "v_proj"),)))
    sight = blocks("layers", EYE, "vision")
    registry.add_scan(scan_of("sight", {"vision": ("",)}, sight, proposals=(proposal("q_proj"),)))
    registry.add_scan(composite())
    return registry


def test_an_answer_says_for_which_make_up_it_holds(filled):
    """Also read without SQLAlchemy, and with the way to ask for another."""
    found = filled.lookup("seer")
    assert found.reasons[-3:] == (
        "of the default configuration: text model decoder, vision model eye",
        "another text model may have other layers: name it as part text=TYPE",
        "no coverage: no repeated block is on record",
    )
    assert found.parts == PARTS
    assert found == filled.lookup("seer", parts={"text": "decoder"})
    assert filled.get_architecture("transformers", "seer").parts == PARTS
    assert not filled.lookup("decoder").parts
    assert "default configuration" not in str(filled.lookup("decoder").reasons)


def test_another_model_has_its_own_layers_under_the_part(filled):
    """As in its own architecture; the rest is as scanned, and the answer says what it is made of."""
    found = filled.lookup("seer", parts={"text": "seq"})
    assert found.target_modules == ("q", "v")
    assert found.matched == 4
    assert found.parts[0].model_type == "seq"
    check = found.verification
    assert (check.status, check.library_version) == ("unproven", VERSION)
    assert check.counts == {"q": {"linear": 2}, "v": {"linear": 2}}
    assert check.findings[0] == (
        f"composed, not run: text model seq as transformers:seq (scanner 0.1.0, unproven on {VERSION})"
    )
    assert "language_model.encoder.block.*.att.q is attention.query (2 layers)" in found.reasons
    assert "holds for text model seq, vision model eye" in found.reasons
    assert found.formula == filled.lookup("seq").formula
    assert found.id != filled.lookup("seer").id
    assert found.parts != filled.lookup("seer").parts


def test_targets_match_no_layer_of_another_part(filled):
    """Names that stand in the vision model too are told apart by the path."""
    found = filled.lookup("seer", parts={"text": "clash"})
    named = {
        **blocks("vision_model.layers", EYE, "vision"),
        **blocks("language_model.net.h", EYE),
    }
    layers = [layer(path, role=role) for path, (role, _) in named.items()]
    assert {one.path for one in find_hits(found.spec, layers)} == {*blocks("language_model.net.h", EYE)}


def test_a_base_model_stands_without_its_head(filled):
    """A composite that builds the base model has no path of the head's class in between."""
    bare = replace(PARTS[0], is_bare=True)
    named = {**blocks("language_model.layers", DECODER), **blocks("vision_model.layers", EYE, "vision")}
    towers = {"language": ("language_model",), "vision": ("vision_model",)}
    regex = r"language_model\..*\.(?:q_proj|v_proj)"
    proposals = (replace(proposal(), target_modules=regex),)
    filled.add_scan(replace(scan_of("bare", towers, named, proposals=proposals), parts=(bare, PARTS[1])))
    found = filled.lookup("bare", parts={"text": "clash"})
    assert any(reason.startswith("language_model.h.*.attn.q_proj is") for reason in found.reasons)


def test_every_method_is_composed(filled):
    """IA3's feed-forward names are found below the part too; a method that shares LoRA's targets gets them."""
    found = filled.lookup("seer", "LOHA", parts={"text": "seq"})
    assert found.target_modules == ("q", "v")
    filled.add_scan(replace(composite(), proposals=(replace(proposal(peft_type="IA3"), target_modules=("up_proj",)),)))
    scaled = filled.lookup("seer", "IA3", parts={"text": "seq"})
    assert (scaled.target_modules, scaled.feedforward_modules) == (("v", "wi"), ("wi",))


def test_what_is_only_in_the_composite_is_said(filled):
    """A decoder may have cross-attention there that it has not alone."""
    more = blocks("language_model.model.layers", {"cross.q_proj": "attention.query"})
    scan = composite()
    extra = [replace(scan.slots[0], tower="language", pattern=pattern_of(path)) for path in more][:1]
    filled.add_scan(replace(scan, slots=(*scan.slots, *extra)))
    reasons = filled.lookup("seer", parts={"text": "seq"}).reasons
    assert any(
        "has layers there that it has not alone, such as language_model.model.layers.*.cross" in r for r in reasons
    )


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (
            {"txt": "seq"},
            UnknownName,
            "Unknown name 'txt'. Closest: 'text'. The parts of transformers:seer .*: text \\(dec",
        ),
        ({"text": "sec"}, UnknownArchitecture, "Unknown architecture 'sec'. Closest: 'seq'"),
        (
            {"vision": "sight"},
            InvalidRequest,
            "'vision' of transformers:seer is always 'eye'. Free: text \\(decoder\\)",
        ),
        (
            {"text": "sight"},
            InvalidRequest,
            "text model of transformers:seer is a language model, and 'sight' has 'vision'",
        ),
        ({"text": "bert"}, NotRegistered, "transformers:bert was never scanned"),
    ],
)
def test_a_wrong_part_is_one_clear_error(filled, parts, error, message):
    """With the part, the type and the known ones."""
    with pytest.raises(error, match=message):
        filled.lookup("seer", parts=parts)


def test_what_is_not_composite_has_no_parts_to_choose(filled):
    """Neither has one that a catalog without parts describes."""
    with pytest.raises(InvalidRequest, match="transformers:decoder has no part of a free type on record"):
        filled.lookup("decoder", parts={"text": "seq"})


def test_parts_are_known_for_the_scanned_version_alone(filled):
    """Slots are those of the newest version; an older one is not answered with them."""
    older = replace(composite(), architecture=replace(composite().architecture, library_version="4.0.0"))
    filled.add_scan(older)
    with pytest.raises(
        InvalidRequest, match=re.escape(f"can be chosen for transformers {VERSION} alone, not for 4.0.0")
    ):
        filled.lookup("seer", library_version="4.0.0", parts={"text": "seq"})
    assert filled.lookup("seer", library_version=VERSION, parts={"text": "seq"}).target_modules == ("q", "v")


def test_the_field_of_the_configuration_names_a_part_too(filled):
    """``text_config`` is ``text``."""
    assert filled.lookup("seer", parts={"text_config": "seq"}).target_modules == ("q", "v")


@pytest.mark.usefixtures("filled")
def test_parts_survive_reopening(settings):
    """They are stored with the architecture."""
    with Registry.open(settings) as again:
        assert again.lookup("seer").parts == PARTS
