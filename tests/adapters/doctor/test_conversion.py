"""Conversion between the formats of LoRA: the names that other tools have, and every bit back again."""

import json
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from denoiser_zoo import MAKERS, pipeline
from diffusers.loaders import lora_conversion_utils as theirs
from diffusers.utils.state_dict_utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from safetensors.torch import load_file, save_file

from loradar.adapters.doctor import convert, doctor
from loradar.adapters.files.checkpoint import write
from loradar.adapters.formats import find_components, read_lora
from loradar.adapters.formats.joining import Factor
from loradar.adapters.formats.writing import name_peft
from loradar.cli import main
from loradar.errors import InvalidConfig

pytestmark = pytest.mark.usefixtures("read_settings")

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
RANK, ALPHA = 2, 4
NO_KOHYA = ("ltx", "aura", "pixart")
APART = ("ltx", "flux2", "hunyuan", "lumina2")
"""Models whose converters in diffusers have no place for alpha in ComfyUI's files."""
PAIRS = [
    (name, to) for name in MAKERS for to in ("diffusers", "kohya", "comfyui") if to != "kohya" or name not in NO_KOHYA
]


@cache
def parts_of(name):
    """Return the models of a pipeline, found once."""
    models = pipeline(name)
    return models, find_components(models)


def factors_of(component, *, like=str, only=bool):
    """Return random factors for the layers of a model; those with one ``like`` have one first factor."""
    found = {}
    for path, layer in component.layers.items():
        if only(path):
            groups = layer.groups if layer.kind.startswith("conv") else 1
            kernel = layer.shape[2:]
            generator = torch.Generator().manual_seed(sum(map(ord, like(path))))
            first = torch.randn(RANK, layer.in_features // groups, *kernel, generator=generator)
            second = torch.randn(layer.out_features, RANK, *[1] * len(kernel))
            found[path] = Factor({"lora_A.weight": first, "lora_B.weight": second}, ALPHA)
    return found


def save_peft(folder, factors, **fields):
    """Write an adapter in PEFT's format."""
    targets = "|".join(map(re.escape, factors))
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": targets, "lora_dropout": 0.1}
    write(folder, config | fields, name_peft(factors), as_pickle=False)


def content_of(folder):
    """Return the tensors and configurations of all adapters in a folder."""
    return {
        str(file.relative_to(folder)): json.loads(file.read_text()) if file.suffix == ".json" else load_file(file)
        for file in sorted(folder.rglob("adapter_*"))
    }


def assert_same(one, other):
    """Compare files bit for bit, types included."""
    assert one.keys() == other.keys()
    for name, content in one.items():
        if name.endswith(".json"):
            assert content == other[name]
            continue
        assert content.keys() == other[name].keys()
        for key, tensor in content.items():
            assert tensor.dtype == other[name][key].dtype, key
            assert torch.equal(tensor, other[name][key]), key


def save_all(folder, components):
    """Write an adapter for every model of a pipeline, and return the folder."""
    for name, component in components.items():
        place = folder / name if len(components) > 1 else folder
        save_peft(place, factors_of(component))
    return folder


@pytest.mark.parametrize(("name", "to"), PAIRS)
def test_an_adapter_comes_back_bit_for_bit(tmp_path, name, to):
    """Of every layer of every model of the pipeline, with its configuration; and the other file does too."""
    models, components = parts_of(name)
    save_all(tmp_path / "peft", components)
    (there,) = convert(tmp_path / "peft", to, tmp_path / "there", models)
    convert(there, "peft", tmp_path / "back", models)
    assert_same(content_of(tmp_path / "back"), content_of(tmp_path / "peft"))
    (again,) = convert(tmp_path / "back", to, tmp_path / "again", models)
    one, other = load_file(there), load_file(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_at_least_twenty_pairs():
    """Of a format and an architecture."""
    assert len(PAIRS) >= 20


def in_peft(state, find):
    """Return the layers of a state dict of diffusers', with the prefix of the pipeline's model."""
    return {key.removeprefix(f"{find}."): tensor for key, tensor in state.items() if key.startswith(f"{find}.")}


def convert_as_diffusers(name, file, models):
    """Return the tensors that diffusers makes of a file, under the keys of PEFT's, without the text encoders."""
    state = load_file(file)
    if name in APART and "kohya" not in file.name:
        state = {key: tensor for key, tensor in state.items() if not key.endswith(".alpha")}
    if name in ("sd1", "sd2", "sdxl"):
        unet = models.components["unet"]
        state = theirs._maybe_map_sgm_blocks_to_diffusers(state, unet.config)
        state, alphas = theirs._convert_non_diffusers_lora_to_diffusers(state)
        assert {*alphas.values()} == {ALPHA}
        texts = {key: tensor for key, tensor in state.items() if key.startswith("text_encoder")}
        return convert_unet_state_dict_to_peft(in_peft(state, "unet")), convert_state_dict_to_peft(texts)
    find = {
        ("flux", "kohya"): theirs._convert_kohya_flux_lora_to_diffusers,
        ("wan", "kohya"): theirs._convert_musubi_wan_lora_to_diffusers,
        ("wan", "comfyui"): theirs._convert_non_diffusers_wan_lora_to_diffusers,
        ("qwen", "kohya"): theirs._convert_non_diffusers_qwen_lora_to_diffusers,
        ("qwen", "comfyui"): theirs._convert_non_diffusers_qwen_lora_to_diffusers,
        ("ltx", "comfyui"): theirs._convert_non_diffusers_ltxv_lora_to_diffusers,
        ("flux2", "kohya"): theirs._convert_kohya_flux2_lora_to_diffusers,
        ("flux2", "comfyui"): theirs._convert_non_diffusers_flux2_lora_to_diffusers,
        ("hunyuan", "comfyui"): theirs._convert_hunyuan_video_lora_to_diffusers,
        ("lumina2", "comfyui"): theirs._convert_non_diffusers_lumina2_lora_to_diffusers,
        ("zimage", "kohya"): theirs._convert_non_diffusers_z_image_lora_to_diffusers,
        ("zimage", "comfyui"): theirs._convert_non_diffusers_z_image_lora_to_diffusers,
    }[name, "kohya" if "kohya" in file.name else "comfyui"]
    return {key: t for key, t in in_peft(find(state), "transformer").items() if ".lora_" in key}, {}


@pytest.mark.parametrize(
    ("name", "to"),
    [
        *((name, "kohya") for name in ("sd1", "sd2", "sdxl", "flux", "wan", "qwen", "flux2", "zimage")),
        *((name, "comfyui") for name in ("wan", "qwen", "ltx", "flux2", "hunyuan", "lumina2", "zimage")),
    ],
)
def test_diffusers_own_converters_find_the_same_layers(tmp_path, name, to):
    """Their names are the model's own, and each product of factors is the same."""
    models, components = parts_of(name)
    main = next(part for part in components.values() if part.name in ("unet", "transformer"))
    # their converters of transformers take the attention and the feed-forward layers of blocks
    start = "" if name in ("flux", "hunyuan") else ".*"  # of their single blocks they know one width alone
    inside = "attn\\d?|ff|ffn|img_mlp|txt_mlp|attention|feed_forward|norm1"
    blocks = re.compile(rf"{start}(?:(?:transformer_)?blocks|layers|.*_refiner)\.\d+\.(?:{inside})\..*")
    only = bool if "unet" in components else blocks.fullmatch
    parts = {main.name: main} | {key: part for key, part in components.items() if "unet" in components}
    factors = {key: factors_of(part, only=only if key == main.name else bool) for key, part in parts.items()}
    for key in parts:
        save_peft(tmp_path / "peft" / key, factors[key])
    (file,) = convert(tmp_path / "peft", to, tmp_path, models)
    found, texts = convert_as_diffusers(name, file, models)
    found = {key.removesuffix(".weight").replace("_processor", ""): tensor for key, tensor in found.items()}
    assert {key.rpartition(".lora_")[0].replace(".processor", "") for key in found} == {*factors[main.name]}
    scale = 1 if "unet" in components or (name in APART and to == "comfyui") else ALPHA / RANK
    for path, factor in factors[main.name].items():
        first = next(v for k, v in found.items() if k.replace(".processor", "") == f"{path}.lora_A")
        second = next(v for k, v in found.items() if k.replace(".processor", "") == f"{path}.lora_B")
        own = factor.tensors
        values = torch.randn(first[0].numel(), 2)  # of wide layers, the product of the factors is large
        expected = scale * own["lora_B.weight"].flatten(1) @ (own["lora_A.weight"].flatten(1) @ values)
        torch.testing.assert_close(second.flatten(1) @ (first.flatten(1) @ values), expected, rtol=1e-4, atol=1e-4)
    assert len({key.rpartition(".lora_")[0] for key in texts}) == sum(len(f) for k, f in factors.items() if "text" in k)


def test_joined_layers_keep_what_they_share(tmp_path):
    """One first factor for query, key and value stays one; a part without factors stays without."""
    models, components = parts_of("flux")
    main = components["transformer"]
    shared = factors_of(
        main, like=lambda path: re.sub(r"to_[qkv]|proj_mlp|add_[qkv]_proj", "", path).replace("..", ".")
    )
    qkv = "double_blocks_0_img_attn_qkv"
    save_peft(tmp_path / "shared", shared)
    (file,) = convert(tmp_path / "shared", "kohya", tmp_path / "a.safetensors", models)
    assert load_file(file)[f"lora_unet_{qkv}.lora_down.weight"].shape == (RANK, 16)
    some = factors_of(main, only=lambda path: "to_q" in path or "to_v" in path)
    save_peft(tmp_path / "some", some)
    (file,) = convert(tmp_path / "some", "kohya", tmp_path / "b.safetensors", models)
    tensors = load_file(file)
    assert tensors[f"lora_unet_{qkv}.lora_down.weight"].shape == (2 * RANK, 16)
    assert tensors[f"lora_unet_{qkv}.alpha"] == 2 * ALPHA
    assert not tensors[f"lora_unet_{qkv}.lora_up.weight"][16:32].any()
    convert(file, "peft", tmp_path / "back", models)
    assert_same(content_of(tmp_path / "back"), content_of(tmp_path / "some"))


def test_halves_of_the_last_modulation_are_swapped(tmp_path):
    """Shift comes first in the checkpoint and scale in diffusers: the rows change places, and change back."""
    models, components = parts_of("flux")
    factors = factors_of(components["transformer"], only=lambda path: path == "norm_out.linear")
    save_peft(tmp_path / "peft", factors)
    (file,) = convert(tmp_path / "peft", "comfyui", tmp_path, models)
    second = load_file(file)["diffusion_model.final_layer.adaLN_modulation.1.lora_B.weight"]
    own = factors["norm_out.linear"].tensors["lora_B.weight"]
    assert torch.equal(second, torch.cat([own[16:], own[:16]]))


def test_alpha_rank_and_kinds_of_strength_are_kept(tmp_path):
    """Ranks by layer, rsLoRA's scale, DoRA's magnitudes and half precision."""
    models, components = parts_of("sd1")
    factors = {}
    for number, (path, one) in enumerate(
        factors_of(components["unet"], only=lambda path: "attn1.to_q" in path).items()
    ):
        tensors = {key: t.bfloat16() for key, t in one.tensors.items()}
        if number == 0:
            tensors["lora_A.weight"] = tensors["lora_A.weight"].repeat(2, 1)
            tensors["lora_B.weight"] = tensors["lora_B.weight"].repeat(1, 2)
        factors[path] = Factor(tensors | {"lora_magnitude_vector": torch.rand(one.rows)}, ALPHA)
    first = next(iter(factors))
    save_peft(tmp_path / "peft", factors, rank_pattern={first: 2 * RANK}, use_rslora=True, use_dora=True)
    (file,) = convert(tmp_path / "peft", "kohya", tmp_path, models)
    stem = f"lora_unet_{first.replace('.', '_')}"
    tensors = load_file(file)
    assert tensors[f"{stem}.alpha"] == ALPHA / (2 * RANK) ** 0.5 * 2 * RANK
    assert tensors[f"{stem}.dora_scale"].shape == (16, 1)
    convert(file, "peft", tmp_path / "back", models)
    assert_same(content_of(tmp_path / "back"), content_of(tmp_path / "peft"))


def test_a_file_without_metadata_gets_a_configuration(tmp_path):
    """As other tools write it: targets, ranks and alphas follow from the factors, and it loads."""
    models, components = parts_of("sdxl")
    save_peft(tmp_path / "peft", factors_of(components["unet"], only=lambda path: "attn" in path))
    (file,) = convert(tmp_path / "peft", "kohya", tmp_path / "a.safetensors", models)
    plain = {key: tensor for key, tensor in load_file(file).items() if not key.endswith("0_attn1_to_q.alpha")}
    save_file(plain, tmp_path / "plain.safetensors")
    convert(tmp_path / "plain.safetensors", "peft", tmp_path / "back", models)
    config = json.loads((tmp_path / "back" / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"]) == (RANK, ALPHA)
    assert {*config["alpha_pattern"].values()} == {RANK}  # without alpha, kohya's files scale by 1
    found = doctor(tmp_path / "back", models.components["unet"])
    assert {finding.code for finding in found.findings} <= {"rank"}, found.findings


def test_a_name_alone_is_no_base_to_call_a_file_another_ones(tmp_path):
    """The sizes of 'sdxl' are not known: the library's default configuration, of SD 1.5's, is one of many."""
    of_text = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    only_there = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k"
    factors = {"lora_down.weight": torch.ones(2, 2048), "lora_up.weight": torch.ones(640, 2)}
    state = {f"{layer}.{name}": one.clone() for layer in (of_text, only_there) for name, one in factors.items()}
    save_file(state, tmp_path / "a.safetensors")
    found = doctor(tmp_path / "a.safetensors", "sdxl")
    assert found.is_sound
    assert "the default configuration of diffusers:UNet2DConditionModel" in found.note
    assert {"shapes", "unknown-layers"} <= {finding.code for finding in found.findings}
    assert all("Give the folder or the repo" in x.way_out for x in found.findings if x.code != "format")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("lora_unet_down_blocks_9_attn1_to_q.lora_down.weight", "no layer of unet"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "no layer of unet"),
        ("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a", "no factor of LoRA"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_mid.weight", "no factor of LoRA"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "one factor of two is missing"),
    ],
)
def test_what_has_no_counterpart_is_rejected(tmp_path, key, says):
    """Nothing is left out in silence: the name is told with the reason."""
    models, _ = parts_of("sd1")
    save_file({key: torch.ones(2, 16)}, tmp_path / "a.safetensors")
    with pytest.raises(InvalidConfig, match=says):
        convert(tmp_path / "a.safetensors", "peft", tmp_path / "out", models)
    found = doctor(tmp_path / "a.safetensors", models)
    assert says in " ".join(finding.message for finding in found.findings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("shapes", "alpha", "says"),
    [
        (((), ()), 1.0, "of which no update follows"),
        (((0, 16), (16, 0)), 1.0, "of which no update follows"),
        (((2, 16), (16, 3)), 1.0, "of which no update follows"),
        (((2, 16), (16, 2)), float("nan"), "alpha is no number"),
        (((2, 16), (16, 2)), float("inf"), "alpha is no number"),
        (((2, 16, 1, 1), (16, 2, 1, 1)), 1.0, "another base"),
        (((2, 99), (16, 2)), 1.0, "another base"),
    ],
)
def test_hostile_factors_are_one_clear_line(tmp_path, shapes, alpha, says):
    """Sides of nothing, of other layers, and alphas that are no numbers."""
    models, components = parts_of("flux")
    stem = "lora_unet_double_blocks_0_img_attn_proj"
    assert stem.removeprefix("lora_unet_") in components["transformer"]._flat
    tensors = {f"{stem}.lora_{n}.weight": torch.ones(s) for n, s in zip(("down", "up"), shapes, strict=True)}
    metadata = {"lora_adapter_metadata": "[" * 100_000, "loradar_joined": '{"transformer.x": {}}'}
    save_file(tensors | {f"{stem}.alpha": torch.tensor(alpha)}, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(InvalidConfig, match=says) as raised:
        convert(tmp_path / "a.safetensors", "peft", tmp_path / "out", models)
    assert "\n" not in raised.value.message
    assert says in " ".join(x.message for x in doctor(tmp_path / "a.safetensors", models).findings)


def test_lossy_conversions_are_rejected(tmp_path):
    """Biases, modules in full, unequal scales of joined layers, and models of unknown names."""
    models, components = parts_of("flux")
    main = components["transformer"]
    one = factors_of(main, only=lambda path: path == "transformer_blocks.0.attn.to_q")
    (path,) = one
    one[path].tensors["lora_B.bias"] = torch.ones(16)
    save_peft(tmp_path / "bias", one, lora_bias=True)
    with pytest.raises(InvalidConfig, match="trained bias"):
        convert(tmp_path / "bias", "kohya", tmp_path / "out", models)
    three = factors_of(main, only=lambda path: "transformer_blocks.0.attn.to_" in path)
    save_peft(tmp_path / "scales", three, alpha_pattern={path: 1})
    with pytest.raises(InvalidConfig, match="different ratios of alpha and rank"):
        convert(tmp_path / "scales", "comfyui", tmp_path / "out", models)
    save_peft(tmp_path / "text", factors_of(components["text_encoder"]))
    with pytest.raises(InvalidConfig, match="depends on its pipeline"):
        convert(tmp_path / "text", "kohya", tmp_path / "out", models.components["text_encoder"])
    models, components = parts_of("ltx")
    save_peft(tmp_path / "ltx", factors_of(components["transformer"]))
    with pytest.raises(InvalidConfig, match="no source for them is known"):
        convert(tmp_path / "ltx", "kohya", tmp_path / "out", models)
    with pytest.raises(InvalidConfig, match="no format"):
        convert(tmp_path / "ltx", "webui", tmp_path / "out", models)


def test_a_flattened_name_of_two_layers_is_not_guessed():
    """``a.b_c`` and ``a_b.c`` are one name in kohya's files: which one it is does not follow."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.down = torch.nn.ModuleDict({"to_q": torch.nn.Linear(4, 4)})
            self.down_to = torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4)})

    component = find_components(Two())["transformer"]
    component = replace(component, prefixes={"kohya": ("lora_unet_",)})
    assert {twin.original for twin in component.find("lora_unet_down_to_q")} == {"down.to_q", "down_to.q"}
    found = read_lora({"lora_unet_down_to_q.alpha": torch.ones(())}, {}, {"transformer": component})
    assert "it may be down.to_q of transformer or down_to.q" in found.unknown["lora_unet_down_to_q.alpha"]


@pytest.mark.parametrize("name", ["sd1", "flux"])
def test_the_names_of_earlier_versions_of_diffusers(tmp_path, name):
    """Of attention processors, and of text encoders; a pipeline's folder gives the models."""
    models, components = parts_of(name)
    main = next(iter(components.values()))
    for part, model in models.components.items():
        save = model.save_config if part == main.name else model.config.save_pretrained
        save(tmp_path / "base" / part)
    (tmp_path / "base" / "model_index.json").write_text("{}")
    factors = factors_of(main, only=lambda path: path.endswith(("to_q", "to_out.0")))
    text = factors_of(components["text_encoder"], only=lambda path: path.endswith("q_proj"))
    tensors = {}
    for path, one in factors.items():
        stem = path.removesuffix(".0").replace(".to_", ".processor.to_")
        tensors[f"{main.name}.{stem}_lora.down.weight"] = one.tensors["lora_A.weight"]
        tensors[f"{main.name}.{stem}_lora.up.weight"] = one.tensors["lora_B.weight"]
    for path, one in text.items():
        stem = f"text_encoder.text_model.{path.replace('q_proj', 'to_q')}_lora"
        tensors |= {
            f"{stem}.down.weight": one.tensors["lora_A.weight"],
            f"{stem}.up.weight": one.tensors["lora_B.weight"],
        }
    save_file(tensors, tmp_path / "old.safetensors")
    found = doctor(tmp_path / "old.safetensors", tmp_path / "base")
    assert (found.format, found.is_sound, found.landed) == ("diffusers", True, len(factors) + len(text))
    convert(tmp_path / "old.safetensors", "peft", tmp_path / "back", tmp_path / "base")
    back = content_of(tmp_path / "back")
    assert {*back[f"{main.name}/{WEIGHTS}"]} == {*name_peft(factors)}
    assert {*back[f"text_encoder/{WEIGHTS}"]} == {*name_peft(text)}


def test_the_command_converts(tmp_path, capsys):
    """And rejects options that contradict each other."""
    models, components = parts_of("wan")
    models.components["transformer"].save_config(tmp_path / "base")
    save_peft(tmp_path / "peft", factors_of(components["transformer"]))
    base = ["--model", str(tmp_path / "base")]
    with pytest.raises(SystemExit) as exited:
        main(["doctor", str(tmp_path / "peft"), *base, "--to", "kohya", "--out", str(tmp_path / "out")])
    assert exited.value.code in (0, None)
    file = tmp_path / "out" / "lora_kohya.safetensors"
    assert f"Wrote {file}" in "".join(capsys.readouterr().out.split("\n"))
    assert "lora_unet_blocks_0_self_attn_q.lora_down.weight" in load_file(file)
    with pytest.raises(SystemExit) as exited:
        main(["doctor", str(file), *base, "--to", "peft"])
    assert exited.value.code
    assert "--to takes --out" in " ".join(capsys.readouterr().err.split())
