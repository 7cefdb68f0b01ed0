"""One model -> its typed layers: facts only, no judgement about what a layer is for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from ..records import Kind, Layer

NORM_CLASSES = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.modules.batchnorm._NormBase,  # noqa: SLF001 - the common base of torch's batch and instance norms
)
CONV_KINDS: dict[type[nn.Module], Kind] = {nn.Conv1d: "conv1d", nn.Conv2d: "conv2d", nn.Conv3d: "conv3d"}


@dataclass(frozen=True, slots=True)
class Site:
    """A module, where it stands and how many repeated blocks enclose it."""

    path: str
    module: nn.Module
    owner: str
    depth: int


def walk(model: nn.Module) -> Iterator[Site]:
    """Yield every module once, parents first, in the order of ``named_modules``."""
    seen: set[int] = set()
    stack = [Site("", model, "", 0)]
    while stack:
        site = stack.pop()
        if id(site.module) in seen:
            continue
        seen.add(id(site.module))
        yield site
        stack.extend(reversed([*_children(site)]))


def _children(site: Site) -> Iterator[Site]:
    children = site.module._modules  # noqa: SLF001 - named_children() skips a module registered twice
    owner = type(site.module).__name__
    inside = site.depth + 1 if repeats_blocks(site.module) else site.depth
    for name, child in children.items():
        if child is not None:
            is_block = inside > site.depth and bool(child._modules)  # noqa: SLF001
            path = f"{site.path}.{name}" if site.path else name
            yield Site(path, child, owner, inside if is_block else site.depth)


def repeats_blocks(module: nn.Module) -> bool:
    """Tell whether a module is a list of repeated blocks.

    It is when all its children are named by an index and at least two composite ones share their class. A
    ``ModuleList`` with a single composite child counts: that is a model cut to one block, while a ``Sequential``
    with one composite child is just a sequence.
    """
    names = module._modules  # noqa: SLF001
    if not names or not all(name.isdecimal() for name in names):
        return False
    classes = [type(child) for child in names.values() if child is not None and child._modules]  # noqa: SLF001
    if isinstance(module, nn.ModuleList):
        return bool(classes)
    return len(classes) > len(set(classes))


def list_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Return one record per adaptable layer of ``model`` (live or on meta), in module order.

    What ``nn.MultiheadAttention`` holds is part of it: its ``out_proj`` is a linear by class, but its weight is
    read directly and its forward never runs.
    """
    layers: list[Layer] = []
    first_with_weight: dict[int, str] = {}
    hidden: set[int] = set()
    for site in walk(model):
        if isinstance(site.module, nn.MultiheadAttention):
            hidden.update(id(child) for child in site.module.children())
        if id(site.module) in hidden:
            continue
        for layer, weight in describe(site):
            first = first_with_weight.setdefault(id(weight), layer.path)
            layers.append(layer if first == layer.path else replace(layer, tied_to=first))
    return tuple(layers)


def describe(site: Site) -> Iterator[tuple[Layer, nn.Parameter]]:
    """Yield the layers a single module owns, each with its weight: none, one, or one per expert parameter."""
    module = site.module
    kind = kind_of(module)
    class_name = type(module).__name__
    for name, weight in _weights(module, kind):
        is_bare = kind == "expert_parameter"
        read, written = _features(module, kind, tuple(weight.shape))
        layer = Layer(
            path=f"{site.path}.{name}" if is_bare else site.path,
            kind=kind,
            class_name=class_name,
            shape=tuple(weight.shape),
            in_features=read,
            out_features=written,
            groups=module.groups if isinstance(module, tuple(CONV_KINDS)) else 1,
            owner=class_name if is_bare else site.owner,
            depth=site.depth,
        )
        yield layer, weight


def kind_of(module: nn.Module) -> Kind:
    """Return what an adapter on this module would have to imitate; ``other`` if it owns no weight we know.

    Quantised linears subclass ``nn.Linear``. Transformers' ``Conv1D`` is known by its name and its 2-D weight, so
    that transformers need not be imported.
    """
    conv = next((kind for base, kind in CONV_KINDS.items() if isinstance(module, base)), None)
    if conv is not None:
        # A parametrised (weight-normed) convolution recomputes its weight: there is nothing to adapt in place.
        return conv if "weight" in module._parameters else "other"  # noqa: SLF001
    if isinstance(module, nn.Linear):
        return "linear" if "weight" in module._parameters else "other"  # noqa: SLF001
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.MultiheadAttention):
        return "multihead_attention"
    weight = module._parameters.get("weight")  # noqa: SLF001
    class_name = type(module).__name__
    if class_name == "Conv1D" and weight is not None and weight.ndim == 2:  # noqa: PLR2004
        return "transposed_linear"
    if isinstance(module, NORM_CLASSES) or (class_name.endswith("Norm") and weight is not None):
        return "norm"
    return "expert_parameter" if _holds_experts(module) else "other"


def _holds_experts(module: nn.Module) -> bool:
    """Fused experts are 3-D parameters that agree on their first dimension, the number of experts."""
    stacks = [p for p in module._parameters.values() if p is not None and p.ndim == 3]  # noqa: PLR2004, SLF001
    counts = {stack.shape[0] for stack in stacks}
    if len(counts) != 1 or counts == {1}:
        return False
    return len(stacks) > 1 or "Expert" in type(module).__name__


def _weights(module: nn.Module, kind: Kind) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (name, weight) of what makes the module a layer; a bare router owns a 2-D ``weight`` too."""
    parameters = module._parameters  # noqa: SLF001
    if kind == "expert_parameter":
        yield from ((name, p) for name, p in parameters.items() if p is not None and p.ndim == 3)  # noqa: PLR2004
        return
    names = ("in_proj_weight", "q_proj_weight") if kind == "multihead_attention" else ("weight",)
    found = [(name, weight) for name in names if (weight := parameters.get(name)) is not None]
    if found and (kind != "other" or found[0][1].ndim == 2):  # noqa: PLR2004
        yield found[0]


def _features(module: nn.Module, kind: Kind, shape: tuple[int, ...]) -> tuple[int | None, int | None]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, tuple(CONV_KINDS)):
        return module.in_channels, module.out_channels
    if isinstance(module, nn.MultiheadAttention):
        return module.embed_dim, module.embed_dim
    if kind in ("transposed_linear", "embedding"):
        return shape[0], shape[1]
    return None, None
