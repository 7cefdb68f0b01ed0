"""Validate text and JSON from outside.

The functions ``explain_invalid_...`` return the problem in a sentence, or ``None``. Names are printable ASCII; because
a homoglyph looks like a letter, a message gives the code point of a character.
"""

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest
from ..extras import require

NAME_LENGTH = 255
TARGET_LENGTH = 255
REGEX_LENGTH = 4_096
RATIONALE_LENGTH = 4_000

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_\-]*(\.[A-Za-z0-9_\-]+)*$"
TARGET_PATTERN = r"^([0-9]+\.)*[0-9]*[A-Za-z_\-][A-Za-z0-9_\-]*(\.[A-Za-z0-9_\-]+)*$"
PATH_PATTERN = r"^[!-\-/-~]+(\.[!-\-/-~]+)*$"
REGEX_PATTERN = r"^[ -~]+$"
HIDDEN = (
    r"\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
)
"""Control characters except line feeds and tabs, and invisible, line-ending and bidirectional characters."""

REJECTED = "rejected"
"""Type of the problems that loradar's own validators report; their messages show the value where it is safe."""

_MESSAGES = {"extra_forbidden": "There is no such field", "missing": "It is missing"}


def find_character(text: str, pattern: str = r"[^ -~]") -> str | None:
    """Return the first character of a text that a regex class matches, in words; ``None`` without one.

    Args:
        text: The text.
        pattern: The class; by default all but printable ASCII.
    """
    found = re.search(pattern, text)
    if found is None:
        return None
    shown = f"{found[0]!r} " if found[0].isprintable() else ""
    return f"{shown}(U+{ord(found[0]):04X})"


def explain_invalid_name(name: str) -> str | None:
    """Return why this cannot be the name of an architecture or a class; ``None`` if it can."""
    odd = find_character(name, r"[^A-Za-z0-9_.\-]")
    if odd:
        return f"A name is of ASCII letters, digits, '_', '.' and '-'; {shorten(name)} holds {odd}."
    if not 1 <= len(name) <= NAME_LENGTH:
        return f"A name has 1 to {NAME_LENGTH} characters; this one has {len(name)}."
    if not re.fullmatch(NAME_PATTERN, name):
        way_out = "It begins with a letter, a digit or '_', and has something on both sides of a '.', as in 'llama'"
        return f"{shorten(name)} cannot be a name. {way_out}."
    return None


def explain_invalid_target(target: str) -> str | None:
    """Return why this cannot be a target, the end of a path; ``None`` if it can."""
    odd = find_character(target, r"[^A-Za-z0-9_.\-]")
    if odd:
        way_out = "Give a regex as one string, not in a list"
        return f"A target is the end of a path; {shorten(target)} holds {odd}. {way_out}."
    if not 1 <= len(target) <= TARGET_LENGTH:
        return f"A target has 1 to {TARGET_LENGTH} characters; one here has {len(target)}."
    segments = target.split(".")
    if not all(segments):
        return f"Target {shorten(target)} has an empty segment. Write it as in 'self_attn.q_proj'."
    if all(map(str.isdecimal, segments)):
        way_out = "Put the name before it, as in 'mlp.0'"
        return f"Target {shorten(target)} is a bare index, which hits whatever else is numbered. {way_out}."
    return None


def explain_invalid_regex(regex: str) -> str | None:
    """Return why this text cannot be a regex of paths; its syntax is left to the engine."""
    if not 1 <= len(regex) <= REGEX_LENGTH:
        return f"A regex has 1 to {REGEX_LENGTH} characters; this one has {len(regex)}. Give a list of targets."
    odd = find_character(regex)
    return (
        f"A regex is of printable ASCII, as the paths it matches; this one holds {odd}. Leave it out." if odd else None
    )


def explain_invalid_path(path: str) -> str | None:
    """Return why this cannot be the path of a layer; ``None`` if it can."""
    odd = find_character(path, "[^!-~]")
    if odd:
        return f"A path is of printable ASCII without spaces; {shorten(path)} holds {odd}."
    if not 1 <= len(path) <= TARGET_LENGTH:
        return f"A path has 1 to {TARGET_LENGTH} characters; one here has {len(path)}."
    if not all(path.split(".")):
        return f"Path {shorten(path)} has an empty segment. Write it as in 'model.layers.0.mlp.up_proj'."
    return None


def explain_invalid_text(text: str) -> str | None:
    """Return why part of this text would not be visible; line feeds and tabs are allowed."""
    odd = find_character(text, f"[{HIDDEN}\ud800-\udfff]")  # lone surrogates: undecodable bytes of a shell
    return f"A text has no control characters and nothing invisible; here is {odd}. Leave it out." if odd else None


def explain_invalid_reason(text: str) -> str | None:
    """Return why this cannot be a reason: invisible characters, or nothing visible."""
    return explain_invalid_text(text) or (None if text.strip() else "Say why; there is nothing to read here.")


def shorten(text: str) -> str:
    """Return a text quoted and cut to the length of a line."""
    return repr(text if len(text) <= 64 else f"{text[:61]}...")  # noqa: PLR2004 - fits a line


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8 without repeated names, ``NaN`` or deep nesting.

    Raises:
        InvalidRequest: Naming the position and the problem.
        MissingExtra: If the ``server`` extra is not installed.
    """
    require("server", "jiter")
    from jiter import from_json  # noqa: PLC0415 - an extra

    try:
        # No cache: text of clients would stay in memory.
        return from_json(data, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="none")
    except ValueError as error:
        message = f"The body is no JSON this service reads: {error}. Send one JSON value in UTF-8."
        raise InvalidRequest(message, field="body", problem=str(error)) from error


def describe_problem(problem: Mapping[str, Any]) -> str:
    """Return an item of ``ValidationError.errors()`` as a sentence without its full stop."""
    kind, value = problem["type"], problem.get("input")
    message: str = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if kind in _MESSAGES:
        return _MESSAGES[kind]
    if kind in {REJECTED, "value_error"} or not isinstance(value, str | int | float):
        return message
    return f"{message}, not {shorten(str(value))}"
