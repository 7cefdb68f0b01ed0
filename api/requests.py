"""Describe and validate the bodies of requests."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, WithJsonSchema, field_validator

from ..domain.identities import TokenRole
from ..domain.submissions import ReviewDecision, Statement
from ..domain.vocabulary import Library
from ..validation.statements import WHOLE, NameField, StatementBody, TargetsField, rejecting
from ..validation.text import HIDDEN, NAME_PATTERN, explain_invalid_reason
from .dependencies import NAME_LENGTH
from .dependencies import NAME_PATTERN as LOOKUP_PATTERN

TEXT_LENGTH = 4_000
MOST_DAYS = 3_660
MAX_QUESTIONS = 256


class _Request(BaseModel):
    """A body with exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_SHOWN = rf"^[^{HIDDEN}]*[^{HIDDEN}\s][^{HIDDEN}]*$"

Text = Annotated[
    str,
    Field(max_length=TEXT_LENGTH),
    rejecting(explain_invalid_reason),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": TEXT_LENGTH, "pattern": _SHOWN}),
]
"""A text somebody has to read: something in it shows, and nothing in it hides."""


class Question(BaseModel):
    """One question of a batch, with the parameters of ``GET /v1/targets/{model_type}``."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model_type": "llama", "peft_type": "IA3"}]}
    )

    model_type: str = Field(min_length=1, max_length=NAME_LENGTH, pattern=LOOKUP_PATTERN)
    peft_type: str = Field(default="LORA", pattern=r"^[A-Za-z0-9_]+$", max_length=64)
    preset: str = Field(default="default", pattern=r"^[A-Za-z0-9_-]+$", max_length=32)
    library: Library = "transformers"
    library_version: str | None = Field(default=None, pattern=LOOKUP_PATTERN, max_length=64)


class BatchQuestions(BaseModel):
    """The questions of a batch."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"questions": [{"model_type": "llama"}, {"model_type": "olmo2", "preset": "mlp"}]}]
        },
    )

    questions: list[Question] = Field(min_length=1, max_length=MAX_QUESTIONS)


class TokenRequest(_Request):
    """A new token."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "ada", "role": "contributor", "expires_days": 365}]}
    )

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="Owner; all tokens of one person have the same name",
        examples=["ada"],
    )
    role: TokenRole = Field(description="Role of the owner; each role includes the rights of those before")
    expires_days: Annotated[int, Field(ge=1, le=MOST_DAYS), WHOLE] | None = Field(
        None, description="Days until it expires; it never does if left out"
    )


class ReviewRequest(_Request):
    """The decision of a reviewer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"decision": "approve", "comment": "Reaches query and value of all 16 blocks, proved live."}]
        }
    )

    decision: ReviewDecision = Field(description="`approve` publishes a revision with source `community`")
    comment: Text = Field(description="Reasons, for the submitter and the audit log")


class ReasonRequest(_Request):
    """The reason of an operation."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"reason": "Reaches the vision tower too; submission 9 says it better."}]}
    )

    reason: Text = Field(description="Reason, shown in the history")


class ShorthandBody(RootModel[dict[NameField, TargetsField]]):
    """LoRA's default targets of one transformers model type, as PEFT's `constants.py` has them."""

    model_config = ConfigDict(
        title="Shorthand",
        json_schema_extra={
            "examples": [{"olmo2": ["q_proj", "v_proj"]}],
            "minProperties": 1,
            "maxProperties": 1,
            "propertyNames": {"pattern": NAME_PATTERN, "not": {"enum": [*StatementBody.model_fields]}},
        },
    )

    @field_validator("root")
    @classmethod
    def _has_one(cls, root: dict[str, Any]) -> dict[str, Any]:
        if len(root) != 1:
            message = (
                f"The shorthand has one architecture, this body {len(root)}. Send one, or a statement with 'name'."
            )
            raise ValueError(message)
        return root

    def to_statement(self) -> Statement:
        """Return the record it stands for."""
        ((name, targets),) = self.root.items()
        return Statement("transformers", name, "LORA", "default", target_modules=targets)


def _form(body: Any) -> str:
    """Return the form of a body: an object with none of a statement's fields is a shorthand."""
    if isinstance(body, Mapping):
        return "statement" if not body or body.keys() & StatementBody.model_fields.keys() else "shorthand"
    return "shorthand" if isinstance(body, ShorthandBody) else "statement"


SubmissionRequest = Annotated[
    Annotated[StatementBody, Tag("statement")] | Annotated[ShorthandBody, Tag("shorthand")], Discriminator(_form)
]
"""A statement, or the shorthand for one."""
