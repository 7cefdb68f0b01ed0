"""Write entries into the source of a ``constants.py``, in its own style; everything else stays byte for byte.

The concrete syntax tree (libcst) preserves comments, quotes, line ends and a byte order mark.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

import libcst as cst

from ...domain.targets import Targets
from ...errors import ConstantsUnreadable
from .syntax import WIDTH, Style, is_table

Entries = Mapping[str, Targets]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A statement that sets a table or an entry of one.

    Attributes:
        statement: The node.
        table: Name of the table.
        key: Key of the entry; ``None`` if the statement sets the whole table.
        block: Indentation of the block the statement is in.
        is_conditional: Whether that block is a branch of an ``if``.
    """

    statement: cst.Assign | cst.AnnAssign
    table: str
    key: str | None
    block: str
    is_conditional: bool

    @property
    def literal(self) -> cst.Dict | None:
        """The dict literal assigned to the table, or ``None``."""
        value = self.statement.value
        return value if self.key is None and isinstance(value, cst.Dict) else None

    def values(self) -> Iterator[tuple[str, cst.BaseExpression]]:
        """Yield each key that is set, with the node of its value."""
        if self.key is not None and self.statement.value:
            yield self.key, self.statement.value
        for element in self.literal.elements if self.literal else ():
            if isinstance(element, cst.DictElement) and isinstance(element.key, cst.SimpleString):
                yield str(element.key.evaluated_value), element.value


def list_own_tables(source: bytes, path: str) -> tuple[str, ...]:
    """Return the tables that end up as a dict literal, in the order of the file; copies of others are left out.

    Raises:
        ConstantsUnreadable: If the source is not Python.
    """
    tables = _find_assignments(_parse_module(source, path))
    return tuple(table for table, assignments in tables.items() if any(one.literal for one in assignments))


def add_entries(source: bytes, table: str, entries: Entries, path: str) -> bytes:
    """Return the source with entries appended to a table, in every branch that creates it.

    Raises:
        ConstantsUnreadable: If the source is not Python, or does not create the table as a dict literal.
    """
    module = _parse_module(source, path)
    assignments = _find_assignments(module).get(table, ())
    changed: dict[cst.CSTNode, cst.CSTNode] = {
        one.literal: _extend(module, one, one.literal, entries) for one in assignments if one.literal
    }
    if not changed:
        message = f"{path!r} has no dict {table} to add to. Tables that are copies get their entries from the original."
        raise ConstantsUnreadable(message, path=path, table=table)
    return _replace_nodes(module, changed)


def correct_entries(source: bytes, table: str, entries: Entries, path: str) -> bytes:
    """Return the source with other values for entries of a table, in every statement that sets them.

    Raises:
        ConstantsUnreadable: If the source is not Python.
    """
    module = _parse_module(source, path)
    changed: dict[cst.CSTNode, cst.CSTNode] = {}
    for assignment in _find_assignments(module).get(table, ()):
        for key, value in assignment.values():
            if key in entries:
                code = _style_of(module, assignment).value(key, entries[key])
                changed[value] = cst.parse_expression(code, config=module.config_for_parsing)
    return _replace_nodes(module, changed)


def _parse_module(source: bytes, path: str) -> cst.Module:
    try:
        return cst.parse_module(source)
    except (cst.ParserSyntaxError, UnicodeError, SyntaxError, LookupError) as error:
        reason = " ".join(str(error).split())
        message = f"{path!r} is not Python: {reason}. Give the path of PEFT's constants.py."
        raise ConstantsUnreadable(message, path=path) from error


def _find_assignments(module: cst.Module) -> dict[str, list[Assignment]]:
    """Return the effective statements of each table: its last unconditional assignment, and those that follow."""
    found: dict[str, list[Assignment]] = {}
    walked = (_walk(statement, module, "", is_conditional=False) for statement in module.body)
    for assignment in chain.from_iterable(walked):
        if assignment.key is None and not assignment.is_conditional:
            found.pop(assignment.table, None)
        found.setdefault(assignment.table, []).append(assignment)
    return found


def _walk(node: cst.CSTNode, module: cst.Module, block: str, *, is_conditional: bool) -> Iterator[Assignment]:
    """Yield the assignments to tables and their entries in the order of the file, including those in branches."""
    match node:
        case cst.SimpleStatementLine(body=body) | cst.SimpleStatementSuite(body=body):
            for small in body:
                yield from _walk(small, module, block, is_conditional=is_conditional)
        case cst.IndentedBlock(body=body, indent=indent):
            for statement in body:
                yield from _walk(statement, module, block + (indent or module.default_indent), is_conditional=True)
        case cst.If(body=body) | cst.Else(body=body):
            yield from _walk(body, module, block, is_conditional=True)
            if isinstance(node, cst.If) and node.orelse:
                yield from _walk(node.orelse, module, block, is_conditional=True)
        case (
            cst.Assign(targets=[cst.AssignTarget(target=target)])
            | cst.AnnAssign(target=target, value=cst.BaseExpression())
        ):
            match target:
                case cst.Name(value=name) if is_table(name):
                    yield Assignment(node, name, None, block, is_conditional)
                case cst.Subscript(
                    value=cst.Name(value=name),
                    slice=[cst.SubscriptElement(slice=cst.Index(value=cst.SimpleString() as key))],
                ) if is_table(name):
                    yield Assignment(node, name, str(key.evaluated_value), block, is_conditional)


