"""Towers from configuration structure."""

import pytest
from scan_cache import scan
from torch import nn

from loradar.discovery import sources
from loradar.discovery.facts.layers import Part
from loradar.discovery.facts.model_facts import ModelFacts, SubModel, collect_facts
from loradar.discovery.facts.towers import TowerMap, is_below, list_prefixes, map_towers
from loradar.domain.architectures import Architecture
from loradar.references import Reference


def facts(*models, vision=False, outline=(), heads=()):
    """Return the facts of a model made of these sub-models."""
    return ModelFacts(
        Architecture("torch", "x"),
        models,
        frozenset(heads),
        frozenset(),
        frozenset(),
        is_vision_library=vision,
        outline=outline,
    )


def model(path, config, towers=("language",), base=None, **declared):
    """Return a sub-model."""
    main = next(iter(towers), None)
    return SubModel(path, config, frozenset(towers), main, path if base is None else base, **declared)


def part(path, *widths, class_name="Part", blocks=False, repeated=False, tables=()):
    """Return a part of an outline that reads and writes these widths."""
    return Part(
        path,
        class_name,
        widths,
        is_dense=True,
        is_list=repeated,
        has_blocks=blocks or repeated,
        computes=True,
        tables=frozenset(tables),
    )


def prefixes(found):
    """Return the prefixes of a map, empty towers left out."""
    return {tower: paths for tower, paths in list_prefixes(found).items() if paths}


TEXT_AND_IMAGE = ("language", "vision")


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [("model.a", "model", True), ("models.a", "model", False), ("a", "", True), ("model", "model", True)],
)
def test_below_is_by_whole_segments(path, prefix, expected):
    """`models` is not below `model`."""
    assert is_below(path, prefix) is expected


def test_a_plain_module_has_one_unnamed_tower():
    """A user's module declares no modality."""
    assert map_towers(facts()).find("seq.0") == "main"


def test_all_of_timm_is_vision():
    """The library holds vision models only."""
    assert map_towers(facts(vision=True)).find("blocks.0.attn.qkv") == "vision"


def test_a_text_model_is_one_language_tower_head_included():
    """The base model gives the prefix; layers outside belong to the same tower."""
    towers = map_towers(facts(model("", "LlamaConfig", base="model"), model("model", "LlamaConfig")))
    assert towers.prefixes == (("model", "language"),)
    assert towers.find("lm_head") == "language"


LLAVA = (
    model("", "LlavaConfig", TEXT_AND_IMAGE, base="model"),
    model("model", "LlavaConfig", TEXT_AND_IMAGE),
    model("model.eyes", "CLIPVisionConfig", ("vision",), field_tower="vision"),
    model("model.mouth", "LlamaConfig", field_tower="language"),
)
EYES = (part("model.eyes", class_name="Eyes", blocks=True), part("model.eyes.layers", (8, 8), (8, 32), repeated=True))
MOUTH = (part("model.mouth", blocks=True), part("model.mouth.layers", (16, 16), repeated=True))


def test_parts_of_other_configurations_are_towers_and_the_part_between_projects():
    """A vision-language model falls into its parts; the head is of the language."""
    outline = (
        *EYES,
        part("model.bridge", (8, 16)),
        part("model.bridge.fc", (8, 16)),
        *MOUTH,
        part("head", (16, 99)),
    )
    towers = map_towers(facts(*LLAVA, outline=outline, heads=["head"]))
    assert prefixes(towers) == {"language": ("model.mouth",), "vision": ("model.eyes",), "projector": ("model.bridge",)}
    assert towers.find("head") == "language"
    assert towers.find_projector("model.bridge.fc") == "model.bridge"
    assert towers.find_projector("model.eyes.layers.0.q") is None


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([part("model.eyes.merge", (32, 32), (32, 16))], ("model.eyes.merge",)),
        ([part("model.eyes.pool", (8, 8), (8, 8))], ()),
        (
            [part("model.eyes.square", (8, 8)), part("model.eyes.last", (8, 16))],
            ("model.eyes.last", "model.eyes.square"),
        ),
        ([part("model.eyes.stem", (24, 8)), part("model.eyes.last", (8, 16))], ("model.eyes.last",)),
        ([part("model.eyes.neck", (8, 12)), part("model.bridge", (12, 16))], ("model.bridge", "model.eyes.neck")),
        (
            [
                part("model.eyes.merge", (32, 16), class_name="Merger"),
                part("model.eyes.merges", (32, 16), (32, 16), class_name="Merger", repeated=True),
            ],
            ("model.eyes.merge", "model.eyes.merges"),
        ),
    ],
    ids=["merger", "pooler", "two linears", "stem named late", "neck read by a projector", "several depths"],
)
def test_a_part_that_leaves_a_towers_width_at_its_end_projects(after, expected):
    """A projector may stand inside its tower; a pooler keeps the width. A neck that the projector reads is one."""
    towers = map_towers(facts(*LLAVA, outline=(*EYES, *after, *MOUTH), heads=["head"]))
    assert prefixes(towers).get("projector", ()) == expected
    assert prefixes(towers)["vision"] == ("model.eyes",)


