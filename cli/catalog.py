"""``loradar catalog`` and ``crawl``: scan the installed libraries whole, and visit the repos of a hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer

from ..domain.vocabulary import describe_bytes
from ..errors import InvalidRequest
from .options import AsJson, keep_given
from .output import print_json, print_rows, write_file, writing

if TYPE_CHECKING:
    from ..catalog.entries import CatalogHeader
    from ..crawl import CrawlReport
    from ..discovery import Runner
    from ..registry import Release
    from ..sandbox import Bounds

RATE = 10.0
"""Requests per second: what the public hub allows without a token, 3,000 files in 5 minutes
(https://huggingface.co/docs/hub/rate-limits, read in November 2026)."""

Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Dask's scheduler, for --backend dask: tcp://host:8786.")
]

app = typer.Typer(name="catalog", help="Update the packaged scans.", no_args_is_help=True, callback=lambda: None)
PACKAGED = Path(str(resources.files("loradar.data")))
PAGES = Path("docs/releases")


Libraries = Annotated[
    list[str] | None, typer.Argument(metavar="LIBRARY", help="transformers, timm, diffusers; all if none.")
]
Base = Annotated[
    Path | None, typer.Option(help="Catalog to start from; by default that in data/catalog.", dir_okay=False)
]
Out = Annotated[
    Path | None, typer.Option(help="Folder for catalog/, versions/ and releases/; by default data/ is updated.")
]
Pages = Annotated[
    Path | None, typer.Option(help=f"Folder of the release pages; by default {PAGES}, or releases/ in --out.")
]


@app.command()
def update(
    libraries: Libraries = None,
    *,
    base: Base = None,
    out: Out = None,
    pages: Pages = None,
    force: Annotated[bool, typer.Option("--force", help="Scan and prove everything, as after a new scanner.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; one per core if not given.")] = None,
    seconds: Annotated[float, typer.Option(help="Time limit for one architecture.")] = 120.0,
    memory: Annotated[float, typer.Option(help="Memory limit of one worker, in GiB.")] = 3.0,
    backend: Annotated[str, typer.Option(help="local (processes), or dask.")] = "local",
    scheduler: Scheduler = None,
    as_json: AsJson = False,
) -> None:
    """Scan and prove what is new or changed in the installed version of a library, and carry over the rest."""
    from ..discovery import list_architectures, quiet_libraries
    from ..discovery.sources import LISTABLE
    from ..sandbox import Bounds

    quiet_libraries()
    named = [*dict.fromkeys(libraries or LISTABLE)]
    if base and len(named) != 1:
        message = f"--base is the catalog of one library, not of {len(named)}. Name it: loradar catalog update timm ..."
        raise InvalidRequest(message, base=str(base))
    for library in named:
        list_architectures(library)  # reports an unknown or missing library before anything else
    bounds = Bounds(seconds=seconds, memory=memory, **keep_given(workers=workers))
    places = Places(out or PACKAGED, pages or (out / "releases" if out else PAGES))
    reports = []
    for library in named:
        start = base or PACKAGED / "catalog" / f"{library}.jsonl"
        with _open_runner(bounds, backend, scheduler) as run:
            report = _update_library(library, start, places, run, force=force)
        reports.append(report)
        if not as_json:
            known = f" (from {report['base']})" if report["base"] else ""
            says = f"{report['scanned']} architectures scanned, {report['unscanned']} not, each with its reason"
            typer.echo(f"{library} {report['library_version']}{known}: {says}. Written: {', '.join(report['files'])}")
    if as_json:
        print_json(reports)


class Places(NamedTuple):
    """The folders that an update writes to."""

    data: Path
    pages: Path


@contextmanager
def _open_runner(bounds: "Bounds", backend: str, scheduler: str | None) -> "Iterator[Runner]":
    """Yield what runs scans: the sandbox of this process, or one beside each worker of a cluster."""
    from ..sandbox import Sandbox
    from ..sandbox.parallel import Workers

    if backend == "dask":
        with Workers("dask", scheduler=scheduler) as workers:
            yield cast("Runner", partial(workers.run_bounded, bounds=bounds))
        return
    if backend != "local" or scheduler:
        message = f"Unknown backend {backend!r}. " if backend != "local" else "A scheduler is for --backend dask. "
        message += "Give --backend dask --scheduler tcp://host:8786, or neither."
        raise InvalidRequest(message, backend=backend, scheduler=scheduler)
    with Sandbox(bounds, nice=0) as sandbox:
        yield sandbox.run_each


def _update_library(library: str, start: Path, places: Places, run: "Runner", *, force: bool) -> dict[str, Any]:
    """Update the catalog of one library, and return a report."""
    from ..catalog.entries import read_catalog
    from ..discovery import Compact, How, scan_library
    from ..domain.versions import parse_version
    from ..registry import Release, catalog_entry, catalog_header

    header, out = catalog_header(library), places.data / "catalog" / f"{library}.jsonl"
    base = read_catalog(start) if start.exists() else None
    is_older = base is not None and parse_version(header.library_version) < parse_version(base.header.library_version)
    if base and is_older and out == start:
        message = (
            f"{out} is of {library} {base.header.library_version}, newer than the installed {header.library_version}. "
            f"Install a newer one, or give --out FOLDER."
        )
        raise InvalidRequest(message, library=library, library_version=header.library_version)
    is_kept = base and not force and (base.header.loradar, base.header.peft) == (header.loradar, header.peft)
    written = [out]

    def accept(new: Path) -> None:
        catalog = read_catalog(new)
        if base and base.header.library_version != header.library_version:
            release = Release(catalog, base) if is_older else Release(base, catalog)
            written.extend(_write_changes(release, places, is_older=is_older))

    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    form = Compact(header, catalog_entry, base if is_kept else None, accept)
    counts = scan_library(library, out, run, how=How(proved=True), compact=form)
    written += _update_make_ups(header, places.data / "make_ups" / f"{library}.jsonl", run, force=force)
    return {
        "library": library,
        "library_version": header.library_version,
        "base": base.header.library_version if base else None,
        "scanned": counts[0],
        "unscanned": counts[1],
        "files": [*map(str, written)],
    }


