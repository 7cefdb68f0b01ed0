"""The syntax of a ``constants.py``: parse its tables, and write entries in its style.

Tables are dict literals, ``.copy()``, subscript assignments and ``if`` branches. Only the syntax tree is read; nothing
is executed. A table built in any other way is rejected with its line number, because a silently missing entry would be
worse than none.
"""

import ast
from dataclasses import dataclass, field
from typing import Any

from ...domain.targets import Targets
from ...errors import ConstantsUnreadable

TABLE_PREFIX = "TRANSFORMERS_MODELS_TO_"

WIDTH = 119
"""PEFT's line length (``line-length`` of its ``pyproject.toml``, 0.3 to 0.21)."""


@dataclass(frozen=True, slots=True)
class Conditional:
    """An entry of a table that is set only inside an ``if``, or a whole constant if ``key`` is ``None``."""

    name: str
    key: str | None
    value: Any
    condition: str


@dataclass
class Table:
    """A dict under construction; two names for one dict share it, as they do in Python."""

    entries: dict[str, Any] = field(default_factory=dict)
    conditional: list[tuple[str, Any, str]] = field(default_factory=list)

    def put(self, key: str, value: Any, condition: str) -> None:
        """Set an entry; an unconditional value replaces earlier conditional ones."""
        if condition:
            self.conditional.append((key, value, condition))
        else:
            self.conditional = [entry for entry in self.conditional if entry[0] != key]
            self.entries[key] = value

    def update(self, other: "Table", condition: str) -> None:
        """Set every entry of another table."""
        for key, value in other.entries.items():
            self.put(key, value, condition)
        self.conditional.extend((key, value, both(condition, inner)) for key, value, inner in other.conditional)


def both(outer: str, inner: str) -> str:
    """Return the conjunction of two conditions as text; an empty condition always holds."""
    return f"({outer}) and ({inner})" if outer and inner else outer or inner


