"""Methods as PEFT's users type them: the parameters of peft's own, in its order, and what they do."""

import inspect

import peft
import pytest
import torch
from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING
from torch import nn
from zoo import MLP

import loradar
from loradar import LoraConfig, PeftModel, get_peft_model
from loradar.errors import HubFailed, InvalidConfig

FIELDS = {"target_modules": ["seq.0"], "r": 2}
OTHER_METHODS = "of methods without weights in layers, which loradar does not have"
ABSENT = {
    "get_prompt": OTHER_METHODS,
    "get_prompt_embedding_to_save": OTHER_METHODS,
    "supports_lora_conversion": "converts other methods",
    "prepare_model_for_gradient_checkpointing": "done when an adapter is put in",
    "get_layer_status": "a function of peft, which takes loradar's models",
    "get_model_status": "a function of peft, which takes loradar's models",
    "base_model_torch_dtype": "for prompts",
    "get_base_model_class": OTHER_METHODS,
}
"""Methods of PEFT that are not here, and why."""
VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)


def parameters(function):
    """Return the names of the parameters that can be given by position, in order."""
    return [name for name, each in inspect.signature(function).parameters.items() if each.kind not in VARIABLE]


def public(kind):
    """Return the public methods that a class of PEFT has and torch's module has not."""
    own = {name for name in dir(kind) if not name.startswith("_")} - {*dir(nn.Module)}
    return sorted(name for name in own if callable(inspect.getattr_static(kind, name)) or name == "from_pretrained")


def adapted(**fields):
    """Return a small model with an adapter that changes its output."""
    torch.manual_seed(0)
    return get_peft_model(MLP(8), LoraConfig(**FIELDS, init_lora_weights=False, **fields))


def test_get_peft_model_has_pefts_parameters_first():
    """Its own come after them, by name."""
    assert parameters(get_peft_model) == parameters(peft.get_peft_model)


@pytest.mark.parametrize("name", public(peft.PeftModel))
def test_a_method_of_the_model_has_pefts_parameters(name):
    """In PEFT's order, so that arguments by position mean the same."""
    if name in ABSENT:
        return
    theirs = parameters(getattr(peft.PeftModel, name))
    ours = parameters(getattr(PeftModel, name))
    own = ("self", "model")  # PEFT's static methods and ours take the model under these names
    assert [each for each in ours if each not in own] == [each for each in theirs if each not in own]


@pytest.mark.parametrize(
    "name",
    [
        *("merge_adapter", "unmerge_adapter", "merge_and_unload", "unload", "set_adapter", "delete_adapter"),
        *("set_requires_grad", "enable_adapter_layers", "disable_adapter_layers", "add_weighted_adapter"),
    ],
)
def test_a_method_of_the_tuner_is_on_both_levels(name):
    """PEFT's users call it on ``model`` and on ``model.base_model``."""
    theirs = [each for each in parameters(getattr(peft.tuners.LoraModel, name)) if each != "self"]
    model = adapted()
    assert parameters(getattr(model, name)) == parameters(getattr(model.base_model, name)) == theirs


def test_a_method_of_a_layer_has_pefts_parameters():
    """``merge`` of a layer takes them in another order than that of a model, as in PEFT."""
    theirs = parameters(peft.tuners.lora.Linear.merge)
    assert parameters(type(adapted().base_model.model.seq[0]).merge) == theirs


def test_the_constructor_puts_an_adapter_in_as_the_function_does():
    """``PeftModel(model, config)``: the same layers, the same output."""
    torch.manual_seed(0)
    model, x = PeftModel(MLP(8), LoraConfig(**FIELDS, init_lora_weights=False), "poems"), torch.ones(2, 20)
    assert model.targeted_module_names == ["seq.0"]
    assert model.active_adapters == model.base_model.active_adapters == ["poems"]
    assert torch.equal(model(x), adapted()(x))


def test_positional_name_and_keywords_of_peft():
    """``get_peft_model(model, config, "poems")``, and ``peft_config=`` by name."""
    assert [*get_peft_model(MLP(8), LoraConfig(**FIELDS), "poems").peft_config] == ["poems"]
    model = get_peft_model(MLP(8), peft_config=LoraConfig(**FIELDS), adapter_name="b", revision="v1")
    assert model.peft_config["b"].revision == "v1"
    with pytest.raises(InvalidConfig, match=r"mixed=True.*one method"):
        get_peft_model(MLP(8), LoraConfig(**FIELDS), mixed=True)


