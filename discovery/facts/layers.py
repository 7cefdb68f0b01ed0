"""The typed layers of a model, and the outline of its parts: facts only, no roles."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import getattr_static
from typing import Any, cast

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from ...domain.layers import Layer
from ...domain.vocabulary import CONV_KINDS, RANK, Kind
from .misfits import calls_part, find_conv_misfit, find_misfit, find_owner_misfit, find_proposal_misfit, is_stack
from .wrapped import is_compiled, own_class, shape_of

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
        stack.extend(reversed(children_of(site)))


def children_of(site: Site) -> list[Site]:
    """Return the children of a module; each composite child of a list of blocks is a block.

    A compiled module (TorchScript) counts as one piece.
    """
    if is_compiled(site.module):
        return []
    owner = own_class(site.module).__name__
    holds_blocks = repeats_blocks(site.module)
    children = []
    for name, child in site.module._modules.items():
        if child is not None:
            path = f"{site.path}.{name}" if site.path else name
            is_block = holds_blocks and bool(child._modules)
            block = (path, site.depth + 1) if is_block else (site.block, site.depth)
            children.append(Site(path, child, owner, *block))
    return children


def list_aliases(sites: Sequence[Site]) -> dict[str, str]:
    """Return the first path of each module that stands in a second place, by its path there."""
    first = {id(site.module): site.path for site in sites}
    children = (
        (f"{site.path}.{name}" if site.path else name, id(child))
        for site in sites
        for name, child in site.module._modules.items()
    )
    return {path: first[child] for path, child in children if first.get(child, path) != path}


def repeats_blocks(module: nn.Module) -> bool:
    """Return whether a module is a list of repeated blocks.

    It is when all its children are named by an index and at least two composite ones share their class. A
    ``ModuleList`` with a single composite child counts: that is a model cut to one block, while a ``Sequential``
    with one composite child is just a sequence.
    """
    names = {} if is_compiled(module) else module._modules
    if not names or not all(name.isdecimal() for name in names):
        return False
    classes = [type(child) for child in names.values() if child is not None and child._modules]
    if isinstance(module, nn.ModuleList):
        return bool(classes)
    return len(classes) > len(set(classes))


def list_layers(model: nn.Module, sites: Iterable[Site] | None = None) -> tuple[Layer, ...]:
    """Return one record per adaptable layer of ``model`` (live or on meta), in module order; one per stack of experts.

    ``out_proj`` of ``nn.MultiheadAttention`` is a linear by class, but its weight is read directly and its forward
    never runs. ``sites`` are the model's modules from ``walk``, if the caller has them.
    """
    layers: list[Layer] = []
    first_with_weight: dict[int, str] = {}
    attentions: dict[int, nn.MultiheadAttention] = {}  # by the ids of their parts
    for site in walk(model) if sites is None else sites:
        module, kind, class_name = site.module, kind_of(site.module), own_class(site.module).__name__
        if isinstance(module, nn.MultiheadAttention):
            attentions.update((id(child), module) for child in module.children())
        attention = attentions.get(id(module))
        is_bypassed = attention is not None and not calls_part(attention, module)
        for name, shape, weight in _weights(module, kind):
            is_bare = kind == "expert_parameter"
            path = f"{site.path}.{name}" if is_bare else site.path
            features = _features(module, kind, shape)
            first = first_with_weight.setdefault(id(weight), path)
            layer = Layer(
                path=path,
                kind=kind,
                class_name=class_name,
                shape=shape,
                in_features=features[0],
                out_features=features[1],
                groups=module.groups if isinstance(module, CONV_CLASSES) else 1,
                owner=class_name if is_bare else site.owner,
                block=site.block,
                depth=site.depth,
                bypassed=READS_ITS_PARTS if is_bypassed else None,
                tied_to=None if first == path else first,
                misfit=_explain_misfit(site, kind, name, attention),
            )
            layers.append(layer)
    return tuple(layers)


def _explain_misfit(site: Site, kind: Kind, name: str, attention: nn.Module | None) -> str | None:
    """Return why no adapter is proposed for a layer in any role; ``None`` if there is no such reason."""
    module = site.module
    if kind == "expert_parameter":
        if not is_stack(module._parameters[name]):
            return "holds no stack of matrices in floating point"
        if not site.path:
            return "belongs to the model itself, which no adapter can take the place of"
        misfit = find_owner_misfit(module)
    elif kind == "multihead_attention":
        misfit = find_proposal_misfit(module)
    elif kind in ("norm", "other"):
        return None  # for other methods than those that adapt a weight
    elif isinstance(module, CONV_CLASSES):
        misfit = find_misfit(module, kind, module.groups * RANK, attention) or find_conv_misfit(module)
    else:
        misfit = find_misfit(module, kind, RANK, attention)
    return misfit.why if misfit else None


def kind_of(module: nn.Module) -> Kind:
    """Return the kind of layer an adapter on this module has to imitate; ``other`` if it owns no known weight.

    Transformers' ``Conv1D`` and the many custom norms are identified by their class names, so that nothing need be
    imported. A parametrised layer (weight norm) recomputes its weight, so there is nothing to adapt in place.
    """
    parameters = {} if is_compiled(module) else module._parameters
    weight, class_name = parameters.get("weight"), own_class(module).__name__
    module_class: Any = type(module)
    kind = _kind_of_class(module_class)
    if kind in WEIGHT_KINDS:
        return kind if "weight" in parameters else "other"
    if kind is not None:
        return kind
    if is_linear_by_features(module):
        return "linear"
    if weight is not None and class_name == "Conv1D" and len(shape_of(weight)) == 2:  # noqa: PLR2004
        return "transposed_linear"
    if weight is not None and class_name.endswith("Norm"):
        return "norm"
    return "expert_parameter" if holds_experts(module) else "other"


@lru_cache(maxsize=1024)  # a model has many layers of few classes
def _kind_of_class(module_class: type[nn.Module]) -> Kind | None:
    return next((kind for base, kind in KIND_OF_CLASS.items() if issubclass(module_class, base)), None)


def is_linear_by_features(module: nn.Module) -> bool:
    """Identify linears that do not subclass ``nn.Linear`` by their declared features.

    Quantised ones pack their weight under other names (GPTQ, AWQ, HQQ), or round it in the forward (I-BERT).
    """
    read, written = (module.__dict__.get(name) for name in ("in_features", "out_features"))
    if module._modules or not (isinstance(read, int) and isinstance(written, int)):
        return False
    weight = module._parameters.get("weight")
    if weight is None:
        return bool(module._buffers or module._parameters)
    return shape_of(weight) == (written, read)


def holds_experts(module: nn.Module) -> bool:
    """Identify fused experts: stacks of matrices that agree on their first dimension, the number of experts.

    A single stack counts if it is its module's whole weight: experts of one layer each, or one matrix per codebook.
    Stacks of one matrix, or of different numbers of them, count if their matrices form a feed-forward network.
    """
    if isinstance(module, ParametrizationList) or is_compiled(module):
        return False
    if getattr_static(module, "kernel_size", None) is not None:  # a transposed convolution, or a user's
        return False
    shapes = [shape_of(parameter) for parameter in module._parameters.values() if parameter is not None]
    stacks = [shape for shape in shapes if len(shape) == 3]  # noqa: PLR2004
    if not stacks or any(1 in shape[1:] for shape in stacks):
        return False
    if {shape[0] for shape in stacks} != {max(2, stacks[0][0])}:  # of one matrix, or of different numbers
        return form_network([shape[1:] for shape in stacks])
    is_one_weight = "weight" in module._parameters and not module._modules and not isinstance(module, nn.Bilinear)
    return len(stacks) > 1 or is_one_weight


def form_network(matrices: Sequence[tuple[int, ...]]) -> bool:
    """Return whether matrices lead to an inner width and back, the first maybe with gate and up in one.

    Tables of positions and learned tokens, of which a module may hold several, do not.
    """
    back = {(a, b): ({(a, b), (b, a), (2 * b, a)}, {(a, b), (b, a), (b, 2 * a)}) for a, b in matrices}
    return len(back) > 1 and any(back.keys() <= known for pair in back.values() for known in pair)


def _weights(module: nn.Module, kind: Kind) -> list[tuple[str, tuple[int, ...], object]]:
    """Return (name, shape, weight) for each layer of a module; the module stands for a packed weight.

    A bare router, of no known kind, owns a 2-D ``weight`` too.
    """
    if is_compiled(module):
        return []
    parameters = module._parameters
    if kind == "linear" and "weight" not in parameters:
        return [("", _declared_features(module)[::-1], module)]
    shaped = {name: (shape_of(p), p) for name, p in parameters.items() if p is not None}
    if kind == "expert_parameter":
        return [(name, *pair) for name, pair in shaped.items() if len(pair[0]) == 3]  # noqa: PLR2004
    names = ("in_proj_weight", "q_proj_weight") if kind == "multihead_attention" else ("weight",)
    found = [(name, *shaped[name]) for name in names if name in shaped]
    return [each for each in found[:1] if kind != "other" or len(each[1]) == 2]  # noqa: PLR2004


def _features(module: nn.Module, kind: Kind, shape: tuple[int, ...]) -> tuple[int | None, int | None]:
    """Return the numbers of input and output features; ``None`` where a kind has none."""
    if kind == "linear":
        sizes = _declared_features(module)
        # A size computed by torch while it builds is no number; the weight has it.
        return sizes if all(isinstance(size, int) for size in sizes) else (shape[1], shape[0])
    if isinstance(module, CONV_CLASSES):
        return module.in_channels, module.out_channels
    if isinstance(module, nn.MultiheadAttention):
        return module.embed_dim, module.embed_dim
    return (shape[0], shape[1]) if kind in ("transposed_linear", "embedding") else (None, None)


def _declared_features(module: nn.Module) -> tuple[int, int]:
    return cast("int", module.in_features), cast("int", module.out_features)


# --- the outline ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A module outside the repeated blocks, or a list of them as a whole.

    Attributes:
        path: Where it stands.
        class_name: Its class; of a list, the class it repeats.
        widths: (input, output) of every dense layer and convolution inside, in module order.
        is_dense: Whether any of them is dense.
        is_list: Whether it is a list of repeated blocks; the outline ends there.
        has_blocks: Whether it is or holds such a list.
        computes: Whether it owns a weight that is neither looked up by index nor part of a norm.
        tables: Numbers of rows of the embeddings inside, those in lists left out.
    """

    path: str
    class_name: str
    widths: tuple[tuple[int, int], ...]
    is_dense: bool
    is_list: bool
    has_blocks: bool
    computes: bool
    tables: frozenset[int] = frozenset()

    @property
    def reads(self) -> int | None:
        """Width its first layer reads."""
        return self.widths[0][0] if self.widths else None

    @property
    def writes(self) -> int | None:
        """Width its last layer writes."""
        return self.widths[-1][1] if self.widths else None


