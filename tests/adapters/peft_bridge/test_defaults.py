"""Plain peft without targets, after ``enable_peft_defaults()``: where it goes, what it leaves alone, how it ends."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod

import peft
import pytest
import torch
from discovery_zoo import NoLayers
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from transformers import AutoModelForCausalLM, LlamaConfig, Olmo2Config, Qwen3MoeConfig
from zoo import MLP

import loradar
from loradar.discovery import sources
from loradar.errors import InvalidConfig, MissingExtra, UnknownPreset
from loradar.references import Reference

pytestmark = pytest.mark.usefixtures("read_settings")

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "moe_intermediate_size": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
HOOKED = ("__init__", "inject_adapter")


def build(reference):
    """Build an architecture at its default size on the meta device."""
    return sources.build(Reference.parse(reference))


def small(config_class, seed=0):
    """Build a small causal model with the random weights of a seed."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config_class(**SMALL)).eval()


def adapt(model, config):
    """Let peft adapt a model, and return the paths it took."""
    peft.get_peft_model(model, config, low_cpu_mem_usage=True)
    return adapted_paths(model)


def adapted_paths(model):
    """Return the paths of peft's layers in a model."""
    return [path for path, module in model.named_modules() if isinstance(module, BaseTunerLayer)]


# For each reference: how many layers get LoRA and IA3, and what every path of each must match.
PLACES = [
    ("llama", 64, r"model\.layers\.\d+\.self_attn\.[qv]_proj", 96, r".*\.(?:[kv]_proj|down_proj)"),
    ("mixtral", 64, r"model\.layers\.\d+\.self_attn\.[qv]_proj", 64, r".*\.self_attn\.[kv]_proj"),
    ("qwen3_moe", 48, r"model\.layers\.\d+\.self_attn\.[qv]_proj", 48, r".*\.self_attn\.[kv]_proj"),
    ("gpt_oss", 72, r"model\.layers\.\d+\.self_attn\.[qv]_proj", 72, r".*\.self_attn\.[kv]_proj"),
    ("vit", 24, r"vit\.layers\.\d+\.attention\.[qv]_proj", 36, r"vit\.layers\.\d+\..*"),
    ("wav2vec2", 24, r"wav2vec2\.encoder\.layers\.\d+\.attention\.[qv]_proj", 36, r"wav2vec2\.encoder\.layers\..*"),
    ("whisper", 24, r"model\.(?:en|de)coder\.layers\..*_attn\.[qv]_proj", 32, r"model\..*\.(?:[kv]_proj|fc2)"),
    ("t5", 36, r".*Attention\.[qv]", 48, r".*Attention\.[kv]|.*\.wo"),
    ("blip-2", 24, r"language_model\..*\.[qv]_proj", 36, r"language_model\..*"),
    ("llava", 64, r"model\.language_model\..*\.[qv]_proj", 96, r"model\.language_model\..*"),
    ("albert", 2, r".*\.attention\.(?:query|value)", 3, r".*\.(?:attention\.(?:key|value)|ffn_output)"),
    ("mamba", 32, r"backbone\.layers\.\d+\.mixer\.in_proj", 32, r"backbone\.layers\.\d+\.mixer\.in_proj"),
    ("timm:vit_tiny_patch16_224", 12, r"blocks\.\d+\.attn\.qkv", 24, r"blocks\.\d+\.(?:attn\.qkv|mlp\.fc2)"),
]


@pytest.mark.parametrize(("reference", "lora", "lora_at", "ia3", "ia3_at"), PLACES, ids=[place[0] for place in PLACES])
def test_plain_configurations_go_where_they_should(reference, lora, lora_at, ia3, ia3_at):
    """Language models, experts, images, sound, several towers, shared blocks, state spaces: no head, no other tower."""
    with loradar.enable_peft_defaults():
        by_lora = adapt(build(reference), peft.LoraConfig())
        by_ia3 = adapt(build(reference), peft.IA3Config())
    assert (len(by_lora), len(by_ia3)) == (lora, ia3)
    assert all(re.fullmatch(lora_at, path) for path in by_lora)
    assert all(re.fullmatch(ia3_at, path) for path in by_ia3)


