"""How a reference was understood."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..schema import Config, schema_config

if TYPE_CHECKING:
    from .resolver import Candidate

How = Literal[
    "exact", "spelling", "class", "checkpoint", "configuration", "nickname", "class of many", "by name", "near name"
]
"""How a text was understood; the last three are guesses."""


@dataclass(frozen=True, slots=True)
class Understood:
    """How a reference that names no architecture exactly was understood."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    given: str
    """The reference as it was given."""
    how: How
    """``class of many``, and ``by name``, a name like those of the architecture, are guesses. The others are known."""
    because: str
    """The known name that has this meaning."""
    is_guess: bool
    also: tuple[str, ...] = ()
    """Other architectures that it may stand for, nearest first."""


def describe(text: str, first: "Candidate", others: Iterable["Candidate"]) -> Understood | None:
    """Return how a text was understood; ``None`` if it names the architecture exactly."""
    if first.how == "exact" and ":" in text:
        return None
    known = [one.reference for one in others if first.is_guess or one.how != "near name"]
    return Understood(text, first.how, first.because, first.is_guess, tuple(known))
