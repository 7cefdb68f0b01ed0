"""The shapes of what is read beside lookups: lists of mappings, changes, revisions with their story, snapshots."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..domain.vocabulary import Library
from .dependencies import NAME_LENGTH, NAME_PATTERN
from .schemas import ERROR_EXAMPLE, MAPPING_EXAMPLE, ArchitectureName, ErrorBody, MappingBody, SlotBody

MAX_QUESTIONS = 256

DIGEST_EXAMPLE = "sha256:4ea18368d501ab8c2dac34ca39751dc8b919d93d0af4b22df860c643fc733b70"

CHANGE_EXAMPLE: dict[str, Any] = {
    "serial": 2,
    "at": "2026-11-26T02:28:00.999696Z",
    "actor": "grace",
    "action": "mapping.yank",
    "details": {"reason": "misses the second tower", "subjects": [f"mapping:{MAPPING_EXAMPLE['id']}"]},
    "previous": DIGEST_EXAMPLE,
    "digest": "sha256:66f153d1b485aaab278954ee535288a7026eb9300f55c64b78d33a6f1df28f53",
}

REVISION_EXAMPLE: dict[str, Any] = {
    "mapping": MAPPING_EXAMPLE,
    "created_at": "2026-11-25T09:00:00.000000Z",
    "yanked_at": "2026-11-26T02:28:00.999696Z",
    "yank_reason": "misses the second tower",
    "version": 2,
    "changes": [CHANGE_EXAMPLE],
}

SLOT_EXAMPLE: dict[str, Any] = {
    "tower": "language",
    "role": "attention.query",
    "kind": "linear",
    "pattern": "model.layers.*.self_attn.q_proj",
    "count": 32,
    "layout": None,
    "bypassed": None,
    "kernel": None,
    "live": True,
    "proof": None,
}

PLACE_EXAMPLE = "transformers:llama/LORA/default/peft/1"
NAMED_EXAMPLE = {"library": "transformers", "name": "llama"}


def _shape(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [*examples]})


class Question(BaseModel):
    """One question of a batch: what ``GET /v1/targets/{model_type}`` is asked."""

    model_config = _shape({"model_type": "llama", "peft_type": "IA3"})

    model_type: str = Field(min_length=1, max_length=NAME_LENGTH, pattern=NAME_PATTERN)
    peft_type: str = Field(default="LORA", pattern=r"^[A-Za-z0-9_]+$", max_length=64)
    preset: str = Field(default="default", pattern=r"^[A-Za-z0-9_-]+$", max_length=32)
    library: Library = "transformers"
    library_version: str | None = Field(default=None, pattern=NAME_PATTERN, max_length=64)


class BatchQuestions(BaseModel):
    """Many questions at once."""

    model_config = _shape({"questions": [{"model_type": "llama"}, {"model_type": "olmo2", "preset": "mlp"}]})

    questions: list[Question] = Field(min_length=1, max_length=MAX_QUESTIONS)


class AnsweredBody(BaseModel):
    """The mapping to use."""

    model_config = _shape({"mapping": MAPPING_EXAMPLE})

    mapping: MappingBody


class BatchBody(BaseModel):
    """The answers, in the order of the questions: a mapping each, or an error of the one shape."""

    model_config = _shape({"answers": [{"mapping": MAPPING_EXAMPLE}, ERROR_EXAMPLE]})

    answers: list[AnsweredBody | ErrorBody]


class MappingPageBody(BaseModel):
    """A page of mappings; ``next`` is the ``after`` of the next page, null on the last one."""

    model_config = _shape({"mappings": [MAPPING_EXAMPLE], "next": PLACE_EXAMPLE})

    mappings: list[MappingBody]
    next: str | None


class ChangeBody(BaseModel):
    """One change of the registry: a link of its log."""

    model_config = _shape(CHANGE_EXAMPLE)

    serial: int = Field(ge=1)
    at: str
    actor: str
    action: str
    details: dict[str, Any] = Field(description="To what, and why; `subjects` names what it is about")
    previous: str = Field(description="Digest of the change before")
    digest: str = Field(description="sha256 over all of the above")


class ChangesBody(BaseModel):
    """Changes, oldest first; ``next`` is the ``since`` of the next page, null if there is nothing beyond."""

    model_config = _shape({"changes": [CHANGE_EXAMPLE], "serial": 2, "next": None})

    changes: list[ChangeBody]
    serial: int = Field(description="The registry's serial")
    next: int | None


class RevisionBody(BaseModel):
    """One revision of a mapping with its story."""

    model_config = _shape(REVISION_EXAMPLE)

    mapping: MappingBody
    created_at: str
    yanked_at: str | None
    yank_reason: str | None
    version: int = Field(ge=1, description="What `ETag` and `If-Match` carry: +1 for each yank and each restoration")
    changes: list[ChangeBody] = Field(description="What was done to it, oldest first")


class HistoryBody(BaseModel):
    """Every revision ever of an architecture, yanked ones too."""

    model_config = _shape({"architecture": NAMED_EXAMPLE, "revisions": [REVISION_EXAMPLE]})

    architecture: ArchitectureName
    revisions: list[RevisionBody]


class LayersBody(BaseModel):
    """The slots of an architecture, in the order of the model; none if nobody scanned it."""

    model_config = _shape({"architecture": NAMED_EXAMPLE, "slots": [SLOT_EXAMPLE]})

    architecture: ArchitectureName
    slots: list[SlotBody]


class DifferenceBody(BaseModel):
    """Which layers a mapping reaches more and less than another one, by path pattern with their number.

    The number is 0 where a target tells indices apart: it reaches some layers of the pattern, and how many is not on
    record.
    """

    model_config = _shape(
        {
            "against": "peft 0.21.2, revision 1",
            "mapping_id": MAPPING_EXAMPLE["id"],
            "more": {"model.layers.*.self_attn.k_proj": 32},
            "less": {},
        }
    )

    against: str
    mapping_id: str | None
    more: dict[str, Annotated[int, Field(ge=0)]]
    less: dict[str, Annotated[int, Field(ge=0)]]


class KeyBody(BaseModel):
    """The public half of the key that snapshots are signed with."""

    model_config = _shape({"algorithm": "ed25519", "key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="})

    algorithm: Literal["ed25519"]
    key: str = Field(description="Base64 of its 32 bytes")
