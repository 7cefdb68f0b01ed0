"""The outline of a model: its parts outside the repeated blocks, and the widths they read and write."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from .layers import CONV_CLASSES, KIND_OF_CLASS, kind_of, repeats_blocks


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
    """

    path: str
    class_name: str
    widths: tuple[tuple[int, int], ...]
    is_dense: bool
    is_list: bool
    has_blocks: bool
    computes: bool

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
    if id(module) in seen:
        return []
    seen.add(id(module))
    if repeats_blocks(module):
        widths = tuple(width for inner in module.modules() for width in _own_widths(inner))
        is_dense = any(isinstance(inner, nn.Linear) for inner in module.modules())
        repeated = type(next(module.children())).__name__
        return [Part(path, repeated, widths, is_dense, is_list=True, has_blocks=True, computes=True)]
    children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
    drawn = [_draw(child, below, seen) for below, child in children]
    tops = [parts[0] for parts in drawn if parts]
    part = Part(
        path=path,
        class_name=type(module).__name__,
        widths=(*_own_widths(module), *(width for top in tops for width in top.widths)),
        is_dense=isinstance(module, nn.Linear) or any(top.is_dense for top in tops),
        is_list=False,
        has_blocks=any(top.has_blocks for top in tops),
        computes=owns_factor(module) or any(top.computes for top in tops),
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
