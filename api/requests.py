"""Parse and validate the bodies of requests: unambiguous JSON of bounded width, of exactly the declared types."""

from collections.abc import Callable, Coroutine, Mapping
from email.message import Message as Header
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, WithJsonSchema, field_validator

from ..domain.choosing.query import MOST_RANK
from ..domain.identities import TokenRole
from ..domain.submissions import ReviewDecision, Statement
from ..domain.vocabulary import Library
from ..errors import InvalidRequest
from ..validation.statements import STRICT, WHOLE, NameField, StatementBody, TargetsField, rejecting
from ..validation.text import HIDDEN, NAME_PATTERN, explain_invalid_reason, parse_json
from .dependencies import NAME_LENGTH, REFERENCE_PATTERN, needs_actor, require_actor
from .dependencies import NAME_PATTERN as LOOKUP_PATTERN

JSON = "application/json"
IDENTITY = "identity"
"""The ``Content-Encoding`` of an uncompressed body."""

SINGLE_HEADERS = ("Authorization", "Content-Encoding", "Content-Type", "Idempotency-Key", "If-Match")
"""Headers that decide what is done, or for whom."""

MOST_NAMES = 64
"""Names of an object in a body; an architecture's own configuration may have more."""

TEXT_LENGTH = 4_000
MOST_DAYS = 3_660
MAX_QUESTIONS = 256
MOST_PARTS = 8
"""Parts of one architecture in a lookup."""

MOST_TEXT = 32 << 10
"""Characters of a configuration in a body."""
SELECTING_LENGTH = 256
LISTED = r"^[A-Za-z0-9_.*, -]+$"
"""Characters of the towers, roles and blocks of a selection."""

EXPERT_RANK = r"^(?:auto|shared|[0-9]{1,7})$"
BUDGET = r"^[0-9][0-9_,.]*(?: ?[%kKmMbB])?$"
BUDGET_LENGTH = 32
SERVABLE = r"^[A-Za-z0-9_.-]+$"
"""Characters of the name of an engine."""