def _update_make_ups(header: "CatalogHeader", file: Path, run: "Runner", *, force: bool) -> list[Path]:
    """Scan and prove the make-ups of composite types in ``data/make_ups.toml``; those of this version are kept."""
    from ..catalog.entries import catalog_lines, read_catalog
    from ..discovery import How, scan_each
    from ..registry import catalog_entry

    names = _list_make_ups(header.library)
    kept = read_catalog(file) if file.exists() and not force else None
    known = {each.architecture.name: each for each in kept.entries} if kept and kept.header == header else {}
    missing = [name for name in names if name not in known]
    found = dict(scan_each(header.library, missing, run, how=How(proved=True)))
    for name, reason in found.items():
        if isinstance(reason, str):
            typer.echo(f"{name} is not scanned: {reason}", err=True)
    entries = known | {name: catalog_entry(each) for name, each in found.items() if not isinstance(each, str)}
    if entries.keys() == known.keys() <= set(names):
        return []
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    lines = catalog_lines(header, (entries[name] for name in sorted(entries) if name in names))
    write_file(file, "".join(f"{line}\n" for line in lines))
    return [file]


def _list_make_ups(library: str) -> list[str]:
    """Return the names of the stated make-ups of a library's composite types."""
    from ..data import read_facts
    from ..domain.architectures import name_make_up

    stated = read_facts("make_ups.toml").get(library, {})
    chosen = [(name, {k: v for k, v in one.items() if k != "checkpoint"}) for name in stated for one in stated[name]]
    return [name_make_up(*each) for each in chosen]


def _write_changes(release: "Release", places: Places, *, is_older: bool) -> Iterator[Path]:
    """Write the differences between two versions, the page and the history of names, and yield the files."""
    from ..registry import compare_versions

    older, newer = release.older.header, release.newer.header
    versions = places.data / "versions"
    files = {
        versions / f"{older.library}-{older.library_version}.jsonl": compare_versions(release.older, release.newer)
    }
    files[places.pages / f"{newer.library}-{newer.library_version}.md"] = iter(release.page().splitlines())
    history = PACKAGED / "versions" / f"names-{older.library}.jsonl"
    if history.exists() and not is_older:
        files[versions / history.name] = iter(release.extend_history(history.read_text("utf-8").splitlines()))
    for file, text in files.items():
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, "".join(f"{line}\n" for line in text))
        yield file


def crawl(
    *,
    author: Annotated[str | None, typer.Option(help="Only repos of this user or organisation.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--filter", help="Only repos with this tag: peft, timm. Can be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Repos of the listing at most.")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try repos again that could not be read, though they did not change.")
    ] = False,
    rate: Annotated[float, typer.Option(help="Requests per second of all workers together.")] = RATE,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Repos read at once; 4, or the threads of the cluster, if not given.")
    ] = None,
    backend: Annotated[str, typer.Option(help="loky (processes), threads, or dask.")] = "loky",
    scheduler: Scheduler = None,
    as_json: AsJson = False,
) -> None:
    """Visit the repos of the hub at HF_ENDPOINT, and count structures and the targets of adapters.

    Only what is new or changed since the last crawl is read. To go on after an interruption, run the same command.
    """
    from ..crawl import CrawlQuery
    from ..crawl import crawl as walk
    from ..progress import showing
    from ..registry import Registry
    from ..sandbox.parallel import Workers

    query = CrawlQuery(author, tuple(tag or ()), limit, retry)
    with Registry.open() as registry, Workers(backend, concurrency, scheduler) as workers, showing("crawling") as show:

        def show_report(until_now: "CrawlReport") -> None:
            kinds = until_now.outcomes
            models, adapters = kinds["model"], kinds["adapter"]
            failed = kinds.total() - models - adapters
            text = f"{models:,} models, {adapters:,} adapters, {failed:,} not read"
            show(until_now.unchanged + until_now.left_out + kinds.total(), limit, text)

        report = walk(registry.crawls, query, workers, rate, show_report)
    if as_json:
        print_json(asdict(report))
    else:
        print_crawl(report)


def print_crawl(report: "CrawlReport") -> None:
    """Print the results of a crawl, and the causes why repos could not be read, the most frequent first."""
    from ..domain.crawls.crawled import CAUSES, TRANSIENT

    typer.echo(f"{report.endpoint} · {report.listed:,} repos listed")
    rows = [("unchanged", f"{report.unchanged:,} since the last crawl")] if report.unchanged else []
    rows += [("left out", f"{report.left_out:,}: private, or with an impossible name")] if report.left_out else []
    rows.append(("models", f"{report.outcomes['model']:,}, with {report.structures:,} new structures"))
    rows.append(("adapters", f"{report.outcomes['adapter']:,}"))
    causes = [(cause, count) for cause, count in report.outcomes.most_common() if cause in CAUSES]
    rows += (("not read", f"{count:,} {cause}: {CAUSES[cause]}") for cause, count in causes)
    rows.append(
        ("took", f"{report.seconds:,.1f} s, {report.requests:,} requests, {describe_bytes(report.transferred)}")
    )
    print_rows(rows)
    if any(cause in TRANSIENT for cause, _ in causes):
        typer.echo("  Some of these may work the next time: run the same command again.")
