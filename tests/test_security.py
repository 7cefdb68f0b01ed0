"""docs/service/security.md: every attack names its test, every hostile test is named, every limit is the code's."""

import ast
import dataclasses
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs/service/security.md").read_text("utf-8")
HOSTILE = sorted([*(ROOT / "tests/api").rglob("test_hostile_*.py"), ROOT / "tests/api/test_isolation.py"])
LIMITS = re.findall(r"\| ([\d,]+)(?: [\w ]+)? \| `(loradar[\w.]*:[\w.]+)` \|", DOCUMENT)


def names_in(path):
    """Return the names of a file's tests."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_table_names_every_hostile_test_and_no_other():
    """An attack that nobody shows to be stopped is not stopped."""
    named = set(re.findall(r"`(test_\w+\.py::test_\w+)`", DOCUMENT))
    there = {f"{path.name}::{name}" for path in HOSTILE for name in names_in(path)}
    assert named == there


def value_of(name):
    """Return a module's constant, or the default of a field of its dataclass."""
    module, _, attribute = name.partition(":")
    owner, _, field = attribute.partition(".")
    found = resolve_name(f"{module}:{owner}")
    if not field:
        return found
    return next(one.default for one in dataclasses.fields(found) if one.name == field)


VALUES = {name: value_of(name) for _, name in LIMITS}
"""Read at import: later, the tests lift some of the limits for themselves."""


def test_every_attack_has_what_stops_it():
    """Three columns, none of them empty."""
    table = DOCUMENT.partition("## Attacks")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 30
    assert all(len(row) == 3 and all(map(str.strip, row)) for row in rows)


@pytest.mark.parametrize(("said", "name"), LIMITS, ids=[name for _, name in LIMITS])
def test_a_limit_is_what_the_code_says(said, name):
    """The number of the document is that of the service."""
    assert VALUES[name] == int(said.replace(",", ""))


def test_every_row_of_the_limits_is_held():
    """None escapes the test above by its spelling."""
    table = DOCUMENT.partition("## Limits")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(LIMITS) == len(rows) - 2