class StrictRequest(Request):
    """A request whose JSON is parsed strictly."""

    async def json(self) -> Any:
        """Parse the body.

        Raises:
            InvalidRequest: If it is not JSON, or is ambiguous.
        """
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route whose body is declared as JSON and parsed strictly, after the token is checked if it needs one.

    Writes take turns once their body is there: one that waits occupies no thread, so that reads go on.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, wrapped in the checks of headers, token and body."""
        handle = super().get_route_handler()
        is_protected = needs_actor(self.dependant)
        is_write = is_protected and not (self.methods or set()) <= {"GET", "HEAD"}

        async def handle_strictly(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            require_single_headers(request)
            if is_protected:
                await require_actor(strict)
            if self.body_field:
                require_json(request)
                if await strict.body():  # parsed here: an error raised where FastAPI parses it becomes a bare 400
                    require_narrow(await strict.json())
            if not is_write:
                return await handle(strict)
            async with request.app.state.writes.turn():
                return await handle(strict)

        return handle_strictly


def require_single_headers(request: Request) -> None:
    """Check that no deciding header is repeated: two readers could each use another value.

    Raises:
        InvalidRequest: If one is repeated.
    """
    for name in SINGLE_HEADERS:
        if len(request.headers.getlist(name)) > 1:
            message = f"The header {name} is repeated: send it once."
            raise InvalidRequest(message, field=f"header.{name}")


def require_narrow(body: Any) -> None:
    """Check that no object has more names than any of ours: validation would report every one of them.

    Raises:
        InvalidRequest: If one has.
    """
    lists = (value for value in body.values() if isinstance(value, list)) if isinstance(body, dict) else ()
    for item in chain([body], *lists):
        if isinstance(item, dict) and len(item) > MOST_NAMES:
            message = f"An object in the body has {len(item)} names; the limit is {MOST_NAMES}. See /openapi.json."
            raise InvalidRequest(message, field="body", limit=MOST_NAMES)


def require_json(request: Request) -> None:
    """Check that the headers declare an uncompressed JSON body.

    Raises:
        HTTPException: 415, with the value sent and the one to send.
    """
    given = request.headers.get("Content-Type", "")
    header = Header()
    header["Content-Type"] = given
    if not given or header.get_content_type() != JSON:
        detail = f"Unsupported Content-Type {given[:100]!r}: send {JSON}."
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, {"Accept": JSON})
    require_uncompressed(request)


def require_uncompressed(request: Request) -> None:
    """Check that the headers declare an uncompressed body.

    Raises:
        HTTPException: 415, with the encoding sent.
    """
    encoding = request.headers.get("Content-Encoding", IDENTITY)
    if encoding.strip().lower() != IDENTITY:
        detail = f"Unsupported Content-Encoding {encoding[:100]!r}: send the body uncompressed."
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, {"Accept-Encoding": IDENTITY})


_SHOWN = rf"^[^{HIDDEN}]*[^{HIDDEN}\s][^{HIDDEN}]*$"

Text = Annotated[
    str,
    Field(max_length=TEXT_LENGTH),
    rejecting(explain_invalid_reason),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": TEXT_LENGTH, "pattern": _SHOWN}),
]
"""A text somebody has to read: something in it shows, and nothing in it hides."""


PartField = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH, pattern=LOOKUP_PATTERN)]


SelectingField = Annotated[str | None, Field(max_length=SELECTING_LENGTH, pattern=LISTED)]


class Question(BaseModel):
    """One question of a batch, with the parameters of ``GET /v1/targets/{model_type}``."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model_type": "llama", "peft_type": "IA3"}]}
    )

    model_type: str = Field(min_length=1, max_length=NAME_LENGTH, pattern=REFERENCE_PATTERN)
    peft_type: str = Field(default="LORA", pattern=r"^[A-Za-z0-9_]+$", max_length=64)
    preset: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$", max_length=32)
    library: Library | None = None
    library_version: str | None = Field(default=None, pattern=LOOKUP_PATTERN, max_length=64)
    parts: dict[PartField, PartField] = Field(
        default={},
        max_length=MOST_PARTS,
        description="Models in a composite one: types by the names of its parts",
        json_schema_extra={"additionalProperties": False},  # those that do not match the pattern of names
    )
    towers: SelectingField = None
    roles: SelectingField = None
    blocks: SelectingField = None
    rank: int | None = Field(default=None, ge=1, le=MOST_RANK)
    expert_rank: str | None = Field(default=None, pattern=EXPERT_RANK)
    budget: str | None = Field(default=None, max_length=BUDGET_LENGTH, pattern=BUDGET)
    servable: str | None = Field(default=None, max_length=SELECTING_LENGTH, pattern=SERVABLE)


class BatchQuestions(BaseModel):
    """The questions of a batch."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"questions": [{"model_type": "llama"}, {"model_type": "olmo2", "preset": "mlp"}]}]
        },
    )

    questions: list[Question] = Field(min_length=1, max_length=MAX_QUESTIONS)


class CheckRequest(BaseModel):
    """A training configuration to check."""

    model_config = STRICT | ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "qlora.yml",
                    "text": "base_model: EleutherAI/gpt-neox-20b\nadapter: lora\nlora_target_modules: [q_proj]\n",
                }
            ]
        }
    )

    text: str = Field(min_length=1, max_length=MOST_TEXT, description="Content of the file")
    name: str = Field(
        default="config.yaml",
        pattern=r"^[A-Za-z0-9_.-]{1,128}$",
        description="Name of the file; its ending tells YAML, JSON, shell and Python apart",
    )
    model: str | None = Field(
        default=None,
        max_length=NAME_LENGTH,
        pattern=REFERENCE_PATTERN,
        description="Model in any spelling; the one that the configuration names if left out",
    )


class TokenRequest(BaseModel):
    """A new token."""

    model_config = STRICT | ConfigDict(
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


class ReviewRequest(BaseModel):
    """The decision of a reviewer."""

    model_config = STRICT | ConfigDict(
        json_schema_extra={
            "examples": [{"decision": "approve", "comment": "Reaches query and value of all 16 blocks, proved live."}]
        }
    )

    decision: ReviewDecision = Field(description="`approve` publishes a revision with source `community`")
    comment: Text = Field(description="Reasons, for the submitter and the audit log")


class ReasonRequest(BaseModel):
    """The reason of an operation."""

    model_config = STRICT | ConfigDict(
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
