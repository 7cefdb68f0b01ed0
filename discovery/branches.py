"""Branches of a configuration: its settings that give a model other layers, and the layers a proposal misses there."""

import ast
import copy
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from types import ModuleType
from typing import Any, get_args

from torch import nn

from ..domain.layers import Layer
from ..domain.patterns import pattern_of
from ..domain.presets import ADAPTABLE_KINDS
from ..domain.scans import Proposal, Scan
from ..domain.targets import find_hits
from ..domain.vocabulary import Role, Tower, list_some
from ..errors import LoradarError
from .facts.layers import list_layers
from .small_builds.shrink import Shrink
from .sources.recipes import Recipe
from .sources.transformers import find_recipe

SMALL = Shrink(most=1, depth=2, is_terse=False)
MOST_NAMES = 3
Value = bool | str | int | None
Label = Callable[[nn.Module], tuple[Layer, ...]]


def list_branches(config: Any, modules: Iterable[ModuleType]) -> Iterator[tuple[str, Any]]:
    """Yield the configuration with one of its fields changed, in itself or in a configuration inside it.

    A boolean is turned; a text takes the other values of its annotation and those that the source compares it with; a
    number becomes ``None`` or zero where the source asks whether it is.

    Args:
        config: A configuration of transformers.
        modules: The modules that its models are written in.
    """
    from transformers import PretrainedConfig  # noqa: PLC0415 - an extra; versions 4 and 5 have this name

    shared = vars(PretrainedConfig())
    tests = [_read_tests(module) for module in modules]
    parts = {name: part for name, part in vars(config).items() if isinstance(part, PretrainedConfig)}
    for inner, part in (("", config), *parts.items()):
        fields = [field for field in vars(part) if field not in shared]
        changes = [(field, value) for field in fields for value in _list_others(part, field, tests)]
        for field, value in changes:
            changed = copy.deepcopy(config)
            vars(getattr(changed, inner) if inner else changed)[field] = value
            yield f"{type(part).__name__}({field}={value!r})", changed


def _list_others(part: Any, field: str, tests: Iterable[dict[str, set[object]]]) -> Sequence[Value]:
    """Return the other values to try for a field."""
    value = vars(part)[field]
    if isinstance(value, bool):
        return [not value]
    compared = {constant for tested in tests for constant in tested.get(field, ())}
    annotations = (inspect.get_annotations(owner) for owner in type(part).__mro__)
    annotation = next((known[field] for known in annotations if field in known), None)
    allowed = {value for one in (annotation, *get_args(annotation)) for value in get_args(one)}
    if isinstance(value, str):
        return sorted({text for text in allowed | compared if isinstance(text, str)} - {value})
    numbers = [None, 0] if type(None) in get_args(annotation) else [0]
    return [number for number in numbers if isinstance(value, int) and number in compared]


@lru_cache(maxsize=64)
def _read_tests(module: ModuleType) -> dict[str, set[object]]:
    """Return the attributes that a module's source tests in conditions, with the constants it compares them with."""
    tests: dict[str, set[object]] = defaultdict(set)
    with suppress(OSError, TypeError, SyntaxError):  # no source
        tree = ast.parse(inspect.getsource(module))
        conditions = [node.test for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp)]
        for part in chain.from_iterable(map(ast.walk, conditions)):
            inside = [*ast.walk(part)] if isinstance(part, ast.Compare) else [part]
            constants = {each.value for each in inside if isinstance(each, ast.Constant)}
            for name in (each.attr for each in inside if isinstance(each, ast.Attribute)):
                tests[name] |= constants
    return dict(tests)


def state_branches(scan: Scan, model_type: str, label: Label) -> Scan:
    """Return the scan of a type of transformers with the branches that a proposal does not hold for, in its reasons.

    A proposal holds for a branch if it adapts the layers there that have the roles it adapts by default, and no others.
    ``label`` gives the layers of a model their roles without a forward.
    """
    known = {pattern_of(layer.path): layer for layer in reversed(scan.layers)}
    gaps: list[dict[str, list[str]]] = [defaultdict(list) for _ in scan.proposals]
    for says, layers in _build_branches(find_recipe(model_type), known.keys(), label):
        for proposal, found in zip(scan.proposals, gaps, strict=True):
            if gap := _find_gap(proposal, known, layers):
                found[gap].append(says)
    stated: list[Proposal] = []
    for proposal, found in zip(scan.proposals, gaps, strict=True):
        reasons = (f"with {list_some(branches, MOST_NAMES)} it {gap}" for gap, branches in found.items())
        stated.append(replace(proposal, reasons=(*proposal.reasons, *reasons)))
    return replace(scan, proposals=tuple(stated))


def _build_branches(recipe: Recipe, patterns: Collection[str], label: Label) -> Iterator[tuple[str, tuple[Layer, ...]]]:
    """Yield the branches whose layers have other path patterns, with these layers: of few blocks if those have all."""
    model = None
    small = replace(recipe, settings=SMALL(recipe.settings))
    with suppress(LoradarError):
        model = small.build_on_meta()
    if model is not None and {pattern_of(layer.path) for layer in list_layers(model)} == {*patterns}:
        recipe = small
    else:
        model = recipe.build_on_meta()
    modules = {sys.modules[type(module).__module__] for module in model.modules()}
    own = [module for module in modules if module.__name__.startswith("transformers.")]
    for says, changed in list_branches(recipe.settings, own):
        with suppress(LoradarError):  # no checkpoint has a configuration that does not build
            branch = replace(recipe, settings=changed).build_on_meta()
            if {pattern_of(layer.path) for layer in list_layers(branch)} != {*patterns}:
                yield says, label(branch)


def _find_gap(proposal: Proposal, known: Mapping[str, Layer], layers: tuple[Layer, ...]) -> str | None:
    """Describe the layers of a branch that a proposal misses, and those that it adapts for no role of its own."""
    adapted = {pattern_of(layer.path) for layer in find_hits(proposal.spec, known.values())}
    taken = {pattern_of(layer.path) for layer in find_hits(proposal.spec, layers)}
    if adapted and not taken:
        return "matches nothing"
    places = {_place(known[pattern]) for pattern in adapted}
    roles = {role for _, role, _ in places}
    new = {pattern_of(layer.path): layer for layer in layers if pattern_of(layer.path) not in known}
    missed = [pattern for pattern, layer in new.items() if _place(layer) in places and pattern not in taken]
    extra = [pattern for pattern, layer in new.items() if layer.role not in roles and pattern in taken]
    words = (("leaves out", missed), ("also adapts", extra))
    return " and ".join(f"{verb} {list_some(found, MOST_NAMES)}" for verb, found in words if found) or None


def _place(layer: Layer) -> tuple[Tower, Role, bool]:
    return layer.tower, layer.role, layer.kind in ADAPTABLE_KINDS
