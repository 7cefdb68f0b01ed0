"""Small real builds of an architecture that have every slot of the full model, and copies of live models."""

import copy
import ctypes
import gc
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import prod
from typing import Any

from torch import nn

from ...data import read_facts
from ...domain.layers import Layer
from ...domain.patterns import pattern_of
from ...errors import ScanFailed
from ...references import Reference
from .. import sources
from ..facts.layers import list_layers
from ..meta_run.conditions import random_states_kept
from ..sources.recipes import Change, Recipe
from .shrink import DEPTHS, Shrink

LIMITS = ((64, True), (64, False), (10, True), (8, True), (5, True), (4, True), (2, False), (1, False))
"""Largest divisor of widths, and whether vocabularies and experts shrink; the smallest model first."""
MOST_PARAMETERS = 375_000_000
"""1.5 GB of weights in single precision."""
MOST_BYTES = 2 << 30
"""Weights up to which a live model is copied."""
SMALL = 20_000_000
"""A model up to this many parameters is small as it is, unless it is deep."""
FEW_LAYERS = 150
DEEPER, MORE_DEPTHS = 6, 2
"""Blocks added to a stack at most, and depths that are built, to see whether a block's place in its stack matters."""
IMAGE = 96
"""Height and width of an image for a model that takes any: three cells after the usual five halvings."""


@dataclass(frozen=True, slots=True, eq=False)
class SmallBuild:
    """A model with real weights, on the CPU.

    Attributes:
        model: In single precision; its mode, dropout and the like are as its library built it.
        says: How much of the full model it is, in words.
        input_size: Channels, height and width of an image it takes, for timm's models.
        scale: An identifier shared by the builds that differ from it in depth alone.
        deepen: Makes the same build with more blocks in its stacks, one or two depths; none of a build at full depth.
    """

    model: nn.Module
    says: str
    input_size: tuple[int, int, int] | None
    scale: str = ""
    deepen: "Callable[[], Iterable[SmallBuild]]" = tuple


Builds = Callable[[Collection[Layer]], Iterator[SmallBuild]]
"""Makes real builds of a model with these layers, the smallest first."""


def list_builds(subject: Any, model: nn.Module, layers: Collection[Layer]) -> Iterator[SmallBuild]:
    """Yield real builds of a scanned model, the smallest first.

    Args:
        subject: The subject of the scan: a reference, a configuration or a live module.
        model: The module that is scanned; a copy of it is the only build, unless ``subject`` names a library's.
        layers: Its layers; each build has all of their slots.

    Raises:
        ScanFailed: If there is none.
    """
    if isinstance(subject, str) and Reference.parse(subject).scheme != "torch":
        yield from small_builds(Reference.parse(subject), layers)
        return
    name = type(model).__name__
    if any(parameter.is_meta for parameter in model.parameters()):
        message = f"{name} is on meta: there is nothing to compute with. Give it real weights, or scan a reference."
        raise ScanFailed(message, reference=name)
    size = sum(parameter.nbytes for parameter in model.parameters())
    if size > MOST_BYTES:
        limit = f"{MOST_BYTES >> 20} MiB that are copied to prove something"
        message = f"{name} holds {size >> 20} MiB, more than the {limit}."
        raise ScanFailed(message, reference=name)
    with random_states_kept():
        yield SmallBuild(copy.deepcopy(model).cpu().float(), "as it is", None)


def small_builds(reference: Reference, layers: Collection[Layer]) -> Iterator[SmallBuild]:
    """Yield builds of an architecture with real weights, the smallest first, up to the full model.

    Every build has every slot of the full model, and every kind of block: it is checked on meta before weights are
    made. The same reference gives the same weights; the random states of the process are left unchanged.

    Args:
        reference: An architecture of transformers, timm or diffusers.
        layers: The layers of its full model.

    Raises:
        ScanFailed: If there is none.
    """
    search = _Search(sources.find_recipe(reference), structure(layers))
    weights = sum(prod(layer.shape) for layer in layers if layer.tied_to is None)
    has_build = False
    for change, says, scale in search.candidates(is_small=weights <= SMALL and len(layers) <= FEW_LAYERS):
        try:
            model = search.recipe.build_filled(change)
        except ScanFailed as failed:
            search.reasons.append(str(failed))
            free_memory()
            continue
        has_build = True
        yield SmallBuild(model, says, find_input_size(model), scale, partial(search.deepen, change, scale))
    if not has_build:
        reason = search.reasons[0] if search.reasons else "nothing can be made smaller"
        message = f"{reference} has no small build with every slot of the full model: {reason}"
        raise ScanFailed(message, reference=str(reference), reason=reason)