def test_later_stages_of_a_tower_are_no_projectors():
    """A stage halves the resolution and doubles the width, as the stages before it did."""
    stages = (
        part("model.eyes.a", class_name="Stage", blocks=True),
        part("model.eyes.a.layers", (8, 8), (8, 8), (8, 8), repeated=True),
        part("model.eyes.b", (32, 16), class_name="Stage", blocks=True),
        part("model.eyes.b.layers", (16, 16), repeated=True),
    )
    outline = (part("model.eyes", blocks=True), *stages, part("model.bridge", (16, 16)), *MOUTH)
    assert prefixes(map_towers(facts(*LLAVA, outline=outline)))["projector"] == ("model.bridge",)


def test_a_resampler_with_a_configuration_of_its_own_joins():
    """A Q-Former is named by its field; the module around it that holds no tower is the projector whole."""
    qformer = model("model.bridge.qformer", "QFormerConfig", TEXT_AND_IMAGE, field_tower="projector")
    bridge = (part("model.bridge", (8, 16), blocks=True), part("model.bridge.qformer", (8, 8), blocks=True))
    towers = map_towers(facts(*LLAVA, qformer, outline=(*EYES, *bridge, *MOUTH), heads=["head"]))
    assert prefixes(towers)["projector"] == ("model.bridge",)


def test_blocks_that_embed_the_vocabulary_of_the_head_are_a_language_model():
    """The decoder of diffusion_gemma stands beside an encoder of text; a Q-Former has a vocabulary of its own."""
    decoder = (part("model.decoder", blocks=True, tables=[99]), part("model.decoder.layers", (16, 16), repeated=True))
    qformer = (part("model.former", blocks=True, tables=[30]), part("model.former.layers", (16, 16), repeated=True))
    outline = (*EYES, *qformer, *MOUTH, *decoder, part("head", (16, 99)))
    towers = map_towers(facts(*LLAVA, outline=outline, heads=["head"]))
    assert towers.find_projector("model.former.layers.0.q") == "model.former"
    assert towers.find("model.decoder.layers.0.q") == "language"


def test_blocks_beside_the_towers_of_a_model_that_speaks_not_are_the_model():
    """A detector reads text and image; only a part that reads a tower's width joins them."""
    models = (
        model("", "DetectorConfig", ("vision", "language")),
        model("eyes", "SwinConfig", ("vision",)),
        model("text", "BertConfig", field_tower="language"),
    )
    outline = (
        part("eyes.layers", (8, 8), repeated=True),
        part("text.layers", (16, 16), repeated=True),
        part("text_projection", (16, 4)),
        part("decoder", (4, 4), blocks=True),
        part("box", (4, 4)),
    )
    towers = map_towers(facts(*models, outline=outline))
    assert prefixes(towers)["projector"] == ("text_projection",)
    assert towers.find("decoder.layers.0.q") == towers.find("box")


def test_a_part_that_only_writes_sound_is_audio_in_a_model_that_also_writes_text():
    """The talker of an omni model takes tokens, but speaks."""
    both = frozenset({"language", "audio"})
    towers = map_towers(
        facts(
            model("", "OmniConfig", ("language", "audio"), outputs=both),
            model("thinker", "ThinkerConfig", outputs=frozenset({"language"})),
            model("talker", "TalkerConfig", outputs=frozenset({"audio"})),
        )
    )
    assert prefixes(towers) == {"language": ("thinker",), "audio": ("talker",)}


def test_parts_of_one_modality_are_one_tower():
    """A detector's backbone has a configuration of its own, but all of the model sees."""
    towers = map_towers(
        facts(
            model("", "DetrConfig", ("vision",), base="model"),
            model("model", "DetrConfig", ("vision",)),
            model("model.backbone", "ResNetConfig", ("vision",)),
        )
    )
    assert towers == TowerMap((("model", "vision"),), "vision")


