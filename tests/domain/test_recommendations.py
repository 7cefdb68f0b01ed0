"""Recommendations: families by structure, the layers each takes, and where PEFT's convention is no default."""

import re
from collections import defaultdict
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from packaged import packaged_catalogs

from loradar.domain.choosing.recommendations import (
    TELLS,
    Structure,
    choose_recommended,
    count_reached,
    find_rule,
    prefer_recommended,
    read_rules,
)
from loradar.domain.choosing.slot_hits import find_targets
from loradar.domain.layers import UNCALLED, Layer
from loradar.domain.presets import ADDED, NEVER, choose_lora, is_adaptable
from loradar.domain.vocabulary import PRESETS

ENTRIES = {entry.architecture.reference: entry for catalog in packaged_catalogs() for entry in catalog.entries}


def family_of(reference, slots=None, class_name=None):
    """Return the family of an architecture of the catalog, by its slots."""
    entry = ENTRIES[reference]
    widest = next(p for p in entry.proposals if (p.peft_type, p.preset) == ("LORA", "all-linear"))
    towers = {slot.tower for slot, hit in zip(entry.slots, find_targets(widest.spec, entry.slots), strict=True) if hit}
    return find_rule(Structure.of_slots(slots or entry.slots, towers, class_name or entry.architecture.class_name)).name


def test_every_family_has_a_rule_and_a_way_to_tell_it():
    """In the same order; each rule names presets there are, its evidence, and a recipe."""
    rules = read_rules()
    assert [*rules] == [*TELLS, "other"]
    for rule in rules.values():
        assert {*rule.layers, rule.tight} <= {*PRESETS} - {"recommended", "everything"}
        assert rule.strength in {"strong", "mixed", "practice", "none"}
        assert rule.sources
        assert rule.why
        assert rule.recipe.rank > 0
        assert rule.recipe.notes


FAMILIES = {
    "decoder": "llama mistral qwen3 gpt2 gpt_neox falcon gemma2 phi3 bloom mpt",
    "encoder": "bert roberta modernbert deberta-v2 albert fnet",
    "encoder-decoder": "t5 bart m2m_100 pegasus autoformer",
    "mixture-of-experts": "mixtral qwen3_moe deepseek_v3 gpt_oss llama4 qwen3_vl_moe",
    "sequential-hybrid": "qwen3_5_text granitemoehybrid jamba bamba qwen3_next recurrent_gemma qwen3_5",
    "parallel-hybrid": "falcon_h1",
    "state-space": "mamba mamba2 falcon_mamba rwkv",
    "vision-language": "llava qwen2_vl gemma3 paligemma qwen2_audio",
    "dual-encoder": "clip siglip2 clap owlvit",
    "vision-transformer": "vit dinov2 swin timm:vit_base_patch16_224 timm:swin_tiny_patch4_window7_224",
    "detector": "detr rt_detr sam mask2former",
    "convolutional": "resnet timm:resnet18 timm:efficientnet_b0 timm:regnety_002 diffusers:AutoencoderKL",
    "diffusion-transformer": "diffusers:FluxTransformer2DModel diffusers:SD3Transformer2DModel",
    "diffusion-unet": "diffusers:UNet2DConditionModel diffusers:UNet3DConditionModel diffusers:ControlNetModel",
    "speech": "whisper wav2vec2 hubert speecht5",
}


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for family, names in FAMILIES.items() for name in names.split()]
)
def test_the_family_of_known_architectures(name, family):
    """By roles, towers and blocks of the stored slots."""
    assert family_of(name if ":" in name else f"transformers:{name}") == family


def layer(path, role, kind="linear", tower="language", block=None):
    """Return a layer in the block of its first two segments, or in another."""
    return Layer(
        path, kind, "Linear", (4, 4), 4, 4, block=block or ".".join(path.split(".")[:2]), role=role, tower=tower
    )


def adaptable(layers):
    """Return the layers that may be adapted."""
    return [one for one in layers if is_adaptable(one)]


def paths(choice):
    """Return the paths of a choice."""
    return [one.path for one in choice.layers]


def hybrid(*, has_mlp=True):
    """Return four blocks, one of them with attention, the others with a recurrence."""
    mixers = [layer(f"layers.{n}.mixer.{name}", f"mixer.{name}put") for n in (0, 1, 2) for name in ("in", "out")]
    attention = [layer(f"layers.3.{name}", f"attention.{name}") for name in ("query", "value", "output")]
    mlps = [layer(f"layers.{n}.mlp.{name}", f"mlp.{name}") for n in range(4) for name in ("up", "down")]
    norms = [layer(f"layers.{n}.norm", "norm", "norm") for n in range(4)]
    return [*norms, *mixers, *attention, *(mlps if has_mlp else ())]


