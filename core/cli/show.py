"""What commands print: JSON for programs, tables for people."""

import json
from typing import TYPE_CHECKING, Any

import typer

from ..mappings import Mapping
from ..records import Scan
from ..targets import TargetSpec

if TYPE_CHECKING:
    from rich.table import Table


def print_json(data: Any) -> None:
    """Print one JSON document, indented."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(table: "Table") -> None:
    """Print a rich table to standard output."""
    from rich.console import Console

    Console(soft_wrap=True).print(table)


def describe_spec(spec: TargetSpec) -> list[tuple[str, str]]:
    """Return (field, value) rows of the fields a spec sets."""
    rows = ((name, value) for name, value in spec.to_dict().items() if value)
    return [(name, value if isinstance(value, str) else ", ".join(value)) for name, value in rows]


def print_mapping(mapping: Mapping) -> None:
    """Print one mapping with its source, verification and reasons."""
    rows = [
        *describe_spec(mapping.spec),
        ("source", f"{mapping.source.kind} {mapping.source.version}, revision {mapping.revision}"),
        *(("verified", line) for line in _describe_verification(mapping)),
        *(("seen", line) for line in _describe_versions(mapping)),
        *(("reason", reason) for reason in mapping.reasons),
    ]
    typer.echo(f"{mapping.library}:{mapping.name} · {mapping.peft_type} · {mapping.preset}")
    _print_rows(rows)


def _describe_verification(mapping: Mapping) -> list[str]:
    """Return the verdict, and what each target hits if the verdict is bad."""
    check = mapping.verification
    if check is None:
        return ["never checked"]
    lines = [f"{check.status} on {mapping.library} {check.library_version}"]
    for target, kinds in check.counts.items() if check.status in ("partial", "dead") else ():
        hit = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"
        lines.append(f"{target} hits {hit}")
    return lines


def _describe_versions(mapping: Mapping) -> list[str]:
    """Return the versions it was seen to hold for, if it came from scans."""
    versions = mapping.versions
    if versions is None:
        return []
    ends = versions.since if versions.since == versions.until else f"{versions.since} to {versions.until}"
    return [f"{mapping.library} {ends}"]


def print_scan(scan: Scan) -> None:
    """Print what a scan found: towers, slots that carry adapters, and every proposal with its reasons."""
    from rich.table import Table

    by = (
        scan.method
        if scan.method == "names" or not scan.untraced
        else f"{scan.method}, {' and '.join(scan.untraced)} by names"
    )
    typer.echo(f"{scan.architecture.reference} · {scan.architecture.class_name} · by {by}")
    _print_rows([(tower, ", ".join(p or "(root)" for p in paths)) for tower, paths in scan.towers.items() if paths])
    _print_rows([("bypassed", f"{s.count} {s.pattern}: read at {s.bypassed}") for s in scan.slots if s.bypassed])
    slots = Table("role", "layers", "kind", "tower", "layout", title="Slots", title_justify="left")
    slots.add_column("pattern", overflow="fold")
    for slot in scan.slots:
        if slot.role != "norm":
            slots.add_row(slot.role, str(slot.count), slot.kind, slot.tower, slot.layout or "", slot.pattern)
    print_table(slots)
    for proposal in scan.proposals:
        typer.echo(
            f"\n{proposal.peft_type} {proposal.preset}: {proposal.matched} layers, r=8 trains {proposal.trainable:,}"
        )
        _print_rows([*describe_spec(proposal.spec), *(("reason", reason) for reason in proposal.reasons)])


def _print_rows(rows: list[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    previous = ""
    for name, value in rows:
        typer.echo(f"  {'' if name == previous else name:<{width}}  {value}")
        previous = name
