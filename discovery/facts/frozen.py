"""Frozen parts: the layers whose weights the code that builds their owner freezes, such as constants and teachers.

A user who freezes a model before adapting it does so from outside, and means no layer in particular.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ...domain.layers import Layer
from .layers import Site


def find_frozen(layers: Iterable[Layer], sites: Sequence[Site]) -> dict[str, str]:
    """Return the reason for each layer that its owner, or a module further out, freezes while it is built.

    Whole numbers, such as the packed weight of a quantised linear, learn nothing; an adapter beside them does.
    """
    modules = {site.path: site.module for site in sites}
    reasons: dict[str, str] = {}
    for layer in layers:
        path = layer.module_path
        own = [*modules[path].parameters(recurse=False)]
        if not any(map(torch.is_floating_point, own)) or any(parameter.requires_grad for parameter in own):
            continue
        owner = next((owner for owner, name in _list_owners(path, modules) if name in list_frozen(owner)), None)
        if owner is not None:
            reasons[layer.path] = f"{owner.__name__} freezes it while it is built"
    return reasons


def _list_owners(path: str, modules: dict[str, nn.Module]) -> Iterator[tuple[Any, str]]:
    """Yield (class, name inside) of a layer, for its weight, and of every module around it."""
    yield type(modules[path]), "weight"
    while path:
        path, _, name = path.rpartition(".")
        if path in modules:
            yield type(modules[path]), name


@lru_cache(maxsize=1024)
def list_frozen(owner: type[nn.Module]) -> frozenset[str]:
    """Return the attributes that a class freezes in its constructor, or in a method that it calls there."""
    names: set[str] = set()
    for base in owner.__mro__:
        if base.__module__.partition(".")[0] == "torch" or "__init__" not in vars(base):
            continue
        for method in _constructing_methods(base):
            names.update(_list_frozen_in(method))
    return frozenset(names)


def _constructing_methods(owner: type) -> Iterator[ast.FunctionDef]:
    """Yield the constructor of a class and its own methods that the constructor calls, where they freeze something."""
    waiting, seen = ["__init__"], set[str]()
    while waiting:
        name = waiting.pop()
        method = _parse(vars(owner).get(name)) if name not in seen else None
        seen.add(name)
        if method is not None:
            yield method
            calls = (node.func for node in ast.walk(method) if isinstance(node, ast.Call))
            waiting += [call.attr for call in calls if isinstance(call, ast.Attribute) and _root(call) == call.attr]


def _parse(function: object) -> ast.FunctionDef | None:
    with suppress(OSError, TypeError, SyntaxError):  # made without a file, or no function
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]  # type: ignore[arg-type]
        return tree if isinstance(tree, ast.FunctionDef) else None
    return None


def _list_frozen_in(method: ast.FunctionDef) -> Iterator[str]:
    """Yield the attributes of ``self`` whose gradients a method turns off."""
    around: dict[ast.AST, ast.AST] = {child: node for node in ast.walk(method) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(method):
        frozen = _frozen_by(node)
        name = _root(frozen) or _root_around(node, around) if frozen is not None else None
        if name:
            yield name


def _root_around(node: ast.AST, around: dict[ast.AST, ast.AST]) -> str | None:
    """Return the attribute of ``self`` that a loop around a node runs over, or that the node is assigned to."""
    name: str | None = None
    while name is None and node in around:
        node = around[node]
        if isinstance(node, ast.For):
            name = _root(node.iter)
        elif isinstance(node, ast.Assign):
            name = _root(node.targets[0])
    return name


def _frozen_by(node: ast.AST) -> ast.expr | None:
    """Return the expression whose gradients a node turns off, or ``None``."""
    match node:
        case ast.Call(func=ast.Attribute(attr="requires_grad_", value=value), args=args, keywords=keywords) if any(
            _is_false(flag) for flag in (*args, *(keyword.value for keyword in keywords))
        ):
            return value
        case ast.Assign(targets=[ast.Attribute(attr="requires_grad", value=value)], value=flag) if _is_false(flag):
            return value
        case ast.Call(keywords=keywords) if any(k.arg == "requires_grad" and _is_false(k.value) for k in keywords):
            return node
    return None


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _root(node: ast.expr) -> str | None:
    """Return the attribute of ``self`` that an expression starts from: ``teacher`` of ``self.teacher.parameters()``."""
    inner: ast.AST = node
    while True:
        match inner:
            case ast.Attribute(attr=name, value=ast.Name(id="self")):
                return name
            case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Call(func=value):
                inner = value
            case _:
                return None
