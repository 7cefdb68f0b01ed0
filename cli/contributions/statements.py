"""Statements as they are given to ``loradar submit``: a file, JSON as it stands, or standard input."""

import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import StatementRefused

if TYPE_CHECKING:
    from ...domain.submissions import Statement

STANDARD_INPUT = "-"
TABLES = "statement"
"""The table that a TOML file repeats for several statements: ``[[statement]]``."""


def read_statements(given: str) -> "tuple[Statement, ...]":
    """Return the statements that an argument stands for.

    Args:
        given: A file of JSON or TOML, JSON itself, or ``-`` for standard input.

    Raises:
        StatementRefused: Naming the file, the field and what would do.
    """
    from ...validation.statements import parse_statements

    data, source = _read(given)
    if isinstance(data, dict) and data.keys() == {TABLES} and isinstance(data[TABLES], list):
        told = data[TABLES]
        data = told if all(isinstance(one, dict) for one in told) else data
    if not isinstance(data, list):
        return parse_statements(data, source=source)
    if not data:
        raise _unreadable(source, "it has no statement")
    told = ((one, f"{source}, statement {number}") for number, one in enumerate(data, start=1))
    return tuple(statement for one, where in told for statement in parse_statements(one, source=where))


def _read(given: str) -> tuple[Any, str]:
    """Return the data, and where it comes from in words."""
    if given.lstrip()[:1] in {"{", "["}:
        return _parse(given, "The statement", is_toml=False), "The statement"
    source = "Standard input" if given == STANDARD_INPUT else given
    try:
        text = sys.stdin.read() if given == STANDARD_INPUT else Path(given).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _unreadable(source, reason) from error
    is_file = given != STANDARD_INPUT
    is_toml = Path(given).suffix.lower() == ".toml" if is_file else not _is_json(text) and text.lstrip()[:1] != "{"
    return _parse(text, source, is_toml=is_toml), source


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(text: str, source: str, *, is_toml: bool) -> Any:
    try:
        return tomllib.loads(text) if is_toml else json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _unreadable(source, f"it is no {'TOML' if is_toml else 'JSON'}: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object none of whose names is there twice: of two, the first would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        message = f"{next(name for name in names if names.count(name) > 1)!r} is there twice"
        raise ValueError(message)
    return found


def _no_number(text: str) -> Any:
    message = f"{text} is no number"
    raise ValueError(message)


def _unreadable(source: str, reason: str) -> StatementRefused:
    way_out = """Give a file of JSON or TOML, or as in: loradar submit '{"olmo2": ["q_proj", "v_proj"]}'"""
    return StatementRefused(f"{source} cannot be read: {reason}. {way_out}", source=source, reason=reason)
