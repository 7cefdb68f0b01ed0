"""Writes entries into a ``constants.py`` as a contributor would: everything else stays as it is, byte for byte.

The concrete syntax tree (libcst) keeps comments, quotes, line ends and a byte order mark.
"""

from collections.abc import Mapping
from dataclasses import replace

import libcst as cst

from ...domain.targets import Targets
from ...errors import ConstantsUnreadable
from .formatting import WIDTH, Style
from .locations import Place, find_places, own_dicts, parse_module, separator, style_of

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
