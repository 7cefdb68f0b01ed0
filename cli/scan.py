"""``loradar scan``: one architecture, or every one of a library."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..domain.schema import to_json
from ..errors import DatabaseUnusable, InvalidRequest
from .output import show

if TYPE_CHECKING:
    from ..domain.scans import Scan


def scan(
    reference: Annotated[str | None, typer.Argument(help="llama, timm:resnet50, torch:package.module:Class")] = None,
    *,
    store: Annotated[bool, typer.Option("--store", help="Keep the result in the registry.")] = False,
    method: Annotated[str, typer.Option(help="auto, dataflow or names.")] = "auto",
    prove: Annotated[
        bool,
        typer.Option("--prove", help="Try an adapter on every layer of a small real build, and leave out the dead."),
    ] = False,
    every: Annotated[str | None, typer.Option("--all", metavar="LIBRARY", help="Scan a whole library.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where --all writes: one JSON line per architecture.")] = None,
    compact: Annotated[bool, typer.Option("--compact", help="--all writes slots, not every layer.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes for --all; one per core if not given.")] = None,
    seconds: Annotated[float, typer.Option(help="Time --all gives to one architecture.")] = 120.0,
    memory: Annotated[float, typer.Option(help="GiB that --all gives to one worker.")] = 8.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Scan an architecture nobody registered: its layers, roles, slots and the targets proposed for it."""
    if every is not None:
        if out is None or store or reference is not None:
            message = "--all writes to a file and nowhere else: loradar scan --all timm --out timm.jsonl"
            raise InvalidRequest(message, library=every)
        bounds = {"seconds": seconds, "memory": memory, **({} if workers is None else {"workers": workers})}
        _scan_all(every, out, {"method": method, "proved": prove}, bounds, compact=compact, as_json=as_json)
    elif reference is None:
        message = "Nothing to scan. Name an architecture (loradar scan olmo2) or a library (--all timm --out FILE)."
        raise InvalidRequest(message)
    else:
        _scan_one(reference, {"method": method, "proved": prove}, store=store, as_json=as_json)


def _scan_one(reference: str, how: "dict[str, Any]", *, store: bool, as_json: bool) -> None:
    from ..discovery import quiet_libraries
    from ..discovery import scan as scan_reference

    quiet_libraries()
    sys.path.append(os.getcwd())  # noqa: PTH109 - a path entry is a string; `torch:module:Class` may stand right here
    found = scan_reference(reference, **how)
    if as_json:
        show.print_json(to_json(found))
    else:
        show.print_scan(found)
        _tell_alike(found)
    if store:
        _store(found, quietly=as_json)


def _tell_alike(found: "Scan") -> None:
    """Name what is registered and built the same, if this architecture itself is not."""
    from ..registry import Registry

    seen = found.architecture
    try:
        with Registry.open() as registry:
            if registry.find(seen.name, library=seen.library) is not None:
                return
            alike = registry.list_alike(seen)
    except DatabaseUnusable as error:
        typer.echo(f"\nThe registry is not asked: {error.message}", err=True)
        return
    for what, others in (
        ("the same names", [other.reference for other in alike if other.fingerprint == seen.fingerprint]),
        ("other names", [other.reference for other in alike if other.fingerprint != seen.fingerprint]),
    ):
        if others:
            more = f" and {len(others) - 1} more" if others[1:] else ""
            typer.echo(f"\nNot registered, but built like {others[0]}{more}: the same layers under {what}.")


def _store(found: "Scan", *, quietly: bool) -> None:
    from ..registry import Registry

    with Registry.open() as registry:
        report = registry.add_scan(found)
    if not quietly:
        known = f"{len(report.unchanged)} unchanged, {len(report.extended)} known from other versions"
        kept = f"{len(report.added)} new revisions, {known}"
        typer.echo(f"\nStored: {kept}. Look it up with: loradar lookup {found.architecture.reference}")


def _scan_all(
    library: str, out: Path, how: "dict[str, Any]", bounds: "dict[str, Any]", *, compact: bool, as_json: bool
) -> None:
    from ..discovery import Bounds, How, list_architectures, quiet_libraries, scan_library
    from ..registry import catalog_entry, catalog_header

    quiet_libraries()
    within = Bounds(**bounds)
    list_architectures(library)  # an unknown library, or one that is not installed, is told of first
    form = (catalog_header(library), catalog_entry) if compact else None
    scanned, failed = scan_library(library, out, how=How(**how), bounds=within, compact=form)
    if as_json:
        show.print_json({"file": str(out), "scanned": scanned, "unscanned": failed})
    else:
        typer.echo(f"{out}: {scanned} architectures scanned, {failed} not, each with its reason.")
