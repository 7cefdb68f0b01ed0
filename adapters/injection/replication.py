"""Repeated blocks with shared weights (``layer_replication``), by PEFT's function (0.21.2), and their undoing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...discovery import read_attribute
from ...errors import InvalidConfig
from ...extras import require
from ..checks import invalid
from ..config import AdapterConfig
from .host_model import Survey

DEPTH = "num_hidden_layers"


@dataclass(frozen=True, slots=True)
class Replication:
    """The list of blocks that a model had, and its place.

    Attributes:
        parent: The module that holds it.
        name: Its name there.
        blocks: The list.
        depths: The configurations that state its length, with the length.
    """

    parent: nn.Module
    name: str
    blocks: nn.Module
    depths: tuple[tuple[Any, int], ...]

    def undo(self) -> None:
        """Give the model the list of before."""
        self.parent._modules[self.name] = self.blocks  # noqa: SLF001 - the module's own name
        for config, depth in self.depths:
            setattr(config, DEPTH, depth)


@contextmanager
def replicated(survey: Survey, config: AdapterConfig) -> Iterator[Replication | None]:
    """Repeat the blocks of a model without adapters as its first configuration states; undo it after an error.

    The survey is walked again. Further adapters find the blocks repeated.

    Raises:
        MissingExtra: If peft is not installed.
        InvalidConfig: If PEFT finds no list of blocks, or the list is shorter than the configuration states.
    """
    ranges = getattr(config, "layer_replication", None)
    if ranges is None or any(site.wrappers for site in survey.sites.values()):
        yield None
        return
    replication = _replicate(survey, ranges)
    try:
        survey.walk()
        yield replication
    except BaseException:
        replication.undo()
        survey.walk()
        raise


def _replicate(survey: Survey, ranges: list[list[int]]) -> Replication:
    require("peft", "peft")
    from peft.tuners.tuners_utils import replicate_layers  # noqa: PLC0415 - peft is optional, and slow to import

    lists = [
        (module, name, child)
        for module in survey.modules()
        for name, child in module._modules.items()  # noqa: SLF001 - named_modules() does not give the parent
        if isinstance(child, nn.ModuleList)
    ]
    configs = {id(config): config for module in survey.modules() if (config := read_attribute(module, "config"))}
    depths = [(config, getattr(config, DEPTH)) for config in configs.values() if hasattr(config, DEPTH)]
    try:
        replicate_layers(survey.model, ranges)
    except (ValueError, AttributeError, IndexError) as error:
        for config, depth in depths:
            setattr(config, DEPTH, depth)
        why = f"does not fit {type(survey.model).__name__}: {error} Leave it out, or give ranges of its blocks."
        raise invalid("layer_replication", ranges, " ".join(why.split())) from None
    for parent, name, blocks in lists:
        if parent._modules[name] is not blocks:  # noqa: SLF001
            return Replication(parent, name, blocks, tuple(depths))
    raise invalid("layer_replication", ranges, "found no list of blocks to repeat: leave it out.")


def check_same_replication(name: str, config: AdapterConfig, known: AdapterConfig) -> None:
    """Reject a further adapter for other blocks than those that the model has.

    Raises:
        InvalidConfig: Naming the adapter and both values.
    """
    wanted, there = (getattr(each, "layer_replication", None) for each in (config, known))
    if wanted != there:
        message = (
            f"Adapter {name!r} has layer_replication={wanted!r}, and the blocks of the model are those of {there!r}"
        )
        raise InvalidConfig(f"{message}: give the same, or use a second copy.", adapter_name=name)
