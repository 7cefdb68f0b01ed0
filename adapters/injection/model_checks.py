"""Checks of whether a model, or one of its modules, can be adapted or saved.

Each raises ``InvalidConfig``, naming the module, its class and the way out.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import nn

from ...discovery import CONV_KINDS, kind_of
from ...domain.vocabulary import Kind
from ...errors import InvalidConfig, NoAdaptableLayers, quoted
from ..config import AdapterConfig, LoraConfig
from ..layers.wrappers import is_plain_conv
from .host_model import Site, Survey

ADAPTABLE: tuple[Kind, ...] = ("linear", "transposed_linear", *CONV_KINDS, "embedding")
"""Kinds of layer that can be a target; ``nn.MultiheadAttention`` is several of them."""
WRONG_KINDS: dict[Kind, str] = {
    "multihead_attention": "is an attention, of which only LoRA can adapt the fused projections",
    "expert_parameter": "keeps its experts in bare parameters, which target_parameters names",
    "norm": "is a normalisation, for which there is no adapter",
    "embedding": "is an embedding, which IA3 does not rescale",
}
"""The reason why a layer of another kind cannot be one."""
MATRICES = (2, 3)
"""Numbers of dimensions of a matrix and of a stack of matrices."""
MARKS = ({"base_layer", "lora_A"}, {"base_layer", "lora_embedding_A"}, {"original_module", "modules_to_save"})
"""Names of children that only an adapter's module has, ours or PEFT's."""
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
LEAVE_OUT = "Take it out of target_modules, or name it in exclude_modules."


def rejected(path: str, module: nn.Module, why: str, way_out: str = LEAVE_OUT) -> InvalidConfig:
    """Return the error for a module that cannot be adapted or saved."""
    name = type(module).__name__
    return InvalidConfig(f"{path!r} ({name}) {why}. {way_out}", path=path, class_name=name)


def check_layer(path: str, site: Site, kind: Kind, r: int, *, is_passed_in: bool = False) -> nn.Parameter | None:
    """Reject a layer that no adapter of rank ``r`` fits; return its weight if it has one.

    Args:
        path: Its path, for the message.
        site: The layer.
        kind: Its kind.
        r: The rank; 0 for IA3, which has no adapter for embeddings.
        is_passed_in: Whether its attention is adapted as well, and passes the updated weight in.
    """
    module: Any = site.module
    if isinstance(site.parent, nn.MultiheadAttention) and not is_passed_in:
        parent = type(site.parent).__name__
        raise rejected(path, module, f"belongs to a {parent}, which never calls it: an adapter there would be dead")
    if kind not in ADAPTABLE or (kind == "embedding" and not r):
        raise _wrong_kind(path, module, kind)
    weight: Any = module._parameters.get("weight")  # noqa: SLF001 - packed weights have other names
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise rejected(path, module, "does not know its shape yet", "Run the model once before adapting it.")
    if kind != "linear" and not weight.is_floating_point():
        raise rejected(path, module, f"has quantised weights ({module.weight.dtype})")
    # A subclass may read a mask or a length, not ids; those that scale the result have an `embed_scale` (Gemma, Bart).
    if kind == "embedding" and type(module).forward is not nn.Embedding.forward and not hasattr(module, "embed_scale"):
        raise rejected(path, module, "computes its ids in a forward of its own, which the adapter would not see")
    groups: int = module.groups if kind in CONV_KINDS else 1
    if r % groups:
        way_out = f"Give it a rank that {groups} divides (rank_pattern), or name it in exclude_modules."
        raise rejected(path, module, f"has groups={groups}, which do not divide the rank r={r}", way_out)
    if groups > 1 and not is_plain_conv(module) and r:
        raise rejected(path, module, f"has groups={groups} and a forward of its own, which LoRA cannot imitate")
    return weight  # type: ignore[no-any-return]


def _wrong_kind(path: str, module: nn.Module, kind: Kind) -> InvalidConfig:
    inside = [name for name, _ in module.named_children()] if kind == "other" else []
    way_out = f"Name the layers inside of it ({quoted(inside[:4])})." if inside else LEAVE_OUT
    return rejected(path, module, WRONG_KINDS.get(kind, "is no linear, convolution or embedding"), way_out)


def check_parameter(path: str, site: Site, name: str) -> nn.Parameter:
    """Reject a bare parameter that is not a matrix or a stack of matrices in floating point; return the parameter."""
    parameter = site.module._parameters[name]  # noqa: SLF001 - as matched
    if parameter is None or parameter.ndim not in MATRICES or not parameter.is_floating_point():
        key, shape = f"{path}.{name}", None if parameter is None else tuple(parameter.shape)
        message = f"target_parameters: {key!r} has shape {shape}, and is no matrix or stack of matrices"
        raise InvalidConfig(f"{message} in floating point. Leave it out.", path=key, shape=shape)
    if isinstance(site.module, nn.ParameterList | nn.ParameterDict):
        raise rejected(path, site.module, "is only a list, which is never called: an adapter there would be dead")
    return parameter


def inner_layer(path: str, survey: Survey) -> str:
    """Return the path of the linear layer inside of a module that only wraps it, such as a clipping linear."""
    module = survey.sites[path].module
    is_list = isinstance(module, nn.ModuleList | nn.ModuleDict)
    if not is_list and kind_of(module) == "other" and len(module._modules) == 1 and not module._parameters:  # noqa: SLF001
        inner = f"{path}.{next(iter(module._modules))}"  # noqa: SLF001
        if inner in survey.sites and kind_of(survey.sites[inner].module) in ("linear", "transposed_linear"):
            return inner
    return path


def check_saved(survey: Survey, paths: Collection[str]) -> tuple[str, ...]:
    """Reject modules that cannot be trained in full through a copy; return the paths of the others.

    One without parameters is passed over if others are left: ``head`` may match a classifier and the emptied head of a
    backbone too.
    """
    modules = {path: survey.sites[path].module for path in paths}
    for path, module in modules.items():
        if isinstance(module, CONTAINERS):
            way_out = "Name the modules inside of it in modules_to_save."
            raise rejected(path, module, "cannot be saved as a whole", way_out)
    trainable = [path for path, module in modules.items() if any(p.is_floating_point() for p in module.parameters())]
    if modules and not trainable:
        path, module = next(iter(modules.items()))
        raise rejected(path, module, "has no parameters to train", "Take it out of modules_to_save.")
    return tuple(trainable)


def check_not_adapted(survey: Survey) -> None:
    """Reject a model with adapters in it, ours or PEFT's."""
    for path, site in survey.sites.items():
        names = site.module._modules.keys()  # noqa: SLF001 - hasattr() would look in the wrapped module
        is_marked = ("base_layer" in names or "original_module" in names) and any(names >= marks for marks in MARKS)
        if site.wrappers or is_marked:
            message = f"{type(survey.model).__name__} carries adapters already (at {path!r})."
            raise InvalidConfig(f"{message} Call unload() or merge_and_unload() on it first.", path=path)