def _style_of(module: cst.Module, assignment: Assignment) -> Style:
    """Return the style in which entries are written at a statement."""
    literal = assignment.literal
    between = _separator(literal) if literal else None
    return Style(
        quote=(_usual_quote(literal) if literal else None) or _usual_quote(module) or '"',
        indent=between.last_line.value if between else "",
        block=assignment.block,
        step=module.default_indent,
        newline=module.default_newline,
    )


def _usual_quote(node: cst.CSTNode) -> str | None:
    """Return the most frequent quote of the strings in a node, triple quotes excepted."""
    quotes = Counter(string.quote for string in _list_strings(node) if len(string.quote) == 1)
    return quotes.most_common(1)[0][0] if quotes else None


def _list_strings(node: cst.CSTNode) -> Iterator[cst.SimpleString]:
    """Yield the strings in a node; libcst's matchers do the same, and take as long to import as libcst."""
    if isinstance(node, cst.SimpleString):
        yield node
    for child in node.children:
        yield from _list_strings(child)


def _separator(literal: cst.Dict) -> cst.ParenthesizedWhitespace | None:
    """Return the whitespace between two entries on separate lines, without comments; ``None`` if they share a line."""
    between = [literal.lbrace.whitespace_after]
    between += [element.comma.whitespace_after for element in literal.elements if isinstance(element.comma, cst.Comma)]
    for space in between:
        if isinstance(space, cst.ParenthesizedWhitespace):
            return space.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[])
    return None


def _extend(module: cst.Module, assignment: Assignment, literal: cst.Dict, entries: Entries) -> cst.Dict:
    """Return a dict with more entries: on separate lines, unless it is on one line and they fit on it."""
    style, between = _style_of(module, assignment), _separator(literal)
    if between is None:
        one_line = _append(module, literal, entries, style, cst.SimpleWhitespace(" "))
        has_comment = isinstance(literal.rbrace.whitespace_before, cst.ParenthesizedWhitespace)
        code = module.code_for_node(assignment.statement.with_changes(value=one_line))
        if literal.elements and (has_comment or len(assignment.block) + len(code) <= WIDTH):
            return one_line
        between = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace(module.default_indent))
        literal = literal.with_changes(
            lbrace=literal.lbrace.with_changes(whitespace_after=between),
            elements=[element.with_changes(comma=cst.Comma(whitespace_after=between)) for element in literal.elements],
            rbrace=literal.rbrace.with_changes(whitespace_before=cst.ParenthesizedWhitespace(indent=True)),
        )
    return _append(module, literal, entries, replace(style, indent=between.last_line.value), between)


def _append(
    module: cst.Module, literal: cst.Dict, entries: Entries, style: Style, between: cst.BaseParenthesizableWhitespace
) -> cst.Dict:
    """Return a dict with entries after its last one, whose comments stay with it."""
    config, comma = module.config_for_parsing, cst.Comma(whitespace_after=between)
    new = [
        cst.DictElement(
            cst.SimpleString(style.string(name)),
            cst.parse_expression(style.value(name, targets), config=config),
            comma=comma,
        )
        for name, targets in entries.items()
    ]
    if not literal.elements:
        new[-1] = new[-1].with_changes(comma=cst.Comma())
        return literal.with_changes(elements=new)
    last = literal.elements[-1]
    new[-1] = new[-1].with_changes(comma=cst.Comma() if isinstance(last.comma, cst.Comma) else last.comma)
    end = literal.rbrace.whitespace_before
    after_last, before_brace = between, end
    if isinstance(end, cst.ParenthesizedWhitespace) and isinstance(between, cst.ParenthesizedWhitespace):
        after_last = end.with_changes(indent=between.indent, last_line=between.last_line)
        before_brace = end.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[])
    comma = last.comma if isinstance(last.comma, cst.Comma) else cst.Comma()
    last = last.with_changes(comma=comma.with_changes(whitespace_after=after_last))
    rbrace = literal.rbrace.with_changes(whitespace_before=before_brace)
    return literal.with_changes(elements=[*literal.elements[:-1], last, *new], rbrace=rbrace)


def _replace_nodes(module: cst.Module, changed: Mapping[cst.CSTNode, cst.CSTNode]) -> bytes:
    """Return the bytes of a module with some of its nodes replaced."""
    written = module.visit(_NodeReplacer({id(old): new for old, new in changed.items()}))
    return cst.ensure_type(written, cst.Module).bytes


class _NodeReplacer(cst.CSTTransformer):
    """Replace nodes, identified by object identity."""

    def __init__(self, changed: Mapping[int, cst.CSTNode]) -> None:
        super().__init__()
        self._changed = changed

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Skip subtrees without a node to replace: a table has thousands of nodes."""
        if isinstance(node, cst.Dict):
            return any(id(element.value) in self._changed for element in node.elements)
        return not isinstance(node, cst.FunctionDef | cst.ClassDef | cst.List)

    def on_leave(
        self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT
    ) -> cst.CSTNodeT | cst.RemovalSentinel | cst.FlattenSentinel[cst.CSTNodeT]:
        """Return the replacement of a node, or the node itself."""
        new = self._changed.get(id(original_node))
        return updated_node if new is None else new  # type: ignore[return-value]