def test_convolutions_and_plain_modules_are_adapted():
    """A timm resnet and a class of the user's own, of which peft knows nothing."""
    with loradar.enable_peft_defaults():
        assert len(adapt(build("timm:resnet18"), peft.LoraConfig())) == 19
        assert adapt(MLP(), peft.LoraConfig()) == ["seq.0", "seq.2"]


@pytest.mark.parametrize("method", ["LOHA", "VERA", "DELORA", "OSF", "SHIRA"])
def test_other_methods_are_served_as_well(method):
    """Also those that read their targets before they inject (VeRA), or fall back on heads and all (OSF)."""
    config = peft.PEFT_TYPE_TO_CONFIG_MAPPING[method](**({"r": 2} if method != "OSF" else {}))
    with loradar.enable_peft_defaults():
        paths = adapt(small(Olmo2Config), config)
    assert len(paths) == (14 if method == "OSF" else 4)
    assert not [path for path in paths if "lm_head" in path]


def test_everything_is_undone():
    """The very functions of peft are back, and its errors."""
    before = [BaseTuner.__dict__[name] for name in HOOKED]
    handle = loradar.enable_peft_defaults()
    assert BaseTuner.__dict__["__init__"] is not before[0]
    handle.undo()
    handle.undo()
    assert [BaseTuner.__dict__[name] for name in HOOKED] == before
    with pytest.raises(ValueError, match="Please specify `target_modules`"):
        adapt(small(Olmo2Config), peft.LoraConfig())


def test_an_exception_undoes_it_too():
    """A ``with`` statement is left with peft as it was."""
    before = BaseTuner.__dict__["__init__"]
    with pytest.raises(KeyError), loradar.enable_peft_defaults():
        raise KeyError
    assert BaseTuner.__dict__["__init__"] is before


def test_calls_nest_in_any_order():
    """The last preset holds, and peft is itself again after the last handle, not before."""
    before = BaseTuner.__dict__["__init__"]
    outer = loradar.enable_peft_defaults()
    inner = loradar.enable_peft_defaults(preset="attention")
    assert len(adapt(small(LlamaConfig), peft.LoraConfig())) == 8
    outer.undo()
    assert len(adapt(small(LlamaConfig), peft.LoraConfig())) == 8
    inner.undo()
    assert BaseTuner.__dict__["__init__"] is before
    with loradar.enable_peft_defaults(preset="mlp"), loradar.enable_peft_defaults():
        assert len(adapt(small(LlamaConfig), peft.LoraConfig())) == 4


def test_a_function_somebody_put_around_ours_stays(monkeypatch):
    """Undoing takes nobody else's work away, and ours inside of it lets everything pass."""
    with loradar.enable_peft_defaults():
        ours = BaseTuner.__dict__["inject_adapter"]
        theirs = partialmethod(ours, autocast_adapter_dtype=True)
        monkeypatch.setattr(BaseTuner, "inject_adapter", theirs)
    assert BaseTuner.__dict__["inject_adapter"] is theirs
    with pytest.raises(ValueError, match="Please specify `target_modules`"):
        adapt(small(Olmo2Config), peft.LoraConfig())
    monkeypatch.setattr(BaseTuner, "inject_adapter", ours.__wrapped__)


def test_a_preset_serves_the_methods_that_have_it():
    """IA3 has no preset but its default."""
    with loradar.enable_peft_defaults(preset="all-linear"):
        assert len(adapt(small(LlamaConfig), peft.LoraConfig())) == 14
        assert len(adapt(small(LlamaConfig), peft.IA3Config())) == 6


def test_an_unknown_preset_is_refused_at_once():
    """And nothing is hooked."""
    before = BaseTuner.__dict__["__init__"]
    with pytest.raises(UnknownPreset, match="'attention'"):
        loradar.enable_peft_defaults(preset="atention")
    assert BaseTuner.__dict__["__init__"] is before


