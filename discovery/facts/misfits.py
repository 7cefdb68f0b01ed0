"""Find the layers that no adapter fits, with the reason: one predicate for proposals and injection."""

import ast
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

from torch import nn

from ...domain.layers import Layer
from ...domain.vocabulary import CONV_KINDS, Kind
from .wrapped import is_compiled, own_class, shape_of

FITTING_KINDS: tuple[Kind, ...] = ("linear", "transposed_linear", *CONV_KINDS, "embedding")
"""Kinds of layer that an adapter fits; ``nn.MultiheadAttention`` is several of them."""
WRONG_KINDS: dict[Kind, str] = {
    "multihead_attention": "is an attention, of which only LoRA can adapt the fused projections",
    "expert_parameter": "keeps its experts in bare parameters, which target_parameters names",
    "norm": "is a normalisation, for which there is no adapter",
    "embedding": "is an embedding, which IA3 does not rescale",
}
"""The reason why no adapter fits a layer of another kind."""
MATRICES = (2, 3)
"""Numbers of dimensions of a matrix and of a stack of matrices."""
PACKED = "in_proj_weight"
"""Parameter of ``nn.MultiheadAttention`` that holds query, key and value, if their inputs have one width."""
OWN_FORWARD = "has a forward of its own, which no run has shown to use its projections"
"""Reason to propose no adapter on a subclass of ``nn.MultiheadAttention`` until a run shows that it is live."""
CALLED_OTHERWISE = (
    "has a forward of its own that takes no query, returns no pair or leaves in_proj_weight alone: "
    "loradar may adapt it if it is named, PEFT 0.21.2 cannot"
)
_PROJECTIONS = frozenset({PACKED, "q_proj_weight"})


MUCH = 0.05
"""The share of the weights from which on a class of modules that no adapter fits is named."""


def list_unfitting(model: nn.Module, layers: Iterable[Layer]) -> Iterator[tuple[str, int, float]]:
    """Yield each class of modules with weights that no layer stands for, such as an LSTM: class, number and share."""
    known = {path for layer in layers for path in (layer.path, layer.module_path)}
    total = sum(prod(shape_of(parameter)) for parameter in model.parameters())
    owned: dict[str, list[int]] = defaultdict(list)
    for path, module in model.named_modules():
        if path not in known and not module._modules and ".parametrizations." not in path:
            owned[own_class(module).__name__].append(sum(prod(shape_of(x)) for x in module.parameters()))
    for name, sizes in owned.items():
        if sum(sizes) > MUCH * total:
            yield name, sum(map(bool, sizes)), sum(sizes) / total


def holds_unfitting(model: nn.Module, layers: Iterable[Layer]) -> bool:
    """Return whether a model has a table of embeddings, or a class of modules that no adapter fits has much of it."""
    known = [*layers]
    return any(layer.kind == "embedding" for layer in known) or next(list_unfitting(model, known), None) is not None


class Misfit(NamedTuple):
    """The reason why no adapter fits a layer, as a predicate about it, and the way out if it is a special one."""

    why: str
    way_out: str = ""


def find_misfit(
    module: nn.Module, kind: Kind, r: int, parent: nn.Module | None, *, is_passed_in: bool = False
) -> Misfit | None:
    """Return why no adapter of rank ``r`` fits a layer; ``None`` if one does.

    Args:
        module: The layer.
        kind: Its kind.
        r: The rank; 0 for IA3, which has no adapter for embeddings and attentions.
        parent: The module that contains it.
        is_passed_in: Whether ``parent`` is an attention that is adapted as well, and passes the updated weight in.
    """
    if isinstance(parent, nn.MultiheadAttention) and not is_passed_in and not calls_part(parent, module):
        return Misfit(f"belongs to a {type(parent).__name__}, which never calls it: an adapter there would be dead")
    if kind == "multihead_attention" and r:
        return find_owner_misfit(module)
    if kind not in FITTING_KINDS or (kind == "embedding" and not r):
        return _find_wrong_kind(module, kind)
    return _find_misfit_of_weight(module, kind) or _find_misfit_of_groups(module, kind, r)


def _find_wrong_kind(module: nn.Module, kind: Kind) -> Misfit:
    if is_compiled(module):
        way_out = "Put the layers of Python there that it was compiled from, or name it in exclude_modules."
        return Misfit("is compiled by TorchScript, and none of its layers can be replaced", way_out)
    inside = [name for name, _ in module.named_children()][:4] if kind == "other" else []
    names = ", ".join(map(repr, inside))
    way_out = f"Name the layers inside of it ({names})." if inside else ""
    return Misfit(WRONG_KINDS.get(kind, "is no linear, convolution or embedding"), way_out)


def _find_misfit_of_weight(module: nn.Module, kind: Kind) -> Misfit | None:
    weight: Any = module._parameters.get("weight")  # packed weights have other names
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return Misfit("does not know its shape yet", "Run the model once before adapting it.")
    if kind != "linear" and not weight.is_floating_point():
        return Misfit(f"has quantised weights ({weight.dtype})")
    # A subclass may read a mask or a length, not ids; those that scale the result have an `embed_scale` (Gemma, Bart).
    if kind == "embedding" and type(module).forward is not nn.Embedding.forward and not hasattr(module, "embed_scale"):
        return Misfit("computes its ids in a forward of its own, which the adapter would not see")
    return None


def _find_misfit_of_groups(module: Any, kind: Kind, r: int) -> Misfit | None:
    groups: int = module.groups if kind in CONV_KINDS else 1
    if r % groups:
        way_out = f"Give it a rank that {groups} divides (rank_pattern), or name it in exclude_modules."
        return Misfit(f"has groups={groups}, which do not divide the rank r={r}", way_out)
    if groups > 1 and not is_plain_conv(module) and r:
        return Misfit(f"has groups={groups} and a forward of its own, which LoRA cannot imitate")
    return None