def test_names_of_adapters_in_the_place_of_a_flag_are_rejected(tmp_path):
    """PEFT's order has a flag there; the names would be ignored, and all adapters saved or merged."""
    model = adapted()
    with pytest.raises(InvalidConfig, match=r"progressbar=\['default'\] is not a boolean"):
        model.merge_and_unload(["default"])
    with pytest.raises(InvalidConfig, match=r"safe_serialization=\['default'\] is not a boolean"):
        model.save_pretrained(tmp_path, ["default"])
    assert not model.base_model.model.seq[0].merged_adapters
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("task", ["CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", None])
def test_the_class_of_a_model_is_that_of_its_task(task):
    """As in PEFT, whose class ``isinstance`` finds too."""
    theirs = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(task, peft.PeftModel)
    model = adapted(task_type=task)
    assert type(model) is getattr(loradar, theirs.__name__)
    assert isinstance(model, theirs)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_safe_merge_rejects_what_is_not_finite_and_changes_nothing(value, merge):
    """The error names the layer; no layer before it is merged."""
    model = get_peft_model(MLP(8), LoraConfig(target_modules=["seq.0", "seq.2"], init_lora_weights=False))
    model.base_model.model.seq[2].lora_A["default"].weight.data[0, 0] = value
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InvalidConfig, match=r"NaNs detected in the merged weights\. .* at 'seq\.2'"):
        getattr(model, merge)(safe_merge=True)
    after = model.state_dict()
    assert all(torch.equal(after[name].nan_to_num(), before[name].nan_to_num()) for name in before)


def test_a_name_is_taken_where_a_list_of_names_is():
    """``merge_adapter("default")``."""
    model, x = adapted(), torch.ones(2, 20)
    expected = model(x)
    model.merge_adapter("default")
    assert model.base_model.model.seq[0].merged_adapters == ["default"]
    assert torch.allclose(model.merge_and_unload(adapter_names="default")(x), expected, atol=1e-6)


def test_deleting_the_last_adapter_leaves_the_base_model():
    """As in PEFT: none is active, and another one can be added."""
    model, x = adapted(), torch.ones(2, 20)
    with model.disable_adapter():
        base = model(x)
    model.delete_adapter("default")
    assert model.active_adapters == []
    assert model.peft_config == {}
    assert torch.equal(model(x), base)
    model.add_adapter("new", LoraConfig(**FIELDS, init_lora_weights=False))
    model.set_adapter("new")
    assert not torch.equal(model(x), base)


def test_a_merged_adapter_is_not_deleted():
    """PEFT rejects it; its update would stay in the weights or vanish unseen."""
    model = adapted()
    model.merge_adapter()
    with pytest.raises(InvalidConfig, match=r"Cannot delete adapter\(s\) \['default'\] while they are merged"):
        model.delete_adapter("default")


def test_adapter_layers_are_switched_off_and_on():
    """Off they are frozen and change nothing; on they train."""
    model, x = adapted(), torch.ones(2, 20)
    expected = model(x)
    with model.disable_adapter():
        base = model(x)
    model.disable_adapter_layers()
    assert torch.equal(model(x), base)
    assert model.get_nb_trainable_parameters()[0] == 0
    assert not model.has_active_enabled_adapter
    model.enable_adapter_layers()
    assert torch.equal(model(x), expected)
    assert model.get_nb_trainable_parameters()[0] > 0


def test_requires_grad_is_set_for_one_adapter_and_kept():
    """Adding another adapter does not undo it."""
    model = adapted()
    model.set_requires_grad("default", requires_grad=False)
    model.add_adapter("other", LoraConfig(**FIELDS))
    assert model.get_nb_trainable_parameters()[0] == 0
    model.set_requires_grad(["default", "other"])
    assert all(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)


