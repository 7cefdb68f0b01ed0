"""State the cost of an adapter: parameters, its file, and the memory of training it."""

from dataclasses import dataclass

from ....data import read_facts
from ....domain.targets import Formula
from ....domain.vocabulary import describe_bytes

SINGLE = 4
"""Bytes of a parameter of an adapter: PEFT keeps those of LoRA in single precision, also on a model in half."""
HALF = 2
"""Bytes of a parameter of the frozen model in bfloat16."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of an adapter at a rank.

    Attributes:
        formula: Parameters by rank.
        rank: The rank.
        base: Parameters of the model; ``None`` if unknown.
    """

    formula: Formula
    rank: int
    base: int | None

    @property
    def parameters(self) -> int:
        """Parameters that are trained."""
        return self.formula.count(self.rank)

    @property
    def share(self) -> float | None:
        """Their number beside that of the model."""
        return self.parameters / self.base if self.base else None

    @property
    def file(self) -> str:
        """Size of the file of the adapter."""
        return describe_bytes(self.parameters * SINGLE)

    @property
    def bytes_of_training(self) -> int:
        """Bytes of a trained parameter: itself, its gradient and the state of AdamW, all in single precision."""
        return SINGLE * (2 + int(read_facts("memory.toml")["optimizer"]["adamw"]["tensors"]))

    @property
    def training(self) -> str:
        """Memory of the trained parameters, their gradients and the optimizer."""
        return describe_bytes(self.parameters * self.bytes_of_training)

    @property
    def frozen(self) -> str | None:
        """Memory of the weights of the model in bfloat16."""
        return describe_bytes(self.base * HALF) if self.base else None
