"""``loradar submit``: submit mappings, and show the result of their machine checks."""

import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import InvalidStatement, LoradarError
from ...schema import to_json
from ..backend import Checks, open_backend
from ..options import AsJson, Secret, Url
from ..output import print_json
from .submissions import print_submission

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...client import Client
    from ...domain.submissions import Statement, Submission
    from ...registry import LocalBackend

STANDARD_INPUT = "-"
TABLES = "statement"
"""The table that a TOML file repeats for several statements: ``[[statement]]``."""


def submit(
    statement: Annotated[
        str,
        typer.Argument(metavar="FILE|JSON|-", help="""A .json or .toml file, or '{"olmo2": ["q_proj"]}'"""),
    ],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="With --url: wait until the checks are finished.")] = False,
    url: Url = None,
    secret: Secret = None,
    as_json: AsJson = False,
) -> None:
    """Submit one mapping or several; machine checks run first, then another person reviews it."""
    statements = read_statements(statement)
    with open_backend(url, secret) as backend, Checks(backend) as checks:
        checks.prepare()
        submitted = _submit_all(backend, statements, is_local=not url)
        if wait or not url:
            submitted = [checks.wait(made.id) for made in submitted]
    if as_json:
        print_json({"submissions": [to_json(made) for made in submitted]})
    else:
        for number, made in enumerate(submitted):
            if number:
                typer.echo()
            print_submission(made)
    if any(made.status == "failed" for made in submitted):
        raise typer.Exit(1)


def _submit_all(
    backend: "LocalBackend | Client", statements: "Iterable[Statement]", *, is_local: bool
) -> "list[Submission]":
    """Submit one statement after the other; an error names the submissions made before it."""
    from ...sandbox.tasks import precheck

    submitted: list[Submission] = []
    for statement in statements:
        try:
            if is_local:
                precheck(statement)
            submitted.append(backend.submit(statement))
        except LoradarError as error:
            error.details["submitted"] = [made.id for made in submitted]
            if submitted:
                done = ", ".join(f"submission {made.id}" for made in submitted)
                typer.echo(f"Submitted before the error: {done}.", err=True)
            raise
    return submitted


def read_statements(argument: str) -> "tuple[Statement, ...]":
    """Read the statements that an argument names or contains.

    Args:
        argument: A file of JSON or TOML, JSON itself, or ``-`` for standard input.

    Raises:
        InvalidStatement: With the file, the field and the expected form.
    """
    from ...validation.statements import parse_statements

    data, source = _read(argument)
    if isinstance(data, dict) and data.keys() == {TABLES} and isinstance(data[TABLES], list):
        tables = data[TABLES]
        data = tables if all(isinstance(table, dict) for table in tables) else data
    if not isinstance(data, list):
        return parse_statements(data, source=source)
    if not data:
        raise _unreadable(source, "it has no statement")
    numbered = ((item, f"{source}, statement {number}") for number, item in enumerate(data, start=1))
    return tuple(statement for item, place in numbered for statement in parse_statements(item, source=place))


def _read(argument: str) -> tuple[Any, str]:
    """Return the parsed data, and its source in words."""
    if argument.lstrip()[:1] in {"{", "["}:
        text, source, is_toml = argument, "The statement", False
    else:
        source = "Standard input" if argument == STANDARD_INPUT else argument
        try:
            text = sys.stdin.read() if argument == STANDARD_INPUT else Path(argument).read_text("utf-8")
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise _unreadable(source, reason) from error
        is_toml = _looks_like_toml(text) if argument == STANDARD_INPUT else Path(argument).suffix.lower() == ".toml"
    try:
        if is_toml:
            return tomllib.loads(text), source
        return json.loads(text, object_pairs_hook=_unique_names, parse_constant=_reject_constant), source
    except (ValueError, RecursionError) as error:
        raise _unreadable(source, f"it is not valid {'TOML' if is_toml else 'JSON'}: {error}") from error


def _looks_like_toml(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text.lstrip()[:1] != "{"
    return False


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object without duplicate names: of two, the first would be lost silently."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        names = [name for name, _ in pairs]
        message = f"{next(name for name in names if names.count(name) > 1)!r} is there twice"
        raise ValueError(message)
    return unique


def _reject_constant(text: str) -> Any:
    message = f"{text} is not a number"
    raise ValueError(message)


def _unreadable(source: str, reason: str) -> InvalidStatement:
    way_out = """Give a file of JSON or TOML, or as in: loradar submit '{"olmo2": ["q_proj", "v_proj"]}'"""
    return InvalidStatement(f"{source} cannot be read: {reason}. {way_out}", source=source, reason=reason)
