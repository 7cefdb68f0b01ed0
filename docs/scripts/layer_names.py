"""Write ``data/versions/names-LIBRARY.jsonl``: the releases in which the layers of an architecture got other names.

python docs/scripts/layer_names.py measure OUT.json [NAME ...]    names under the installed version of transformers
python docs/scripts/layer_names.py merge FILE.jsonl OUT.json ...  the history of names over the measured releases
"""

import json
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from loradar.catalog.layer_names import digest_names, history_lines
from loradar.discovery import list_architectures, quiet_libraries
from loradar.discovery.facts.layers import list_layers
from loradar.discovery.sources import build
from loradar.domain.patterns import pattern_of
from loradar.errors import LoradarError
from loradar.references import Reference

LIBRARY = "transformers"


def digest(name: str) -> str | None:
    """Return a digest of the path patterns and kinds of an architecture's layers; ``None`` if it does not build."""
    try:
        layers = list_layers(build(Reference.parse(f"{LIBRARY}:{name}")))
    except LoradarError:
        return None
    return digest_names((pattern_of(layer.path), layer.kind) for layer in layers)


def measure(out: Path, names: Iterable[str]) -> None:
    """Write the digests of architectures, by default all, under the installed version; others in the file are kept."""
    quiet_libraries()
    known = list_architectures(LIBRARY)
    measured = json.loads(out.read_text("utf-8"))["names"] if out.exists() else {}
    measured |= {name: digest(name) for name in names or known if name in known}
    found = {"library": LIBRARY, "release": metadata.version(LIBRARY), "known": known, "names": measured}
    out.write_text(json.dumps(found, sort_keys=True), "utf-8")


def merge(out: Path, files: Iterable[Path]) -> None:
    """Write the history of names over the releases that ``measure`` wrote files of."""
    measured = [json.loads(file.read_text("utf-8")) for file in files]
    out.write_text("".join(f"{line}\n" for line in history_lines(LIBRARY, measured)), "utf-8")


if __name__ == "__main__":
    command, first, *rest = sys.argv[1:]
    if command == "measure":
        measure(Path(first), rest)
    else:
        merge(Path(first), map(Path, rest))
