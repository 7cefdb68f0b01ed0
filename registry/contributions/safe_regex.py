"""Match untrusted regexes with RE2, whose running time is linear in the text."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...domain.submissions import Statement
from ...domain.targets import TargetMatcher, Targets
from ...errors import InvalidStatement
from ...extras import require
from ...validation.text import explain_invalid_regex

MOST_MEMORY = 1 << 20
"""Bytes a compiled regex and its states may take."""

REGEX_FIELDS = ("target_modules", "exclude_modules", "feedforward_modules")


@dataclass(frozen=True)
class LinearMatcher:
    """Match untrusted targets by PEFT's rule, as ``TargetMatcher`` of ``domain/targets.py`` does trusted ones."""

    targets: Targets

    def find(self, path: str) -> str | None:
        """Return the target that matches ``path``, or ``None``.

        Raises:
            InvalidStatement: If RE2 rejects the regex.
        """
        if not isinstance(self.targets, str):
            return self._suffixes.find(path)
        return self.targets if self._regex.fullmatch(path) else None

    @cached_property
    def _suffixes(self) -> TargetMatcher:
        return TargetMatcher(self.targets)

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


def words_of(regex: str) -> Iterable[str]:
    """Return the words of a regex, which may be meant as names."""
    cleaned = "".join(c if c.isalnum() or c == "_" else " " for c in regex.replace("\\d", " ").replace("\\w", " "))
    return dict.fromkeys(word for word in cleaned.split() if len(word) > 2 and not word.isdecimal())  # noqa: PLR2004 - shorter words resemble too much
