"""Entries written into a constants.py: in its own style, and not a byte elsewhere."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loradar.errors import ConstantsUnreadable
from loradar.registry import installed_constants, parse_constants
from loradar.registry.peft_constants.source_edits import add_entries, correct_entries, list_own_tables
from loradar.registry.peft_constants.syntax import WIDTH, Style

LORA = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
BOFT = "TRANSFORMERS_MODELS_TO_BOFT_TARGET_MODULES_MAPPING"
NEW = {"olmo2": ("q", "v"), "aria": r"\w+\.q"}
LONG = tuple(f"some_rather_long_projection_{number}" for number in range(5))


def added(source, entries=None, table=LORA):
    """Return a source with entries added, as text."""
    return add_entries(source.encode(), table, entries or NEW, "constants.py").decode()


OLMO2, ARIA = '"olmo2": ["q", "v"]', r'"aria": r"\w+\.q"'
ADDED = {
    "a trailing comma": ('X = {\n    "a": ["q"],\n}\n', f'X = {{\n    "a": ["q"],\n    {OLMO2},\n    {ARIA},\n}}\n'),
    "no trailing comma": (
        'X = {\n    "a": ["q"]  # last\n}\n',
        f'X = {{\n    "a": ["q"],  # last\n    {OLMO2},\n    {ARIA}\n}}\n',
    ),
    "comments behind the last entry": (
        'X = {\n    "a": ["q"],  # kept\n    # "b": ["v"],\n\n    # the end\n}\n',
        f'X = {{\n    "a": ["q"],  # kept\n    # "b": ["v"],\n\n    # the end\n    {OLMO2},\n    {ARIA},\n}}\n',
    ),
    "single quotes and tabs": (
        "X = {\n\t'a': ['q'],\n}\n",
        f"X = {{\n\t'a': ['q'],\n\t{OLMO2},\n\t{ARIA},\n}}\n".replace('"', "'"),
    ),
    "one line": ('X = {"a": ["q"]}  # short\n', f'X = {{"a": ["q"], {OLMO2}, {ARIA}}}  # short\n'),
    "one line with a comma": ('X = {"a": ["q"], }\n', f'X = {{"a": ["q"], {OLMO2}, {ARIA}, }}\n'),
    "one line and a comment": ('X = {"a": ["q"]  # b\n}\n', f'X = {{"a": ["q"], {OLMO2}, {ARIA}  # b\n}}\n'),
    "no entry yet": ("X = {}\n", f"X = {{\n    {OLMO2},\n    {ARIA},\n}}\n"),
    "entries under the brace": (
        'X = {"a": ["q"],\n     "b": ["v"]}\n',
        f'X = {{"a": ["q"],\n     "b": ["v"],\n     {OLMO2},\n     {ARIA}}}\n',
    ),
    "branches in branches": (
        'if new:\n  if newer:\n    X = {\n      "a": ["q"],\n    }\n  else:\n    X = {"b": ["q"]}\n',
        f"""if new:
  if newer:
    X = {{
      "a": ["q"],
      {OLMO2},
      {ARIA},
    }}
  else:
    X = {{"b": ["q"], {OLMO2}, {ARIA}}}