def test_targets_of_the_user_are_not_touched():
    """A list, a regex, a shorthand, parameters, and a list with nothing in it."""
    with loradar.enable_peft_defaults():
        config = peft.LoraConfig(target_modules=["o_proj"])
        assert all(path.endswith("o_proj") for path in adapt(small(Olmo2Config), config))
        assert config.target_modules == {"o_proj"}
        assert adapt(small(Olmo2Config), peft.LoraConfig(target_modules=r".*\.0\..*q_proj")) == [
            "model.layers.0.self_attn.q_proj"
        ]
        assert len(adapt(small(Olmo2Config), peft.LoraConfig(target_modules="all-linear"))) == 14
        experts = peft.LoraConfig(target_parameters=["experts.gate_up_proj"])
        assert adapt(small(Qwen3MoeConfig), experts) == [f"model.layers.{index}.mlp.experts" for index in (0, 1)]
        with pytest.raises(ValueError, match="No `target_modules` passed"):
            adapt(small(Olmo2Config), peft.LoraConfig(target_modules=[]))


def test_the_rest_of_the_configuration_holds():
    """Rank, exclusion and blocks count for targets filled in, for a regex of ours and for names."""
    config = peft.LoraConfig(r=2, exclude_modules=["layers.1.self_attn.v_proj"], modules_to_save=["norm"])
    with loradar.enable_peft_defaults():
        paths = adapt(small(Olmo2Config), config)
        assert paths == [
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.v_proj",
            "model.layers.1.self_attn.q_proj",
        ]
        assert (config.r, config.modules_to_save) == (2, ["norm"])
        assert config.exclude_modules == {"layers.1.self_attn.v_proj"}
        block = adapt(build("llava"), peft.LoraConfig(layers_to_transform=[3], exclude_modules=["q_proj"]))
        assert block == ["model.language_model.layers.3.self_attn.v_proj"]
        other = adapt(build("idefics3"), peft.LoraConfig(layers_to_transform=[3]))
        assert {re.sub(r"[qv]_proj", "", path) for path in other} == {"model.text_model.layers.3.self_attn."}


def test_heads_are_left_to_the_task():
    """Only targets are filled in: peft trains a head if the task says so."""
    plain, task = peft.LoraConfig(), peft.LoraConfig(task_type="SEQ_CLS")
    with loradar.enable_peft_defaults():
        adapt(build("vit"), plain)
        adapt(build("vit"), task)
    assert plain.modules_to_save is None
    assert task.modules_to_save == ["classifier", "score"]


def test_an_entry_of_pefts_own_is_kept_if_it_is_live(monkeypatch):
    """Whatever the registry says: what worked before gives the same afterwards, unless it reaches nothing."""
    for entry, names in ((["o_proj"], {"o_proj"}), (["query"], {"q_proj", "v_proj"})):
        monkeypatch.setitem(LoraModel.target_module_mapping, "llama", entry)
        config = peft.LoraConfig()
        with loradar.enable_peft_defaults():
            adapt(small(LlamaConfig), config)
        assert config.target_modules == names


def test_a_further_adapter_is_placed_as_if_it_were_the_first():
    """The model is scanned without the adapters in it, and gets them back."""
    with loradar.enable_peft_defaults():
        first = peft.LoraConfig(target_modules=["o_proj"], modules_to_save=["norm"])
        model = peft.get_peft_model(small(Olmo2Config), first)
        model.add_adapter("second", peft.LoraConfig())
    assert model.peft_config["second"].target_modules == {"q_proj", "v_proj"}
    assert len(adapted_paths(model)) == 6
    assert model.peft_config["default"].target_modules == {"o_proj"}


def test_mixed_and_injected_adapters_are_filled_too():
    """Other ways into peft than ``get_peft_model``: mixed models, and what transformers' ``add_adapter`` calls."""
    with loradar.enable_peft_defaults():
        mixed = peft.get_peft_model(small(Olmo2Config), peft.LoHaConfig(r=2), mixed=True)
        injected = small(Olmo2Config)
        peft.inject_adapter_in_model(peft.LoraConfig(), injected)  # transformers 5.24 demands peft 0.22 before it does
    assert len(adapted_paths(mixed)) == len(adapted_paths(injected)) == 4


def test_a_state_dict_decides_alone():
    """Its names say where the adapters are; peft asks for targets as ever."""
    names = {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(8, 16)}
    with loradar.enable_peft_defaults(), pytest.raises(ValueError, match="Please specify `target_modules`"):
        peft.inject_adapter_in_model(peft.LoraConfig(), small(Olmo2Config), state_dict=names)


