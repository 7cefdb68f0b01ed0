"""The entries of a configuration, each with its lines, from YAML and JSON; nested keys are joined by dots."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import InvalidConfig

MOST_BYTES = 256 << 10
"""Bytes of a file at most: the parser of YAML takes a second for them."""
_DEEPEST = 4
"""Nested mappings that are entered; none of the projects' keys is deeper."""
_MOST_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of a configuration.

    Attributes:
        value: The value: a scalar, or a list of scalars.
        line: The line of its key, from 1.
        lines: The line of each item of a list.
        is_read: Whether the value is known; that of an expression or a variable is not.
    """

    value: Any
    line: int
    lines: tuple[int, ...] = ()
    is_read: bool = True


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration: a file of YAML or JSON, a command of a shell, or a call in Python.

    Attributes:
        form: ``yaml``, ``json``, ``shell`` or ``python``.
        entries: Its entries, by key.
        program: The command or the function that is called.
        line: The line it starts on.
    """

    form: str
    entries: dict[str, Entry] = field(default_factory=dict)
    program: str = ""
    line: int = 1


def read_yaml(text: str, form: str = "yaml") -> Document:
    """Read the first document of a YAML or JSON text.

    Raises:
        InvalidConfig: If it is neither, names the line; or it is no mapping.
    """
    try:
        loader = yaml.SafeLoader(re.sub(r"\t", "  ", text) if form == "json" else text)
        root = loader.get_node() if loader.check_node() else None
    except yaml.MarkedYAMLError as error:
        line = f" on line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidConfig(f"It cannot be read as {form.upper()}: {error.problem}{line}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # a character that YAML has not; nested too deeply
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise InvalidConfig(f"It cannot be read as {form.upper()}: {reason}.") from error
    if not isinstance(root, yaml.MappingNode):
        raise InvalidConfig(f"It is no {form.upper()} with keys and values, so it has no LoRA part.")
    entries: dict[str, Entry] = {}
    for key, entry in _walk(loader, root, "", 1):
        entries[key] = entry
        if len(entries) > _MOST_ENTRIES:
            raise InvalidConfig(f"It has more than {_MOST_ENTRIES:,} keys, so it is no configuration of a training.")
    return Document(form, entries)


def _walk(loader: yaml.SafeLoader, node: yaml.MappingNode, prefix: str, depth: int) -> Iterator[tuple[str, Entry]]:
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name, line = f"{prefix}{key.value}", key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            yield name, Entry(None, line, is_read=False)
            if depth < _DEEPEST:
                yield from _walk(loader, value, f"{name}.", depth + 1)
        elif isinstance(value, yaml.SequenceNode):
            items = [(_read_scalar(loader, item), item.start_mark.line + 1) for item in value.value]
            yield name, Entry([item for item, _ in items], line, tuple(at for _, at in items))
        else:
            yield name, Entry(_read_scalar(loader, value), line)


def _read_scalar(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """Return the value of a scalar; its text where it has a tag of its own."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError):
        return node.value
