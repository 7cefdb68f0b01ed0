"""Reads a parsed ``constants.py``: dict literals, ``.copy()``, subscript assignment, ``if`` branches.

Only the syntax tree is looked at. A table built in any other way is refused with its line: a fact left out in
silence would be worse than none.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ...errors import ConstantsUnreadable

TABLE_PREFIX = "TRANSFORMERS_MODELS_TO_"


@dataclass(frozen=True, slots=True)
class Conditional:
    """What is set only inside an ``if``: an entry of a table, or a whole constant if ``key`` is ``None``."""

    name: str
    key: str | None
    value: Any
    condition: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"name": self.name, "key": self.key, "value": self.value, "if": self.condition}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build it from its JSON form."""
        return cls(data["name"], data["key"], data["value"], data["if"])


@dataclass
class Table:
    """A dict under construction; two names for one dict share it, as they do in Python."""

    entries: dict[str, Any] = field(default_factory=dict)
    conditional: list[tuple[str, Any, str]] = field(default_factory=list)

    def put(self, key: str, value: Any, condition: str) -> None:
        """Set an entry; one set for certain ends what was set under a condition before."""
        if condition:
            self.conditional.append((key, value, condition))
        else:
            self.conditional = [entry for entry in self.conditional if entry[0] != key]
            self.entries[key] = value

    def update(self, other: "Table", condition: str) -> None:
        """Set every entry of another table."""
        for key, value in other.entries.items():
            self.put(key, value, condition)
        self.conditional.extend((key, value, both(condition, when)) for key, value, when in other.conditional)


def both(outer: str, inner: str) -> str:
    """Return the text of two conditions that must hold together; an empty one always holds."""
    return f"({outer}) and ({inner})" if outer and inner else outer or inner


