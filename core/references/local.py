"""Read the architecture of a model on this machine from its configuration, which is never run."""

import json
from typing import Any

from ..errors import InvalidReference
from .local_paths import find_path
from .resolver import Candidate, resolve

MOST_BYTES = 1 << 20
"""Bytes of a configuration at most."""

_FILES = ("model_index.json", "config.json")


def find_configuration(text: str) -> Candidate | None:
    """Return the architecture of a folder or a configuration file; ``None`` if a text without ``file:`` names neither.

    Raises:
        InvalidReference: If the file cannot be read, or names no architecture.
    """
    is_file = text.startswith("file:")
    path = find_path(text)
    files = [path / name for name in _FILES] if path and path.is_dir() else [path]
    file = next((one for one in files if one and one.is_file()), None)
    if file is None:
        if not is_file:
            return None
        message = f"{text[:64]!r} has no config.json. Give its folder, or the file itself."
        raise InvalidReference(message, reference=text)
    try:
        with file.open("rb") as content:
            config = json.loads(content.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        message = f"{str(file)!r} cannot be read as JSON of at most {MOST_BYTES:,} bytes: {error}."
        raise InvalidReference(message, reference=text) from error
    found = _find_architecture(config if isinstance(config, dict) else {})
    if found is None:
        message = f"{str(file)!r} names no known architecture: it needs 'model_type', '_class_name' or 'architecture'."
        raise InvalidReference(message, reference=text)
    return Candidate(found.reference, "configuration", str(file))


def _find_architecture(config: dict[str, Any]) -> Candidate | None:
    """Return the architecture of a configuration: transformers' type, a class of diffusers, or timm's architecture."""
    for field, library in (("_class_name", "diffusers"), ("model_type", "transformers"), ("architecture", "timm")):
        stated = config.get(field)
        if isinstance(stated, str) and stated:
            first = next(iter(resolve(stated, library)), None)
            return Candidate(f"{library}:{stated}", "exact", stated) if first is None or first.is_guess else first
    return None