def test_a_recurrence_between_attention_is_left_alone():
    """Attention and feed-forward, which every block has."""
    layers = hybrid()
    chosen = choose_recommended(adaptable(layers), layers)
    assert {one.role.partition(".")[0] for one in chosen.layers} == {"attention", "mlp"}


def test_blocks_with_a_recurrence_alone_are_not_left_out():
    """Without feed-forward networks, attention and feed-forward reach one block of four: every dense layer is taken."""
    layers = hybrid(has_mlp=False)
    chosen = choose_recommended(adaptable(layers), layers)
    assert paths(chosen) == [one.path for one in adaptable(layers)]
    assert "too few blocks" in chosen.why


def convolved(count=3, tower="main"):
    """Return blocks of two convolutions, and one with attention."""
    convolutions = [
        layer(f"resnets.{n}.conv{m}", "conv.spatial", "conv2d", tower) for n in range(count) for m in (1, 2)
    ]
    attention = [layer(f"attentions.9.{name}", f"attention.{name}", tower=tower) for name in ("query", "value")]
    return [*convolutions, *attention]


def test_blocks_of_convolutions_are_not_left_out():
    """A few blocks with attention among convolutions: both are adapted."""
    layers = convolved()
    assert len(choose_recommended(layers, layers).layers) == len(layers)


def test_blocks_that_the_forward_never_calls_are_not_added():
    """Nor need they be reached: beside attention in one block, two of convolutions run and two do not."""
    attention, ran = convolved(0), convolved(2)[:4]
    idle = [replace(one, path=f"idle.{one.path}", block=f"idle.{one.block}", proof=UNCALLED) for one in ran]
    chosen = choose_recommended([*attention, *ran, *idle], [*attention, *ran, *idle])
    assert chosen.layers == (*attention, *ran)


def test_a_unet_under_a_condition_keeps_its_convolutions():
    """As the training scripts do; the embedder of the time tells it, and is not adapted."""
    layers = convolved()
    time = layer("time_embedding.linear", "embedding.condition", tower="main")
    assert paths(choose_recommended(layers, [*layers, time])) == ["attentions.9.query", "attentions.9.value"]


def test_steps_of_a_sequence_are_no_blocks():
    """The two layers of a feed-forward network in an ``nn.Sequential`` stand in the block around it."""
    layers = [
        layer("blocks.0.query", "attention.query"),
        layer("blocks.0.value", "attention.value"),
        layer("blocks.0.net.0", "mlp.up", block="blocks.0.net.0"),
        layer("blocks.0.net.2", "mlp.down", block="blocks.0.net.2"),
    ]
    assert count_reached(layers[:2], layers) == (1, 1)


@pytest.mark.parametrize(("others", "is_replaced"), [(1, False), (2, True)])
def test_the_convention_stays_the_default_from_half_of_the_blocks_on(others, is_replaced):
    """One block with attention beside one without is half of them, beside two it is less."""
    attention = [layer(f"layers.9.{name}", f"attention.{name}") for name in ("query", "value")]
    mlps = [layer(f"layers.{n}.mlp.{name}", f"mlp.{name}") for n in range(others) for name in ("up", "down")]
    layers = [*attention, *mlps]
    default = prefer_recommended(choose_lora(layers, "default"), choose_recommended(layers, layers), layers)
    assert (paths(default) == [one.path for one in layers]) is is_replaced
    assert ("PEFT has no entry" in default.why) is is_replaced
    assert default.preset == "default"


# --- over the whole catalog, by slots alone ---------------------------------------------------------------------------

NARROW = {rule.name for rule in read_rules().values() if rule.narrow}
"""Families whose blocks of convolutions stay as they are: their sources leave them alone."""


def layers_of(entry):
    """Return a layer for each member of each slot, numbered in its innermost list of blocks."""
    made = []
    for slot in entry.slots:
        head, star, rest = slot.pattern.rpartition(".*.")
        for n in range(slot.count):
            path = f"{head.replace('*', '0')}.{n}.{rest}" if star else f"{slot.pattern}.{n}" if n else slot.pattern
            block = path.removesuffix(f".{rest}") if star else None
            values = {"role": slot.role, "tower": slot.tower, "live": slot.live, "kernel": slot.kernel}
            values |= {"block": block, "depth": int(bool(star)), "bypassed": slot.bypassed}
            made.append(Layer(path, slot.kind, "", (4, 4), 4, 4, **values))
    return made


