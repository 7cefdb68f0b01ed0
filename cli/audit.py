"""``loradar audit``: every stored mapping against the installed library."""

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
    from collections.abc import Sequence

    from ..domain.mappings import Mapping
    from ..registry import Outcome, Registry

SOURCES = ("community", "peft", "scanner")


def audit(
    *,
    source: Annotated[str | None, typer.Option(help="Only mappings from peft, community or scanner.")] = None,
    library: Annotated[str, typer.Option(help="Whose architectures.")] = "transformers",
    name: Annotated[list[str] | None, typer.Option(help="Only this architecture; may be given again.")] = None,
    peft_type: Annotated[str | None, typer.Option(help="Only this PEFT method.")] = None,
    rescan: Annotated[bool, typer.Option("--rescan", help="Scan also what was checked at this version.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that scan; one per core if not given.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write PEFT's entries as a report, to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check stored mappings against the installed library, and store how each one fares."""
    from ..discovery import Bounds, How, list_architectures, quiet_libraries, scan_each
    from ..registry import Registry

    _check(source, markdown)
    quiet_libraries()
    known = frozenset(list_architectures(library))
    with Registry.open() as registry:
        mappings = select(registry, library, source, name or (), peft_type)
        due = sorted({m.name for m in mappings if (rescan or m.verification is None) and m.name in known})
        bounds = Bounds() if workers is None else Bounds(workers)
        outcomes = registry.audit(mappings, scan_each(library, due, how=How(proved=True), bounds=bounds), known)
    if markdown:
        _write_report(markdown, outcomes, library)
    about = {"library": library, "library_version": metadata.version(library), "source": source}
    if as_json:
        show.print_json({**about, "scanned": due, **_to_dict(outcomes)})
    else:
        show_audit.print_audit(about, due, outcomes)


def _check(source: str | None, markdown: Path | None) -> None:
    if source not in (None, *SOURCES):
        message = f"There is no source {source!r}. Sources: {quoted(SOURCES)}."
        raise InvalidRequest(message, source=source)
    if markdown and source != "peft":
        message = "A report is made of PEFT's entries: loradar audit --source peft --markdown FILE"
        raise InvalidRequest(message, source=source)


def select(
    registry: "Registry", library: str, source: Any, names: Collection[str], peft_type: str | None
) -> "tuple[Mapping, ...]":
    """Return what is to be audited.

    Raises:
        InvalidRequest: If there is nothing of one of the names.
    """
    found = registry.list_mappings(library, source, metadata.version(library))
    wanted = [m for m in found if (not names or m.name in names) and peft_type in (None, m.peft_type)]
    missing = sorted(set(names) - {mapping.name for mapping in wanted})
    if missing:
        message = f"No such mapping is registered for: {quoted(missing)}. Scan one with: loradar scan NAME --store"
        raise InvalidRequest(message, names=missing)
    return tuple(wanted)


def _write_report(path: Path, outcomes: "Sequence[Outcome]", library: str) -> None:
    from ..registry import peft_report

    write_file(path, peft_report(outcomes, library, metadata.version(library)))


def _to_dict(outcomes: "Sequence[Outcome]") -> dict[str, Any]:
    totals = Counter(outcome.verdict for outcome in outcomes)
    return {"totals": dict(sorted(totals.items())), "outcomes": [outcome.to_dict() for outcome in outcomes]}
