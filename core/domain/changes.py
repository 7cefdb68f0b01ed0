"""Describe the changes of the registry: the audit log, the feed for mirrors, and the history of each mapping."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..schema import Config, schema_config
from .architectures import ArchitectureName
from .mappings import MAPPING_EXAMPLE, Mapping


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the registry, an entry of the audit log."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (CHANGE_EXAMPLE,))

    serial: int = field(metadata={"ge": 1})
    """Serial of the registry after the change; serials have no gaps."""
    at: str
    """ISO 8601 time in UTC."""
    actor: str
    """Name of the person, or of loradar itself."""
    action: str
    """Operation, such as ``submission.publish``."""
    details: dict[str, Any]
    """Values of the change; ``subjects`` names the records it is about."""
    previous: str
    """Digest of the change before."""
    digest: str
    """``sha256:`` over all fields above."""


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Changes, oldest first; ``next`` is the ``since`` of the next page, null on the last one."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (ChangePage((CHANGE_EXAMPLE,), 2, None),))

    changes: tuple[Change, ...]
    serial: int
    """Serial of the registry."""
    next: int | None


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a mapping with its history."""

    __pydantic_config__: ClassVar[Config] = schema_config(lambda: (REVISION_EXAMPLE,))

    mapping: Mapping
    created_at: str
    """ISO 8601 time of publication."""
    yanked_at: str | None
    """Time since when lookups ignore the revision; null while it is in use."""
    yank_reason: str | None
    version: int = field(metadata={"ge": 1})
    """Value of `ETag` and `If-Match`; each yank and each restoration adds 1."""
    changes: tuple[Change, ...]
    """Changes of the revision, oldest first."""


@dataclass(frozen=True, slots=True)
class ArchitectureHistory:
    """Every revision of an architecture's mappings, yanked ones included."""

    __pydantic_config__: ClassVar[Config] = schema_config(
        lambda: (ArchitectureHistory(MAPPING_EXAMPLE.architecture, (REVISION_EXAMPLE,)),)
    )

    architecture: ArchitectureName
    revisions: tuple[Revision, ...]


@dataclass(frozen=True, slots=True)
class MirrorState:
    """The state of a mirror: the snapshot of its source loaded last."""

    key: str
    """Public key of the source, base64."""
    issued: str
    """ISO 8601 time in UTC at which the source signed the snapshot."""
    expires: str
    """Time from which the mirror should be taken for outdated."""
    digest: str
    """Digest of the snapshot."""
    loaded_at: str
    """Time at which it was loaded."""


@dataclass(frozen=True, slots=True)
class AuditLogReport:
    """The outcome of verifying the audit log."""

    entries: int
    """Number of entries."""
    serial: int
    """Serial of the last entry."""
    head: str
    """Digest of the last entry; a copy of it reveals whether the end of the log was later cut off."""
    faults: tuple[str, ...]
    """Inconsistencies, in words; empty if the log is intact."""


CHANGE_EXAMPLE: Change = Change(
    serial=2,
    at="2026-11-26T02:28:00.999696Z",
    actor="grace",
    action="mapping.yank",
    details={"reason": "misses the second tower", "subjects": [f"mapping:{MAPPING_EXAMPLE.id}"]},
    previous="sha256:4ea18368d501ab8c2dac34ca39751dc8b919d93d0af4b22df860c643fc733b70",
    digest="sha256:66f153d1b485aaab278954ee535288a7026eb9300f55c64b78d33a6f1df28f53",
)
REVISION_EXAMPLE: Revision = Revision(
    mapping=MAPPING_EXAMPLE,
    created_at="2026-11-25T09:00:00.000000Z",
    yanked_at="2026-11-26T02:28:00.999696Z",
    yank_reason="misses the second tower",
    version=2,
    changes=(CHANGE_EXAMPLE,),
)
