"""Finds in the concrete syntax tree of a ``constants.py`` the statements that set a table, or an entry of one."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import libcst as cst

from ...errors import ConstantsUnreadable
from .formatting import Style
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
