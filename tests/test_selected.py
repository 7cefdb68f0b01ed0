"""Selections from the registry's slots, against the towers that other projects name and a filter over the slots.

The prefixes are facts of the models (transformers 5), where ms-swift (``language_model``, ``aligner``,
``vision_tower``), LLaMA-Factory (``language_model_keys``, ``projector_key``, ``vision_model_keys``) and unsloth (tags
of the paths) look for them in llava, qwen2_vl, mllama, idefics3, deepseek_vl, paligemma and their like, as read in
their source. Types with the same layout that their tables do not list yet are held to the same rule.
"""

from fnmatch import fnmatchcase

import pytest

from loradar.api import running
from loradar.cli import main
from loradar.client import Client
from loradar.domain.choosing.members import list_members
from loradar.domain.patterns import pattern_of
from loradar.domain.presets import ADAPTABLE_KINDS, is_reached
from loradar.domain.targets import find_hits
from loradar.errors import InvalidRequest, UnknownName
from loradar.registry import Registry
from loradar.registry.mappings.composition import match_slots
from loradar.settings import Settings

LLAVA = {"language": "model.language_model", "projector": "model.multi_modal_projector", "vision": "model.vision_tower"}
QWEN = {
    "language": "model.language_model",
    "projector": "model.visual.merger model.visual.deepstack_merger_list",
    "vision": "model.visual",
}
QFORMER = {"language": "language_model", "projector": "qformer language_projection", "vision": "vision_model"}
DUAL = {"language": "text_model", "projector": "text_projection visual_projection", "vision": "vision_model"}
IDEFICS = {"language": "model.text_model", "projector": "model.connector", "vision": "model.vision_model"}
AUDIO = {"language": "model.language_model", "projector": "model.multi_modal_projector", "audio": "model.audio_tower"}
COMPOSITES = [
    (LLAVA, "aria aya_vision cohere2_vision deepseek_ocr2 fast_vlm florence2 gemma3 got_ocr2 internvl lfm2_vl lfm3_vl"),
    (LLAVA, "llava llava_next llava_next_video llava_onevision minimax_m3_vl mistral3 mistral_large4 molmo2 paligemma"),
    (LLAVA, "perception_lm pp_chart2table qianfan_ocr unlimited_ocr vipllava"),
    (
        QWEN,
        "cohere_compass cosmos3_omni exaone4_5 glm46v glm4v glm4v_moe glm5_next glm_ocr qwen2_5_vl qwen2_vl qwen3_5",
    ),
    (QWEN, "qwen3_5_moe qwen3_vl qwen3_vl_moe qwen4_exp"),
    (QFORMER, "blip-2 instructblip instructblipvideo"),
    (IDEFICS, "idefics2 idefics3 modernvbert smolvlm ultravbert"),
    (DUAL, "aimv2 align altclip chinese_clip clip clipseg groupvit metaclip_2 siglip siglip2 tipsv2"),
    (DUAL, "vision-text-dual-encoder"),
    (LLAVA | {"vision": "model.vision_model"}, "mllama step3p7"),
    (LLAVA | {"vision": "model.vision_model", "projector": "model.aligner"}, "deepseek_vl"),
    (LLAVA | {"vision": "model.image_tower model.video_tower"}, "video_llava"),
    ({"language": "language_model", "projector": "multi_modal_projector", "vision": "vision_model"}, "llama4"),
    ({name: f"vlm.{path.removeprefix('model.')}" for name, path in LLAVA.items()}, "colpali"),
    (AUDIO, "audioflamingo3 fun_asr_nano glmasr moss_transcribe_diarize musicflamingo qwen2_audio qwen3_asr voxtral"),
    (AUDIO, "voxtral_realtime"),
]
CASES = [(name, prefixes) for prefixes, names in COMPOSITES for name in names.split()]
SELECTED = ("attention.*", "mlp.*", "mlp.down", "*")


@pytest.fixture(scope="module")
def known(seeded):
    """The registry of the packaged catalog, which everybody reads."""
    with Registry.open(Settings(seeded.parent, f"sqlite:///{seeded}")) as opened:
        yield opened


def is_below(path, prefixes):
    """Return whether a path is at or below one of the prefixes."""
    return any(f"{path}.".startswith(f"{prefix}.") for prefix in prefixes.split())


def belongs(path, tower, prefixes):
    """Return whether a layer is of a tower, by the prefixes alone: a projector inside a tower is a projector."""
    if tower != "projector" and is_below(path, prefixes["projector"]):
        return False
    return is_below(path, prefixes[tower])


def test_the_table_has_sixty_types_of_vision_language_models():
    """Those with audio alone not counted."""
    assert sum("vision" in prefixes for _, prefixes in CASES) >= 60


@pytest.mark.parametrize(("name", "prefixes"), CASES, ids=[name for name, _ in CASES])
def test_towers_and_roles_are_those_that_other_projects_select(known, name, prefixes):
    """The live layers of the blocks, in every tower, by every pattern of roles."""
    layers = [layer for slot in known.list_slots("transformers", name) for layer, _ in list_members(slot)]
    fit = [x for x in layers if x.kind in ADAPTABLE_KINDS and x.misfit is None and is_reached(x)]
    network = [x for x in fit if x.role.startswith(("attention.", "mlp.")) and "*" in pattern_of(x.path)]
    for tower in prefixes:
        for roles in SELECTED[:3]:
            wanted = (x for x in network if belongs(x.path, tower, prefixes) and fnmatchcase(x.role, roles))
            expected = {x.path for x in wanted}
            if not expected:
                continue
            mapping = known.lookup(name, towers=tower, roles=roles)
            assert {x.path for x in find_hits(mapping.spec, layers)} == expected, (tower, roles)
            assert mapping.matched == len(expected)


