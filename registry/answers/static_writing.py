"""Write the answers of a registry as static JSON files, which any file server or CDN serves."""

import json
import os
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ...errors import InvalidRequest
from ...schema import to_json
from ...static_files import INDEX, StaticAnswers, StaticIndex, answers_path
from ..registry import Registry
from .answer_set import ArchitectureAnswers, list_references, read_answers, split

LONGEST = 200
"""Bytes of a file name that every file system takes."""


def write_static(
    registry: Registry, folder: Path, wanted: tuple[str, ...] = (), *, with_architectures: bool = True
) -> Iterator[tuple[str, int]]:
    """Write an export, and yield each architecture that is written with the number of all.

    An earlier export in the folder is replaced once the new one is complete.

    Args:
        registry: The registry.
        folder: The folder: not there yet, empty, or with an earlier export.
        wanted: References of the architectures; all if none.
        with_architectures: Whether to write ``v1/architectures`` too, which is most of the bytes.

    Raises:
        InvalidRequest: If the folder has other files, or a name cannot be the name of a file.
        UnknownArchitecture: If the registry does not know an architecture that is wanted.
    """
    _check_folder(folder)
    references = list_references(registry, wanted)
    for reference in references:
        _check_name(reference)
    new = folder / "v1.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for reference in references:
        found = read_answers(registry, reference)
        for path, content in _files_of(registry, reference, found, with_architectures=with_architectures):
            _write(new / Path(unquote(path)).relative_to("v1"), content)
        yield reference, len(references)
    index = StaticIndex(metadata.version("loradar"), registry.serial(), tuple(references))
    _write(new / Path(INDEX).relative_to("v1"), to_json(index))
    shutil.rmtree(folder / "v1", ignore_errors=True)
    new.rename(folder / "v1")


def _check_folder(folder: Path) -> None:
    others = [entry.name for entry in folder.iterdir() if entry.name != "v1.new"] if folder.is_dir() else []
    if others and not (folder / INDEX).exists():
        message = f"{folder} is not empty, and has no earlier export ({INDEX}): give another folder."
        raise InvalidRequest(message, folder=str(folder))


def _check_name(reference: str) -> None:
    _, name = split(reference)
    if "/" in name or "\\" in name or name.startswith(".") or len(os.fsencode(reference)) > LONGEST:
        message = f"{reference!r} cannot be the name of a file: name the architectures to export without it."
        raise InvalidRequest(message, reference=reference)


def _files_of(
    registry: Registry, reference: str, found: ArchitectureAnswers, *, with_architectures: bool
) -> Iterator[tuple[str, Any]]:
    """Yield the path and the JSON of each file of an architecture."""
    library, name = split(reference)
    if found.default:
        yield f"v1/targets/{reference}", to_json(found.default)
        by_name = registry.lookup(name)
        if (by_name.library, by_name.name) == (library, name):
            yield f"v1/targets/{name}", to_json(by_name)
    yield answers_path(library, name), to_json(StaticAnswers.pack(found.answers))
    if with_architectures:
        yield f"v1/architectures/{library}/{name}", to_json(found.detail)


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), "utf-8")