""",
    ),
    "what unpacks another": ("X = {\n    **Y,\n}\n", f"X = {{\n    **Y,\n    {OLMO2},\n    {ARIA},\n}}\n"),
    "an annotation": ('X: dict = {"a": ["q"]}\n', f'X: dict = {{"a": ["q"], {OLMO2}, {ARIA}}}\n'),
}


@pytest.mark.parametrize(("before", "after"), [*ADDED.values()], ids=[*ADDED])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "BOM"])
def test_entries_are_appended_in_the_style_of_the_table(before, after, newline, mark):
    """Indentation, quotes, commas, comments, line ends and a byte order mark stay as they are."""
    old, new = (f"{mark}{text.replace('X', LORA).replace(chr(10), newline)}" for text in (before, after))
    assert added(old) == new


def test_a_dict_that_outgrows_its_line_is_broken_as_the_formatter_would():
    """Each entry on its own line then, with a comma behind the last; so is a list that is too long."""
    source = f'{LORA} = {{"a": ["q"]}}\n'
    expected = "".join(f'        "{target}",\n' for target in LONG)
    assert added(source, {"b": LONG}) == f'{LORA} = {{\n    "a": ["q"],\n    "b": [\n{expected}    ],\n}}\n'


@pytest.mark.parametrize("short", [0, 1])
def test_a_line_may_be_as_long_as_peft_allows(short):
    """119 columns with the comma; one more breaks the list."""
    room = WIDTH - len('    "a": ["", "v"],')
    entries = {"a": ("q" * (room + short), "v")}
    assert (max(map(len, added(f"{LORA} = {{}}\n", entries).splitlines())) == WIDTH) == (short == 0)


def test_what_the_formatter_made_of_peft_it_leaves_after_a_patch(tmp_path):
    """With PEFT's settings ruff finds nothing to change, whatever the lengths."""
    path = installed_constants()
    entries = {f"m{n}": tuple(f"{'p' * n}_{i}" for i in range(5)) for n in range(1, 60)} | NEW | {"empty": ()}
    (tmp_path / "constants.py").write_bytes(add_entries(path.read_bytes(), LORA, entries, str(path)))
    check = [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", "--line-length", "119", "constants.py"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_table_that_counts_is_the_last_one():
    """What is made anew later keeps nothing of what was added before."""
    source = f'{LORA} = {{"a": ["q"]}}\n{LORA} = {{"b": ["q"]}}\n'
    assert added(source, {"c": ("v",)}) == f'{LORA} = {{"a": ["q"]}}\n{LORA} = {{"b": ["q"], "c": ["v"]}}\n'


def test_copies_and_second_names_are_no_tables_of_their_own():
    """They have their entries from the original; a copy that replaces a dict has, too."""
    source = f"{LORA} = {{'a': ['q']}}\n{BOFT} = {{}}\n{BOFT} = {LORA}.copy()\n{BOFT}['b'] = ['v']\n"
    assert list_own_tables(source.encode(), "constants.py") == (LORA,)
    with pytest.raises(ConstantsUnreadable, match=f"no dict {BOFT} to add to"):
        add_entries(source.encode(), BOFT, NEW, "constants.py")


def test_an_entry_is_corrected_where_the_file_sets_it():
    """In the dict, by subscript, on the line of an `if`, and on several lines; nothing else moves."""
    source = (
        f"{LORA} = {{\n    'a': ['old'],  # why\n    'b': ['old'],\n}}\n{LORA}['a'] = ['old']\n"
        f"if new: {LORA}['a'] = (\n    'old'\n)\n"
    )
    found = correct_entries(source.encode(), LORA, {"a": ("new",)}, "constants.py").decode()
    assert found == source.replace("'a': ['old']", "'a': ['new']").replace(
        "['a'] = ['old']", "['a'] = ['new']"
    ).replace("['a'] = (\n    'old'\n)", "['a'] = ['new']")


@pytest.mark.parametrize("source", ["def (", f"{LORA} = {{\n", "x = \x00"])
def test_what_is_no_python_is_refused(source):
    """In one line that names the file."""
    with pytest.raises(ConstantsUnreadable, match=r"'constants\.py' is not Python") as caught:
        list_own_tables(source.encode(), "constants.py")
    assert "\n" not in caught.value.message


HARD = ["it's", 'say "q"', "both ' and \"", "back\\slash", "ends\\", "tab\t", "d\u00e9j\u00e0", "a'\\b", ""]


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("text", HARD)
def test_any_text_is_written_as_python_reads_it(quote, text):
    """Whatever the quotes and however odd the text."""
    assert eval(Style(quote).string(text)) == text  # noqa: S307 - our own literal


TARGETS = st.one_of(
    st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=40), max_size=6).map(tuple),
    st.from_regex(r"\A(\.\*\\\.)?[a-z_]{1,12}(\\\.\\d\+)?\Z"),
)
NAMES = st.from_regex(r"\A[a-z][a-z0-9_-]{0,20}\Z")


@st.composite
def files(draw):
    """Return (source, entries of it): a table as anybody may have written it, between copies and comments."""
    quote, comma = draw(st.sampled_from("'\"")), draw(st.sampled_from(["", ","]))
    entries = draw(st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=4))
    written = [f"{quote}{name}{quote}: {targets!r}".replace("'", quote) for name, targets in entries.items()]
    indent = draw(st.sampled_from(["    ", "  ", "\t"]))
    note = draw(st.sampled_from(["", "  # note", f"\n{indent}# note"]))
    layouts = [
        f"{{{', '.join(written)}{comma}}}",
        f"{{\n{indent}{f',{chr(10)}{indent}'.join(written)}{comma}{note}\n}}",
        f"{{{f',{chr(10)}{indent}'.join(written)}}}",
    ]
    lines = [f"{LORA} = {draw(st.sampled_from(layouts))}  # end", f"{BOFT} = {LORA}.copy()", "SIZE = 3"]
    text = "\n".join(["# first", *lines]) + draw(st.sampled_from(["", "\n"]))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return mark + text.replace("\n", draw(st.sampled_from(["\n", "\r\n"]))).encode(), entries


@given(files(), st.dictionaries(NAMES, TARGETS, min_size=1, max_size=3))
def test_whatever_the_file_looks_like_it_reads_back(file, new):
    """Old entries are as they were, new ones are there, a copy has both, and every old line is still there."""
    source, entries = file
    new = {name: targets for name, targets in new.items() if name not in entries} or {"fresh~": ("q",)}
    after = add_entries(source, LORA, new, "constants.py")
    found = parse_constants(after, "", "constants.py")
    plain = {name: list(targets) if isinstance(targets, tuple) else targets for name, targets in new.items()}
    assert found.tables == {LORA: entries | plain, BOFT: entries | plain}
    assert [*found.tables[LORA]] == [*entries, *new]
    assert (after[:3] == b"\xef\xbb\xbf", b"\r\n" in after) == (source[:3] == b"\xef\xbb\xbf", b"\r\n" in source)
    assert after.replace(b"\r\n", b"").count(b"\n") == (0 if b"\r\n" in source else after.count(b"\n"))
    assert (after.count(b"# note"), after.count(b"# end"), after[-1:]) == (
        source.count(b"# note"),
        source.count(b"# end"),
        source[-1:],
    )