def draw_outline(model: nn.Module) -> tuple[Part, ...]:
    """Return the outline of ``model``, parents before their children, in module order."""
    return tuple(_draw(model, "", set()))


def _draw(module: nn.Module, path: str, seen: set[int]) -> list[Part]:
    """Return the part at ``path`` and all below it; a module that stands in two places counts in the first."""
    if id(module) in seen or is_compiled(module):
        return []
    seen.add(id(module))
    if repeats_blocks(module):
        widths = tuple(width for inner in module.modules() for width in _own_widths(inner))
        is_dense = any(isinstance(inner, nn.Linear) for inner in module.modules())
        repeated = type(next(module.children())).__name__
        return [Part(path, repeated, widths, is_dense, is_list=True, has_blocks=True, computes=True)]
    drawn = [_draw(child, f"{path}.{name}".lstrip("."), seen) for name, child in module.named_children()]
    tops = [parts[0] for parts in drawn if parts]
    own_tables = frozenset({module.num_embeddings} if isinstance(module, nn.Embedding) else ())
    part = Part(
        path=path,
        class_name=type(module).__name__,
        widths=(*_own_widths(module), *(width for top in tops for width in top.widths)),
        is_dense=isinstance(module, nn.Linear) or any(top.is_dense for top in tops),
        is_list=False,
        has_blocks=any(top.has_blocks for top in tops),
        computes=owns_factor(module) or any(top.computes for top in tops),
        tables=own_tables.union(*(top.tables for top in tops)),
    )
    return [part, *(below for parts in drawn for below in parts)]


def _own_widths(module: nn.Module) -> Iterator[tuple[int, int]]:
    if isinstance(module, nn.Linear):
        yield module.in_features, module.out_features
    elif isinstance(module, CONV_CLASSES):
        yield module.in_channels, module.out_channels


def owns_factor(module: nn.Module) -> bool:
    """Return whether a module owns a factor of a product; a lone vector is a scale or a learned token."""
    own = list(module.parameters(recurse=False))
    if not own or kind_of(module) in ("embedding", "norm"):
        return False
    return isinstance(module, tuple(KIND_OF_CLASS)) or any(parameter.ndim > 1 for parameter in own)
