"""Validate statements: the body of a submission, and the shorthand."""

import json
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Json
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..domain.methods import UNTARGETED, get_method, list_methods
from ..domain.submissions import LARGEST_DIMENSION, MOST_DIMENSIONS, MOST_LAYERS, ListedLayer, Statement
from ..domain.vocabulary import Library, Preset
from ..errors import InvalidStatement, LoradarError, quoted
from ..similar_names import nearest
from .text import (
    HIDDEN,
    NAME_LENGTH,
    NAME_PATTERN,
    PATH_PATTERN,
    RATIONALE_LENGTH,
    REGEX_LENGTH,
    REGEX_PATTERN,
    REJECTED,
    TARGET_LENGTH,
    TARGET_PATTERN,
    describe_problem,
    explain_invalid_name,
    explain_invalid_path,
    explain_invalid_regex,
    explain_invalid_target,
    explain_invalid_text,
    shorten,
)

MOST_TARGETS = 512
MOST_STATEMENTS = 64
"""Statements in one shorthand."""


def _reject(message: str) -> PydanticCustomError:
    """Return the error that pydantic reports with this message, braces included."""
    return PydanticCustomError(REJECTED, "{message}", {"message": message})


def rejecting(explain: Callable[[str], str | None]) -> AfterValidator:
    """Return the validator that rejects text for which ``explain`` returns a problem."""

    def check(text: str) -> str:
        problem = explain(text)
        if problem:
            raise _reject(problem)
        return text

    return AfterValidator(check)


def _check_peft_type(peft_type: str) -> str:
    try:
        method = get_method(peft_type)
    except LoradarError as error:
        raise _reject(error.message) from None
    if method.family in UNTARGETED:
        raise _reject(f"{method.name} names no layers, so there is nothing to state. Give a method that does.")
    return method.name


def _check_targets(given: Any) -> Any:
    """Validate a list or a regex by the type of the value, so that the message is about the intended one."""
    if not isinstance(given, str):
        return _check_list(given)
    problem = explain_invalid_regex(given)
    if given in _SHORTCUTS:
        problem = f"{given!r} is PEFT's word for layers it looks up itself. Name them, with the preset 'all-linear'."
    if problem:
        raise _reject(problem)
    return given


def _check_list(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list | tuple):
        raise _reject("Give a list of names, or one regex where a regex may stand.")
    if not 1 <= len(given) <= MOST_TARGETS:
        way_out = "Leave the field out for none" if not given else "A regex says more in less"
        raise _reject(f"A list has 1 to {MOST_TARGETS} names; this one has {len(given)}. {way_out}.")
    for name in given:
        problem = (
            explain_invalid_target(name)
            if isinstance(name, str)
            else f"A name is a string, not a {type(name).__name__}."
        )
        if problem:
            raise _reject(problem)
    twice = _find_twice(given)
    if twice:
        raise _reject(f"{shorten(twice)} is there twice. Name each once.")
    return tuple(given)


