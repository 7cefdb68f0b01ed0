"""Text from outside, such as names and reasons, made safe to stand in Markdown."""

import re

SPECIAL = re.compile(r"[\\`*\[\]<>&|~]|(?<![^\W_])_|_(?![^\W_])|^[#+=-]")


def as_text(text: str) -> str:
    """Return text as one line in which nothing is markup."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def as_code(value: object) -> str:
    """Return a value as a code span, several as one each; fit for the cell of a table."""
    if isinstance(value, list | tuple):
        return ", ".join(map(as_code, value)) or "none"
    text = value if isinstance(value, str) else repr(value)
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    padding = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{padding}{shown}{padding}{fence}"
