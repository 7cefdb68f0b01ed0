"""Models in wrappers, sharded, compiled, exported or adapted: scanned as what is inside, or one line says why not."""

import copy
import dataclasses
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import flow_zoo as zoo
import peft
import pytest
import torch
import transformers as hf
from accelerate import cpu_offload
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import loradar
from loradar.discovery import scan
from loradar.errors import InvalidConfig, InvalidReference, NoAdaptableLayers, ScanFailed
from loradar.schema import to_json

INPUT = torch.zeros(2, zoo.LENGTH, zoo.WIDTH)
ROLES = {"f.b": "attention.query", "f.d": "attention.key", "f.a": "attention.value", "f.c": "attention.output"}
ROLES |= {"g.b": "mlp.up", "g.a": "mlp.down"}


class Model(nn.Module):
    """Two blocks of attention and feed-forward network in a list."""

    def __init__(self):
        super().__init__()
        self.u = nn.ModuleList([zoo.Parallel(), zoo.Parallel()])

    def forward(self, x):
        """Run the blocks."""
        for block in self.u:
            x = block(x)
        return x


def roles(found, block="u.1."):
    """Return the roles of the layers in the second block."""
    return {x.path.partition(block)[2]: x.role for x in found.layers if block in x.path and x.kind != "norm"}


def isolated(function, *arguments):
    """Return the result of a function that may end its process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(function, *arguments).result()


# --- sharded ------------------------------------------------------------------------------------------------------


def shard(how, device="cpu"):
    """Return a model sharded over the one process of a group."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    with torch.device(device):
        model = Model()
    if how == "tensors":
        plan = {"u.*.g.b": ColwiseParallel(), "u.*.g.a": RowwiseParallel()}
        return parallelize_module(model, mesh, plan)
    if how == "replicas":
        return nn.parallel.DistributedDataParallel(model)
    for block in model.u:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def scan_sharded(how, device="cpu"):
    """Scan a sharded model; return what it is taken for, its roles and whether it still runs."""
    model = shard(how, device)
    found = scan(model, INPUT)
    runs = device == "meta" or model(INPUT).shape == INPUT.shape
    return found.method, found.architecture.class_name, roles(found), runs


def adapt_sharded(how):
    """Return the error for an adapter in a sharded model."""
    try:
        loradar.get_peft_model(shard(how))
    except InvalidConfig as error:
        return error.message
    return None


@pytest.mark.parametrize(
    ("how", "device"), [("fully", "cpu"), ("fully", "meta"), ("tensors", "cpu"), ("replicas", "cpu")]
)
def test_a_sharded_model_is_scanned_as_a_whole(how, device):
    """Hooks that gather the parts stay out: on meta every weight is whole. It ended the process."""
    assert isolated(scan_sharded, how, device) == ("dataflow", "Model", ROLES, True)


@pytest.mark.parametrize(("how", "says"), [("fully", "sharded"), ("tensors", "sharded")])
def test_a_sharded_model_is_adapted_before(how, says):
    """An adapter put in now would be no part of what is sharded: one line, with the way out."""
    message = isolated(adapt_sharded, how)
    assert says in message
    assert "Adapt the model" in message


def test_weights_that_deepspeed_partitioned_have_their_shapes():
    """A partitioned parameter is empty, and keeps its shape in ``ds_shape``."""
    whole, parted = Model(), Model()
    for parameter in parted.parameters():
        parameter.ds_shape, parameter.data = parameter.shape, torch.empty(0)
    assert to_json(scan(parted, INPUT)) == to_json(scan(whole, INPUT))


def test_a_model_that_accelerate_moves_is_scanned():
    """Its hooks replace the forward and bring each weight from elsewhere."""
    found = scan(cpu_offload(Model(), torch.device("cpu")), INPUT)
    assert (found.method, roles(found)) == ("dataflow", ROLES)


# --- wrapped ------------------------------------------------------------------------------------------------------

