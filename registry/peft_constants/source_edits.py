"""Writes entries into a ``constants.py`` as a contributor would: everything else stays as it is, byte for byte.

The concrete syntax tree (libcst) keeps comments, quotes, line ends and a byte order mark.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import libcst as cst

from ...domain.targets import Targets
from ...errors import ConstantsUnreadable
from .rendering import WIDTH, Style
from .syntax import is_table

Assignment = cst.Assign | cst.AnnAssign


@dataclass(frozen=True, slots=True)
class Place:
    """A statement that sets a table or an entry of one.

    Attributes:
        statement: The assignment.
        table: Name of the table.
        key: Of the entry; ``None`` if it is the whole table.
        block: Indentation of the block it is in.
        is_conditional: Whether that block is a branch.
    """

    statement: Assignment
    table: str
    key: str | None
    block: str
    is_conditional: bool

    @property
    def own_dict(self) -> cst.Dict | None:
        """The dict literal it makes the table of, or ``None``."""
        value = self.statement.value
        return value if self.key is None and isinstance(value, cst.Dict) else None


Entries = Mapping[str, Targets]


def list_own_tables(source: bytes, path: str) -> tuple[str, ...]:
    """Return the tables that end up as a dict literal of their own, in the order of the file; copies are left out.

    Raises:
        ConstantsUnreadable: If the source is no Python.
    """
    places = find_places(parse_module(source, path))
    return tuple(table for table, found in places.items() if own_dicts(found))


def add_entries(source: bytes, table: str, entries: Entries, path: str) -> bytes:
    """Return the source with entries behind the last one of a table, in every branch that makes it.

    Raises:
        ConstantsUnreadable: If it is no Python, or has no such table of its own.
    """
    module = parse_module(source, path)
    places = own_dicts(find_places(module).get(table, ()))
    if not places:
        message = f"{path!r} has no dict {table} to add to. Tables that are copies get their entries from the original."
        raise ConstantsUnreadable(message, path=path, table=table)
    return _written(module, {place.own_dict: _extended(module, place, entries) for place in places if place.own_dict})


def correct_entries(source: bytes, table: str, entries: Entries, path: str) -> bytes:
    """Return the source with other values for entries of a table, wherever the file itself sets them.

    Raises:
        ConstantsUnreadable: If it is no Python.
    """
    module = parse_module(source, path)
    changed: dict[cst.CSTNode, cst.CSTNode] = {}
    for place in find_places(module).get(table, ()):
        for key, value in _values(place):
            if key in entries:
                code = style_of(module, place).value(key, entries[key])
                changed[value] = cst.parse_expression(code, config=module.config_for_parsing)
    return _written(module, changed)


def _values(place: Place) -> list[tuple[str, cst.BaseExpression]]:
    """Return the keys a statement sets, and the nodes of their values."""
    if place.key is not None and place.statement.value:
        return [(place.key, place.statement.value)]
    elements = place.own_dict.elements if place.own_dict else ()
    return [
        (str(element.key.evaluated_value), element.value)
        for element in elements
        if isinstance(element, cst.DictElement) and isinstance(element.key, cst.SimpleString)
    ]


def _extended(module: cst.Module, place: Place, entries: Entries) -> cst.Dict:
    """Return the dict of a statement with more entries: on lines of their own, unless it has one line and they fit."""
    own = cst.ensure_type(place.statement.value, cst.Dict)
    between = separator(own)
    if between is None:
        one_line = _appended(module, own, entries, style_of(module, place), cst.SimpleWhitespace(" "))
        has_comment = isinstance(own.rbrace.whitespace_before, cst.ParenthesizedWhitespace)
        if own.elements and (has_comment or _width(module, place, one_line) <= WIDTH):
            return one_line
        own = _broken(module, own)
        between = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace(module.default_indent))
    style = replace(style_of(module, place), indent=between.last_line.value)
    return _appended(module, own, entries, style, between)


def _appended(
    module: cst.Module, own: cst.Dict, entries: Entries, style: Style, between: cst.BaseParenthesizableWhitespace
) -> cst.Dict:
    config, comma = module.config_for_parsing, cst.Comma(whitespace_after=between)
    new = [
        cst.DictElement(
            cst.SimpleString(style.string(name)),
            cst.parse_expression(style.value(name, targets), config=config),
            comma=comma,
        )
        for name, targets in entries.items()
    ]
    if not own.elements:
        new[-1] = new[-1].with_changes(comma=cst.Comma())
        return own.with_changes(elements=new)
    last = own.elements[-1]
    new[-1] = new[-1].with_changes(comma=cst.Comma() if isinstance(last.comma, cst.Comma) else last.comma)
    tail, brace = _around_end(own, between)
    comma = last.comma if isinstance(last.comma, cst.Comma) else cst.Comma()
    last = last.with_changes(comma=comma.with_changes(whitespace_after=tail))
    return own.with_changes(
        elements=[*own.elements[:-1], last, *new], rbrace=own.rbrace.with_changes(whitespace_before=brace)
    )


def _around_end(
    own: cst.Dict, between: cst.BaseParenthesizableWhitespace
) -> tuple[cst.BaseParenthesizableWhitespace, cst.BaseParenthesizableWhitespace]:
    """Return what goes behind the entry that was last, comments kept, and what goes before the closing brace."""
    tail = own.rbrace.whitespace_before
    if not (isinstance(tail, cst.ParenthesizedWhitespace) and isinstance(between, cst.ParenthesizedWhitespace)):
        return between, tail
    behind = tail.with_changes(indent=between.indent, last_line=between.last_line)
    return behind, tail.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[])


def _broken(module: cst.Module, own: cst.Dict) -> cst.Dict:
    """Return a dict of one line with each entry on its own line, and a comma behind the last."""
    line = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace(module.default_indent))
    elements = [element.with_changes(comma=cst.Comma(whitespace_after=line)) for element in own.elements]
    if elements:
        elements[-1] = elements[-1].with_changes(comma=cst.Comma())
    return own.with_changes(
        lbrace=own.lbrace.with_changes(whitespace_after=line),
        elements=elements,
        rbrace=own.rbrace.with_changes(whitespace_before=cst.ParenthesizedWhitespace(indent=True)),
    )


def _width(module: cst.Module, place: Place, own: cst.Dict) -> int:
    """Return how long the line of a statement would be with this dict."""
    return len(place.block) + len(module.code_for_node(place.statement.with_changes(value=own)))


def _written(module: cst.Module, changed: Mapping[cst.CSTNode, cst.CSTNode]) -> bytes:
    """Return the bytes of a module with some of its nodes replaced."""
    written = module.visit(_Replacing({id(old): new for old, new in changed.items()}))
    return cst.ensure_type(written, cst.Module).bytes


class _Replacing(cst.CSTTransformer):
    """Puts nodes in the place of others, told apart by identity."""

    def __init__(self, changed: Mapping[int, cst.CSTNode]) -> None:
        super().__init__()
        self._changed = changed

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Look only where something is to be replaced: a table has thousands of nodes."""
        if isinstance(node, cst.Dict):
            return any(id(element.value) in self._changed for element in node.elements)
        return not isinstance(node, cst.FunctionDef | cst.ClassDef | cst.List)

    def on_leave(
        self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT
    ) -> cst.CSTNodeT | cst.RemovalSentinel | cst.FlattenSentinel[cst.CSTNodeT]:
        """Replace what is to be replaced."""
        new = self._changed.get(id(original_node))
        return updated_node if new is None else new  # type: ignore[return-value]