def recommended_in(entry):
    """Return (chosen, candidates, rule) of each tower that proposals adapt."""
    widest = next(p for p in entry.proposals if (p.peft_type, p.preset) == ("LORA", "all-linear"))
    towers = {slot.tower for slot, hit in zip(entry.slots, find_targets(widest.spec, entry.slots), strict=True) if hit}
    layers = layers_of(entry)
    with_blocks = {one.tower for one in layers if one.depth}
    for tower in sorted(towers):
        own = [one for one in layers if one.tower == tower and (one.depth or tower not in with_blocks)]
        candidates = [one for one in own if is_adaptable(one)]
        if candidates:
            rule = find_rule(Structure.of_layers((x for x in layers if x.tower == tower), {tower}))
            yield choose_recommended(candidates, layers), candidates, rule


PROPOSED = [entry for entry in ENTRIES.values() if entry.proposals]


GATED = {
    *(f"timm:{prefix}efficientnet_cc_{size}" for prefix in ("", "tf_") for size in ("b0_4e", "b0_8e", "b1_8e")),
    *("timm:lcnetv2_large", "timm:mobileone_s4", "transformers:pp_lcnet_v3", "transformers:pp_ocrv5_mobile_det"),
    *("transformers:pp_ocrv5_mobile_rec", "transformers:upernet"),
}
"""Convolutional networks with blocks where only gates take an adapter, such as those of squeeze and excitation."""


@pytest.fixture(scope="module")
def recommended():
    """What is recommended in every entry: (entry, [(chosen, candidates, rule) of each tower])."""
    return [(entry, [*recommended_in(entry)]) for entry in PROPOSED]


def test_recommended_layers_reach_nine_tenths_of_the_blocks_everywhere(recommended):
    """But in families whose sources leave blocks alone; and nothing is taken that no preset adapts."""
    short = {}
    for entry, towers in recommended:
        for chosen, candidates, rule in towers:
            hit, of = count_reached(chosen.layers, candidates)
            assert all(map(is_adaptable, chosen.layers)), entry.architecture.reference
            if hit < 0.9 * of and rule.name not in NARROW:
                short[entry.architecture.reference] = (hit, of)
    assert {*short} == GATED
    assert len(PROPOSED) > 2300


def test_the_recurrence_of_sequential_hybrids_is_left_alone_where_every_block_has_a_feed_forward_network(recommended):
    """Of all in the catalog; those with blocks of a recurrence alone are adapted whole."""
    found = {}
    for entry, towers in recommended:
        for chosen, _, rule in towers:
            if rule.name == "sequential-hybrid":
                found[entry.architecture.name] = any(one.role.startswith("mixer") for one in chosen.layers)
    assert len(found) > 20
    assert {"qwen3_5_text", "granitemoehybrid", "qwen3_next", "lfm2"} <= {
        name for name, has in found.items() if not has
    }


# --- what is stored for recommended, by the layers its reasons name and the blocks it covers --------------------------

SLOT_REASON = re.compile(r"(\S+?)(?: is (\S+))? \(\d+ layers?\)")
SHORT = {
    "blocks whose only layers without groups are gates, such as those of squeeze and excitation": {
        *("timm:efficientvim_m*", "timm:shvit_s*", "timm:mobileone_s4", "transformers:regnet"),
        "transformers:pp_ocrv5_mobile_det",
    },
    "blocks of a depthwise convolution alone, which share the name of others": {
        "timm:efficientvit_m?",
        "timm:iformer_*",
    },
    "no gradient comes to the other blocks: three of four mask heads, and what follows the block that is read": {
        *("transformers:edgetam_mask_decoder", "transformers:edgetam_video*", "transformers:sam"),
        *("transformers:sam*_mask_decoder", "transformers:sam2_video", "transformers:sam3_tracker*"),
        "transformers:vitpose",
    },
    "lists of patch embeddings": {"timm:crossvit_9_*"},
    "blocks of dilated convolutions, which PEFT 0.21.2 fails to adapt": {"transformers:uvdoc*"},
    "blocks of a duration predictor, which no gradient reaches or the forward never calls": {"transformers:vits"},
}
"""Architectures of which less than nine tenths of the blocks are reached, by the reason; those of ``NARROW`` too."""
LESS_PROVED = {"transformers:depth_pro"}
"""Architectures whose ``all-linear`` is live, while a layer that ``recommended`` adds is unproven."""


def stored_for(entry):
    """Return the proposal that answers for recommended, its verification, and that of all-linear."""
    checked = {
        p.preset: (p, check) for p, check in zip(entry.proposals, entry.checks, strict=True) if p.peft_type == "LORA"
    }
    return *checked.get("recommended", checked["all-linear"]), checked["all-linear"]


