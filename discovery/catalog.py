"""The catalog: every architecture of a library, one JSON line each, resumable."""

import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ..errors import InvalidRequest, LoradarError
from ..records import Architecture
from ..vocabulary import Library
from . import sources
from .scanner import scan


def scan_library(library: str, out: Path) -> tuple[int, int]:
    """Scan every architecture of ``library`` into ``out``, going on where an earlier run stopped.

    Returns:
        How many lines hold a scan, and how many the reason why there is none.

    Raises:
        UnknownLibrary: If the library cannot be listed.
        InvalidRequest: If ``out`` holds something else.
    """
    names = sources.list_names(library)
    done = dict(_read(out))
    with out.open("a", encoding="utf-8") as lines:
        missing = [name for name in names if name not in done]
        for name in track(missing, f"scanning {library}", console=Console(stderr=True)):
            line = _scan_line(library, name)
            lines.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")
            lines.flush()
            done[name] = "unscanned" not in line
    scanned = sum(done.values())
    return scanned, len(done) - scanned


def _scan_line(library: str, name: str) -> dict[str, object]:
    try:
        return scan(f"{library}:{name}").to_dict()
    except LoradarError as error:
        architecture = Architecture(_as_library(library), name)
        return {"architecture": architecture.to_dict(), "unscanned": error.message}


def _as_library(library: str) -> Library:
    return "timm" if library == "timm" else "transformers"


def _read(out: Path) -> Iterator[tuple[str, bool]]:
    """Yield (name, was scanned) of what an earlier run wrote; a line cut off in the middle is done again."""
    if not out.exists():
        return
    text = out.read_text("utf-8")
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        out.write_text(complete, "utf-8")
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            data = json.loads(line)
            yield data["architecture"]["name"], "unscanned" not in data
        except (ValueError, KeyError, TypeError):
            message = f"{out} line {number} is no catalog line. Give a new file, or remove it."
            raise InvalidRequest(message, file=str(out), line=number) from None