WRAPPERS = [nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapper_is_seen_through(wrap):
    """A scan goes on with the model inside; an adapter belongs there, and in an average before it is made."""
    model = Model()
    assert to_json(scan(wrap(copy.deepcopy(model)), INPUT)) == to_json(scan(model, INPUT))
    if wrap is torch.optim.swa_utils.AveragedModel:
        with pytest.raises(InvalidConfig, match="Adapt the model inside"):
            loradar.get_peft_model(wrap(model))


def test_a_model_compiled_in_place_is_scanned_as_written():
    """``module.compile()`` leaves no wrapper, and is still compiled after a scan."""
    model = Model()
    model.compile(backend="eager")
    compiled = model._compiled_call_impl
    assert roles(scan(model, INPUT)) == ROLES
    assert model._compiled_call_impl is compiled is not None


# --- compiled and exported ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("compiled", [torch.jit.script, lambda model: torch.jit.trace(model, torch.zeros(2, 8))])
def test_a_model_of_torchscript_says_so(compiled):
    """Scripted or traced: neither a forward to follow nor a layer to replace."""
    model = compiled(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)))
    with pytest.raises(ScanFailed, match=r"compiled by TorchScript.* Scan the model before it is compiled"):
        scan(model)
    with pytest.raises(InvalidConfig, match=r"compiled by TorchScript.* Adapt the model before it is compiled"):
        loradar.get_peft_model(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_part_of_torchscript_is_left_out():
    """The rest is followed, the reasons name the part, and it is the same object after."""

    class Fronted(Model):
        def __init__(self):
            super().__init__()
            self.front = torch.jit.script(nn.Sequential(nn.Linear(zoo.WIDTH, zoo.WIDTH), nn.ReLU()))

        def forward(self, x):
            return super().forward(self.front(x))

    model = Fronted()
    front = model.front
    found = scan(model, INPUT)
    assert (found.method, roles(found)) == ("dataflow", ROLES)
    assert any("compiled by TorchScript (front)" in reason for reason in found.proposals[0].reasons)
    assert model.front is front
    with pytest.raises(InvalidConfig, match=r"'front' .* compiled by TorchScript"):
        loradar.get_peft_model(model, loradar.LoraConfig(target_modules=["front"]))
    adapted = loradar.get_peft_model(model)
    adapted(INPUT).sum().backward()
    assert {path.rpartition(".")[2] for path in adapted.targeted_module_names} == {"a", "b"}


def test_a_graph_with_its_layers_is_followed():
    """A symbolic trace keeps the layers and drops the forwards around them, where the attention was computed."""
    found = scan(torch.fx.symbolic_trace(Model()), INPUT)
    assert (found.method, roles(found), found.architecture.class_name) == ("dataflow", ROLES, "GraphModule")


def test_an_exported_graph_has_no_layers():
    """It calls functions on bare weights: the error says what to scan instead."""
    program = torch.export.export(Model(), (INPUT,))
    with pytest.raises(NoAdaptableLayers, match="scan the model that it was exported from"):
        scan(program.module())
    with pytest.raises(InvalidReference, match="Cannot scan a ExportedProgram"):
        scan(program)
    with pytest.raises(InvalidConfig, match=r"no torch.nn.Module"):
        loradar.get_peft_model(program)


# --- unfinished, adapted, contrary --------------------------------------------------------------------------------


def test_a_layer_without_a_shape_is_named():
    """A lazy layer knows its shape after the first call."""
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 8))
    with pytest.raises(ScanFailed, match=r"'0' \(LazyLinear\) does not know its shape yet. Run the model once"):
        scan(model)
    model(torch.zeros(2, 4))
    assert scan(model).layers[0].in_features == 4


@pytest.mark.parametrize(
    "adapt", [loradar.get_peft_model, lambda m: peft.get_peft_model(m, peft.LoraConfig(target_modules=["b"]))]
)
def test_an_adapted_model_is_not_scanned(adapt):
    """Layers around a base layer would be taken for the model's own; without them it is the model again."""
    adapted = adapt(Model())
    with pytest.raises(ScanFailed, match=r"carries adapters already .* unload\(\)"):
        scan(adapted, INPUT)
    assert roles(scan(adapted.unload(), INPUT)) == ROLES


@pytest.mark.parametrize("error", [KeyError, RuntimeError, ValueError])
def test_a_getattr_that_raises_hides_nothing(error):
    """An attribute that cannot be read is none: the layers are all that counts."""

    class Contrary(Model):
        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                raise error(name) from None

    assert roles(scan(Contrary(), INPUT)) == ROLES
    assert len(loradar.get_peft_model(Contrary()).targeted_module_names) == 4


# --- configurations of others -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Settings:
    """A configuration of another package that calls its model t5."""

    model_type: str = "t5"
    d_model: int = zoo.WIDTH


class Derived(hf.PretrainedConfig):
    """The same, derived from the base class of transformers' configurations."""

    model_type = "t5"


@pytest.mark.parametrize("config", [Settings(), Derived()])
def test_a_model_type_of_another_package_is_not_that_of_transformers(config):
    """Its name alone would bring the registry's entry, and a stored scan would replace that of the real one."""
    model = Model()
    model.config = config
    found = scan(model, INPUT)
    assert found.architecture.reference == f"torch:{__name__}.Model"
    assert loradar.get_peft_model(model).decision.step != "registry"
    with pytest.raises(InvalidReference, match="is no configuration of transformers' own"):
        scan(config)


def test_a_configuration_derived_from_that_of_transformers_keeps_its_type():
    """It has the type's fields, and so its model the type's layers; remote code may bring a type of its own."""

    class Own(hf.T5Config):
        pass

    class Remote(hf.PretrainedConfig):
        model_type = "unknown-to-transformers"

    model = Model()
    for config, name in ((Own(), "t5"), (Remote(), "unknown-to-transformers")):
        model.config = config
        assert scan(model, method="names").architecture.reference == f"transformers:{name}"


@pytest.mark.filterwarnings("ignore:.*quantiz:DeprecationWarning", "ignore:.*quantiz:UserWarning")
def test_layers_that_torch_has_quantised_are_named():
    """Their weight is packed, and no gradient passes: all of a model is rejected, a part is left out with a reason."""

    def quantised(*layers):
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(*layers).eval(), {nn.Linear})

    with pytest.raises(NoAdaptableLayers, match=r"packed, and pass no gradient \(0, 1\): adapt it before"):
        scan(quantised(nn.Linear(8, 8), nn.Linear(8, 8)))
    model = Model()
    model.front = quantised(nn.Linear(zoo.WIDTH, zoo.WIDTH))
    assert (
        "left out: layers with packed weights (front.0), which no gradient passes" in scan(model).proposals[0].reasons
    )