def is_stack(parameter: nn.Parameter | None) -> bool:
    """Return whether a bare parameter is a matrix, or a stack of them, in floating point."""
    return parameter is not None and parameter.ndim in MATRICES and parameter.is_floating_point()


def find_owner_misfit(owner: nn.Module) -> Misfit | None:
    """Return why no adapter fits the bare parameters of a module, which runs with the sum in their place."""
    if isinstance(owner, nn.ParameterList | nn.ParameterDict):
        return Misfit("is only a list, which is never called: an adapter there would be dead")
    return find_attention_misfit(owner) if isinstance(owner, nn.MultiheadAttention) else None


def is_plain_conv(base: nn.Module) -> bool:
    """Return whether a convolution's forward is PyTorch's own."""
    return type(base).forward in (nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)


# --- nn.MultiheadAttention --------------------------------------------------------------------------------------------


def find_attention_misfit(module: nn.Module) -> Misfit | None:
    """Return why LoRA fits no ``nn.MultiheadAttention``: a forward of its own that reads none of its projections."""
    source = _own_source_of(module)
    if source is None or source.is_inherited or source.attributes & _PROJECTIONS:
        return None
    why = "has a forward of its own, which reads none of the weights that project query, key and value"
    return Misfit(why, "Name the layers that its forward calls.")


def find_conv_misfit(conv: Any) -> Misfit | None:
    """Return why a convolution is not proposed: PEFT 0.21.2 makes its factors of its class, without its dilation."""
    own_class: Any = type(conv)
    if not _makes_factors(own_class):
        way = "takes other arguments than a convolution of PyTorch"
        return Misfit(f"{way}: loradar adapts it if it is named, PEFT 0.21.2 cannot make its factors")
    spread = zip(conv.kernel_size, conv.dilation, strict=True)
    if conv.padding == "same" or all(size == 1 or step == 1 for size, step in spread):
        return None
    return Misfit("is dilated: loradar adapts it if it is named, PEFT 0.21.2 fails in its forward")


@lru_cache(maxsize=256)
def _makes_factors(conv: type[nn.Module]) -> bool:
    """Return whether a class takes the arguments that PEFT 0.21.2 gives it (``tuners.lora.layer._ConvNd``)."""
    try:
        signature = inspect.signature(conv)
        factor = signature.bind("in", "r", "kernel_size", "stride", "padding", bias=False)
        signature.bind("r", "out", "kernel_size", "stride", groups=1, bias=False)
    except (TypeError, ValueError):
        return False
    passes_on = any("padding" in value for value in factor.arguments.values() if isinstance(value, tuple))
    return passes_on or factor.arguments.get("padding") == "padding"


def find_proposal_misfit(module: nn.Module) -> Misfit | None:
    """Return why an ``nn.MultiheadAttention`` is not proposed: PEFT would refuse it, or no run has shown it live."""
    misfit = find_attention_misfit(module)
    if misfit is not None:
        return misfit
    if module._parameters.get(PACKED) is None:
        return Misfit("projects inputs of several widths: loradar adapts it if it is named, PEFT 0.21.2 does not")
    if not isinstance(module._modules.get("out_proj"), nn.Linear):
        return Misfit("has an out_proj that is no nn.Linear, which PEFT 0.21.2 refuses")
    return None if type(module).forward is nn.MultiheadAttention.forward else Misfit(OWN_FORWARD)


def calls_part(attention: nn.MultiheadAttention, part: nn.Module) -> bool:
    """Return whether the forward of an ``nn.MultiheadAttention`` calls a part of it: only a subclass's own may."""
    source = _own_source_of(attention)
    if source is None or type(attention).forward is nn.MultiheadAttention.forward:
        return False
    return any(child is part and name in source.called for name, child in attention._modules.items())


@dataclass(frozen=True, slots=True)
class _OwnSource:
    """The methods that subclasses of ``nn.MultiheadAttention`` add to it.

    Attributes:
        attributes: Names of all attributes they mention.
        called: Names of the attributes of ``self`` that they call.
        is_inherited: Whether the forward is PyTorch's, or passes on to that of a base class.
    """

    attributes: frozenset[str]
    called: frozenset[str]
    is_inherited: bool


def _own_source_of(attention: nn.Module) -> _OwnSource | None:
    """Return the source of an attention's class, down to PyTorch's; ``None`` if there is none to read."""
    own_class: Any = type(attention)
    return _read_own_source(own_class)


@lru_cache(maxsize=256)
def _read_own_source(owner: type[nn.Module]) -> _OwnSource | None:
    nodes: list[ast.AST] = []
    for each in owner.__mro__[: owner.__mro__.index(nn.MultiheadAttention)]:
        try:
            nodes += ast.walk(ast.parse(textwrap.dedent(inspect.getsource(each))))
        except (OSError, TypeError, SyntaxError):  # typed into an interpreter, or made without a file
            return None
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    called, passes_on = set[str](), owner.forward is nn.MultiheadAttention.forward
    own = {node.args.args[0].arg for node in nodes if isinstance(node, ast.FunctionDef) and node.args.args}
    for function in (node.func for node in nodes if isinstance(node, ast.Call)):
        match function:
            case ast.Attribute(attr=name, value=ast.Name(id=holder)) if holder in own:  # self, by any name
                called.add(name)
            case ast.Attribute(attr="forward", value=ast.Call(func=ast.Name(id="super")) | ast.Attribute()):
                passes_on = True
    return _OwnSource(frozenset(attributes), frozenset(called), passes_on)
