"""Source inspection: find the layers whose weight some path of the code reads instead of calling the layer.

A forward takes one path; a kernel installed elsewhere, or a switch, may take another. The source shows them all.
"""

import ast
import builtins
import dis
import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import nn

from .layers import walk

_HARMLESS = frozenset({"dtype", "device", "shape", "size", "requires_grad", "is_meta", "ndim", "numel", "element_size"})
"""Attributes of a weight that do not read its values."""
_HARMLESS_CALLS = frozenset({"isinstance", "init"})
"""Names in functions that do not read a weight they are given, such as ``nn.init.ones_``."""
_MAY_READ = re.compile(r"self\.\w+\.weight\b(?!\.(?:" + "|".join(_HARMLESS) + r")\b)")
_BRANCHES = ("POP_JUMP", "JUMP_IF", "UNARY_NOT", "TO_BOOL", "COPY")
"""Instructions that use a value as a condition, in the versions of Python from 3.11."""
_OF_TORCH = frozenset({"torch", "nn", "F", "functional", "init"})
"""Roots of torch's own functions: a path that calls these is chosen by a switch, not by a kernel."""


@dataclass(frozen=True, slots=True)
class SourceRead:
    """A place where a weight is read without its layer being called.

    Attributes:
        where: File and line, such as ``modeling_mamba2.py:493``.
        kernel: The function that takes it, if that is none of torch's and none of the model's own modules.
    """

    where: str
    kernel: str | None = None


def inspect_source(model: nn.Module) -> dict[str, SourceRead]:
    """Return the place of the direct read for each layer whose weight the code of its owner reads."""
    found: dict[str, SourceRead] = {}
    for site in walk(model):
        children = dict(site.module.named_children())
        for name, reads in _reads_of(type(site.module)).items():
            if name in children:
                kernels = (r for r in reads if r.kernel and r.kernel.removeprefix("self.") not in children)
                found[f"{site.path}.{name}" if site.path else name] = next(kernels, SourceRead(reads[0].where))
    return found


def _reads_of(owner: type[nn.Module]) -> dict[str, list[SourceRead]]:
    """Return the direct reads in a class by child; torch's own classes, and classes without a file, have none."""
    if owner.__module__.partition(".")[0] == "torch":
        return {}
    try:
        file = inspect.getsourcefile(owner)
    except TypeError:
        return {}  # a class made without a file, as in a notebook
    return parse_file(file).get(owner.__qualname__, {}) if file else {}


@lru_cache(maxsize=64)
def parse_file(file: str) -> dict[str, dict[str, list[SourceRead]]]:
    """Return the direct reads in every class of a file by child; it is parsed only if it may hold one."""
    try:
        text = Path(file).read_text("utf-8")
        tree = ast.parse(text) if _MAY_READ.search(text) else ast.Module([], [])
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    found: dict[str, dict[str, list[SourceRead]]] = {}
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for name, line, kernel in list_direct_reads(owner):
            read = SourceRead(f"{Path(file).name}:{line}", kernel)
            found.setdefault(owner.name, {}).setdefault(name, []).append(read)
    return found


def list_direct_reads(owner: ast.ClassDef) -> Iterator[tuple[str, int, str | None]]:
    """Yield (child, line, kernel) for each ``self.child.weight`` that the running methods of a class read."""
    harmless: set[int] = set()
    kernels: dict[int, str | None] = {}
    for node in ast.walk(owner):
        if isinstance(node, ast.Attribute) and node.attr in _HARMLESS:
            harmless.add(id(node.value))
        elif isinstance(node, ast.Call):
            if _HARMLESS_CALLS & {*ast.unparse(node.func).split(".")}:
                harmless.update(map(id, node.args))
            arguments = (*node.args, *(keyword.value for keyword in node.keywords))
            kernels.update(dict.fromkeys(map(id, map(_passed_on, arguments)), _kernel_of(node)))
    for node in (inner for method in _running_methods(owner) for inner in ast.walk(method)):
        match node:
            case ast.Attribute(attr="weight", value=ast.Attribute(attr=name, value=ast.Name(id="self"))) if (
                id(node) not in harmless
            ):
                yield name, node.lineno, kernels.get(id(node))


def _passed_on(argument: ast.expr) -> ast.expr:
    """Return the value an argument passes on: below a condition or a method that views it (``weight.squeeze(1)``)."""
    value = argument.body if isinstance(argument, ast.IfExp) else argument
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        return value.func.value
    return value


def _running_methods(owner: ast.ClassDef) -> list[ast.FunctionDef]:
    """Return the forward and the own methods it refers to; all methods if the forward is inherited."""
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


def _kernel_of(call: ast.Call) -> str | None:
    """Return the name of the called function, if it is neither torch's nor Python's nor a tensor's method."""
    root = call.func
    while isinstance(root, ast.Attribute):
        root = root.value
    match call.func:
        case ast.Name(id=name) if not hasattr(builtins, name):
            return name
        case ast.Attribute(attr=name, value=ast.Name(id="self")):
            return f"self.{name}"
        case ast.Attribute() if isinstance(root, ast.Name) and root.id not in _OF_TORCH | {"self"}:
            return ast.unparse(call.func)
    return None


@lru_cache(maxsize=1024)
def depends_on_mode(owner: type[nn.Module]) -> bool:
    """Return whether the forward of a class branches on ``self.training``; torch's own are known to run either way."""
    if owner.__module__.partition(".")[0] == "torch" or not hasattr(owner.forward, "__code__"):
        return False
    steps = [*dis.get_instructions(owner.forward)]
    return any(
        step.argval == "training" and following.opname.startswith(_BRANCHES)
        for step, following in itertools.pairwise(steps)
    )
