"""``loradar lookup``, ``list`` and ``similar``: look up targets, the names of a library, the nearest architectures."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..domain.vocabulary import PRESETS
from ..references import Reference, parse_parts
from ..schema import to_json
from .backend import read
from .options import AsJson, Blocks, Budget, ExpertRank, Parts, Rank, ReferenceText, Roles, Towers, Url
from .output import (
    describe_coverage,
    describe_formula,
    describe_ranks,
    describe_size,
    describe_spec,
    print_json,
    print_rows,
)

if TYPE_CHECKING:
    from ..domain.mappings import Mapping


def lookup(
    reference: ReferenceText,
    *,
    peft_type: Annotated[str, typer.Option(help="PEFT method: LORA, IA3, ...")] = "LORA",
    preset: Annotated[
        str | None, typer.Option(help="One of " + ", ".join(PRESETS) + "; LORADAR_PRESET or default if not given.")
    ] = None,
    library_version: Annotated[
        str | None, typer.Option(help="Version of the library; the newest one seen if not given.")
    ] = None,
    part: Parts = None,
    towers: Towers = None,
    roles: Roles = None,
    blocks: Blocks = None,
    rank: Rank = None,
    expert_rank: ExpertRank = None,
    budget: Budget = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Look up the default targets of an architecture."""
    given = {"towers": towers, "roles": roles, "blocks": blocks, "rank": rank}
    given |= {"expert_rank": expert_rank, "budget": budget}
    choice: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    parsed = Reference.parse(reference)
    query = (parsed.registered_name, peft_type, preset, parsed.scheme, library_version, parse_parts(part or ()))
    if url:
        from ..client import Client

        with Client(url) as client:
            mapping = client.targets(*query, **choice)
    else:
        from ..registry import lookup as look_up

        mapping = look_up(*query, **choice)
    if as_json:
        print_json(to_json(mapping))
    else:
        print_mapping(mapping)


def print_mapping(mapping: "Mapping") -> None:
    """Print one mapping with its source, verification and reasons."""
    source = f"{mapping.source.kind} {mapping.source.version}, revision {mapping.revision}"
    rows = [*describe_spec(mapping.spec), ("source", source)]
    check, versions = mapping.verification, mapping.versions
    verdict = f"{check.status} on {mapping.library} {check.library_version}" if check else "never checked"
    rows.append(("verified", verdict))
    rows += (("verified", finding) for finding in (check.findings if check else ()))
    if mapping.per_rank is not None:
        rows.append(("size", describe_size(mapping)))
    rows += describe_ranks(mapping)
    rows += describe_coverage(mapping.coverage)
    if versions:
        ends = versions.since if versions.since == versions.until else f"{versions.since} to {versions.until}"
        rows.append(("seen", f"{mapping.library} {ends}"))
    if mapping.recommended:
        sized = f"; it trains {describe_formula(mapping.recommended.formula)}" if mapping.recommended.formula else ""
        rows.append(("recommended", f"{mapping.recommended.text}{sized}"))
    rows += (("reason", reason) for reason in mapping.reasons)
    typer.echo(f"{mapping.library}:{mapping.name} · {mapping.peft_type} · {mapping.preset}")
    print_rows(rows)


def list_names(
    library: Annotated[str, typer.Argument(help="transformers, timm or diffusers")] = "transformers",
    *,
    as_json: AsJson = False,
) -> None:
    """List every architecture a library knows, scanned or not."""
    from ..discovery import list_architectures

    names = list_architectures(library)
    if as_json:
        print_json({"library": library, "names": names})
    else:
        typer.echo("\n".join(names))


def similar(
    reference: ReferenceText,
    *,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Architectures at most.")] = 10,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the architectures nearest to one by what their layers do, with the differences in words."""
    parsed = Reference.parse(reference)
    query = (parsed.scheme, parsed.registered_name, limit)
    neighbours = read(url, lambda client: client.similar(*query), lambda registry: registry.list_similar(*query))
    if as_json:
        print_json({"similar": [to_json(neighbour) for neighbour in neighbours]})
        return
    for neighbour in neighbours:
        more = f" and {len(neighbour.also)} more" if neighbour.also else ""
        typer.echo(f"{neighbour.similarity:4.0%}  {neighbour.architecture.reference}{more}")
        for difference in neighbour.differences or ("the same slots",):
            typer.echo(f"      {difference}")