@dataclass
class Module:
    """What has been read so far, statement by statement."""

    path: str
    tables: dict[str, Table] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    conditional_values: list[Conditional] = field(default_factory=list)

    def entries_by_table(self) -> dict[str, dict[str, Any]]:
        """Return the entries of each table that are set for certain."""
        return {name: table.entries for name, table in self.tables.items()}

    @property
    def conditional(self) -> list[Conditional]:
        """Everything set under a condition."""
        entries = [Conditional(name, *entry) for name, table in self.tables.items() for entry in table.conditional]
        return entries + self.conditional_values

    def read(self, statement: ast.stmt, condition: str = "") -> None:
        """Take in one statement; what touches no constant is passed over."""
        match statement:
            case ast.FunctionDef(name=name):
                self.functions.add(name)
            case ast.If(test=test, body=body, orelse=orelse):
                self._read_all(body, both(condition, ast.unparse(test)))
                self._read_all(orelse, both(condition, f"not ({ast.unparse(test)})"))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._assign(name, value, condition)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self._assign(name, value, condition)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=key)], value=value):
                if name in self.tables:
                    self.tables[name].put(self._key(key), self._value(value), condition)
                elif is_table(name):
                    raise self._refused(statement)
            case _:
                self._pass_over(statement)

    def _read_all(self, statements: list[ast.stmt], condition: str) -> None:
        for statement in statements:
            self.read(statement, condition)

    def _assign(self, name: str, value: ast.expr, condition: str) -> None:
        match value:
            case ast.Name(id=other) if other in self.tables and not condition:
                self.tables[name] = self.tables[other]
            case ast.Dict() if is_table(name):
                self._assign_table(name, value, condition)
            case ast.Dict():
                self._assign_other(name, value, condition)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=other), attr="copy")) if other in self.tables:
                self._assign_table(name, value, condition)
            case _ if is_table(name):
                raise self._refused(value)
            case _ if name.isupper():
                self._assign_value(name, value, condition)

    def _assign_table(self, name: str, value: ast.Dict | ast.Call, condition: str) -> None:
        # A dict made under a condition is fine; one replaced under a condition would be two tables in one.
        if condition and name in self.tables and self.tables[name].entries:
            raise self._refused(value)
        table = self.tables.get(name, Table()) if condition else Table()
        table.update(self._table(value), condition)
        self.tables[name] = table

    def _assign_other(self, name: str, value: ast.Dict, condition: str) -> None:
        """Take in a dict that is no table of PEFT's: before 0.6 the tables stood beside dicts of classes."""
        try:
            self._assign_table(name, value, condition)
        except ConstantsUnreadable:
            self.tables.pop(name, None)
            if name.isupper():
                self._assign_value(name, value, condition)

    def _table(self, node: ast.expr) -> Table:
        """Return the table an expression makes: a dict literal, a known table or a copy of one."""
        match node:
            case ast.Name(id=name) if name in self.tables:
                return self.tables[name]
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="copy")) if name in self.tables:
                return self.tables[name]
            case ast.Dict():
                return self._dict(node)
            case _:
                raise self._refused(node)

    def _dict(self, node: ast.Dict) -> Table:
        table = Table()
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:  # {**OTHER}
                table.update(self._table(value), "")
            else:
                table.put(self._key(key), self._value(value), "")
        return table

    def _assign_value(self, name: str, node: ast.expr, condition: str) -> None:
        value = self._value(node, lenient=True)
        if condition:
            self.conditional_values.append(Conditional(name, None, value, condition))
        else:
            self.values[name] = value

    def _key(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=str(key)):
                return key
            case _:
                raise self._refused(node)

    def _value(self, node: ast.expr, *, lenient: bool = False) -> Any:
        """Return the JSON form of an expression; ``lenient`` keeps the source of what is not a literal."""
        match node:
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._value(item, lenient=lenient) for item in items]
            case ast.Set(elts=items):
                return sorted(self._value(item) for item in items)
            case ast.Constant(value=str() | int() | float() | None as value):
                return value
            case ast.Name() | ast.Subscript():
                return self._known(node, lenient=lenient)
            case _:
                return self._expression(node, lenient=lenient)

    def _known(self, node: ast.Name | ast.Subscript, *, lenient: bool) -> Any:
        """Return what was read before: a function by its name, a constant, or an entry of a table."""
        match node:
            case ast.Name(id=name) if name in self.functions:
                return {"function": name}
            case ast.Name(id=name) if name in self.values:
                return self.values[name]
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))) if (
                name in self.tables and key in self.tables[name].entries
            ):
                return self.tables[name].entries[key]
            case _:
                return self._expression(node, lenient=lenient)

    def _expression(self, node: ast.expr, *, lenient: bool) -> dict[str, str]:
        if not lenient:
            raise self._refused(node)
        return {"expression": ast.unparse(node)}

    def _pass_over(self, statement: ast.stmt) -> None:
        """Refuse what touches a table in another way; any other dict it touches is no longer known."""
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        if any(map(is_table, names)):
            raise self._refused(statement)
        for name in names & self.tables.keys():
            del self.tables[name]

    def _refused(self, node: ast.stmt | ast.expr) -> ConstantsUnreadable:
        source = ast.unparse(node).partition("\n")[0]
        message = (
            f"{self.path}, line {node.lineno}: cannot read {source!r} without executing it. "
            "Tables may be dict literals, copies of one another and subscript assignments."
        )
        return ConstantsUnreadable(message, path=self.path, line=node.lineno, source=source)


def is_table(name: str) -> bool:
    """Tell whether PEFT gives this name to a table keyed by ``model_type``."""
    return name.startswith(TABLE_PREFIX)


def read_module(tree: ast.Module, path: str) -> Module:
    """Return everything a parsed ``constants.py`` sets.

    Raises:
        ConstantsUnreadable: If a table is built in a way that is not understood; names the line.
    """
    module = Module(path)
    for statement in tree.body:
        module.read(statement)
    return module
