"""What prompt-learning methods need to know of a model: no layer, but how many there are and how wide."""

from collections.abc import Mapping as Json
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """The language model's depth and widths, as PEFT works them out; ``None`` where nothing tells.

    Attributes:
        num_layers: Blocks of the model.
        num_attention_heads: Query heads of one attention.
        token_dim: Width of a token's embedding.
        num_key_value_heads: Heads that are cached: fewer than the query's where several share one.
        key_value_dim: Width of all cached heads together.
    """

    num_layers: int | None = None
    num_attention_heads: int | None = None
    token_dim: int | None = None
    num_key_value_heads: int | None = None
    key_value_dim: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build the facts from their JSON form."""
        return cls(**data)
