"""One model -> its typed layers: facts only, no judgement about what a layer is for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from ...domain.scans import Layer
from ...domain.vocabulary import CONV_KINDS, Kind

CONV_CLASSES = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
KIND_OF_CLASS: dict[type[nn.Module], Kind] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.Embedding: "embedding",
    nn.MultiheadAttention: "multihead_attention",
    nn.LayerNorm: "norm",
    nn.RMSNorm: "norm",
    nn.GroupNorm: "norm",
    nn.modules.batchnorm._NormBase: "norm",
}
READS_ITS_PARTS = "torch.nn.functional.multi_head_attention_forward"
WEIGHT_KINDS: tuple[Kind, ...] = ("linear", *CONV_KINDS, "embedding")


@dataclass(frozen=True, slots=True)
class Site:
    """A module, where it stands, the innermost repeated block around it and how many there are."""

    path: str
    module: nn.Module
    owner: str
    block: str | None
    depth: int


def walk(model: nn.Module) -> Iterator[Site]:
    """Yield every module once, parents first, in the order of ``named_modules``."""
    seen: set[int] = set()
    stack = [Site("", model, "", None, 0)]
    while stack:
        site = stack.pop()
        if id(site.module) in seen:
            continue
        seen.add(id(site.module))
        yield site
        stack.extend(reversed([*_children(site)]))


def _children(site: Site) -> Iterator[Site]:
    owner = type(site.module).__name__
    holds_blocks = repeats_blocks(site.module)
    for name, child in site.module._modules.items():
        if child is None:
            continue
        path = f"{site.path}.{name}" if site.path else name
        if holds_blocks and child._modules:
            yield Site(path, child, owner, path, site.depth + 1)
        else:
            yield Site(path, child, owner, site.block, site.depth)


def repeats_blocks(module: nn.Module) -> bool:
    """Tell whether a module is a list of repeated blocks.

    It is when all its children are named by an index and at least two composite ones share their class. A
    ``ModuleList`` with a single composite child counts: that is a model cut to one block, while a ``Sequential``
    with one composite child is just a sequence.
    """
    names = module._modules
    if not names or not all(name.isdecimal() for name in names):
        return False
    classes = [type(child) for child in names.values() if child is not None and child._modules]
    if isinstance(module, nn.ModuleList):
        return bool(classes)
    return len(classes) > len(set(classes))


def list_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Return one record per adaptable layer of ``model`` (live or on meta), in module order.

    ``out_proj`` of ``nn.MultiheadAttention`` is a linear by class, but its weight is read directly and its forward
    never runs.
    """
    layers: list[Layer] = []
    first_with_weight: dict[int, str] = {}
    unheard: set[int] = set()
    for site in walk(model):
        if getattr(type(site.module), "forward", None) is nn.MultiheadAttention.forward:
            unheard.update(id(child) for child in site.module.children())
        for found, weight in describe(site):
            layer = replace(found, bypassed=READS_ITS_PARTS) if id(site.module) in unheard else found
            first = first_with_weight.setdefault(id(weight), layer.path)
            layers.append(layer if first == layer.path else replace(layer, tied_to=first))
    return tuple(layers)


def describe(site: Site) -> Iterator[tuple[Layer, object]]:
    """Yield the layers a single module owns, each with what its weight is known by: none, one, or one per stack."""
    module = site.module
    kind = kind_of(module)
    class_name = type(module).__name__
    for name, weight in _weights(module, kind):
        is_bare = kind == "expert_parameter"
        shape = tuple(weight.shape) if weight is not None else _features_of(module)[::-1]
        read, written = _features(module, kind, shape)
        layer = Layer(
            path=f"{site.path}.{name}" if is_bare else site.path,
            kind=kind,
            class_name=class_name,
            shape=shape,
            in_features=read,
            out_features=written,
            groups=module.groups if isinstance(module, CONV_CLASSES) else 1,
            owner=class_name if is_bare else site.owner,
            block=site.block,
            depth=site.depth,
        )
        yield layer, module if weight is None else weight


