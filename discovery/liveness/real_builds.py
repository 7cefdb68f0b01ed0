"""Where the real builds to prove something on come from: a reference built small, or a copy of a live model."""

import copy
from collections.abc import Callable, Collection, Iterator
from typing import Any

from torch import nn

from ...domain.layers import Layer
from ...errors import ScanFailed
from ...references import Reference
from ..meta_run.conditions import random_states_kept
from ..small_builds import SmallBuild, small_builds

Builds = Callable[[Collection[Layer]], Iterator[SmallBuild]]
"""Makes real builds of a model with these layers, the smallest first."""
MOST_BYTES = 2 << 30
"""Weights up to which a live model is copied."""


def list_builds(subject: Any, model: nn.Module, layers: Collection[Layer]) -> Iterator[SmallBuild]:
    """Yield real builds of what is scanned, the smallest first.

    Args:
        subject: What was asked for: a reference, a configuration or a live module.
        model: The module that is scanned.
        layers: Its layers; each build has all of their slots.

    Raises:
        ScanFailed: If there is none.
    """
    if isinstance(subject, str) and Reference.parse(subject).scheme != "torch":
        return small_builds(Reference.parse(subject), layers)
    return _copies(model)


def _copies(model: nn.Module) -> Iterator[SmallBuild]:
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
