"""The records of a memory plan: how an adapter is trained, what that takes, and the choice that fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

import torch

from ..data import read_facts
from ..domain.vocabulary import describe_bytes
from ..errors import InvalidRequest, quoted
from ..schema import Config, schema_config

FACTS = "memory.toml"
DTYPES = {
    **dict.fromkeys(("bf16", "bfloat16"), torch.bfloat16),
    **dict.fromkeys(("fp16", "float16"), torch.float16),
    **dict.fromkeys(("fp32", "float32"), torch.float32),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryChoice:
    """The memory of training one adapter, in bytes."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    preset: str
    """Preset of the layers it adapts."""
    rank: int
    """Rank of its LoRA."""
    parameters: int
    """Parameters it trains, saved modules included."""
    file: int
    """Tensors in its file."""
    base: int
    """Weights and buffers of the model, quantised ones as packed."""
    adapter: int
    """Weights it adds."""
    optimizer: int
    """State of the optimizer."""
    gradients: int
    """Gradients of all that it trains."""
    activations: int
    """Kept at the end of the forward for the backward, outputs included."""
    peak: int
    """The most that torch allocates at one time: base, adapter, optimizer, and what the step makes."""
    needed: int
    """Memory of a device that holds the peak, with a reserve."""
    fits: bool | None
    """Whether that is within the limit; null without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """The memory of training adapters on one model, by preset and rank."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    reference: str
    class_name: str | None
    """Class of the model."""
    limit: int | None
    """Memory of the device, in bytes; null if none is given."""
    inputs: dict[str, tuple[int, ...]]
    """Shape of each input."""
    choices: tuple[MemoryChoice, ...]
    chosen: MemoryChoice | None
    """The first preset in the order of recommendation that fits, at its highest rank that fits; null if none does."""
    says: str
    """The result in one line."""
    assumed: tuple[str, ...]
    """What the figures rest on, in words."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How an adapter is trained; the arguments of ``plan``."""

    batch: int = 1
    length: int | None = None
    dtype: str | None = None
    quantize: str | None = None
    checkpointing: bool = False
    optimizer: str = "adamw"
    device: Literal["cuda", "cpu"] = "cuda"

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Return the setting of arguments by name, checked.

        Raises:
            InvalidRequest: If there is no such argument, or its value means nothing.
        """
        known = {field.name for field in fields(cls)}
        if not given.keys() <= known:
            message = f"plan has no argument {quoted(given.keys() - known)}. Settings: {quoted(sorted(known))}."
            raise InvalidRequest(message, settings=sorted(known))
        setting = cls(**given)
        setting.check()
        return setting

    def check(self) -> None:
        """Reject values that mean nothing.

        Raises:
            InvalidRequest: Naming the argument, its value and the choices.
        """
        facts = read_facts(FACTS)
        known = {
            "dtype": DTYPES,
            "quantize": facts["quantize"],
            "optimizer": facts["optimizer"],
            "device": facts["reserve"],
        }
        for name, choices in known.items():
            value = getattr(self, name)
            if value not in choices and not (value is None and name in ("dtype", "quantize")):
                message = f"{name}={value!r} is unknown. Choices: {quoted(choices)}."
                raise InvalidRequest(message, field=name, value=str(value))
        for name in ("batch", "length"):
            value = getattr(self, name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if not is_count and not (value is None and name == "length"):
                raise InvalidRequest(f"{name}={value!r} is no count: give 1 or more.", field=name, value=str(value))

    def count_state(self, parameter: torch.Tensor) -> float:
        """Return the bytes of the optimizer's state for a parameter."""
        facts = read_facts(FACTS)["optimizer"][self.optimizer]
        if "tensors" in facts:
            return float(facts["tensors"] * parameter.nbytes)
        return parameter.numel() * float(8 if parameter.numel() < facts["least"] else facts["bytes"])


def interpolate(low: MemoryChoice, high: MemoryChoice, share: float, rank: int) -> MemoryChoice:
    """Return the memory at a rank between two: a peak is the largest of sums that grow evenly, so below the line."""
    numbers = ("parameters", "file", "adapter", "optimizer", "gradients", "activations", "peak", "needed")
    values = {name: getattr(low, name) + round(share * (getattr(high, name) - getattr(low, name))) for name in numbers}
    return replace(low, rank=rank, **values)


def choose(choices: Sequence[MemoryChoice]) -> MemoryChoice | None:
    """Return the first preset that fits, at its highest rank that fits; ``None`` if none does."""
    fitting = [choice for choice in choices if choice.fits]
    return max(
        (choice for choice in fitting if choice.preset == fitting[0].preset), key=lambda each: each.rank, default=None
    )


def describe(choices: Sequence[MemoryChoice], best: MemoryChoice | None, limit: int | None, how: Setting) -> str:
    """Return the result of a plan in one line."""
    if limit is None:
        return "no memory given: nothing chosen"
    if best is not None:
        return f"{best.preset} at r={best.rank} fits: it needs {describe_bytes(best.needed)} of {describe_bytes(limit)}"
    least = min(choices, key=lambda choice: choice.needed)
    smallest = f"the smallest choice, {least.preset} at r={least.rank}, needs {describe_bytes(least.needed)}"
    ways = (
        ("checkpointing", not how.checkpointing),
        ("quantize nf4", how.quantize is None),
        (f"a batch below {how.batch}", how.batch > 1),
        ("a shorter length", True),
    )
    less = ", ".join(way for way, is_open in ways if is_open)
    return f"nothing fits in {describe_bytes(limit)}: {smallest}; less with {less}"
