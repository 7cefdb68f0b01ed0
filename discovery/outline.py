"""The outline of a model: what stands outside its repeated blocks, and the widths it reads and writes."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from .layers import KIND_OF_CLASS, kind_of, repeats_blocks

LOOKS_UP_OR_NORMALISES = ("embedding", "norm")


@dataclass(frozen=True, slots=True)
class Piece:
    """A module outside the repeated blocks, or a list of them as a whole.

    Attributes:
        path: Where it stands.
        widths: What every dense layer inside reads and writes, in module order.
        is_list: Whether it is a list of repeated blocks; the outline ends there.
        has_blocks: Whether it is or holds such a list.
        computes: Whether it owns a weight that is neither looked up by index nor part of a norm.
    """

    path: str
    widths: tuple[tuple[int, int], ...]
    is_list: bool
    has_blocks: bool
    computes: bool

    @property
    def reads(self) -> int | None:
        """Width its first dense layer reads."""
        return self.widths[0][0] if self.widths else None

    @property
    def writes(self) -> int | None:
        """Width its last dense layer writes."""
        return self.widths[-1][1] if self.widths else None


def draw_outline(model: nn.Module) -> tuple[Piece, ...]:
    """Return the outline of ``model``, parents before their children, in module order."""
    return tuple(_draw(model, "", set()))


def _draw(module: nn.Module, path: str, seen: set[int]) -> list[Piece]:
    """Return the piece at ``path`` and all below it; a module that stands in two places counts in the first."""
    if id(module) in seen:
        return []
    seen.add(id(module))
    if repeats_blocks(module):
        return [Piece(path, tuple(_widths_inside(module)), is_list=True, has_blocks=True, computes=True)]
    children = [(f"{path}.{name}" if path else name, child) for name, child in module._modules.items() if child]
    drawn = [_draw(child, below, seen) for below, child in children]
    tops = [pieces[0] for pieces in drawn if pieces]
    widths = (*_own_widths(module), *(width for top in tops for width in top.widths))
    has_blocks = any(top.has_blocks for top in tops)
    computes = _computes(module) or any(top.computes for top in tops)
    piece = Piece(path, widths, is_list=False, has_blocks=has_blocks, computes=computes)
    return [piece, *(below for pieces in drawn for below in pieces)]


def _own_widths(module: nn.Module) -> Iterator[tuple[int, int]]:
    kind = kind_of(module)
    if isinstance(module, nn.Linear) and kind == "linear":
        yield module.in_features, module.out_features
    elif kind == "transposed_linear" and isinstance(module.weight, nn.Parameter):
        yield module.weight.shape[0], module.weight.shape[1]


def _widths_inside(module: nn.Module) -> Iterator[tuple[int, int]]:
    for inner in module.modules():
        yield from _own_widths(inner)


def _computes(module: nn.Module) -> bool:
    """Tell whether a module's own parameters take part in a product; a lone vector is a scale or a learned token."""
    if not module._parameters or kind_of(module) in LOOKS_UP_OR_NORMALISES:
        return False
    is_known = isinstance(module, tuple(KIND_OF_CLASS))
    return is_known or any(p is not None and p.ndim > 1 for p in module._parameters.values())