def hits(proposal, entry):
    """Return the slots that a proposal matches."""
    found = zip(entry.slots, find_targets(proposal.spec, entry.slots), strict=True)
    return [slot for slot, target in found if target is not None]


def home(entry):
    """Return the towers that proposals adapt, by the slots that the reasons of all-linear name."""
    known = {slot.pattern: slot.tower for slot in entry.slots}
    return {known[match[1]] for match in named_in(stored_for(entry)[2][0], known)}


def named_in(proposal, known):
    """Return the reasons of a proposal that name a slot, as (pattern, role)."""
    found = (SLOT_REASON.fullmatch(reason) for reason in proposal.reasons)
    return [match for match in found if match and match[1] in known]


def block_of(pattern):
    """Return the pattern of the innermost block around a layer; empty outside every block."""
    head, star, _ = pattern.rpartition(".*.")
    return f"{head}.*" if star else ""


def count_stored(entry):
    """Return (blocks reached, blocks) of the adapted towers, of blocks that hold a layer that takes an adapter.

    A block around others is reached with them; one with a single layer inside another is a step of it.
    """
    proposal, towers = stored_for(entry)[0], home(entry)
    everything = next(p for p in entry.proposals if (p.peft_type, p.preset) == ("LORA", "everything"))
    inside = defaultdict(set)
    for slot in hits(everything, entry):
        if slot.tower in towers and slot.role not in NEVER | ADDED:
            inside[block_of(slot.pattern)].add((slot.pattern, slot.kind))
    inside.pop("", None)
    chosen = [slot.pattern for slot in hits(proposal, entry)]
    counts = []
    for kind in proposal.coverage:
        block = kind.block.partition(" ")[0]
        if block not in inside:
            continue
        if len(inside[block]) == 1 and any(o != block and block.startswith(f"{o}.") for o in inside):
            continue  # a step of the block around it
        is_around = any(x.startswith(f"{block}.") and block_of(x) != block for x in chosen)
        counts.append((kind.of if is_around else kind.hit, kind.of))
    return tuple(map(sum, zip(*counts, strict=True))) if counts else (0, 0)


def test_stored_recommendations_hit_no_head_router_modulation_or_frozen_tower():
    """Of every architecture, by the slots that the reasons name with their roles."""
    for entry in PROPOSED:
        towers, known = home(entry), {slot.pattern: slot.tower for slot in entry.slots}
        named = named_in(stored_for(entry)[0], known)
        assert named, entry.architecture.reference
        for match in named:
            assert match[2] not in NEVER | ADDED, (entry.architecture.reference, match[0])
            assert known[match[1]] in towers, (entry.architecture.reference, match[0])


def test_towers_that_a_vision_language_model_keeps_frozen_are_left_alone():
    """The language model alone is adapted, in each of the family."""
    count = 0
    for entry in PROPOSED:
        proposal, towers = stored_for(entry)[0], home(entry)
        if find_rule(Structure.of_slots(entry.slots, towers, entry.architecture.class_name)).name == "vision-language":
            count += 1
            assert {slot.tower for slot in hits(proposal, entry)} == {"language"}, entry.architecture.reference
    assert count > 60


def test_stored_recommendations_are_proved_like_the_others():
    """No verification is worse than unproven, and none worse than that of all-linear but those listed."""
    less = set()
    for entry in PROPOSED:
        _, check, (_, widest) = stored_for(entry)
        assert check.status in ("live", "unproven"), entry.architecture.reference
        if check.status != widest.status:
            less.add(entry.architecture.reference)
    assert less == LESS_PROVED
    live = sum(stored_for(entry)[1].status == "live" for entry in PROPOSED)
    assert live > 0.97 * len(PROPOSED)


def test_stored_recommendations_reach_nine_tenths_of_the_blocks():
    """Of every architecture with blocks, but those listed with a reason and in docs/training/recommendations.md."""
    short = {}
    for entry in PROPOSED:
        hit, of = count_stored(entry)
        towers = home(entry)
        rule = find_rule(Structure.of_slots(entry.slots, towers, entry.architecture.class_name)).name
        if hit < 0.9 * of and rule not in NARROW:
            short[entry.architecture.reference] = (hit, of)
    listed = {name: reason for reason, names in SHORT.items() for name in names}
    unlisted = {name for name in short if not any(fnmatchcase(name, pattern) for pattern in listed)}
    assert not unlisted
    assert all(any(fnmatchcase(name, pattern) for name in short) for pattern in listed), "no longer short"
    text = (Path(__file__).parent.parent.parent / "docs/training/recommendations.md").read_text("utf-8")
    assert all(pattern.partition(":")[2] in text for pattern in listed)
