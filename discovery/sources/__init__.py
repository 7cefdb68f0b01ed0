"""One file per place a model can come from; each turns a name into a module, on meta, without weights."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import nn

from ...errors import InvalidReference, LoradarError, ScanFailed, UnknownLibrary, quoted
from ...extras import require
from ...references import Reference

if TYPE_CHECKING:
    from .recipes import Recipe

BUILDABLE = ("transformers", "timm", "diffusers", "torch")
LISTABLE = ("transformers", "timm", "diffusers")


@contextmanager
def explained(reference: str) -> Iterator[None]:
    """Turn whatever foreign code raises while it builds ``reference`` into one clear ``ScanFailed``.

    Raises:
        MissingExtra: If the library itself is not installed.
        ScanFailed: If the architecture does not build; the first line of the cause is in the message.
    """
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():  # some print when they are imported
            warnings.simplefilter("ignore")  # what a library warns of while it builds is nothing a scan can mend
            yield
    except LoradarError:
        raise
    except Exception as error:  # model code of others may raise anything
        cause = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        message = f"{reference} could not be built from its default configuration ({cause})."
        raise ScanFailed(message, reference=reference, cause=cause) from error


def build(reference: Reference) -> nn.Module:
    """Build the model a reference names, on meta where its library allows.

    Raises:
        InvalidReference: If nothing can be built from this scheme.
        MissingExtra: If the library is not installed.
        UnknownArchitecture: If the library does not know the name.
        ScanFailed: If it does not build.
    """
    if reference.scheme not in BUILDABLE:
        message = f"References of scheme {reference.scheme!r} cannot be scanned yet. Schemes: {quoted(BUILDABLE)}."
        raise InvalidReference(message, reference=str(reference), schemes=list(BUILDABLE))
    require("scan", reference.scheme)
    source = import_module(f".{reference.scheme}", __name__)
    model: nn.Module = source.build(reference.name)
    return model


def find_recipe(reference: Reference) -> "Recipe":
    """Return what the model a reference names is built from.

    Raises:
        InvalidReference: If it names nothing in a library.
        MissingExtra: If the library is not installed.
        UnknownArchitecture: If the library does not know the name.
        ScanFailed: If it does not build.
    """
    if reference.scheme not in LISTABLE:
        message = f"Only architectures of {quoted(LISTABLE)} have a recipe; {reference} is none."
        raise InvalidReference(message, reference=str(reference), schemes=list(LISTABLE))
    require("scan", reference.scheme)
    found: Recipe = import_module(f".{reference.scheme}", __name__).find_recipe(reference.name)
    return found


def list_names(library: str) -> list[str]:
    """Return every architecture name a library knows.

    Raises:
        UnknownName: If the library is not one that can be listed.
        MissingExtra: If it is not installed.
    """
    if library not in LISTABLE:
        raise UnknownLibrary(library, LISTABLE, f"Libraries: {quoted(LISTABLE)}.")
    require("scan", library)
    names: list[str] = import_module(f".{library}", __name__).list_names()
    return names


def build_config(config: Any) -> nn.Module:
    """Build the model of a transformers configuration object on meta.

    Raises:
        ScanFailed: If no model class takes it, or it does not build.
    """
    from .transformers import build_config as build_transformers_config

    model: nn.Module = build_transformers_config(config)
    return model


def make_config(model_type: str, settings: dict[str, Any]) -> Any:
    """Return a configuration object of one of transformers' own types; nothing is loaded.

    Raises:
        ScanFailed: If the type does not take these settings.
    """
    from .transformers import make_config as make_transformers_config

    return make_transformers_config(model_type, settings)


def quiet_libraries() -> None:
    """Keep transformers from logging into a command's output; for processes of our own only."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