def test_loading_returns_pefts_result_and_sets_eval_mode(tmp_path):
    """No missing and no unexpected keys: such a file is rejected. A loaded adapter that shall train does at once."""
    saved = adapted()
    saved.save_pretrained(tmp_path, selected_adapters=["default"])
    model = adapted().train()
    result = model.load_adapter(tmp_path, "b", is_trainable=True)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert model.training
    assert all(p.requires_grad for name, p in model.named_parameters() if ".b." in name)
    model.load_adapter(tmp_path, "c")
    assert not model.training
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".c." in name)


def test_options_of_loading_are_honoured_or_rejected(tmp_path):
    """A subfolder, a key mapping, a configuration; and in words what loradar has no feature for."""
    saved = adapted()
    saved.save_pretrained(tmp_path / "sub")
    x = torch.ones(2, 20)
    load = PeftModel.from_pretrained
    torch.manual_seed(0)
    assert torch.equal(load(MLP(8), tmp_path, subfolder="sub", torch_device="cpu")(x), saved.eval()(x))
    renamed = {r"^seq": "net"}
    model = nn.Module()
    model.net = MLP(8).seq
    config = LoraConfig(target_modules=["net.0"], r=2)
    assert load(model, tmp_path / "sub", config=config, key_mapping=renamed).targeted_module_names == ["net.0"]
    for options in ({"ephemeral_gpu_offload": True}, {"device_map": "auto"}, {"torch_device": "gpu9"}, {"nonsense": 1}):
        with pytest.raises(InvalidConfig, match=next(iter(options))):
            load(MLP(8), tmp_path / "sub", **options)


def test_a_missing_folder_is_looked_for_on_the_hub(monkeypatch):
    """As in PEFT; the error names both."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubFailed, match="There is no folder 'org/adapter', and hub:org/adapter"):
        PeftModel.from_pretrained(MLP(8), "org/adapter")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_factors_keep_half_precision_without_autocast(dtype):
    """``autocast_adapter_dtype=False``, for new, added and constructed adapters."""
    model = get_peft_model(MLP(8).to(dtype), LoraConfig(**FIELDS), autocast_adapter_dtype=False)
    model.add_adapter("b", LoraConfig(**FIELDS))
    model.add_adapter("c", LoraConfig(**FIELDS), autocast_adapter_dtype=False)
    factors = model.base_model.model.seq[0].lora_A
    assert [factors[name].weight.dtype for name in ("default", "b", "c")] == [dtype, torch.float32, dtype]
    assert model(torch.ones(2, 20, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_copy_of_a_saved_module_trains_in_float32(dtype, tmp_path):
    """A GradScaler fails on half precision; the output, and the merged module, have the dtype of the model."""
    model = get_peft_model(MLP(8).to(dtype), LoraConfig(**FIELDS, modules_to_save=["seq.4"]))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    x = torch.ones(2, 20, dtype=dtype)
    output = model(x)
    assert output.dtype == dtype
    output.float().sum().backward()
    model.save_pretrained(tmp_path)
    assert torch.equal(peft.PeftModel.from_pretrained(model.unload(), tmp_path)(x).float(), output.float())
    kept = get_peft_model(
        MLP(8).to(dtype), LoraConfig(modules_to_save=["seq.4"], **FIELDS), autocast_adapter_dtype=False
    )
    assert {p.dtype for p in kept.parameters()} == {dtype}
    merged = get_peft_model(MLP(8).to(dtype), LoraConfig(**FIELDS, modules_to_save=["seq.4"])).merge_and_unload()
    assert {p.dtype for p in merged.parameters()} == {dtype}


def test_a_layer_tells_its_base_layer_and_ranks():
    """As PEFT's layers."""
    layer = adapted().base_model.model.seq[0]
    assert type(layer.get_base_layer()) is nn.Linear
    assert layer.r == {"default": 2}


def test_factors_on_meta_get_values_from_a_file(tmp_path):
    """``low_cpu_mem_usage=True``: no memory until an adapter is loaded into them."""
    saved = adapted().eval()
    saved.save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = get_peft_model(MLP(8), LoraConfig(**FIELDS), low_cpu_mem_usage=True)
    assert all(p.is_meta for name, p in model.named_parameters() if "lora_" in name)
    model.load_adapter(tmp_path, "default", low_cpu_mem_usage=True)
    x = torch.ones(2, 20)
    assert torch.equal(model(x), saved(x))
