"""Collect the names that users' programs rely on, one a line: of REST, commands, Python, metrics and tables.

``python tests/contract.py`` writes them to ``tests/golden/contract.txt``; ``test_contract.py`` finds lost ones.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from prometheus_client.parser import text_string_to_metric_families

import loradar
from loradar import settings
from loradar.api import create_app
from loradar.api.process.metrics import Metrics
from loradar.cli import app
from loradar.errors import LoradarError
from loradar.registry.db import tables

RECORD = Path(__file__).parent / "golden" / "contract.txt"
NO_PLACE = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def list_contract() -> set[str]:
    """Return every name, with what it stands in and its type or place."""
    described = create_app(settings.Settings(Path("/nowhere"), "sqlite:////nowhere/none.sqlite3")).openapi()
    return {
        *(f"rest {line}" for line in _operations(described["paths"])),
        *(f"schema {line}" for line in _fields(described["components"]["schemas"])),
        *(f"command {line}" for line in _commands(typer.main.get_command(app), "")),
        *(f"python {line}" for name in loradar.__all__ for line in _public(name, getattr(loradar, name))),
        *(f"error {kind.code} {kind.status} {kind.exit_code}" for kind in _kinds(LoradarError)),
        *(f"metric {line}" for line in _metrics()),
        *(f"table {table.name}.{column.name}" for table in tables.metadata.sorted_tables for column in table.columns),
        *(f"variable {value}" for name, value in vars(settings).items() if name.endswith("_VARIABLE")),
    }


def _operations(paths: dict[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, operation in methods.items():
            called = f"{method.upper()} {path}"
            yield f"{called} {operation['operationId']}"
            for one in operation.get("parameters", ()):
                yield f"{called} {one['in']}:{one['name']}"
            for media, body in operation.get("requestBody", {}).get("content", {}).items():
                yield f"{called} {media}: {_type(body['schema'])}"
            for status, response in operation["responses"].items():
                for media, body in response.get("content", {}).items():
                    yield f"{called} {status} {media}: {_type(body.get('schema', {}))}"


def _fields(schemas: dict[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        for field, kind in schema.get("properties", {}).items():
            yield f"{name}.{field}: {_type(kind)}"


def _type(schema: dict[str, Any]) -> str:
    """Return the type in a schema as text: the names of others for references, without limits and values."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if choices := [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]:
        return "|".join(sorted({_type(choice) for choice in choices}))
    kind = str(schema.get("type", "any"))
    inner = schema.get("items") if kind == "array" else schema.get("additionalProperties")
    return f"{kind}[{_type(inner)}]" if isinstance(inner, dict) and inner else kind


def _commands(command: Any, name: str) -> Iterator[str]:
    arguments = [each.name for each in command.params if each.param_type_name == "argument"]
    yield from (f"{name} {place} {argument}" for place, argument in enumerate(arguments))
    for option in command.params:
        if option.param_type_name == "option":
            yield from (f"{name} {word}".strip() for word in (*option.opts, *option.secondary_opts))
    for inner, each in getattr(command, "commands", {}).items():
        path = f"{name} {inner}".strip()
        yield path
        yield from _commands(each, path)


def _public(name: str, value: Any) -> Iterator[str]:
    """Yield a name, the parameters of what can be called, and the methods of clients; PEFT has those of models."""
    yield name
    if not callable(value):
        return
    place = 0
    for one in inspect.signature(value).parameters.values():
        if one.name not in {"self", "cls"}:
            yield f"{name}({one.name if one.kind in NO_PLACE else f'{place} {one.name}'})"
            place += 1
    for member in dir(value) if value in {loradar.AsyncClient, loradar.Client} else ():
        if not member.startswith("_"):
            yield from _public(f"{name}.{member}", getattr(value, member))


def _kinds(kind: type[LoradarError]) -> Iterator[type[LoradarError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == kind.__module__:
            yield from _kinds(below)


def _metrics() -> Iterator[str]:
    metrics = Metrics("0")
    metrics.count("GET", "/", 200, 0.1)
    with metrics.scanning("scan"):
        pass
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.name.startswith("loradar"):
            for sample in family.samples:
                yield f"{sample.name} {','.join(sorted(sample.labels))}".strip()


if __name__ == "__main__":
    RECORD.write_text("".join(f"{line}\n" for line in sorted(list_contract())), "utf-8")