@pytest.mark.parametrize(("name", "prefixes"), CASES[::7], ids=[name for name, _ in CASES[::7]])
def test_all_linear_of_a_tower_leaves_heads_routers_and_other_towers_alone(known, name, prefixes):
    """Every dense layer in the blocks of the tower, of any role that takes an adapter."""
    slots = known.list_slots("transformers", name)
    for tower in set(prefixes) - {"projector"}:
        mapping = known.lookup(name, preset="all-linear", towers=tower)
        matched = match_slots(mapping.spec, slots)
        assert matched
        assert all(
            belongs(slot.pattern, tower, prefixes) and slot.role not in ("head", "moe.router") for slot in matched
        )


def test_a_selection_says_what_its_proof_covers(known):
    """The slots were proved one by one, those of the towers that the preset leaves alone too."""
    mapping = known.lookup("qwen2_5_vl", preset="all-linear", towers="vision")
    assert mapping.verification.status == "live"
    assert mapping.matched == 160
    assert "proved live: 160 layers, each by a training step" in mapping.reasons
    assert "left alone: language, projector" in mapping.reasons
    assert next((each.block, each.hit, each.of) for each in mapping.coverage) == ("model.visual.blocks.*", 32, 32)


@pytest.mark.parametrize(("blocks", "named"), [("last 2", "30|31"), ("first 2", "0|1"), ("every 16", "0|16")])
def test_blocks_of_stored_stacks_are_named_at_the_scanned_depth(known, blocks, named):
    """Any depth is left to the model at hand."""
    mapping = known.lookup("llama", roles="attention.query", blocks=blocks)
    assert mapping.target_modules == rf"model\.layers\.(?:{named})\.self_attn\.q_proj"
    assert "blocks are those of the scanned depth; get_peft_model counts those of the model at hand" in mapping.reasons


@pytest.mark.parametrize("name", ["qwen3_5_text", "rt_detr", "granitemoehybrid"])
def test_the_default_of_a_named_tower_is_the_default(known, name):
    """Also where PEFT's convention reaches too few blocks."""
    tower = "vision" if name == "rt_detr" else "language"
    assert known.lookup(name, towers=tower).per_rank == known.lookup(name).per_rank


def test_dead_layers_of_a_last_block_stay_left_out_at_any_depth(known):
    """By ``exclude_blocks``, as in the stored mappings."""
    mapping = known.lookup("lilt", roles="attention.value")
    assert mapping.exclude_blocks == ("layer.[-1 of 12].attention.self.layout_value",)


def test_a_listed_layer_is_named_by_its_index(known):
    """The dropout beside it is no layer."""
    mapping = known.lookup("UNet2DConditionModel", library="diffusers", roles="attention.output")
    assert mapping.target_modules == ("to_out.0",)


@pytest.mark.parametrize(
    ("name", "choice", "error", "says"),
    [
        ("llama", {"towers": "vision"}, UnknownName, "transformers:llama has the towers: language"),
        ("llama", {"roles": "mixer.*"}, InvalidRequest, "Layers there, by role: attention.key"),
        ("llama", {"blocks": "40-50"}, InvalidRequest, "in blocks 0-31 of 32 in model.layers"),
        ("llama", {"towers": "language", "library_version": "1.0"}, InvalidRequest, "alone, not for 1.0"),
        ("lamma", {"towers": "language"}, UnknownName, "Closest"),
        (
            "llama",
            {"peft_type": "IA3", "blocks": "0"},
            InvalidRequest,
            "IA3 mappings are selected on the layers",
        ),
    ],
)
def test_what_cannot_be_selected_is_said(known, name, choice, error, says):
    """In one line, with what there is."""
    with pytest.raises(error, match=says) as caught:
        known.lookup(name, **choice)
    assert "\n" not in caught.value.message


def test_service_client_and_command_answer_alike(known, seeded_settings, capsys):
    """One selection, by each way."""
    choice = {"towers": "vision", "roles": "attention.*", "blocks": "last 8"}
    expected = known.lookup("qwen2_5_vl", **choice)
    assert expected.target_modules == r"model\.visual\.blocks\.(?:24|25|26|27|28|29|30|31)\.attn\.(?:qkv|proj)"
    with running(seeded_settings) as url, Client(url) as client:
        assert client.targets("qwen2_5_vl", **choice) == expected
        (answer,) = client.targets_of_many([{"model_type": "qwen2_5_vl", **choice}])
        assert answer == expected
        with pytest.raises(UnknownName, match="has the towers"):
            client.targets("llama", towers="vision")
    with pytest.raises(SystemExit):
        main(["lookup", "qwen2_5_vl", "--towers", "vision", "--roles", "attention.*", "--blocks", "last 8"])
    assert expected.target_modules in capsys.readouterr().out
