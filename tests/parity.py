"""What the parity tests share: a case for both libraries, the two ways to adapt a model, and what to compare."""

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch
from safetensors.torch import load_file
from torch import nn
from zoo import Specimen

from loradar import adapters

TOLERANCE = 4e-6
"""Of outputs: where a tensor lies decides the order of its sums, and 2,000 features are added in 32 bits."""
FAN = "fan_in_fan_out is set to False"
EMBEDDING = "Setting `save_embedding_layers` to `True`"
GROUPS = "LoRA adapter added to ConvNd layer with groups"
PATTERNS = r"The following (rank|alpha)_pattern keys did not match any targeted module"

# With bias="all", peft also writes the biases of a saved module under the names they have in memory.
REPEATED = re.compile(r"\.(original_module|modules_to_save)\.bias$")


class Case(NamedTuple):
    """A model, a configuration for both libraries, the peft warning it provokes, and the configuration's class."""

    build: Callable[[], Specimen]
    config: dict[str, Any]
    peft_warns: str = ""
    method: str = "LoraConfig"

    def configuration(self, library: Any) -> Any:
        """Return the configuration as this library has it; peft writes into the collections it is given."""
        return getattr(library, self.method)(**copy.deepcopy(self.config))


class Library(NamedTuple):
    """One arm of a comparison: how it adapts a model, and how it loads a saved adapter into one."""

    adapt: Callable[[nn.Module, Case], Any]
    load: Callable[[nn.Module, Path], Any]


@contextmanager
def peft_warnings(case: Case) -> Iterator[None]:
    """Let through the one warning this case is known to get from peft."""
    with warnings.catch_warnings():
        if case.peft_warns:
            warnings.filterwarnings("ignore", case.peft_warns)
        yield


def theirs(model: nn.Module, case: Case) -> nn.Module:
    """Return ``model`` adapted by peft."""
    with peft_warnings(case):
        return peft.get_peft_model(model, case.configuration(peft)).eval()


def ours(model: nn.Module, case: Case) -> adapters.PeftModel:
    """Return ``model`` adapted by loradar."""
    return adapters.inject(model, case.configuration(adapters))


PEFT = Library(theirs, peft.PeftModel.from_pretrained)
LORADAR = Library(ours, adapters.PeftModel.from_pretrained)


def shake(model: nn.Module) -> None:
    """Give every trainable parameter a random value, so that the adapter does something."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the largest absolute difference."""
    return float((first - second).detach().abs().max())


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what trains, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def tensors(answer: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor of real numbers in an answer, in order."""
    if isinstance(answer, torch.Tensor):
        yield from (answer,) if answer.is_floating_point() else ()
    elif isinstance(answer, Mapping):
        for value in answer.values():
            yield from tensors(value)
    elif isinstance(answer, list | tuple):
        for value in answer:
            yield from tensors(value)


def saved(model: Any, folder: Path) -> dict[str, torch.Tensor]:
    """Save an adapter and return the tensors of its file, without what peft repeats there."""
    model.save_pretrained(folder)
    content = load_file(folder / "adapter_model.safetensors")
    return {name: value for name, value in content.items() if not REPEATED.search(name)}
