"""Matches a contributor's regex in linear time: with RE2, which has nothing that runs for ever; never with ``re``."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...domain.targets import TargetMatcher, Targets, TargetSpec
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
            InvalidStatement: If the regex is none that RE2 knows.
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


def check_regexes(spec: TargetSpec) -> None:
    """Compile every regex of a spec; none is run.

    Raises:
        InvalidStatement: Naming the field with one that RE2 does not know.
    """
    for field in REGEX_FIELDS:
        given = getattr(spec, field)
        if isinstance(given, str):
            compile_regex(given, field)


def compile_regex(regex: str, field: str = "target_modules") -> Any:
    """Return a regex compiled by RE2.

    Raises:
        InvalidStatement: If it is too long, too large, or uses what RE2 leaves out because it may run for ever.
        MissingExtra: If google-re2 is not installed.
    """
    fault = explain_invalid_regex(regex)
    if fault:
        raise InvalidStatement(f"{field}: {fault}", field=field)
    require("scan", "re2")
    import re2  # noqa: PLC0415 - an extra; a lookup does without

    options = re2.Options()
    options.max_mem, options.log_errors = MOST_MEMORY, False
    options.never_capture = True  # a thousand groups would take a thousand times as long
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        said = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error.args[0])
        way_out = "RE2 has no backreferences and no lookaround; a list of targets, or exclude_modules, does without"
        raise InvalidStatement(f"{field} is no regex that RE2 takes: {said}. {way_out}.", field=field) from None


def words_of(regex: str) -> Iterable[str]:
    """Return the words a regex is written with, which may be meant for names."""
    cleaned = "".join(c if c.isalnum() or c == "_" else " " for c in regex.replace("\\d", " ").replace("\\w", " "))
    return dict.fromkeys(word for word in cleaned.split() if len(word) > 2 and not word.isdecimal())  # noqa: PLR2004 - shorter ones look like anything
