"""``loradar audit``: check stored mappings against the installed library."""

from collections import Counter
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidRequest, quoted
from .files import write_file
from .output import audit as show_audit
from .output import show

if TYPE_CHECKING:
    from ..domain.mappings import Mapping
    from ..registry import Registry

SOURCES = ("community", "peft", "scanner")


def audit(
    *,
    source: Annotated[str | None, typer.Option(help="Only mappings from peft, community or scanner.")] = None,
    library: Annotated[str, typer.Option(help="The library of the architectures.")] = "transformers",
    name: Annotated[list[str] | None, typer.Option(help="Only this architecture; may be repeated.")] = None,
    peft_type: Annotated[str | None, typer.Option(help="Only this PEFT method.")] = None,
    rescan: Annotated[bool, typer.Option("--rescan", help="Also scan what was verified at this version.")] = False,
    workers: Annotated[int | None, typer.Option(help="Number of scan processes; by default one per core.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report on PEFT's entries to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify stored mappings against the installed library, and store the results."""
    from ..discovery import How, list_architectures, quiet_libraries, scan_each
    from ..registry import Registry, peft_report
    from ..sandbox import Bounds, Sandbox

    if source not in (None, *SOURCES):
        message = f"Unknown source {source!r}. Sources: {quoted(SOURCES)}."
        raise InvalidRequest(message, source=source)
    if markdown and source != "peft":
        message = "--markdown reports on PEFT's entries. Run: loradar audit --source peft --markdown FILE"
        raise InvalidRequest(message, source=source)
    quiet_libraries()
    known = frozenset(list_architectures(library))
    with Registry.open() as registry:
        mappings = select(registry, library, source, name or (), peft_type)
        due = sorted({m.name for m in mappings if (rescan or m.verification is None) and m.name in known})
        bounds = Bounds() if workers is None else Bounds(workers)
        with Sandbox(bounds, nice=0) as sandbox:
            scans = scan_each(library, due, sandbox.run_each, how=How(proved=True)) if due else ()
            outcomes = registry.audit(mappings, scans, known)
    version = metadata.version(library)
    if markdown:
        write_file(markdown, peft_report(outcomes, library, version))
    about = {"library": library, "library_version": version, "source": source}
    if as_json:
        totals = dict(sorted(Counter(outcome.verdict for outcome in outcomes).items()))
        details = {"totals": totals, "outcomes": [outcome.to_dict() for outcome in outcomes]}
        show.print_json({**about, "scanned": due, **details})
    else:
        show_audit.print_audit(about, due, outcomes)


def select(
    registry: "Registry", library: str, source: Any, names: Collection[str], peft_type: str | None
) -> "tuple[Mapping, ...]":
    """Return the mappings to audit.

    Raises:
        InvalidRequest: If one of the names has no such mapping.
    """
    mappings = registry.list_mappings(library, source, metadata.version(library))
    selected = [m for m in mappings if (not names or m.name in names) and peft_type in (None, m.peft_type)]
    missing = sorted(set(names) - {mapping.name for mapping in selected})
    if missing:
        message = f"No such mapping is registered for: {quoted(missing)}. Scan one with: loradar scan NAME --store"
        raise InvalidRequest(message, names=missing)
    return tuple(selected)
