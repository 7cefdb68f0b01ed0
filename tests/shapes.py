"""Hold responses to their documented schema."""

from functools import cache
from typing import Any, TypeVar

from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from loradar.schema import from_json

Record = TypeVar("Record")


@cache
def validator(record: type[object]) -> Draft202012Validator:
    """Return the validator of the JSON Schema that OpenAPI documents for a record."""
    return Draft202012Validator(TypeAdapter(record).json_schema(mode="serialization"))


def documented(record: type[Record], body: Any) -> Record:
    """Return the record in a body that has exactly the documented shape."""
    faults = [fault.message for fault in validator(record).iter_errors(body)]
    assert not faults, faults
    return from_json(record, body)
