"""``loradar constants``: read PEFT's constants.py into the registry, and write a patch for it."""

import json
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..domain.architectures import split_make_up
from ..domain.vocabulary import list_some
from ..errors import ConstantsUnreadable, InvalidRequest, UnknownArchitecture, WorkerFailed
from ..schema import to_json
from .options import AsJson
from .output import print_json, write_file, writing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..registry import ExportOptions, ExportPlan, Patch

app = typer.Typer(name="constants", help="Exchange target tables with PEFT's constants.py.", no_args_is_help=True)
Version = Annotated[str | None, typer.Option(help="The peft version of the file.")]
Source = Annotated[Path | None, typer.Argument(metavar="PATH", help="A constants.py; by default the installed peft's.")]

LIBRARY = "transformers"

TRIALS = "loradar.adapters.peft_bridge.trial"
"""The module that tries entries on the installed PEFT, in a process of its own."""

SECONDS_PER_TRIAL = 120
"""Time limit for the tables of one architecture; the imports get the same time once."""


USAGE = "CSV has a model type and a count in each row; JSON is {type: count}, in a file that ends with .json."
"""The forms of a file of usage."""


@app.command("import")
def import_constants(path: Source = None, version: Version = None, *, as_json: AsJson = False) -> None:
    """Store the tables of PEFT's constants.py, which is parsed but never run."""
    from ..registry import Registry, read_constants

    constants = read_constants(path, version)
    with Registry.open() as registry:
        report = registry.add_constants(constants)
    if as_json:
        print_json({"version": constants.version, **to_json(report)})
    else:
        typer.echo(f"peft {constants.version}: {len(report.added)} new mappings, {len(report.unchanged)} unchanged.")


