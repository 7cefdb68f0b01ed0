"""The shapes of answers about single revisions and their stories."""

from typing import Any

from pydantic import ConfigDict, Field

from .schemas import MAPPING_EXAMPLE, MappingBody, Shape

CHANGE_EXAMPLE: dict[str, Any] = {
    "serial": 12,
    "at": "2026-11-26T02:22:30.000000Z",
    "actor": "grace",
    "action": "submission.publish",
    "details": {
        "subjects": ["submission:7", "architecture:transformers:llama", f"mapping:{MAPPING_EXAMPLE['id']}"],
        "decision": "approve",
        "comment": "Proved live.",
    },
    "previous": "sha256:" + "0" * 64,
    "digest": "sha256:" + "1" * 64,
}


class ChangeBody(Shape):
    """One write: a link of the audit log."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [CHANGE_EXAMPLE]})

    serial: int = Field(description="Counts up without a gap")
    at: str
    actor: str
    action: str
    details: dict[str, Any]
    previous: str = Field(description="Digest of the change before")
    digest: str = Field(description="Over all of the above")


class RevisionBody(Shape):
    """One revision of a mapping with its story."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "mapping": MAPPING_EXAMPLE,
                    "created_at": "2026-11-26T02:22:30.000000Z",
                    "yanked_at": None,
                    "yank_reason": None,
                    "version": 1,
                    "changes": [CHANGE_EXAMPLE],
                }
            ]
        },
    )

    mapping: MappingBody
    created_at: str
    yanked_at: str | None = Field(description="Since when it is no longer used; null if it is")
    yank_reason: str | None
    version: int = Field(ge=1, description="Counts the times it was yanked or restored, from 1")
    changes: list[ChangeBody]
