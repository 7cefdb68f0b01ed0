"""``loradar lookup``, ``list``, ``search`` and ``similar``: look up targets, names, and the nearest architectures."""

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ..domain.vocabulary import Library
from ..errors import InvalidReference, InvalidRequest, LoradarError, NotRegistered, UnknownLibrary, quoted
from ..references import Reference, parse_parts
from ..schema import to_json
from .backend import read
from .options import (
    AsJson,
    Blocks,
    Budget,
    ExpertRank,
    Parts,
    PeftType,
    Preset,
    Rank,
    ReferenceText,
    ReferenceTexts,
    Roles,
    Servable,
    Towers,
    Url,
    keep_given,
    spell_out,
)
from .output import (
    describe_config,
    describe_coverage,
    describe_formula,
    describe_ranks,
    describe_served,
    describe_size,
    describe_spec,
    describe_understood,
    print_json,
    print_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..domain.mappings import Mapping
    from ..references.resolver import Candidate
    from .output import Row

LIBRARIES: tuple[str, ...] = get_args(Library)
MOST_NAMES = 20
"""Names that contain a text, or have a layer of that name, printed at most."""
MOST_RESULTS = 100
"""Results of a service's search at most; those of the local registry are ``EVERY`` one."""
EVERY = 10_000


def lookup(
    references: ReferenceTexts,
    *,
    peft_type: PeftType = "LORA",
    preset: Preset = None,
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
    servable: Servable = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Look up the default targets of architectures, in any spelling: llama, LlamaForCausalLM, Qwen/Qwen3-8B, sdxl."""
    choice = keep_given(towers=towers, roles=roles, blocks=blocks, rank=rank, expert_rank=expert_rank)
    choice |= keep_given(budget=budget, servable=servable)
    query = (peft_type, preset, None, library_version, parse_parts(part or ()))
    with ExitStack() as stack:
        look_up = _open_lookup(url, stack)
        if len(references) == 1:
            mapping = look_up(references[0], *query, **choice)
            print_json(to_json(mapping)) if as_json else print_mapping(mapping)
            return
        found = [(reference, _try(look_up, reference, *query, **choice)) for reference in references]
    _print_many(found, as_json=as_json)


def _print_many(found: "list[tuple[str, Mapping | LoradarError]]", *, as_json: bool) -> None:
    """Print the answers to several references; the first error sets the exit code."""
    if as_json:
        print_json({"answers": [one.to_dict() if isinstance(one, LoradarError) else to_json(one) for _, one in found]})
    else:
        print_mappings(found)
    failed = next((one for _, one in found if isinstance(one, LoradarError)), None)
    if failed:
        raise typer.Exit(failed.exit_code)


def _open_lookup(url: str | None, stack: ExitStack) -> "Callable[..., Mapping]":
    """Return the lookup of a service, or of the registry here."""
    if url:
        from ..client import Client

        return stack.enter_context(Client(url)).targets
    from ..lookups import lookup as look_up

    return look_up


def _try(look_up: "Callable[..., Mapping]", *query: Any, **choice: Any) -> "Mapping | LoradarError":
    try:
        return look_up(*query, **choice)
    except LoradarError as error:
        return error


def print_mapping(mapping: "Mapping") -> None:
    """Print one mapping with its source, verification and reasons, and a configuration to paste."""
    source = f"{mapping.source.kind} {mapping.source.version}, revision {mapping.revision}"
    understood = describe_understood(mapping.understood)
    rows = [*([("understood", understood)] if understood else []), *describe_spec(mapping.spec), ("source", source)]
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
    rows += describe_served(mapping.served)
    rows += (("paste", line) for line in describe_config(mapping))
    typer.echo(f"{mapping.library}:{mapping.name} · {mapping.peft_type} · {mapping.preset}")
    print_rows(rows)


def print_mappings(found: "Iterable[tuple[str, Mapping | LoradarError]]") -> None:
    """Print a row per reference: its meaning, the targets and the size; then lines to paste."""
    rows, pasted = [("reference", "architecture", "targets", "trains")], []
    for reference, one in found:
        if isinstance(one, LoradarError):
            rows.append((reference, "-", one.message, ""))
            continue
        understood = describe_understood(one.understood)
        guess = " (guess)" if one.understood and one.understood.is_guess else ""
        targets = ", ".join(one.spec.list_targets())
        rows.append(
            (reference, f"{one.library}:{one.name}{guess}", targets, describe_size(one).removeprefix("trains "))
        )
        pasted += [f"{reference}: {understood}"] if understood else []
        pasted += [f"{line}  # {reference}" for line in describe_config(one)]
    widths = [max(len(row[column]) for row in rows if row[1] != "-") for column in range(3)]
    for row in rows:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, (*widths, 0), strict=True)).rstrip())
    typer.echo("")
    typer.echo("\n".join(pasted))


def _check_library(library: str | None) -> None:
    if library is not None and library not in LIBRARIES:
        raise UnknownLibrary(library, LIBRARIES, f"Libraries: {quoted(LIBRARIES)}.")


def list_names(
    library: Annotated[
        str, typer.Argument(metavar="LIBRARY", help="transformers, timm, diffusers or torch")
    ] = "transformers",
    *,
    installed: Annotated[
        bool, typer.Option("--installed", help="Names of the installed library, registered or not; needs it.")
    ] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the architectures of a library in the registry."""
    _check_library(library)
    if installed and url:
        raise InvalidRequest("--installed lists a library on this machine, and --url asks a service: give one of them.")
    if installed:
        from ..discovery import list_architectures

        names = list_architectures(library)
    else:
        found = read(url, lambda client: client.architectures(library), lambda own: own.list_architectures(library))
        names = [one.architecture.name for one in found]
    if as_json:
        print_json({"library": library, "names": names})
    else:
        typer.echo("".join(f"{name}\n" for name in names), nl=False)


def search(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="A name in any spelling or a part of one, a layer's name or an error")
    ],
    *,
    library: Annotated[str | None, typer.Option(help="Only architectures of this library.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Search the registry: the meanings of a text, best first and with the reason, then names that contain it.

    What is no name is searched as the name of a layer (``Wqkv``), or as the message of an error.
    """
    from ..references.resolver import resolve

    _check_library(library)
    found = read(
        url, lambda client: client.architectures(library, text), lambda own: own.list_architectures(library, text)
    )
    names = [one.architecture.reference for one in found]
    candidates: Sequence[Candidate] = ()
    with suppress(InvalidReference):  # such as the message of an error
        candidates = resolve(text, library, names)
    likely = {one.reference for one in candidates}
    others = [name for name in names if name not in likely]
    said, more = "", len(others) - MOST_NAMES
    holding: list[Row] = []
    if not others and all(one.is_guess for one in candidates):
        said, holding, more = _search_layers(url, text, library)
    if not (candidates or others or holding):
        message = said or f"No architecture, class, checkpoint, nickname or layer is like {text!r}."
        raise NotRegistered(text, (), f"{message} List what is known with: loradar list", command="loradar list")
    if as_json:
        layers = [{"reference": name, "because": because} for name, because in holding]
        print_json({"candidates": [*map(_to_json, candidates)], "containing": others, "layers": layers})
        return
    typer.echo(said, nl=bool(said))
    print_rows([(one.reference, one.explain()) for one in candidates])
    print_rows([(name, f"contains {text!r}") for name in others[:MOST_NAMES]] or holding[:MOST_NAMES])
    if more > 0:
        typer.echo(f"  and {more:,} more")


def _search_layers(url: str | None, text: str, library: str | None) -> tuple[str, "list[Row]", int]:
    """Return the meaning of an error, architectures with a layer or in the error, and how many more are not printed."""
    answer = read(url, lambda client: client.search(text, MOST_RESULTS), lambda own: own.browsing.search(text, EVERY))
    sure = [one for one in answer.results if not one.is_guess and library in {None, one.library}]
    rows: list[Row] = [(f"{one.library}:{one.name}", one.because) for one in sure]
    return answer.says, rows, answer.total - len(answer.results) + len(rows) - MOST_NAMES


def _to_json(candidate: "Candidate") -> dict[str, Any]:
    return {
        "reference": candidate.reference,
        "how": candidate.how,
        "because": candidate.because,
        "is_guess": candidate.is_guess,
        "tag": candidate.tag,
    }


def usage(reference: ReferenceText, *, url: Url = None, as_json: AsJson = False) -> None:
    """Count the repos of crawled hubs that use an architecture, by structure and by the targets of their adapters."""
    parsed = Reference.parse(spell_out(reference))
    query: tuple[Any, str] = (parsed.scheme, parsed.registered_name)
    found = read(url, lambda client: client.usage(*query), lambda registry: registry.crawls.get_usage(*query))
    if as_json:
        print_json(to_json(found))
        return
    typer.echo(f"{parsed.scheme}:{parsed.registered_name} · {found.repos:,} repos · {found.adapters:,} adapters")
    if not found.crawled:
        typer.echo("  No hub was crawled yet: loradar crawl")
    rows = []
    for one in found.structures:
        rows.append(("structure", f"{one.digest[:15]} {one.class_name or '-'}: {one.repos:,} repos"))
        rows.append(("", f"{len(one.layers)} kinds of weights; {', '.join(one.examples)}"))
    for chosen in found.targets:
        named = ", ".join(chosen.targets) or "not stated"
        rows.append(("targets", f"{named} ({chosen.peft_type}): {chosen.adapters:,} adapters"))
        rows.append(("", ", ".join(chosen.examples)))
    print_rows(rows)


def similar(
    reference: ReferenceText,
    *,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Architectures at most.")] = 10,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the architectures nearest to one by what their layers do, with the differences in words."""
    parsed = Reference.parse(spell_out(reference))
    query = (parsed.scheme, parsed.registered_name, limit)
    neighbours = read(url, lambda client: client.similar(*query), lambda registry: registry.list_similar(*query))
    if as_json:
        print_json({"similar": [to_json(neighbour) for neighbour in neighbours]})
        return
    rows = []
    for neighbour in neighbours:
        more = f" and {len(neighbour.also)} more" if neighbour.also else ""
        rows.append((f"{neighbour.similarity:4.0%}", f"{neighbour.architecture.reference}{more}"))
        rows += [("", difference) for difference in neighbour.differences or ("the same slots",)]
    print_rows(rows)
