"""Other builds of a model type: its other classes, the branches of its configuration, and other models inside it.

An entry of a table is for every checkpoint of a type. What it names beside the layers of the default configuration may
be there for one of these.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from torch import nn

from ..data import read_facts
from ..domain.layers import Layer
from ..domain.patterns import pattern_of
from ..domain.scans import Variant
from ..errors import LoradarError
from .branches import list_branches
from .facts.layers import list_layers, walk
from .sources.recipes import Recipe
from .sources.transformers import find_recipe, list_classes, takes_any_type

Build = Callable[[], nn.Module]


def list_variants(model_type: str) -> tuple[Variant, ...]:
    """Return the builds of a model type of transformers whose layers have other path patterns than the default's."""
    try:
        recipe = find_recipe(model_type)
        seen = {frozenset(_by_pattern(recipe.build_on_meta()))}
    except LoradarError:
        return ()
    variants: list[Variant] = []
    for says, is_class, build in _list_builds(recipe):
        try:
            model = build()
        except LoradarError:  # no checkpoint has a configuration that does not build
            continue
        # of layers and modules that differ only by an index, the first
        paths = {pattern_of(site.path): site.path for site in reversed([*walk(model)])}
        variant = Variant(says, tuple(_by_pattern(model).values()), tuple(paths.values()), is_class=is_class)
        patterns = frozenset(pattern_of(layer.path) for layer in variant.layers)
        if patterns not in seen:
            seen.add(patterns)
            variants.append(variant)
    return tuple(variants)


def has_entry(model_type: str) -> bool:
    """Return whether a packaged version of PEFT has an entry for a model type."""
    return model_type in _list_entries()


@cache
def _list_entries() -> frozenset[str]:
    files = (resources.files("loradar.data") / "constants").iterdir()
    texts = (file.read_text("utf-8") for file in files if file.name.startswith("peft-"))
    tables = (table for text in texts for table in json.loads(text)["tables"].values())
    return frozenset(name for table in tables for name in table)


def _list_builds(recipe: Recipe) -> Iterator[tuple[str, bool, Build]]:
    """Yield other builds with their differences in words, and whether only the class differs."""
    from transformers import AutoConfig  # noqa: PLC0415 - an extra

    config = recipe.settings
    for model_class in list_classes(type(config)):
        yield model_class.__name__, True, _as_class(recipe, model_class).build_on_meta
    modules = {sys.modules[model_class.__module__] for model_class in list_classes(type(config))}
    for says, changed in list_branches(config, modules):
        yield says, False, replace(recipe, settings=changed).build_on_meta
    for field, model_types in read_facts("transformers.toml")["part_types"].items():
        declared = getattr(type(config), "sub_configs", {}).get(field)
        for model_type in model_types if declared is not None and takes_any_type(declared) else ():
            other = type(config)(**{field: AutoConfig.for_model(model_type)})
            says = f"{type(config).__name__}({field}={model_type})"
            yield says, False, Recipe(recipe.reference, other, recipe.make).build_on_meta


def _as_class(recipe: Recipe, model_class: Callable[[Any], nn.Module]) -> Recipe:
    return replace(recipe, make=lambda settings, change: model_class(change(settings)))


def _by_pattern(model: nn.Module) -> dict[str, Layer]:
    return {pattern_of(layer.path): layer for layer in reversed(list_layers(model))}
