"""Entries of a table as Python source: in the quotes of the file, and broken where its formatter would break them."""

from dataclasses import dataclass

from ...domain.targets import Targets

WIDTH = 119
"""PEFT's line length (``line-length`` of its ``pyproject.toml``, 0.3 to 0.21)."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a dict is written.

    Attributes:
        quote: The quotes of its strings.
        indent: What stands before an entry on a line of its own, beyond ``block``.
        block: What stands before every line of the block the dict is in.
        step: One level of indentation.
        newline: What ends a line.
    """

    quote: str = '"'
    indent: str = "    "
    block: str = ""
    step: str = "    "
    newline: str = "\n"

    def string(self, text: str) -> str:
        """Return a string literal; raw where that saves doubled backslashes."""
        other = "'" if self.quote == '"' else '"'
        quote = other if self.quote in text and other not in text else self.quote
        if not (text.isprintable() and text.isascii()):
            return ascii(text)
        if quote in text or text.endswith("\\"):
            escaped = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
            return f"{quote}{escaped}{quote}"
        prefix = "r" if "\\" in text else ""
        return f"{prefix}{quote}{text}{quote}"

    def flat(self, targets: Targets) -> str:
        """Return a value on one line."""
        if isinstance(targets, str):
            return self.string(targets)
        return f"[{', '.join(map(self.string, targets))}]"

    def value(self, name: str, targets: Targets) -> str:
        """Return a value as it stands behind its key, on one line if that fits; its further lines lack the block's."""
        flat = self.flat(targets)
        line = f"{self.block}{self.indent}{self.string(name)}: {flat},"
        if len(line) <= WIDTH or isinstance(targets, str) or not targets:
            return flat
        inner = self.newline + self.indent + self.step
        return f"[{''.join(f'{inner}{self.string(target)},' for target in targets)}{self.newline}{self.indent}]"