def parse_module(source: bytes, path: str) -> cst.Module:
    """Return the tree of a file.

    Raises:
        ConstantsUnreadable: If it is no Python.
    """
    try:
        return cst.parse_module(source)
    except (cst.ParserSyntaxError, UnicodeError, SyntaxError, LookupError) as error:
        said = " ".join(str(error).split())
        message = f"{path!r} is not Python: {said}. Give the path of PEFT's constants.py."
        raise ConstantsUnreadable(message, path=path) from error


def find_places(module: cst.Module) -> dict[str, list[Place]]:
    """Return, for each table, the statements that count: the last that makes it for certain, and what follows."""
    found: dict[str, list[Place]] = {}
    for place in _walk(module.body, module, "", is_conditional=False):
        if place.key is None and not place.is_conditional:
            found.pop(place.table, None)
        found.setdefault(place.table, []).append(place)
    return found


def own_dicts(places: Iterable[Place]) -> list[Place]:
    """Return the statements of a table that make it a dict literal of its own."""
    return [place for place in places if place.own_dict]


def style_of(module: cst.Module, place: Place) -> Style:
    """Return how entries are written where a statement is."""
    own = place.own_dict
    quote = _usual_quote(own) if own else None
    return Style(
        quote=quote or _usual_quote(module) or '"',
        indent=_entry_indent(own) if own else "",
        block=place.block,
        step=module.default_indent,
        newline=module.default_newline,
    )