def check_blocks(survey: Survey, config: AdapterConfig) -> None:
    """Reject ``layers_to_transform`` where one block is run as several layers, as in ALBERT."""
    depth = getattr(getattr(survey.model, "config", None), "num_hidden_layers", None)  # of a transformers model
    if not isinstance(depth, int) or not isinstance(config, LoraConfig) or config.layers_to_transform is None:
        return
    numbers = [int(name) for path in survey.paths for name in path.split(".") if name.isdecimal()]
    # Blocks in stages have small numbers too, but more layers of one name than that.
    names = Counter(path.rpartition(".")[2] for path in survey.paths)
    if numbers and max(numbers) + 1 < depth and max(names.values()) < depth:
        path, blocks = next(path for path in survey.paths if path.rpartition(".")[2].isdecimal()), max(numbers) + 1
        shared = f"the block {path!r} is shared, {depth} layers run on {blocks}"
        way_out = "Leave it out, which adapts all of them; or correct num_hidden_layers, if blocks were cut off."
        message = f"layers_to_transform cannot tell layers apart: {shared}. {way_out}"
        raise InvalidConfig(message, path=path, blocks=blocks, depth=depth)


def check_adaptable(survey: Survey) -> None:
    """Reject a model without a module that any configuration could adapt.

    Raises:
        NoAdaptableLayers: Naming its classes.
    """
    if not any(kind_of(site.module) in (*ADAPTABLE, "multihead_attention") for site in survey.sites.values()):
        classes = Counter(type(module).__name__ for module in survey.modules())
        names = ", ".join(name for name, _ in classes.most_common(5))
        message = f"{type(survey.model).__name__} has no layer that LoRA can adapt, only: {names}."
        raise NoAdaptableLayers(message, classes=dict(classes))
