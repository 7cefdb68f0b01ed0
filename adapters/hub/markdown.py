"""Text from outside, such as names and reasons, made safe to stand in Markdown."""

import re

SPECIAL = re.compile(r"[\\`*\[\]<>&|~]|(?<![^\W_])_|_(?![^\W_])|^[#+=-]")
"""What could be markup wherever it stands; an underscore is none within a word, the last few only at the beginning."""
NUMBERED = re.compile(r"^(\d+)([.)])")


def as_text(text: str) -> str:
    """Return text as one line in which nothing is markup."""
    line = SPECIAL.sub(r"\\\g<0>", " ".join(_printable(text).split()))
    return NUMBERED.sub(r"\1\\\2", line)


def as_code(value: object) -> str:
    """Return a value as a code span for the cell of a table; several as one each."""
    if isinstance(value, list | tuple):
        return ", ".join(map(as_code, value)) or "none"
    shown = _printable(value if value and isinstance(value, str) else repr(value)).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    padding = " " if shown.strip(" ") and {shown[0], shown[-1]} & {"`", " "} else ""  # a parser takes one off again
    return f"{fence}{padding}{shown}{padding}{fence}"


def _printable(text: str) -> str:
    """Return text with line breaks and the like written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