@app.command("facts")
def write_facts(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSON file to write.")],
    path: Source = None,
    version: Version = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Write the content of PEFT's constants.py as JSON, the form that seeds a registry."""
    from ..registry import read_constants, write_constants_json

    constants = read_constants(path, version)
    with writing(out):
        write_constants_json(constants, out)
    if as_json:
        print_json({"file": str(out), "version": constants.version})
    else:
        typer.echo(f"{out}: peft {constants.version}")


Against = Annotated[Path | None, typer.Option(help="The constants.py to add to; by default the installed peft's.")]
UsageFile = Annotated[
    Path | None, typer.Option(help="Model types and counts, such as a hub's downloads: CSV, or JSON ({type: count}).")
]
Tried = Annotated[
    bool, typer.Option("--try/--no-try", help="Leave out what the installed peft rejects: seconds per architecture.")
]
Imported = Annotated[
    bool | None,
    typer.Option("--import/--no-import", help="Import the result next to peft; default for the installed file."),
]


@app.command("export")
def export_constants(
    *,
    against: Against = None,
    out: Annotated[Path | None, typer.Option(help="Write the patched file here.")] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Print the diff as well when --out is given.")] = False,
    name: Annotated[list[str] | None, typer.Option(help="Only this architecture; may be repeated.")] = None,
    peft_type: Annotated[list[str] | None, typer.Option(help="Only this method's table; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of architectures, by name.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="The most used architectures alone; needs --usage.")] = None,
    usage: UsageFile = None,
    unproven: Annotated[bool, typer.Option("--include-unproven", help="Include mappings not proved live.")] = False,
    correct: Annotated[bool, typer.Option("--correct", help="Also correct entries that are known dead.")] = False,
    tried: Tried = True,
    path: Annotated[str | None, typer.Option(help="Path in the diff; by default PEFT's own.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Write the rows for PEFT's support matrix here.")] = None,
    beside: Imported = None,
    as_json: AsJson = False,
) -> None:
    """Print a patch that adds the proved mappings the file lacks, ready for `git apply`."""
    from ..domain.methods import get_method
    from ..registry import PEFT_PATH, ExportOptions

    methods = frozenset(get_method(method).name for method in peft_type or ())
    number, used = _read_usage(usage, top, limit)
    options = ExportOptions(frozenset(name or ()), methods, unproven, correct, number, used)
    diff_path = _check_diff_path(path or PEFT_PATH)
    patch, rows = _make_patch(against, options, tried=tried)
    imported = _check_imported(patch) if beside or (beside is None and against is None) else None
    if out:
        write_file(out, patch.after)
    if readme:
        write_file(readme, rows)
    if as_json:
        files = {"file": str(out) if out else None, "readme": rows, "imported": imported}
        print_json({**to_json(patch.plan), **files, "diff": patch.diff(diff_path).decode("utf-8", "replace")})
        return
    if diff or not out:
        typer.echo(patch.diff(diff_path), nl=False)
    _print_summary(patch, "" if readme else rows, imported=imported)


def _read_usage(file: Path | None, top: int | None, limit: int | None) -> tuple[int | None, dict[str, int]]:
    """Return the number of architectures and the use of each type, as a file states it: rows of one type are added up.

    Raises:
        InvalidRequest: If the options do not go together, or the file holds something else.
    """
    if (file is None) != (top is None):
        message = "--top needs --usage FILE: docs/registry/constants.md says where to get figures of use."
        raise InvalidRequest(message if file is None else "--usage needs --top N, the number of architectures to take.")
    if top and limit:
        message = f"--top {top} and --limit {limit} are both numbers of architectures. Give one of them."
        raise InvalidRequest(message, top=top, limit=limit)
    counts: dict[str, int] = defaultdict(int)
    for place, (name, count) in enumerate(_list_usage(file) if file else (), 1):
        if place == 1 and file and file.suffix != ".json" and not count.isdecimal():
            continue  # the names of the columns
        if not count.isdecimal():
            message = f"{str(file)!r} has no whole number at entry {place} ({list_some([name, count])}). {USAGE}"
            raise InvalidRequest(message, file=str(file), place=place)
        counts[name] += int(count)
    if file and not counts:
        raise InvalidRequest(f"{str(file)!r} names no model type. {USAGE}", file=str(file))
    return top or limit, dict(counts)


def _list_usage(file: Path) -> list[tuple[str, str]]:
    """Return the pairs of a CSV or JSON file as text, in its order.

    Raises:
        InvalidRequest: If it cannot be read as either.
    """
    import csv

    try:
        text = file.read_text("utf-8-sig")
        if file.suffix == ".json":
            return [(str(name), str(count)) for name, count in dict(json.loads(text)).items()]
        return [(name.strip(), count.strip()) for name, count in csv.reader(text.splitlines()) if name.strip()]
    except OSError as error:
        message = f"Cannot read {str(file)!r}: {error.strerror}. Give --usage a file of model types and counts."
        raise InvalidRequest(message, file=str(file)) from error
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise InvalidRequest(f"{str(file)!r} is no list of model types and counts. {USAGE}", file=str(file)) from error


def _check_diff_path(path: str) -> str:
    parts = path.split("/")
    if not path.isprintable() or any(part in ("", ".", "..") or part.split() != [part] for part in parts):
        message = f"A diff cannot name the path {path!r}. Give it from the root of the repository, without spaces."
        raise InvalidRequest(message, path=path)
    return path


def _make_patch(against: Path | None, options: "ExportOptions", *, tried: bool) -> "tuple[Patch, str]":
    """Return the file before and after the export, and the rows for the support matrix."""
    from ..registry import Registry, export_constants, installed_constants, read_source, support_rows

    file = against or installed_constants()
    source = read_source(file)
    with Registry.open() as registry:
        every = registry.list_architectures(LIBRARY)
        architectures = [each for each in every if not split_make_up(each.architecture.name)[1]]
        known = {summary.architecture.name for summary in architectures}
        for name in sorted(options.names - known):
            raise UnknownArchitecture(name, known, f"Scan it with: loradar scan {name} --store", library=LIBRARY)
        if not options.names:  # a type that is named is taken as it is
            asked = known.intersection(options.usage) if options.usage else known
            options = replace(options, unsuitable=_find_unsuitable(asked))
        patch = export_constants(source, registry.list_mappings(LIBRARY, names=options.names), options, str(file))
    if tried and patch.plan.added:
        if _are_installed("torch", "transformers", "peft"):
            patch = _without(patch, str(file), _try_entries(patch.plan))
        else:
            way_out = "that takes torch, transformers and peft. pip install 'loradar[scan,peft]'"
            typer.echo(f"Not tried on peft: {way_out}", err=True)
    return patch, support_rows(patch.plan, architectures)


def _find_unsuitable(names: "Collection[str]") -> dict[str, str]:
    """Return why one entry cannot serve a model type, for composites and for parts of other models.

    Without transformers nothing is known of it.
    """
    if not _are_installed("torch", "transformers"):
        return {}
    from ..discovery import quiet_libraries, why_not_exported

    quiet_libraries()
    reasons = ((name, why_not_exported(name)) for name in sorted(names))
    return {name: f"{reason}; its --name includes it" for name, reason in reasons if reason}


def _are_installed(*packages: str) -> bool:
    from importlib.util import find_spec

    return all(find_spec(package) is not None for package in packages)


def _check_imported(patch: "Patch") -> bool | None:
    """Import the file before and after next to peft and compare their tables.

    Returns:
        ``True``, or ``None`` if the file is unchanged or peft is not installed.

    Raises:
        ConstantsUnreadable: If a file cannot be imported, or its tables are not as parsed.
    """
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from ..registry import import_tables

    if patch.after == patch.before or find_spec("peft") is None:
        return None
    with TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("before.py", "after.py")]
        for path, source in zip(paths, (patch.before, patch.after), strict=True):
            path.write_bytes(source)
        before, after = import_tables(*paths)
    differing = patch.differing(before, after)
    if differing:
        message = f"The imported tables are not as planned: {differing[0]}. Nothing was written."
        raise ConstantsUnreadable(message, differing=differing)
    return True


def _print_summary(patch: "Patch", rows: str, *, imported: bool | None) -> None:
    """Print the contents of a patch to standard error, since standard output is the patch itself."""
    plan = patch.plan
    if patch.after == patch.before:
        typer.echo("Nothing to add: the file has every entry that can be exported.", err=True)
    else:
        checked = "and imported beside peft" if imported else "not imported"
        counted = f"Entries added: {len(plan.added)}, corrected: {len(plan.corrected)}"
        typer.echo(f"{counted}, architectures: {len(plan.names)}. Read back, {checked}.", err=True)
    reasons: dict[str, set[str]] = {}
    for left in plan.left_out:
        reasons.setdefault(left.reason, set()).add(left.name)
    for reason, names in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0])):
        typer.echo(f"Left out: {list_some(sorted(names))}: {reason}.", err=True)
    if rows:
        typer.echo(f"\nRows for PEFT's support matrix:\n\n{rows}", err=True, nl=False)