def test_a_composite_whose_text_stands_in_itself():
    """Where only the vision part has a configuration of its own, the rest is the language tower."""
    towers = map_towers(
        facts(model("", "IdeficsConfig", TEXT_AND_IMAGE), model("vision", "IdeficsVisionConfig", ("vision",)))
    )
    assert towers.find("model.layers.0.self_attn.q_proj") == "language"


@pytest.mark.parametrize(
    ("name", "towers"),
    [
        ("llama", {"language": ("model",)}),
        ("vit", {"vision": ("vit",)}),
        ("whisper", {"audio": ("model",)}),
        ("t5", {"language": ("",)}),
        (
            "llava",
            {
                "language": ("model.language_model",),
                "vision": ("model.vision_tower",),
                "projector": ("model.multi_modal_projector",),
            },
        ),
        (
            "blip-2",
            {
                "language": ("language_model",),
                "vision": ("vision_model",),
                "projector": ("language_projection", "qformer"),
            },
        ),
        (
            "qwen2_vl",
            {
                "language": ("model.language_model",),
                "vision": ("model.visual",),
                "projector": ("model.visual.merger",),
            },
        ),
        (
            "qwen3_omni_moe_thinker",
            {
                "language": ("model.language_model",),
                "vision": ("model.visual",),
                "audio": ("model.audio_tower",),
                "projector": (
                    "model.audio_tower.proj1",
                    "model.audio_tower.proj2",
                    "model.visual.merger",
                    "model.visual.merger_list",
                ),
            },
        ),
        (
            "gemma3",  # its projector is a bare parameter and a norm
            {
                "language": ("model.language_model",),
                "vision": ("model.vision_tower",),
                "projector": ("model.multi_modal_projector",),
            },
        ),
        (
            "clip",
            {
                "language": ("text_model",),
                "vision": ("vision_model",),
                "projector": ("text_projection", "visual_projection"),
            },
        ),
        ("detr", {"vision": ("model",)}),
        (
            "qwen3_omni_moe",  # the talker speaks
            {
                "audio": ("code2wav", "talker", "thinker.model.audio_tower"),
                "language": ("thinker.model.language_model",),
                "vision": ("thinker.model.visual",),
                "projector": (
                    "thinker.model.audio_tower.proj1",
                    "thinker.model.audio_tower.proj2",
                    "thinker.model.visual.merger",
                    "thinker.model.visual.merger_list",
                ),
            },
        ),
        ("vision-encoder-decoder", {"language": ("decoder",), "vision": ("encoder",)}),
    ],
)
def test_towers_of_real_architectures(name, towers):
    """Prefixes as a user would give them."""
    assert prefixes(map_towers(collect_facts(sources.build(Reference.parse(name))))) == towers


def test_a_model_inside_a_users_module_keeps_its_tower(small_bert):
    """A wrapper without configuration does not hide the models inside."""
    found = scan(nn.ModuleDict({"encoder": small_bert, "extra": nn.Linear(4, 4)}))
    assert found.towers["language"] == ("encoder.bert",)
    assert {layer.tower for layer in found.layers if layer.path == "extra"} == {"main"}


@pytest.mark.parametrize(
    "name",
    ["llava", "gemma3", "idefics3", "internvl", "qwen2_audio", "paligemma", "florence2", "blip-2", "ernie4_5_vl_moe"],
)
def test_the_language_slots_of_a_composite_are_those_of_its_text_architecture(name):
    """Under the prefix of the language tower stand the layers of the text model alone, in the same roles."""
    whole = sources.build(Reference.parse(name))
    (prefix,) = list_prefixes(map_towers(collect_facts(whole)))["language"]
    alone = sources.build_config(whole.get_submodule(prefix).config)
    part, text = (_roles(scan(subject, method="names").layers) for subject in (whole, alone))
    bases = {found.path for found in collect_facts(alone).sub_models}
    assert _below(part, prefix) in [_below(text, base) for base in bases]


def test_attention_inside_a_projector_keeps_its_role():
    """The tower says that it stands in a projector."""
    inside = {x.name: x for x in scan("molmo2", method="names").layers if "image_pooling_2d" in x.path}
    roles = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
    assert {name: layer.role for name, layer in inside.items()} == {n: f"attention.{role}" for n, role in roles.items()}
    assert {layer.tower for layer in inside.values()} == {"projector"}


def _roles(layers):
    return {layer.path: (layer.tower, layer.role, layer.kind) for layer in layers}


def _below(roles, prefix):
    return {path[len(prefix) :].lstrip("."): role for path, role in roles.items() if is_below(path, prefix)}