def _find_twice(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _check_unique(layers: "list[LayerBody]") -> "list[LayerBody]":
    twice = _find_twice([layer.path for layer in layers])
    if twice:
        raise _reject(f"Layer {shorten(twice)} is there twice. List each weight once.")
    return layers


def _text(length: int, pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": length, "pattern": pattern})


_LIST = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": TARGET_LENGTH, "pattern": TARGET_PATTERN},
    "minItems": 1,
    "maxItems": MOST_TARGETS,
    "uniqueItems": True,
}
_REGEX = {"type": "string", "minLength": 1, "maxLength": REGEX_LENGTH, "pattern": REGEX_PATTERN}
_NAMED_LAYERS = [method.name for method in list_methods() if method.family not in UNTARGETED]

TargetsField = Annotated[
    tuple[str, ...] | str, BeforeValidator(_check_targets), WithJsonSchema({"anyOf": [_LIST, _REGEX]})
]
NamesField = Annotated[tuple[str, ...], BeforeValidator(_check_list), WithJsonSchema(_LIST)]
NameField = Annotated[str, rejecting(explain_invalid_name), _text(NAME_LENGTH, NAME_PATTERN)]
PathField = Annotated[str, rejecting(explain_invalid_path), _text(TARGET_LENGTH, PATH_PATTERN)]
MethodField = Annotated[
    str, AfterValidator(_check_peft_type), WithJsonSchema({"type": "string", "enum": _NAMED_LAYERS})
]
Rationale = Annotated[
    str,
    Field(max_length=RATIONALE_LENGTH),
    rejecting(explain_invalid_text),
    WithJsonSchema({"type": "string", "maxLength": RATIONALE_LENGTH, "pattern": f"^[^{HIDDEN}]*$"}),
]
WHOLE = BeforeValidator(lambda given: int(given) if isinstance(given, float) and given.is_integer() else given)
"""Accept as an integer what JSON Schema does: 2.0, but neither "2" nor true."""
Shape = Annotated[
    list[Annotated[int, Field(ge=1, le=LARGEST_DIMENSION), WHOLE]], Field(min_length=1, max_length=MOST_DIMENSIONS)
]

_SHORTCUTS = ("all-linear", "dummy-target-modules")

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
"""No unknown fields, and no conversion of types."""


class LayerBody(BaseModel):
    """One weight of a model that cannot be built here."""

    model_config = STRICT | ConfigDict(title="Layer", validate_by_name=True, validate_by_alias=True)

    path: PathField = Field(
        description="Path of the module that owns it, without '.weight'", examples=["model.layers.0.self_attn.q_proj"]
    )
    shape: Shape = Field(description="Shape of the weight as it is stored", examples=[[4096, 4096]])
    class_name: NameField | None = Field(
        None, alias="class", description="Class of the module, if known", examples=["Linear"]
    )

    def to_layer(self) -> ListedLayer:
        """Return the record."""
        return ListedLayer(self.path, tuple(self.shape), self.class_name)


# The first invalid layer is enough: validating a long list takes long.
_Layers = Annotated[list[LayerBody], Field(min_length=1, max_length=MOST_LAYERS, fail_fast=True)]
LayersField = Annotated[_Layers, AfterValidator(_check_unique)]

EXAMPLE: dict[str, Any] = {
    "library": "transformers",
    "name": "olmo2",
    "peft_type": "LORA",
    "preset": "default",
    "target_modules": ["q_proj", "v_proj"],
    "rationale": "Query and value, as PEFT has them for every other decoder.",
}
_NAMES_LAYERS: Any = [
    {"required": [field], "properties": {field: {"not": {"type": "null"}}}}
    for field in ("target_modules", "target_parameters")
]


class StatementBody(BaseModel):
    """A mapping as a contributor states it: the body of ``POST /v1/submissions``."""

    model_config = STRICT | ConfigDict(
        title="Statement", json_schema_extra={"examples": [EXAMPLE], "anyOf": _NAMES_LAYERS}
    )

    library: Library = Field("transformers", description="Library the architecture belongs to")
    name: NameField = Field(
        description="Name of the architecture: a model type, a timm name, a class", examples=["olmo2"]
    )
    peft_type: MethodField = Field("LORA", description="PEFT's method, one that names layers", examples=["LORA"])
    preset: Preset = Field("default", description="Which question it answers")
    target_modules: TargetsField | None = Field(
        None,
        description="Ends of the paths to adapt, or one regex (RE2) that matches whole paths",
        examples=[["q_proj", "v_proj"]],
    )
    exclude_modules: TargetsField | None = Field(
        None, description="What of these is left alone, in the same form", examples=[["vision_tower.q_proj"]]
    )
    modules_to_save: NamesField | None = Field(
        None, description="Modules trained in full, such as a fresh head", examples=[["classifier"]]
    )
    target_parameters: NamesField | None = Field(
        None, description="Bare parameters to adapt, such as fused experts", examples=[["experts.down_proj"]]
    )
    feedforward_modules: TargetsField | None = Field(
        None, description="Those of the targets that IA3 scales at the input", examples=[["down_proj"]]
    )
    rationale: Rationale | None = Field(
        None, description="Why, for whoever reviews it", examples=[EXAMPLE["rationale"]]
    )
    layers: LayersField | None = Field(
        None, description="What the model consists of, where its library is not installed with the service"
    )

    @model_validator(mode="after")
    def _names_layers(self) -> Self:
        if self.target_modules is None and self.target_parameters is None:
            raise _reject("It names no layer. Give target_modules or target_parameters.")
        return self

    def to_statement(self) -> Statement:
        """Return the record."""
        layers = None if self.layers is None else tuple(layer.to_layer() for layer in self.layers)
        return Statement(**{**dict(self), "layers": layers})


def parse_statements(data: Any, *, source: str = "The statement") -> tuple[Statement, ...]:
    """Parse the statements in data from a file or a request.

    Args:
        data: The body of a submission, or the shorthand ``{"olmo2": ["q_proj", "v_proj"]}``: LoRA's default targets of
            transformers' model types, each a statement.
        source: Origin of the data, for messages.

    Raises:
        InvalidStatement: Naming the field and a valid value.
    """
    if not isinstance(data, Json):
        message = f"{source} is no statement. Give an object with 'name' and 'target_modules', or {_SHORTHAND}."
        raise InvalidStatement(message, source=source)
    # A shorthand has lists only, and no name of a field: a body with a misspelt field is not taken for one.
    is_shorthand = not data.keys() & StatementBody.model_fields.keys() and all(
        isinstance(v, list) for v in data.values()
    )
    if not is_shorthand:
        return (_parse(data, source),)
    if not 1 <= len(data) <= MOST_STATEMENTS:
        message = f"{source} has {len(data)} statements; 1 to {MOST_STATEMENTS} go at once."
        raise InvalidStatement(message, source=source, limit=MOST_STATEMENTS)
    return tuple(_parse({"name": name, "target_modules": targets}, source) for name, targets in data.items())


_SHORTHAND = json.dumps({"olmo2": ["q_proj", "v_proj"]})


def _parse(data: Json[Any, Any], source: str) -> Statement:
    try:
        return StatementBody.model_validate(dict(data)).to_statement()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, problem = ".".join(map(str, first["loc"])), describe_problem(first)
        if first["type"] == "extra_forbidden":
            near = nearest(str(first["loc"][-1]), StatementBody.model_fields, 1)
            meant = f"Closest: {quoted(near)}. " if near else ""
            problem = f"There is no such field. {meant}Fields: {quoted(StatementBody.model_fields)}"
        where = f", field {shorten(field)}" if field else ""
        message = f"{source}{where}: {problem}."
        raise InvalidStatement(message, field=field, source=source, faults=error.error_count()) from None
