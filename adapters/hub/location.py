"""The location of an adapter on the hub: ``hub:org/repo[/subfolder][@revision]``."""

from dataclasses import dataclass
from os import PathLike
from typing import Self

from ...errors import InvalidReference
from ...references import Reference, check_hub_name

SCHEME = "hub:"


@dataclass(frozen=True, slots=True)
class Location:
    """A folder of a repo at a revision; the subfolder precedes ``@``, because the name of a branch may have slashes.

    Attributes:
        repo: ``org/repo``.
        subfolder: Folder in the repo, without slashes around it; empty for its top.
        revision: Branch, tag or commit; ``None`` for the main branch.
    """

    repo: str
    subfolder: str = ""
    revision: str | None = None

    def __post_init__(self) -> None:
        check_hub_name(str(self), self.repo, self.subfolder or None, self.revision)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a reference to an adapter on the hub.

        Raises:
            InvalidReference: If it names no repo, or a part of it is invalid.
        """
        is_hub = text.strip().startswith(SCHEME)
        try:
            reference = Reference.parse(text)
        except InvalidReference as error:
            if not is_hub:
                raise
            raise _no_adapter(text, f" {error.message}") from error
        segments = reference.name.split("/")
        if not is_hub or len(segments) < 2:  # noqa: PLR2004 - the organisation and the repo
            raise _no_adapter(text)
        return cls("/".join(segments[:2]), "/".join(segments[2:]), reference.tag)

    def path_of(self, name: str) -> str:
        """Return the path of a file in the repo."""
        return f"{self.subfolder}/{name}" if self.subfolder else name

    def __str__(self) -> str:
        """Return the reference."""
        folder = f"{self.repo}/{self.subfolder}" if self.subfolder else self.repo
        return f"{SCHEME}{folder}@{self.revision}" if self.revision else f"{SCHEME}{folder}"


def _no_adapter(text: str, reason: str = "") -> InvalidReference:
    message = f"{text!r} is no adapter on the hub: write 'hub:org/repo', 'hub:org/repo@revision'"
    return InvalidReference(f"{message} or 'hub:org/repo/subfolder@revision'.{reason}", reference=text)


def is_on_hub(folder: str | PathLike[str]) -> bool:
    """Return whether a folder is given as a reference to the hub."""
    return isinstance(folder, str) and folder.startswith(SCHEME)