def separator(own: cst.Dict) -> cst.ParenthesizedWhitespace | None:
    """Return what stands between two entries on lines of their own, without comments; ``None`` if they share a line."""
    between = [own.lbrace.whitespace_after]
    between += [element.comma.whitespace_after for element in own.elements if isinstance(element.comma, cst.Comma)]
    for space in between:
        if isinstance(space, cst.ParenthesizedWhitespace):
            return space.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[])
    return None


def _walk(body: Iterable[cst.CSTNode], module: cst.Module, block: str, *, is_conditional: bool) -> Iterator[Place]:
    """Yield every place in the order of the file, inside branches too."""
    for statement in body:
        if isinstance(statement, cst.SimpleStatementLine):
            for small in statement.body:
                yield from _place(small, block, is_conditional=is_conditional)
        elif isinstance(statement, cst.If):
            yield from _branches(statement, module, block)


def _branches(statement: cst.If | cst.Else, module: cst.Module, block: str) -> Iterator[Place]:
    if isinstance(statement.body, cst.IndentedBlock):
        inner = block + (statement.body.indent or module.default_indent)
        yield from _walk(statement.body.body, module, inner, is_conditional=True)
    elif isinstance(statement.body, cst.SimpleStatementSuite):  # `if new: TABLE["a"] = ["q"]`
        for small in statement.body.body:
            yield from _place(small, block, is_conditional=True)
    if isinstance(statement, cst.If) and statement.orelse:
        yield from _branches(statement.orelse, module, block)


def _place(statement: cst.CSTNode, block: str, *, is_conditional: bool) -> Iterator[Place]:
    """Yield the place a statement is, if it is one."""
    if isinstance(statement, cst.Assign) and len(statement.targets) == 1:
        target = statement.targets[0].target
    elif isinstance(statement, cst.AnnAssign) and statement.value:
        target = statement.target
    else:
        return
    match target:
        case cst.Name(value=name) if is_table(name):
            yield Place(statement, name, None, block, is_conditional)
        case cst.Subscript(
            value=cst.Name(value=name), slice=[cst.SubscriptElement(slice=cst.Index(value=cst.SimpleString() as key))]
        ) if is_table(name):
            yield Place(statement, name, str(key.evaluated_value), block, is_conditional)


def _usual_quote(node: cst.CSTNode) -> str | None:
    """Return the quotes most strings of a node have, triple ones apart."""
    visitor = _Quotes()
    node.visit(visitor)
    return visitor.seen.most_common(1)[0][0] if visitor.seen else None


class _Quotes(cst.CSTVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def visit_SimpleString(self, node: cst.SimpleString) -> None:  # noqa: N802 - libcst calls it by this name
        if len(node.quote) == 1:
            self.seen[node.quote] += 1


def _entry_indent(own: cst.Dict) -> str:
    space = separator(own)
    return space.last_line.value if space else ""