def _without(patch: "Patch", path: str, reasons: "Mapping[tuple[str, str], str]") -> "Patch":
    """Return a patch without the new entries that have a reason, by name and method; the plan lists them."""
    from ..registry import LeftOut, apply_plan

    if not reasons:
        return patch
    plan = patch.plan
    keyed = [(export, reasons.get((export.name, export.mapping.peft_type))) for export in plan.added]
    kept = tuple(export for export, reason in keyed if reason is None)
    left_out = {(e.table, e.name): LeftOut(e.table, e.name, reason) for e, reason in keyed if reason}
    return apply_plan(patch.before, replace(plan, added=kept, left_out=(*plan.left_out, *left_out.values())), path)


def _try_entries(plan: "ExportPlan") -> dict[tuple[str, str], str]:
    """Return why the installed PEFT rejects new entries, by name and method: one trial for each of these.

    Raises:
        WorkerFailed: If the process that tries the entries fails.
    """
    import subprocess

    trials: dict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: {"tables": {}})
    for export in plan.added:
        name, peft_type = export.name, export.mapping.peft_type
        trials[name, peft_type] |= {"name": name, "peft_type": peft_type, "matched": export.mapping.matched}
        trials[name, peft_type]["tables"][export.table] = export.targets
    # -P: files in the working folder must not shadow packages.
    command = [sys.executable, "-P", "-m", TRIALS]
    data = json.dumps([trials[key] for key in sorted(trials)])
    seconds = SECONDS_PER_TRIAL * (1 + len(plan.names))
    try:
        done = subprocess.run(  # noqa: S603 - ours
            command, input=data, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        fewer = "Use --name, --limit or --top for fewer, or --no-try."
        message = f"Timed out after {seconds} s trying {len(trials)} entries on peft. {fewer}"
        raise WorkerFailed(message, seconds=seconds) from None
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    if done.returncode or len(results) != len(trials):
        cause = (done.stderr.strip().splitlines() or ["no output"])[-1]
        message = f"Trying the entries on peft failed after {len(results)} of {len(trials)}: {cause}."
        raise WorkerFailed(message, cause=cause)
    return {(found["name"], found["peft_type"]): found["reason"] for found in results if found["reason"]}
