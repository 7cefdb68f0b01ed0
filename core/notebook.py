"""Tables of HTML for notebooks: every text is escaped, and colours are those of the notebook, light or dark."""

from collections.abc import Iterable, Sequence
from html import escape


def render_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a title; a head of no names is left out."""
    names = f"<thead><tr>{_cells('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption>{names}<tbody>{body}</tbody></table>"


def _cells(tag: str, values: Iterable[object]) -> str:
    return "".join(f'<{tag} style="text-align: left">{escape(str(value))}</{tag}>' for value in values)