def test_what_was_filled_in_loads_without_us(tmp_path):
    """The file holds the targets, in a form that peft's conversion for transformers 5 leaves as it is."""
    ids = torch.arange(6)[None]
    with loradar.enable_peft_defaults():
        model = peft.get_peft_model(small(Qwen3MoeConfig), peft.LoraConfig(init_lora_weights=False)).eval()
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(small(Qwen3MoeConfig), tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
        assert not torch.equal(loaded(ids).logits, small(Qwen3MoeConfig)(ids).logits)


def test_dense_layers_that_peft_takes_for_experts_are_left_out_aloud():
    """Their names are those of transformers 4's experts; what is left is attention and the experts as parameters."""
    model = build("dots1")
    with (
        loradar.enable_peft_defaults(preset="all-linear"),
        pytest.warns(UserWarning, match="down_proj, gate_proj, up_proj of Dots1ForCausalLM get no adapter"),
    ):
        adapted = peft.get_peft_model(model, peft.LoraConfig(), low_cpu_mem_usage=True)
    config = adapted.peft_config["default"]
    assert config.rank_pattern == {}
    assert {path.rpartition(".")[2] for path in adapted.targeted_module_names} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }
    assert {path.rpartition(".")[2] for path in adapted.targeted_parameter_names} == {"gate_up_proj", "down_proj"}


def test_a_regex_of_ours_survives_the_conversion():
    """A model of several towers with experts: peft would make suffixes of the regex and reach the other tower."""
    config = peft.LoraConfig(exclude_modules=["layers.0.self_attn.q_proj"])
    with loradar.enable_peft_defaults():
        paths = adapt(build("qwen3_omni_moe_thinker"), config)
    assert len(paths) == 55
    assert all(path.startswith("model.language_model.layers.") for path in paths)


def test_a_model_with_nothing_to_adapt_is_left_to_peft():
    """A warning says why, once, and peft raises what it always did."""
    with (
        loradar.enable_peft_defaults(),
        pytest.warns(UserWarning, match="loradar has no targets: .*NoLayers") as caught,
        pytest.raises(ValueError, match="Please specify `target_modules`"),
    ):
        adapt(NoLayers(), peft.LoraConfig())
    assert len(caught) == 1


def test_methods_that_name_no_layers_are_none_of_our_business():
    """Trainable tokens find the embedding by themselves."""
    with loradar.enable_peft_defaults():
        model = peft.get_peft_model(small(Olmo2Config), peft.TrainableTokensConfig(token_indices=[1]))
    assert adapted_paths(model) == ["base_model.model.model.embed_tokens"]


def test_threads_share_it():
    """Each configuration is filled by the thread that brings it."""
    with loradar.enable_peft_defaults(), ThreadPoolExecutor(4) as pool:
        # Not on meta: peft's switch to it holds for all threads at once.
        found = list(pool.map(lambda _: peft.get_peft_model(MLP(), peft.LoraConfig()), range(8)))
    assert {tuple(adapted.targeted_module_names) for adapted in found} == {("seq.0", "seq.2")}


def test_another_version_of_peft_is_named(monkeypatch):
    """It may work; whoever relies on it should know."""
    monkeypatch.setattr(peft, "__version__", "0.99.0")
    with pytest.warns(UserWarning, match="written for peft 0.21.2, and 0.99.0 is installed"):
        loradar.enable_peft_defaults().undo()


def test_a_peft_built_otherwise_is_refused(monkeypatch):
    """Nothing is hooked halfway."""
    before = BaseTuner.__dict__["__init__"]
    monkeypatch.setattr(BaseTuner, "inject_adapter", lambda self, base: None)  # noqa: ARG005
    with pytest.raises(InvalidConfig, match=r"has no BaseTuner.inject_adapter\(model, adapter_name\)"):
        loradar.enable_peft_defaults()
    assert BaseTuner.__dict__["__init__"] is before


def test_without_peft_the_way_to_install_it_is_named(monkeypatch):
    """The error of a missing extra."""
    monkeypatch.setattr("loradar.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'loradar\[peft\]'"):
        loradar.enable_peft_defaults()


def test_importing_the_adapters_does_not_import_peft():
    """It takes seconds, and nobody may want it."""
    code = "import sys, loradar; loradar.enable_peft_defaults, loradar.auto_config; sys.exit('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - ours
