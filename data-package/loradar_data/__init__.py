"""Look up the layers that an adapter belongs on, in data that comes with the package."""

import json
from difflib import get_close_matches
from functools import cache
from importlib import metadata, resources
from typing import Any

__all__ = ["LIBRARIES", "choices", "lookup", "references"]

LIBRARIES = ("transformers", "timm", "diffusers")
"""The libraries in the order in which a bare name is looked for."""

_ROW = ("matched", "per_rank", "fixed", "status")


def __getattr__(name: str) -> str:
    """Read the version on first use."""
    if name == "__version__":
        return metadata.version("loradar-data")
    raise AttributeError(name)


def lookup(name: str, peft_type: str = "LORA", preset: str = "default", library: str | None = None) -> dict[str, Any]:
    """Return the targets of an architecture as a new dictionary.

    Args:
        name: A model type (``llama``), a reference (``timm:resnet50``) or a class (``LlamaForCausalLM``).
        peft_type: PEFT's name of the method.
        preset: ``default``, ``recommended``, ``attention``, ``mlp``, ``all-linear``, ``experts`` or ``everything``.
        library: Only architectures of this library.

    Raises:
        KeyError: If there is no such architecture, or no answer for the method and preset; the message names near ones.
    """
    of, own, data = _find(name, library)
    entry = data["architectures"][own]
    rows = data["choices"][entry["choices"]]
    key = f"{peft_type.upper()}/{preset}"
    if key not in rows:
        message = f"{of}:{own} has no {key}; it has {', '.join(rows)}"
        raise KeyError(message)
    spec, *values = entry["rows"][rows[key]]
    about = {"library": of, "name": own, "class": entry["class"], "library_version": data["library_version"]}
    about.update(peft_type=peft_type.upper(), preset=preset)
    return {**about, **json.loads(json.dumps(data["specs"][spec])), **dict(zip(_ROW, values, strict=True))}


def choices(name: str, library: str | None = None) -> list[str]:
    """Return the methods and presets that an architecture has an answer for, as ``LORA/default``."""
    _, own, data = _find(name, library)
    return list(data["choices"][data["architectures"][own]["choices"]])


def references() -> list[str]:
    """Return the references of all architectures, such as ``timm:resnet50``."""
    return [f"{library}:{name}" for library in LIBRARIES for name in _read(library)["architectures"]]


def _find(name: str, library: str | None) -> tuple[str, str, dict[str, Any]]:
    """Return the library, the name and the data of the architecture of a name."""
    scheme, colon, rest = name.partition(":")
    if colon and scheme in LIBRARIES:
        library, name = scheme, rest
    if library not in (None, *LIBRARIES):
        message = f"unknown library {library!r}; there is {', '.join(LIBRARIES)}"
        raise KeyError(message)
    searched = [library] if library else LIBRARIES
    for one in searched:
        if name in _read(one)["architectures"]:
            return one, name, _read(one)
    for one in searched:
        if name in _classes(one):
            return one, _classes(one)[name], _read(one)
    known = [own for one in searched for own in _read(one)["architectures"]]
    near = get_close_matches(name, known)
    message = f"unknown architecture {name!r}" + (f"; near: {', '.join(near)}" if near else "")
    raise KeyError(message)


@cache
def _read(library: str) -> dict[str, Any]:
    return json.loads((resources.files(__name__) / f"{library}.json").read_text("utf-8"))


@cache
def _classes(library: str) -> dict[str, str]:
    """Return the first architecture of each class."""
    found: dict[str, str] = {}
    for name, entry in _read(library)["architectures"].items():
        found.setdefault(entry["class"], name)
    return found
