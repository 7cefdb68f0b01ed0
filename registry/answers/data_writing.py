"""Write the data of the package ``loradar-data``: ``python -m loradar.registry.answers.data_writing FOLDER VERSION``.

``data-package/README.md`` describes the files; ``make data-package`` builds the wheel.
"""

import json
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ...domain.mappings import Mapping
from ...schema import to_json
from ..registry import Registry
from .answer_set import list_references, read_answers, split

FORMAT = 1
LIBRARIES = ("transformers", "timm", "diffusers")
_RANKS = ("rank_pattern", "alpha_pattern")


@dataclass
class _Numbered:
    """Values that are written once, and referred to by their numbers."""

    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, value: Any) -> int:
        """Return the number of a value."""
        return self.numbers.setdefault(json.dumps(value), len(self.numbers))

    def list(self) -> list[Any]:
        """Return the values in the order of their numbers."""
        return [json.loads(text) for text in self.numbers]


def write_data(registry: Registry, folder: Path, wanted: tuple[str, ...] = ()) -> None:
    """Write a file for each library.

    Args:
        registry: The registry.
        folder: The package's folder.
        wanted: References of the architectures; all if none.
    """
    references = list_references(registry, wanted)
    for library in LIBRARIES:
        own = [one for one in references if split(one)[0] == library]
        content = json.dumps(_collect(registry, library, own), ensure_ascii=False, separators=(",", ":"))
        (folder / f"{library}.json").write_text(content, "utf-8")


def _collect(registry: Registry, library: str, references: list[str]) -> dict[str, Any]:
    specs, choices = _Numbered(), _Numbered()
    architectures: dict[str, Any] = {}
    version = None
    for reference in references:
        found = read_answers(registry, reference)
        rows = _Numbered()
        chosen = {f"{one.peft_type}/{one.preset}": rows.add(_to_row(one, specs)) for one in found.answers}
        seen = found.detail.architecture
        version = max(filter(None, (version, seen.library_version)), default=None)
        if chosen:
            entry = {"class": seen.class_name, "choices": choices.add(chosen), "rows": rows.list()}
            architectures[split(reference)[1]] = entry
    about = {"format": FORMAT, "loradar": metadata.version("loradar"), "library": library, "library_version": version}
    return {**about, "specs": specs.list(), "choices": choices.list(), "architectures": architectures}


def _to_row(mapping: Mapping, specs: _Numbered) -> list[Any]:
    values = {**to_json(mapping.spec), **{name: getattr(mapping, name) for name in _RANKS}}
    spec = specs.add({name: value for name, value in values.items() if value is not None})
    size = (mapping.formula.per_rank, mapping.formula.fixed) if mapping.formula else (None, None)
    return [spec, mapping.matched, *size, mapping.verification.status if mapping.verification else None]


if __name__ == "__main__":
    _folder, _version, *_wanted = sys.argv[1:]
    with Registry.open() as _registry:
        write_data(_registry, Path(_folder, "loradar_data"), tuple(_wanted))
    Path(_folder, "VERSION").write_text(f"{_version}\n", "utf-8")
