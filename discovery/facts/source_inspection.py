"""What the source of a model says: which layers some path of the code reads directly instead of calling them.

A forward takes one path; a kernel installed elsewhere, or a switch, may take another. The source shows them all.
"""

import ast
import builtins
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import nn

from .layers import walk

_HARMLESS = frozenset({"dtype", "device", "shape", "size", "requires_grad", "is_meta", "ndim", "numel", "element_size"})
"""What may be asked of a weight without reading it."""
_HARMLESS_CALLS = frozenset({"isinstance", "init"})
"""Names in what may be called with a weight without reading it, such as ``nn.init.ones_``."""
_MAY_READ = re.compile(r"self\.\w+\.weight\b(?!\.(?:" + "|".join(_HARMLESS) + r")\b)")
_OF_TORCH = frozenset({"torch", "nn", "F", "functional", "init"})
"""Roots of what torch itself computes: a path that calls these is chosen by a switch, not by a kernel."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a weight is read without its layer being called.

    Attributes:
        where: File and line, such as ``modeling_mamba2.py:493``.
        kernel: The function it is handed to, if that is none of torch's and none of the model's own modules.
    """

    where: str
    kernel: str | None = None


def list_readings(model: nn.Module) -> dict[str, Reading]:
    """Return, for each layer whose weight the code of its owner reads anywhere, where that is."""
    found: dict[str, Reading] = {}
    for site in walk(model):
        children = dict(site.module.named_children())
        for name, readings in _readings_of(type(site.module)).items():
            if name in children:
                kernels = (r for r in readings if r.kernel and r.kernel.removeprefix("self.") not in children)
                found[f"{site.path}.{name}" if site.path else name] = next(kernels, Reading(readings[0].where))
    return found


def _readings_of(owner: type[nn.Module]) -> dict[str, list[Reading]]:
    """Return the children whose ``weight`` the methods of a class read."""
    if owner.__module__.partition(".")[0] == "torch":
        return {}
    try:
        file = inspect.getsourcefile(owner)
    except TypeError:
        return {}  # a class made without a file, as in a notebook
    return _readings_in(file).get(owner.__qualname__, {}) if file else {}


@lru_cache(maxsize=64)
def _readings_in(file: str) -> dict[str, dict[str, list[Reading]]]:
    """Return the readings of every class of a file; it is parsed only if it may hold one."""
    try:
        text = Path(file).read_text("utf-8")
        tree = ast.parse(text) if _MAY_READ.search(text) else ast.Module([], [])
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    found: dict[str, dict[str, list[Reading]]] = {}
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for name, line, kernel in _read_weights(owner):
            reading = Reading(f"{Path(file).name}:{line}", kernel)
            found.setdefault(owner.name, {}).setdefault(name, []).append(reading)
    return found


def _read_weights(owner: ast.ClassDef) -> Iterator[tuple[str, int, str | None]]:
    nodes = [*ast.walk(owner)]
    asked = {id(node.value) for node in nodes if isinstance(node, ast.Attribute) and node.attr in _HARMLESS}
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    asked |= {id(a) for call in calls if _HARMLESS_CALLS & {*ast.unparse(call.func).split(".")} for a in call.args}
    handed = {id(held): _kernel(call) for call in calls for held in _list_handed(call)}
    for node in (inner for method in _list_running(owner) for inner in ast.walk(method)):
        match node:
            case ast.Attribute(attr="weight", value=ast.Attribute(attr=name, value=ast.Name(id="self"))):
                if id(node) not in asked:
                    yield name, node.lineno, handed.get(id(node))


def _list_running(owner: ast.ClassDef) -> list[ast.FunctionDef]:
    """Return the methods that run with a forward: it, and whatever of its own it names; all if it is inherited."""
    methods = {node.name: node for node in owner.body if isinstance(node, ast.FunctionDef)}
    if "forward" not in methods:
        return [method for name, method in methods.items() if not name.startswith(("__", "_init"))]
    running, waiting = dict[str, ast.FunctionDef](), ["forward"]
    while waiting:
        name = waiting.pop()
        if name in methods and name not in running:
            running[name] = methods[name]
            waiting += [node.attr for node in ast.walk(methods[name]) if isinstance(node, ast.Attribute)]
    return list(running.values())


def _list_handed(call: ast.Call) -> Iterator[ast.expr]:
    """Yield what a call is given, seen through a method that only views it (``weight.squeeze(1)``) and a condition."""
    for given in (*call.args, *(keyword.value for keyword in call.keywords)):
        held = given.body if isinstance(given, ast.IfExp) else given
        if isinstance(held, ast.Call) and isinstance(held.func, ast.Attribute):
            held = held.func.value
        yield held


def _kernel(call: ast.Call) -> str | None:
    """Return the function that is called, if it is neither torch's nor Python's nor a tensor's method."""
    match call.func:
        case ast.Name(id=name) if not hasattr(builtins, name):
            return name
        case ast.Attribute(attr=name, value=ast.Name(id="self")):
            return f"self.{name}"
        case ast.Attribute() if _name_of(call.func) not in _OF_TORCH | {None, "self"}:
            return ast.unparse(call.func)
    return None


def _name_of(expression: ast.expr) -> str | None:
    """Return the name an expression starts with: ``init`` of ``init.ones_``; ``None`` if it starts with none."""
    while isinstance(expression, ast.Attribute):
        expression = expression.value
    return expression.id if isinstance(expression, ast.Name) else None
