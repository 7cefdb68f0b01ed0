"""Build the model that a reference names, on meta and without weights; one file for each library.

The files of the libraries raise as ``build`` and ``find_recipe`` here.

Others may import: ``build`` and ``find_recipe`` (of a reference), ``list_names`` (of a library), ``build_config`` and
``make_config`` (of transformers), ``quiet_libraries``, and ``fetch_config`` of ``hub``.
"""

import importlib
import os
import warnings

import torch
from torch import nn

from ...errors import InvalidReference, ScanFailed, UnknownLibrary, quoted
from ...extras import require
from ...references import Reference
from . import diffusers, timm, transformers
from .recipes import Recipe, explained
from .transformers import build_config, make_config

LIBRARIES = {"transformers": transformers, "timm": timm, "diffusers": diffusers}
LISTABLE = tuple(LIBRARIES)
BUILDABLE = (*LISTABLE, "torch")

__all__ = ["build", "build_config", "explained", "find_recipe", "list_names", "make_config", "quiet_libraries"]


def build(reference: Reference) -> nn.Module:
    """Build the model of a reference, on meta if its library allows that.

    Raises:
        InvalidReference: If nothing can be built from this scheme, or a class of the user's own is not found.
        MissingExtra: If the library is not installed.
        UnknownArchitecture: If the library does not know the name.
        ScanFailed: If it does not build, or no module.
    """
    if reference.scheme not in BUILDABLE:
        message = f"References of scheme {reference.scheme!r} cannot be scanned yet. Schemes: {quoted(BUILDABLE)}."
        raise InvalidReference(message, reference=str(reference), schemes=list(BUILDABLE))
    require("scan", reference.scheme)
    if reference.scheme == "torch":
        return _build_callable(reference.name)
    if reference.scheme == "timm":
        return timm.build(reference.name)
    return find_recipe(reference).build_on_meta()


def _build_callable(name: str) -> nn.Module:
    """Import ``package.module:callable``, the user's own code, and call it without arguments on the meta device."""
    module_name, separator, attribute = name.partition(":")
    if not separator:
        message = f"Reference 'torch:{name}' needs a callable: torch:package.module:ClassName."
        raise InvalidReference(message, reference=f"torch:{name}")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        message = f"Reference 'torch:{name}' cannot be imported ({error}). Is its folder on PYTHONPATH?"
        raise InvalidReference(message, reference=f"torch:{name}") from error
    with explained(f"torch:{name}"), torch.device("meta"):
        model = factory()
    if not isinstance(model, nn.Module):
        message = f"torch:{name} returned {type(model).__name__}, not a torch.nn.Module."
        raise ScanFailed(message, reference=f"torch:{name}")
    return model


def find_recipe(reference: Reference) -> Recipe:
    """Return the recipe of the model of a reference.

    Raises:
        InvalidReference: If it is not an architecture of a library.
        MissingExtra: If the library is not installed.
        UnknownArchitecture: If the library does not know the name.
        ScanFailed: If it does not build.
    """
    if reference.scheme not in LIBRARIES:
        message = f"Only architectures of {quoted(LISTABLE)} have a recipe; {reference} is none."
        raise InvalidReference(message, reference=str(reference), schemes=list(LISTABLE))
    require("scan", reference.scheme)
    recipe: Recipe = LIBRARIES[reference.scheme].find_recipe(reference.name)
    return recipe


def list_names(library: str) -> list[str]:
    """Return every architecture name a library knows.

    Raises:
        UnknownLibrary: If the library is not one that can be listed.
        MissingExtra: If it is not installed.
    """
    if library not in LIBRARIES:
        raise UnknownLibrary(library, LISTABLE, f"Libraries: {quoted(LISTABLE)}.")
    require("scan", library)
    return [*LIBRARIES[library].list_names()]


def quiet_libraries() -> None:
    """Keep transformers from logging into the output of a command; for processes of our own only."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
