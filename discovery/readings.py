"""What the source of a model says: which layers some path of the code reads directly instead of calling them.

A forward takes one path; a kernel installed elsewhere, or a switch, may take another. The source shows them all.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from torch import nn

from .layers import walk

_HARMLESS = frozenset({"dtype", "device", "shape", "size", "requires_grad", "is_meta", "ndim", "numel", "element_size"})
"""What may be asked of a weight without reading it."""
_MAY_READ = re.compile(r"self\.\w+\.weight\b(?!\.(?:" + "|".join(_HARMLESS) + r")\b)")


def list_readings(model: nn.Module) -> dict[str, str]:
    """Return, for each layer whose weight the code of its owner reads anywhere, where that is."""
    found: dict[str, str] = {}
    for site in walk(model):
        for name, where in _readings_of(type(site.module)).items():
            if name in dict(site.module.named_children()):
                found[f"{site.path}.{name}" if site.path else name] = where
    return found


def _readings_of(owner: type[nn.Module]) -> dict[str, str]:
    """Return the children whose ``weight`` the methods of a class read, with file and line of the first reading."""
    if owner.__module__.partition(".")[0] == "torch":
        return {}
    try:
        file = inspect.getsourcefile(owner)
    except TypeError:
        return {}  # a class made without a file, as in a notebook
    return _readings_in(file).get(owner.__qualname__, {}) if file else {}


@lru_cache(maxsize=64)
def _readings_in(file: str) -> dict[str, dict[str, str]]:
    """Return the readings of every class of a file; it is parsed only if it may hold one."""
    try:
        text = Path(file).read_text("utf-8")
        tree = ast.parse(text) if _MAY_READ.search(text) else ast.Module([], [])
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    found: dict[str, dict[str, str]] = {}
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for name, line in _read_weights(owner):
            found.setdefault(owner.name, {}).setdefault(name, f"{Path(file).name}:{line}")
    return found


def _read_weights(owner: ast.ClassDef) -> Iterator[tuple[str, int]]:
    nodes = [*ast.walk(owner)]
    asked = {id(node.value) for node in nodes if isinstance(node, ast.Attribute) and node.attr in _HARMLESS}
    asked |= {id(a) for n in nodes if isinstance(n, ast.Call) and _is_isinstance(n) for a in n.args}
    methods = (n for n in owner.body if isinstance(n, ast.FunctionDef) and not n.name.startswith(("__", "_init")))
    for node in (inner for method in methods for inner in ast.walk(method)):
        match node:
            case ast.Attribute(attr="weight", value=ast.Attribute(attr=name, value=ast.Name(id="self"))):
                if id(node) not in asked:
                    yield name, node.lineno


def _is_isinstance(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "isinstance"
