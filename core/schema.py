"""Derive JSON, validation and JSON Schema of the records from their fields.

A record is a frozen standard-library dataclass. One that is sent or stored as JSON sets ``__pydantic_config__`` to
``schema_config()`` and describes its fields by the string below each. Writing JSON needs the standard library alone;
only ``from_json`` and ``dump_json`` import pydantic, which takes 0.1 s of the 0.5 s of a lookup.
"""

import ast
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from itertools import pairwise
from operator import attrgetter
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import TypeAdapter

Config = dict[str, Any]
"""The type of ``__pydantic_config__``."""

Record = TypeVar("Record")

_ALIASES = {"class_name": "class", "condition": "if"}
_PLAIN = frozenset({bool, float, int, str, type(None)})
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def schema_config(examples: "Callable[[], Sequence[DataclassInstance]]" = tuple) -> Config:
    """Return the pydantic configuration of a record.

    Args:
        examples: Return records for the JSON Schema; a function, because they are made after their class.
    """

    def complete(schema: dict[str, Any], record: "type[DataclassInstance]") -> None:
        texts = _descriptions_of(record)
        for name, field in schema["properties"].items():
            field.pop("default", None)  # every field is always written
            field.update({"description": texts[name]} if name in texts else {})
        records = examples()
        if records:
            schema["examples"] = [to_json(example) for example in records]

    return {
        "alias_generator": _alias_of,
        "extra": "forbid",
        "json_schema_extra": complete,
        "json_schema_serialization_defaults_required": True,
    }


def _alias_of(name: str) -> str:
    return _ALIASES.get(name, name)


@cache  # pydantic's own ``use_attribute_docstrings`` parses the source for every schema a class is part of
def _descriptions_of(record: "type[DataclassInstance]") -> dict[str, str]:
    """Return the strings below the fields of a record, by JSON name."""
    (definition,) = ast.parse(inspect.getsource(record)).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        _alias_of(field.target.id): " ".join(text.split())
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(text := below.value.value, str)
    }


def to_json(record: "DataclassInstance") -> dict[str, Any]:
    """Return the JSON form of a record: every field in order, tuples as lists."""
    names, nested, read = _members_of(type(record))
    values = dict(zip(names, read(record), strict=True))
    for name in nested:
        values[name] = _to_value(values[name])
    return values


def _to_value(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [item if type(item) in _PLAIN else _to_value(item) for item in value]
    if isinstance(value, dict):
        return {key: item if type(item) in _PLAIN else _to_value(item) for key, item in value.items()}
    return to_json(value) if hasattr(type(value), "__dataclass_fields__") else value


@cache
def _members_of(
    record: "type[DataclassInstance]",
) -> tuple[tuple[str, ...], tuple[str, ...], Callable[[Any], Sequence[Any]]]:
    """Return the JSON names of a record's fields, those with nested values, and the function that reads all values."""
    members = [field for field in fields(record) if not field.metadata.get("exclude")]
    nested = tuple(_alias_of(field.name) for field in members if not _is_plain(field.type))
    read: Callable[[Any], Any] = attrgetter(*(field.name for field in members))
    names = tuple(_alias_of(field.name) for field in members)
    return names, nested, read if len(names) > 1 else lambda instance: (read(instance),)


def _is_plain(annotation: Any) -> bool:
    """Return whether all values of a type are JSON as they are."""
    if isinstance(annotation, UnionType):
        return all(map(_is_plain, get_args(annotation)))
    return annotation in _PLAIN or get_origin(annotation) is Literal


def canonical(value: Any) -> str:
    """Return the canonical JSON text of a value: keys sorted, no spaces, ASCII only."""
    return _ENCODER.encode(value)


def from_json(record: type[Record], data: Any) -> Record:
    """Build a record from its JSON form; unknown fields are ignored.

    Raises:
        ValueError: If a field is missing or has an impossible value.
    """
    adapter = _adapter_of(record)  # type: ignore[arg-type]  # mypy takes no class for hashable
    built: Record = adapter.validate_python(data, extra="ignore")
    return built


def dump_json(record: "DataclassInstance") -> bytes:
    """Return the JSON text of a record without spaces; for large ones, faster than ``to_json``."""
    return _adapter_of(type(record)).dump_json(record, by_alias=True)


@cache
def _adapter_of(record: type[object]) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter  # noqa: PLC0415 - 0.1 s that a lookup can do without

    return TypeAdapter(record)
