"""How a reference was understood."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..schema import Config, schema_config

How = Literal["exact", "spelling", "class", "checkpoint", "configuration", "nickname", "by name", "near name"]
"""How a text was understood; the last two are guesses."""


@dataclass(frozen=True, slots=True)
class Understood:
    """How a reference that names no architecture exactly was understood."""

    __pydantic_config__: ClassVar[Config] = schema_config()

    given: str
    """The reference as it was given."""
    how: How
    """``by name`` is a guess: a name that is like those of the architecture. The others are known."""
    because: str
    """The known name that has this meaning."""
    is_guess: bool
    also: tuple[str, ...] = ()
    """Other architectures that it may stand for, nearest first."""
