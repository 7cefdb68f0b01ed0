"""Whether a model, or one of its modules, can be adapted or saved at all."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from torch import nn

from ...discovery import CONV_KINDS, kind_of
from ...domain.vocabulary import Kind
from ...errors import NoAdaptableLayers
from ..config import AdapterConfig, LoraConfig
from ..layers.factors import is_plain_conv
from . import foreign
from . import rejections as refusals
from .sites import Site, Survey

ADAPTABLE: tuple[Kind, ...] = ("linear", "transposed_linear", *CONV_KINDS, "embedding")
"""Kinds of layer that can be targets by themselves; ``nn.MultiheadAttention`` is several."""
MATRICES = (2, 3)
"""Dimensions of a matrix and of a stack of them."""
MARKS = ({"base_layer", "lora_A"}, {"base_layer", "lora_embedding_A"}, {"original_module", "modules_to_save"})
"""Children by which a module gives itself away as an adapter, ours or PEFT's."""


def check_layer(path: str, site: Site, kind: Kind, r: int, *, is_reached: bool = False) -> nn.Parameter | None:
    """Refuse a layer that an adapter of rank ``r`` (0 for IA3) cannot sit on; return its weight if it has one.

    Args:
        path: Its path, for the message.
        site: The layer.
        kind: What it is.
        r: The rank; 0 for IA3, which has no adapter for embeddings.
        is_reached: Whether it is part of an attention that gets an adapter, too, and will hand its update on.

    Raises:
        InvalidConfig: Naming the layer, its class and the way out.
    """
    if isinstance(site.parent, nn.MultiheadAttention) and not is_reached:
        raise refusals.inside_multihead_attention(path, site)
    if kind not in ADAPTABLE or (kind == "embedding" and not r):
        raise refusals.wrong_kind(path, site.module, kind)
    weight: Any = site.module._parameters.get("weight")  # noqa: SLF001 - packed weights have other names
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise refusals.lazy(path, site.module)
    if kind != "linear" and not weight.is_floating_point():
        raise refusals.quantised(path, site.module)
    if kind == "embedding" and not foreign.looks_up_ids(site.module):
        raise refusals.own_forward(path, site.module)
    groups: Any = site.module.groups if kind in CONV_KINDS else 1
    if r % groups:
        raise refusals.rank_not_divisible(path, site.module, r)
    if groups > 1 and not is_plain_conv(site.module) and r:
        raise refusals.own_grouped(path, site.module)
    return weight  # type: ignore[no-any-return]


def check_parameter(path: str, site: Site, name: str) -> nn.Parameter:
    """Refuse a bare parameter that is no matrix in floating point, nor a stack of them.

    Raises:
        InvalidConfig: Naming it, its shape and the way out.
    """
    parameter = site.module._parameters[name]  # noqa: SLF001 - as matched
    if parameter is None or parameter.ndim not in MATRICES or not parameter.is_floating_point():
        raise refusals.no_matrix(f"{path}.{name}", parameter)
    if isinstance(site.module, nn.ParameterList | nn.ParameterDict):
        raise refusals.no_forward(path, site.module)
    return parameter


def inner_layer(path: str, survey: Survey) -> str:
    """Return the path of the layer inside, for a module that only wraps one: a clipping linear, for example."""
    module = survey.sites[path].module
    is_list = isinstance(module, nn.ModuleList | nn.ModuleDict)
    if not is_list and kind_of(module) == "other" and len(module._modules) == 1 and not module._parameters:  # noqa: SLF001
        inner = f"{path}.{next(iter(module._modules))}"  # noqa: SLF001
        if inner in survey.sites and kind_of(survey.sites[inner].module) in ("linear", "transposed_linear"):
            return inner
    return path


def savable(survey: Survey, paths: Collection[str]) -> tuple[str, ...]:
    """Return the modules that can be trained in full through a copy.

    One without parameters is passed over if others are left: ``head`` may name a classifier and an emptied head of a
    backbone too.

    Raises:
        InvalidConfig: Naming the module, its class and the way out, if one is a container or none has parameters.
    """
    modules = {path: survey.sites[path].module for path in paths}
    for path, module in modules.items():
        if isinstance(module, nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict):
            raise refusals.container_saved(path, module)
    trainable = [path for path, module in modules.items() if any(p.is_floating_point() for p in module.parameters())]
    if modules and not trainable:
        raise refusals.nothing_to_train(*next(iter(modules.items())))
    return tuple(trainable)


def check_not_adapted(survey: Survey) -> None:
    """Refuse a model that carries adapters, ours or PEFT's.

    Raises:
        InvalidConfig: Naming the first place.
    """
    for path, site in survey.sites.items():
        names = site.module._modules  # noqa: SLF001 - hasattr() would ask what a wrapper stands in for
        if site.wrappers or (("base_layer" in names or "original_module" in names) and _is_marked(names)):
            raise refusals.adapted_already(path, survey.model)


def _is_marked(names: Collection[str]) -> bool:
    return any({*names} >= marks for marks in MARKS)


def check_blocks(survey: Survey, config: AdapterConfig) -> None:
    """Refuse ``layers_to_transform`` where one block is run as several layers, as in ALBERT.

    Raises:
        InvalidConfig: Naming the block and how many layers it is run as.
    """
    depth = foreign.depth_of(survey.model)
    if depth is None or not isinstance(config, LoraConfig) or config.layers_to_transform is None:
        return
    numbers = [int(name) for path in survey.paths for name in path.split(".") if name.isdecimal()]
    # Blocks in stages have small numbers too, but more layers of one name than that.
    names = Counter(path.rpartition(".")[2] for path in survey.paths)
    if numbers and max(numbers) + 1 < depth and max(names.values()) < depth:
        path = next(path for path in survey.paths if path.rpartition(".")[2].isdecimal())
        raise refusals.shared_block(path, max(numbers) + 1, depth)


def check_adaptable(survey: Survey) -> None:
    """Refuse a model of which no module could carry an adapter, whatever the configuration.

    Raises:
        NoAdaptableLayers: Naming the classes there are.
    """
    if not any(kind_of(site.module) in (*ADAPTABLE, "multihead_attention") for site in survey.sites.values()):
        classes = Counter(type(module).__name__ for module in survey.modules())
        names = ", ".join(name for name, _ in classes.most_common(5))
        message = f"{type(survey.model).__name__} has no layer that LoRA can adapt, only: {names}."
        raise NoAdaptableLayers(message, classes=dict(classes))
