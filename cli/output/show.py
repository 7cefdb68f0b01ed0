"""Print results: JSON for programs, rows and tables for people."""

import json
from typing import TYPE_CHECKING, Any

import typer

from ...domain.layers import Coverage, Slot
from ...domain.mappings import Mapping
from ...domain.scans import Proposal, Scan
from ...domain.targets import TargetSpec
from ...schema import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from ...domain.mappings import Neighbour


LIVENESS = {True: "live", False: "dead", None: "unproven"}
"""Names of the values of ``Slot.live``."""


def print_json(data: Any) -> None:
    """Print one JSON document, indented."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(table: "Table") -> None:
    """Print a rich table to standard output."""
    from rich.console import Console

    Console(soft_wrap=True).print(table)


def describe_spec(spec: TargetSpec) -> list[tuple[str, str]]:
    """Return (field, value) rows of the fields a spec sets."""
    rows = ((name, value) for name, value in to_json(spec).items() if value)
    return [(name, value if isinstance(value, str) else ", ".join(value)) for name, value in rows]


def print_mapping(mapping: Mapping) -> None:
    """Print one mapping with its source, verification and reasons."""
    source = f"{mapping.source.kind} {mapping.source.version}, revision {mapping.revision}"
    rows = [*describe_spec(mapping.spec), ("source", source)]
    check, versions = mapping.verification, mapping.versions
    verdict = f"{check.status} on {mapping.library} {check.library_version}" if check else "never checked"
    rows.append(("verified", verdict))
    rows += (("verified", finding) for finding in (check.findings if check else ()))
    if mapping.per_rank is not None:
        rows.append(("size", _describe_size(mapping)))
    rows += (("covers", line) for line in _describe_coverage(mapping.coverage))
    if versions:
        ends = versions.since if versions.since == versions.until else f"{versions.since} to {versions.until}"
        rows.append(("seen", f"{mapping.library} {ends}"))
    rows += (("reason", reason) for reason in mapping.reasons)
    typer.echo(f"{mapping.library}:{mapping.name} · {mapping.peft_type} · {mapping.preset}")
    print_rows(rows)


def print_similar(neighbours: "Iterable[Neighbour]") -> None:
    """Print the nearest architectures, each with its differences."""
    for neighbour in neighbours:
        more = f" and {len(neighbour.also)} more" if neighbour.also else ""
        typer.echo(f"{neighbour.similarity:4.0%}  {neighbour.architecture.reference}{more}")
        for difference in neighbour.differences or ("the same slots",):
            typer.echo(f"      {difference}")


def print_scan(scan: Scan) -> None:
    """Print the towers, slots and proposals of a scan, each proposal with its reasons."""
    by = scan.method
    if scan.method != "names" and scan.untraced:
        by = f"{scan.method}, {' and '.join(scan.untraced)} by names"
    typer.echo(f"{scan.architecture.reference} · {scan.architecture.class_name} · by {by}")
    print_rows([(tower, ", ".join(p or "(root)" for p in paths)) for tower, paths in scan.towers.items() if paths])
    print_rows([("proof", scan.proof)] if scan.proof else [])
    for describe in (_describe_bypass, _describe_kernel, _describe_proof):
        print_rows([row for slot in scan.slots if (row := describe(slot))])
    _print_slots(scan.slots)
    for proposal in scan.proposals:
        typer.echo(
            f"\n{proposal.peft_type} {proposal.preset}: {proposal.matched} layers, {_describe_size(proposal)}, "
            f"{proposal.reached:.1%} of the blocks"
        )
        covered = [("covers", line) for line in _describe_coverage(proposal.coverage)]
        print_rows([*describe_spec(proposal.spec), *covered, *(("reason", reason) for reason in proposal.reasons)])


def _describe_bypass(slot: Slot) -> tuple[str, str] | None:
    return ("bypassed", f"{slot.count} {slot.pattern}: read at {slot.bypassed}") if slot.bypassed else None


def _describe_kernel(slot: Slot) -> tuple[str, str] | None:
    is_news = slot.kernel and not slot.bypassed
    return ("kernel", f"{slot.count} {slot.pattern}: {slot.kernel}") if is_news else None


def _describe_proof(slot: Slot) -> tuple[str, str] | None:
    is_news = slot.proof and not slot.bypassed
    return (LIVENESS[slot.live], f"{slot.count} {slot.pattern}: {slot.proof}") if is_news else None


def _print_slots(slots: "Iterable[Slot]") -> None:
    """Print a table of slots without the norms."""
    from rich.table import Table

    table = Table("role", "layers", "kind", "tower", "layout", title="Slots", title_justify="left")
    table.add_column("pattern", overflow="fold")
    for slot in slots:
        if slot.role != "norm":
            table.add_row(slot.role, str(slot.count), slot.kind, slot.tower, slot.layout or "", slot.pattern)
    print_table(table)


def _describe_size(sized: "Proposal | Mapping") -> str:
    """Return the formula of the parameters trained: ``r x 524,288``."""
    if sized.per_rank is None or sized.fixed is None:
        return "size unknown"
    parts = [f"r x {sized.per_rank:,}"] * bool(sized.per_rank) + [f"{sized.fixed:,}"] * bool(sized.fixed)
    return f"trains {' + '.join(parts) or 0}"


def _describe_coverage(coverage: tuple[Coverage, ...]) -> list[str]:
    """Return a line per kind of block, if the mapping misses layers of any."""
    is_partial = any(kind.hit < kind.of for kind in coverage)
    return [f"{kind.hit} of {kind.of} {kind.block}" for kind in coverage] if is_partial else []


def print_rows(rows: list[tuple[str, str]]) -> None:
    """Print (name, value) rows; a repeated name is left blank."""
    width = max((len(name) for name, _ in rows), default=0)
    previous = ""
    for name, value in rows:
        typer.echo(f"  {'' if name == previous else name:<{width}}  {value}")
        previous = name