@dataclass
class Module:
    """The constants set by the statements read so far."""

    path: str
    tables: dict[str, Table] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    conditional_values: list[Conditional] = field(default_factory=list)

    @property
    def conditional(self) -> list[Conditional]:
        """Every entry and constant set under a condition."""
        entries = [Conditional(name, *entry) for name, table in self.tables.items() for entry in table.conditional]
        return entries + self.conditional_values

    def read(self, statement: ast.stmt, condition: str = "") -> None:
        """Read one statement; statements that touch no constant are ignored."""
        match statement:
            case ast.FunctionDef(name=name):
                self.functions.add(name)
            case ast.If(test=test, body=body, orelse=orelse):
                text = ast.unparse(test)
                for branch, when in ((body, text), (orelse, f"not ({text})")):
                    for inner in branch:
                        self.read(inner, both(condition, when))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._assign(name, value, condition)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self._assign(name, value, condition)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=key)], value=value):
                if name in self.tables:
                    self.tables[name].put(self._key(key), self._value(value), condition)
                elif is_table(name):
                    raise self._unreadable(statement)
            case _:
                self._forget_touched(statement)

    def _forget_touched(self, statement: ast.stmt) -> None:
        """Drop every dict that an unsupported statement names, or reject the statement if one is a PEFT table."""
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        if any(map(is_table, names)):
            raise self._unreadable(statement)
        for name in names & self.tables.keys():
            del self.tables[name]

    def _assign(self, name: str, value: ast.expr, condition: str) -> None:
        match value:
            case ast.Name(id=other) if other in self.tables and not condition:
                self.tables[name] = self.tables[other]
            case ast.Dict() if is_table(name):
                self._assign_table(name, value, condition)
            case ast.Dict():
                # Before PEFT 0.6 the tables stood beside dicts of classes, which no JSON form exists for.
                try:
                    self._assign_table(name, value, condition)
                except ConstantsUnreadable:
                    self.tables.pop(name, None)
                    if name.isupper():
                        self._assign_value(name, value, condition)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=other), attr="copy")) if other in self.tables:
                self._assign_table(name, value, condition)
            case _ if is_table(name):
                raise self._unreadable(value)
            case _ if name.isupper():
                self._assign_value(name, value, condition)

    def _assign_table(self, name: str, value: ast.Dict | ast.Call, condition: str) -> None:
        # A dict created under a condition is representable; one replaced under a condition would be two tables.
        if condition and name in self.tables and self.tables[name].entries:
            raise self._unreadable(value)
        table = self.tables.get(name, Table()) if condition else Table()
        table.update(self._table(value), condition)
        self.tables[name] = table

    def _table(self, node: ast.expr) -> Table:
        """Return the table an expression evaluates to: a dict literal, a known table or a copy of one."""
        match node:
            case ast.Name(id=name) if name in self.tables:
                return self.tables[name]
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="copy")) if name in self.tables:
                return self.tables[name]
            case ast.Dict(keys=keys, values=values):
                table = Table()
                for key, value in zip(keys, values, strict=True):
                    if key is None:  # {**OTHER}
                        table.update(self._table(value), "")
                    else:
                        table.put(self._key(key), self._value(value), "")
                return table
            case _:
                raise self._unreadable(node)

    def _assign_value(self, name: str, node: ast.expr, condition: str) -> None:
        value = self._value(node, lenient=True)
        if condition:
            self.conditional_values.append(Conditional(name, None, value, condition))
        else:
            self.values[name] = value

    def _key(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        raise self._unreadable(node)

    def _value(self, node: ast.expr, *, lenient: bool = False) -> Any:  # noqa: PLR0911 - one for each form
        """Return the JSON form of an expression; ``lenient`` keeps the source of an expression without one."""
        match node:
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._value(item, lenient=lenient) for item in items]
            case ast.Set(elts=items):
                return sorted(self._value(item) for item in items)
            case ast.Constant(value=str() | int() | float() | None as value):
                return value
            case ast.Name(id=name) if name in self.functions:
                return {"function": name}
            case ast.Name(id=name) if name in self.values:
                return self.values[name]
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))) if (
                name in self.tables and key in self.tables[name].entries
            ):
                return self.tables[name].entries[key]
        if lenient:
            return {"expression": ast.unparse(node)}
        raise self._unreadable(node)

    def _unreadable(self, node: ast.stmt | ast.expr) -> ConstantsUnreadable:
        source = ast.unparse(node).partition("\n")[0]
        message = (
            f"{self.path}, line {node.lineno}: cannot read {source!r} without executing it. "
            "Tables may be dict literals, copies of one another and subscript assignments."
        )
        return ConstantsUnreadable(message, path=self.path, line=node.lineno, source=source)


def is_table(name: str) -> bool:
    """Return whether a name is that of a PEFT table keyed by ``model_type``."""
    return name.startswith(TABLE_PREFIX)


@dataclass(frozen=True, slots=True)
class Style:
    """The formatting of a dict.

    Attributes:
        quote: The quote of its strings.
        indent: Indentation of an entry on its own line, relative to ``block``.
        block: Indentation of the block the dict is in.
        step: One level of indentation.
        newline: The line end.
    """

    quote: str = '"'
    indent: str = "    "
    block: str = ""
    step: str = "    "
    newline: str = "\n"

    def string(self, text: str) -> str:
        """Return a string literal; a raw one where that saves doubled backslashes."""
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
        """Return the source of targets on one line."""
        if isinstance(targets, str):
            return self.string(targets)
        return f"[{', '.join(map(self.string, targets))}]"

    def value(self, name: str, targets: Targets) -> str:
        """Return the source of an entry's targets, on one line if that fits; further lines lack the block's indent."""
        flat = self.flat(targets)
        line = f"{self.block}{self.indent}{self.string(name)}: {flat},"
        if len(line) <= WIDTH or isinstance(targets, str) or not targets:
            return flat
        inner = self.newline + self.indent + self.step
        return f"[{''.join(f'{inner}{self.string(target)},' for target in targets)}{self.newline}{self.indent}]"
