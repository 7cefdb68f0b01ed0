"""``loradar scan``: one architecture, or every one of a library."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidRequest
from . import show

if TYPE_CHECKING:
    from ..records import Scan


def scan(
    reference: Annotated[str | None, typer.Argument(help="llama, timm:resnet50, torch:package.module:Class")] = None,
    *,
    store: Annotated[bool, typer.Option("--store", help="Keep the result in the registry.")] = False,
    method: Annotated[str, typer.Option(help="auto or names.")] = "auto",
    every: Annotated[str | None, typer.Option("--all", metavar="LIBRARY", help="Scan a whole library.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where --all writes: one JSON line per architecture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Scan an architecture nobody registered: its layers, roles, slots and the targets proposed for it."""
    if every is not None:
        _scan_all(every, out, store=store, as_json=as_json)
    elif reference is None:
        message = "Nothing to scan. Name an architecture (loradar scan olmo2) or a library (--all timm --out FILE)."
        raise InvalidRequest(message)
    else:
        _scan_one(reference, method, store=store, as_json=as_json)


def _scan_one(reference: str, method: str, *, store: bool, as_json: bool) -> None:
    from ..discovery import quiet_libraries
    from ..discovery import scan as scan_reference

    quiet_libraries()
    sys.path.append(os.getcwd())  # noqa: PTH109 - a path entry is a string; `torch:module:Class` may stand right here
    found = scan_reference(reference, method=method)
    if as_json:
        show.print_json(found.to_dict())
    else:
        show.print_scan(found)
    if store:
        _store(found, quietly=as_json)


def _store(found: "Scan", *, quietly: bool) -> None:
    from ..registry import Registry

    with Registry.open() as registry:
        report = registry.add_scan(found)
    if not quietly:
        kept = f"{len(report.added)} new revisions, {len(report.unchanged)} unchanged"
        typer.echo(f"\nStored: {kept}. Look it up with: loradar lookup {found.architecture.reference}")


def _scan_all(library: str, out: Path | None, *, store: bool, as_json: bool) -> None:
    if out is None or store:
        message = "--all writes to a file and nowhere else: loradar scan --all timm --out timm.jsonl"
        raise InvalidRequest(message, library=library)
    from ..discovery import quiet_libraries, scan_library

    quiet_libraries()
    scanned, failed = scan_library(library, out)
    if as_json:
        show.print_json({"file": str(out), "scanned": scanned, "unscanned": failed})
    else:
        typer.echo(f"{out}: {scanned} architectures scanned, {failed} not, each with its reason.")