def kind_of(module: nn.Module) -> Kind:
    """Return what an adapter on this module would have to imitate; ``other`` if it owns no weight we know.

    Quantised linears subclass ``nn.Linear``, or are known by their features: their weight is packed under other names
    (GPTQ, AWQ, HQQ), or a class of their own rounds it as it goes (I-BERT). A parametrised layer (weight norm)
    recomputes its weight, so there is nothing to adapt in place.
    """
    kind = next((kind for base, kind in KIND_OF_CLASS.items() if isinstance(module, base)), None)
    if kind in WEIGHT_KINDS:
        return kind if "weight" in module._parameters else "other"
    if kind is not None:
        return kind
    if _is_linear_by_features(module):
        return "linear"
    return _kind_by_name(module) or ("expert_parameter" if _holds_experts(module) else "other")


def _is_linear_by_features(module: nn.Module) -> bool:
    read, written = (module.__dict__.get(name) for name in ("in_features", "out_features"))
    if module._modules or not (isinstance(read, int) and isinstance(written, int)):
        return False
    weight = module._parameters.get("weight")
    if weight is None:
        return bool(module._buffers or module._parameters)
    return tuple(weight.shape) == (written, read)


def _kind_by_name(module: nn.Module) -> Kind | None:
    """Know transformers' ``Conv1D`` and the many own norms by their names, so that nothing need be imported."""
    weight, class_name = module._parameters.get("weight"), type(module).__name__
    if weight is None:
        return None
    if class_name == "Conv1D" and weight.ndim == 2:  # noqa: PLR2004
        return "transposed_linear"
    return "norm" if class_name.endswith("Norm") else None


def _holds_experts(module: nn.Module) -> bool:
    """Fused experts are stacks of matrices that agree on their first dimension, the number of experts.

    A single stack counts if it is its module's whole weight: experts of one layer each, or one matrix per codebook.
    """
    if isinstance(module, ParametrizationList):
        return False
    stacks = [p for p in module._parameters.values() if p is not None and p.ndim == 3]  # noqa: PLR2004
    counts = {stack.shape[0] for stack in stacks}
    if len(counts) != 1 or any(1 in stack.shape for stack in stacks):
        return False
    is_one_weight = "weight" in module._parameters and not module._modules and not isinstance(module, nn.Bilinear)
    return len(stacks) > 1 or is_one_weight


def _weights(module: nn.Module, kind: Kind) -> Iterator[tuple[str, nn.Parameter | None]]:
    """Yield (name, weight) of what makes the module a layer; a bare router owns a 2-D ``weight`` too."""
    parameters = module._parameters
    if kind == "expert_parameter":
        yield from ((name, p) for name, p in parameters.items() if p is not None and p.ndim == 3)  # noqa: PLR2004
        return
    if kind == "linear" and "weight" not in parameters:
        yield "", None
        return
    names = ("in_proj_weight", "q_proj_weight") if kind == "multihead_attention" else ("weight",)
    found = [(name, weight) for name in names if (weight := parameters.get(name)) is not None]
    if found and (kind != "other" or found[0][1].ndim == 2):  # noqa: PLR2004
        yield found[0]


def _features(module: nn.Module, kind: Kind, shape: tuple[int, ...]) -> tuple[int | None, int | None]:
    if kind == "linear":
        sizes = _features_of(module)
        # A size worked out by torch while it builds is no number; the weight has it.
        return sizes if all(isinstance(size, int) for size in sizes) else (shape[1], shape[0])
    if isinstance(module, CONV_CLASSES):
        return module.in_channels, module.out_channels
    if isinstance(module, nn.MultiheadAttention):
        return module.embed_dim, module.embed_dim
    if kind in ("transposed_linear", "embedding"):
        return shape[0], shape[1]
    return None, None


def _features_of(module: nn.Module) -> tuple[int, int]:
    """Return what a linear reads and writes; both were found to be numbers before."""
    return cast("int", module.in_features), cast("int", module.out_features)