def find_input_size(model: nn.Module) -> tuple[int, int, int] | None:
    """Return the smallest image a timm model takes: the one it was made for, if it takes no other."""
    config = getattr(model, "pretrained_cfg", None) or {}
    size = config.get("input_size")
    if not size:
        return None
    if config.get("fixed_input_size"):
        return tuple(size)
    least = config.get("min_input_size", (size[0], IMAGE, IMAGE))
    return size[0], *(max(IMAGE, side) for side in least[1:])


def structure(layers: Iterable[Layer]) -> frozenset[Any]:
    """Return the slots and kinds of blocks that a small build must share with the full model."""
    slots: set[Any] = set()
    blocks: dict[str, set[Any]] = {}
    for layer in layers:
        slots.add((pattern_of(layer.path), layer.kind))
        if layer.block:
            within = pattern_of(layer.path.removeprefix(layer.block))
            blocks.setdefault(layer.block, set()).add((within, layer.kind, layer.class_name))
    return frozenset(slots | {(pattern_of(path), frozenset(inner)) for path, inner in blocks.items()})


class _Search:
    """The search for small builds of one architecture, with the reasons why candidates failed."""

    def __init__(self, recipe: Recipe, wanted: frozenset[Any]) -> None:
        self.recipe = recipe
        self.reasons: list[str] = []
        self._wanted = wanted
        self._sizes: set[tuple[int, int]] = set()

    def candidates(self, *, is_small: bool) -> Iterator[tuple[Change, str, str]]:
        """Yield changes whose models have every slot, with their description and their scale."""
        if is_small and self._fits(copy.deepcopy) and max(self._sizes)[0] <= SMALL:
            yield copy.deepcopy, "as it is", ""
            if not self.reasons:  # what is small may have to be built inside what is not
                return
        self._sizes.clear()
        own = read_facts("shrink.toml")["architecture"].get(self.recipe.reference, {})  # its code has widths of its own
        limit = own.get("most", LIMITS[0][0])
        yield from self._list_shrunk(limit, has_fewer_heads=False)
        if self._fits(copy.deepcopy):
            yield copy.deepcopy, "as it is", ""
        if not self._sizes:  # wide heads of an odd width
            yield from self._list_shrunk(limit, has_fewer_heads=True)

    def _list_shrunk(self, limit: int, *, has_fewer_heads: bool) -> Iterator[tuple[Shrink, str, str]]:
        """Yield the shrunk builds, at the least depth that shows every slot and then at full depth."""
        settings, scales = self.recipe.settings, set[str]()
        for most, is_terse in ((min(limit, most), is_terse) for most, is_terse in LIMITS):
            deep = Shrink(most, None, is_terse, has_fewer_heads)
            scale = repr(deep.list_changes(settings))
            if scale in scales:
                continue
            scales.add(scale)
            shallow = next(filter(self._shrinks, (replace(deep, depth=depth) for depth in DEPTHS)), None)
            fits = (shallow, deep if self._shrinks(deep) else None)
            yield from ((shrink, shrink.describe(settings), scale) for shrink in fits if shrink is not None)

    def deepen(self, change: Change, scale: str) -> Iterator[SmallBuild]:
        """Yield the builds of a change of depth with up to two more depths, without those that fail to build."""
        if not isinstance(change, Shrink) or change.depth is None:
            return
        depths = range(change.depth + 1, change.depth + DEEPER + 1)
        fitting = filter(self._shrinks, (replace(change, depth=depth) for depth in depths))
        for deeper in islice(fitting, MORE_DEPTHS):
            with suppress(ScanFailed):
                model = self.recipe.build_filled(deeper)
                yield SmallBuild(model, deeper.describe(self.recipe.settings), find_input_size(model), scale)

    def _shrinks(self, shrink: Shrink) -> bool:
        return bool(shrink.list_changes(self.recipe.settings)) and self._fits(shrink)

    def _fits(self, change: Change) -> bool:
        try:
            model = self.recipe.build_on_meta(change)
            missing = self._wanted - structure(list_layers(model))
        except ScanFailed as failed:
            self.reasons.append(str(failed))
            return False
        size = sum(parameter.numel() for parameter in model.parameters()), sum(1 for _ in model.modules())
        is_new = size not in self._sizes and size[0] <= MOST_PARAMETERS
        if missing:
            self.reasons.append(f"{len(missing)} of its slots and blocks are missing, {min(map(str, missing))[:200]}")
        elif size[0] > MOST_PARAMETERS:
            self.reasons.append(f"{size[0]} parameters are more than the bound of {MOST_PARAMETERS}")
        elif is_new:
            self._sizes.add(size)
        return is_new and not missing


def free_memory() -> None:
    """Collect cycles, and return freed memory to the system, where glibc can."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
