"""Match untrusted regexes with RE2, whose running time is linear in the text."""

from functools import cached_property
from typing import Any

from ...domain.submissions import Statement
from ...domain.targets import TargetMatcher
from ...errors import InvalidStatement
from ...extras import require
from ...validation.text import explain_invalid_regex

MOST_MEMORY = 1 << 20
"""Bytes a compiled regex and its states may take."""

REGEX_FIELDS = ("target_modules", "exclude_modules", "feedforward_modules")


class LinearMatcher(TargetMatcher):
    """Match untrusted targets: by PEFT's rule, a regex with RE2 instead of ``re``.

    Raises:
        InvalidStatement: By ``find``, if RE2 rejects the regex.
    """

    @cached_property
    def _regex(self) -> Any:
        return compile_regex(str(self.targets))


def check_regexes(statement: Statement) -> None:
    """Compile every regex of a statement; none is run.

    Raises:
        InvalidStatement: If RE2 rejects one; names its field.
    """
    for field in REGEX_FIELDS:
        given = getattr(statement, field)
        if isinstance(given, str):
            compile_regex(given, field)


def compile_regex(regex: str, field: str = "target_modules") -> Any:
    """Return a regex compiled by RE2.

    Raises:
        InvalidStatement: If it is too long, too large, or not supported by RE2.
        MissingExtra: If google-re2 is not installed.
    """
    fault = explain_invalid_regex(regex)
    if fault:
        raise InvalidStatement(f"{field}: {fault}", field=field)
    require("scan", "re2")
    import re2  # noqa: PLC0415 - an extra, not needed by lookups

    options = re2.Options()
    options.max_mem, options.log_errors = MOST_MEMORY, False
    options.never_capture = True  # a thousand groups would take a thousand times as long
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error.args[0])
        way_out = "RE2 has no backreferences and no lookaround: use a list of targets, or exclude_modules"
        raise InvalidStatement(f"{field} is not a regex that RE2 accepts: {reason}. {way_out}.", field=field) from None
