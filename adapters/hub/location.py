"""Where on the hub an adapter is: ``hub:org/repo[/subfolder][@revision]``."""

from dataclasses import dataclass
from os import PathLike
from typing import Self

from ...errors import InvalidReference
from ...references import Reference

SCHEME = "hub:"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of a repo at a revision; the subfolder stands before ``@``, because a branch may hold slashes.

    Attributes:
        repo: ``org/repo``.
        subfolder: Folder in the repo, without slashes around it; empty for its top.
        revision: Branch, tag or commit; ``None`` for the main branch.
    """

    repo: str
    subfolder: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a reference to an adapter on the hub.

        Raises:
            InvalidReference: If it names no repo, or goes up in folders.
        """
        reference = Reference.parse(text)
        segments = reference.name.split("/")
        odd = {"", ".", ".."} & {*segments, *(reference.tag or "main").split("/")}
        if reference.scheme != "hub" or len(segments) < 2 or odd:  # noqa: PLR2004 - the organisation and the repo
            message = f"{text!r} is no adapter on the hub: write 'hub:org/repo', 'hub:org/repo@revision'"
            raise InvalidReference(f"{message} or 'hub:org/repo/subfolder@revision'.", reference=text)
        return cls("/".join(segments[:2]), "/".join(segments[2:]), reference.tag)

    def path_of(self, name: str) -> str:
        """Return the path of a file in the repo."""
        return f"{self.subfolder}/{name}" if self.subfolder else name

    def __str__(self) -> str:
        """Return the reference."""
        folder = f"{self.repo}/{self.subfolder}" if self.subfolder else self.repo
        return f"{SCHEME}{folder}@{self.revision}" if self.revision else f"{SCHEME}{folder}"


def is_on_hub(folder: str | PathLike[str]) -> bool:
    """Tell whether a folder is named by a reference to the hub."""
    return isinstance(folder, str) and folder.startswith(SCHEME)
