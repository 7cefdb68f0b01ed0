"""Text from outside in Markdown, read back by a parser: whatever it is, it comes out as it went in."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from loradar.adapters.hub.card import as_code, as_text

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
PRINTABLE = st.text(st.one_of(st.sampled_from("`|\\*_[]()<>&~#+-=!.: 1a\"'"), st.characters(exclude_categories=["C"])))
NAMES = PRINTABLE.filter(str.isprintable)


def shape(markdown):
    """Return the kinds of blocks a text is made of, and its inline tokens."""
    tokens = PARSER.parse(markdown)
    inline = [child for token in tokens for child in token.children or ()]
    return [token.type for token in tokens], inline


@given(NAMES.filter(lambda text: text.split()))
@example("1. first")
@example("12) twelfth")
@example("- x")
@example("__init__")
@example("a &amp; <b> [c](d) `e`")
def test_text_is_text(text):
    """In a list, where a line could begin any block: the words, and nothing but words."""
    blocks, inline = shape(f"- {as_text(text)}\n")
    assert blocks == shape("- word\n")[0]
    assert {token.type for token in inline} <= {"text", "text_special"}
    assert "".join(token.content for token in inline) == " ".join(text.split())


@given(NAMES)
@example("")
@example("a|b")
@example("``")
@example(" a ")
@example(" ")
@example("\\|")
def test_code_is_code(text):
    """In a table, where a bar would end the cell: one code span that holds the value."""
    blocks, inline = shape(f"| a |\n| --- |\n| {as_code(text)} |\n")
    assert blocks == shape("| a |\n| --- |\n| word |\n")[0]
    assert [token.type for token in inline] == ["text", "code_inline"]
    assert inline[1].content == (text or "''")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (["q_proj", "v_proj"], "`q_proj`, `v_proj`"),
        ([], "none"),
        (8, "`8`"),
        ({"q_proj": 3}, "`{'q_proj': 3}`"),
        ("two\nlines", r"`two\nlines`"),
    ],
)
def test_values(value, shown):
    """Lists by item, what is no text as Python writes it, line breaks written out."""
    assert as_code(value) == shown
