"""What was changed, by whom and why: the feed for mirrors, the history of an architecture, and the audit log."""

from collections.abc import Mapping as Json
from dataclasses import dataclass
from typing import Any, Self

from .mappings import Mapping


@dataclass(frozen=True, slots=True)
class Change:
    """One write: a link of the audit log, whose serial counts up without a gap.

    Attributes:
        serial: The registry's serial after it.
        at: ISO 8601 in UTC.
        actor: Name of who did it.
        action: What was done, such as ``submission.publish``.
        details: To what, and why; JSON-ready.
        previous: Digest of the link before.
        digest: ``sha256:`` over all of the above.
    """

    serial: int
    at: str
    actor: str
    action: str
    details: dict[str, Any]
    previous: str
    digest: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a change from its JSON form."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a mapping with its story.

    Attributes:
        mapping: What it says, yanked or not.
        created_at: When it was published.
        yanked_at: Since when it is no longer used; ``None`` if it is.
        yank_reason: Why.
        version: Counts the times it was yanked or restored, from 1: what ``ETag`` and ``If-Match`` carry.
        changes: What was done to it, oldest first: who, when, why.
    """

    mapping: Mapping
    created_at: str
    yanked_at: str | None
    yank_reason: str | None
    version: int
    changes: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "mapping": self.mapping.to_dict(),
            "created_at": self.created_at,
            "yanked_at": self.yanked_at,
            "yank_reason": self.yank_reason,
            "version": self.version,
            "changes": [change.to_dict() for change in self.changes],
        }

    @classmethod
    def from_dict(cls, data: Json[str, Any]) -> Self:
        """Build a revision from its JSON form."""
        changes = tuple(map(Change.from_dict, data["changes"]))
        told = (data["created_at"], data["yanked_at"], data["yank_reason"], data["version"])
        return cls(Mapping.from_dict(data["mapping"]), *told, changes)


@dataclass(frozen=True, slots=True)
class AuditLogReport:
    """Whether the audit log is whole.

    Attributes:
        entries: Links there are.
        serial: Serial of the last.
        head: Digest of the last: kept elsewhere, it shows whether the end was cut off later.
        faults: What is wrong, in words; empty if it is whole.
    """

    entries: int
    serial: int
    head: str
    faults: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"entries": self.entries, "serial": self.serial, "head": self.head, "faults": list(self.faults)}
