"""``loradar constants``: PEFT's constants.py, read into the registry and written from it."""

import json
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConstantsUnreadable, InvalidRequest, UnknownArchitecture, WorkerFailed
from ..extras import require
from .files import write_file, writing
from .output import show

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..registry import Patch, Registry, Wish

app = typer.Typer(name="constants", help="Exchange target tables with PEFT's constants.py.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Version = Annotated[str | None, typer.Option(help="The peft version the file is from.")]
Source = Annotated[Path | None, typer.Argument(help="A constants.py; without it, the installed peft's.")]

LIBRARY = "transformers"
NAMED_AT_MOST = 3
"""How many architectures a reason names before it only counts the rest."""


@app.command("import")
def import_constants(path: Source = None, version: Version = None, *, as_json: AsJson = False) -> None:
    """Store the tables of PEFT's constants.py, which is read but never run."""
    from ..registry import Registry, read_constants

    constants = read_constants(path, version)
    with Registry.open() as registry:
        report = registry.add_constants(constants)
    if as_json:
        show.print_json({"version": constants.version, **report.to_dict()})
    else:
        typer.echo(f"peft {constants.version}: {len(report.added)} new mappings, {len(report.unchanged)} unchanged.")


@app.command("facts")
def write_facts(
    out: Annotated[Path, typer.Argument(help="JSON file to write.")],
    path: Source = None,
    version: Version = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Write the facts of PEFT's constants.py as JSON, the form that seeds a registry."""
    from ..registry import read_constants, write_constants_json

    constants = read_constants(path, version)
    with writing(out):
        write_constants_json(constants, out)
    if as_json:
        show.print_json({"file": str(out), "version": constants.version})
    else:
        typer.echo(f"{out}: peft {constants.version}")


@app.command("export")
def export_constants(
    *,
    against: Annotated[
        Path | None, typer.Option(help="The constants.py to add to; the installed peft's if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the patched file here.")] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Print the diff beside --out, too.")] = False,
    name: Annotated[list[str] | None, typer.Option(help="Only this architecture; may be given again.")] = None,
    peft_type: Annotated[list[str] | None, typer.Option(help="Only this method's table; may be given again.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many architectures.")] = None,
    unproven: Annotated[bool, typer.Option("--include-unproven", help="Also what nobody saw train.")] = False,
    correct: Annotated[bool, typer.Option("--correct", help="Correct entries that are known dead, too.")] = False,
    tried: Annotated[
        bool, typer.Option("--try", help="Leave out what the installed peft refuses; takes seconds per architecture.")
    ] = False,
    path: Annotated[str | None, typer.Option(help="Path in the diff; PEFT's own if not given.")] = None,
    readme: Annotated[Path | None, typer.Option(help="Write the rows for PEFT's support matrix here.")] = None,
    beside: Annotated[
        bool | None,
        typer.Option("--import/--no-import", help="Import the result beside peft; done for the installed peft's file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a patch that adds what the registry has proved and the file lacks, ready for `git apply`."""
    from ..registry import PEFT_PATH, Wish

    methods = frozenset(map(_method, peft_type or ()))
    wish = Wish(frozenset(name or ()), methods, unproven, correct, limit)
    shown = _checked(path or PEFT_PATH)
    patch, rows = _patched(against, wish, tried=tried)
    wants_import = beside if beside is not None else against is None
    imported = _import(patch) if wants_import and patch.after != patch.before else None
    if out:
        write_file(out, patch.after)
    if readme:
        write_file(readme, rows)
    if as_json:
        files = {"file": str(out) if out else None, "readme": rows, "imported": imported}
        show.print_json({**_to_dict(patch), **files, "diff": patch.diff(shown).decode("utf-8", "replace")})
        return
    if diff or not out:
        typer.echo(patch.diff(shown), nl=False)
    _tell(patch, "" if readme else rows, "and imported beside peft" if imported else "not imported")


def _method(peft_type: str) -> str:
    from ..domain.methods import get_method

    return get_method(peft_type).name


def _checked(path: str) -> str:
    parts = path.split("/")
    if not path.isprintable() or any(part in ("", ".", "..") or part.split() != [part] for part in parts):
        message = f"A diff cannot name the path {path!r}. Give it from the root of the repository, without spaces."
        raise InvalidRequest(message, path=path)
    return path


def _patched(against: Path | None, wish: "Wish", *, tried: bool) -> "tuple[Patch, str]":
    """Return the file before and after, and the rows for the support matrix."""
    from ..registry import Registry, export_constants, installed_constants, read_source, support_rows

    file = against or installed_constants()
    source = read_source(file)
    with Registry.open() as registry:
        _check_names(registry, wish.names)
        patch = export_constants(source, registry.list_mappings(LIBRARY), wish, str(file))
        if tried:
            patch = without_refused(patch, str(file))
        return patch, support_rows(patch.plan, registry.list_architectures(LIBRARY))


def _check_names(registry: "Registry", names: "Collection[str]") -> None:
    known = {found.architecture.name for found in registry.list_architectures(LIBRARY)} if names else set()
    for name in sorted(names):
        if name not in known:
            raise UnknownArchitecture(name, known, f"Scan it with: loradar scan {name} --store", library=LIBRARY)


def _import(patch: "Patch") -> bool | None:
    """Import both files beside peft, and compare their tables; ``None`` if peft is not installed.

    Raises:
        ConstantsUnreadable: If one cannot be imported, or the tables are not what was read.
    """
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from ..registry import import_tables

    if find_spec("peft") is None:
        return None
    with TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("before.py", "after.py")]
        for path, source in zip(paths, (patch.before, patch.after), strict=True):
            path.write_bytes(source)
        before, after = import_tables(*paths)
    differing = patch.differing(before, after)
    if differing:
        message = f"Imported, it is not what was planned: {differing[0]}. Nothing was written."
        raise ConstantsUnreadable(message, differing=differing)
    return True


def _to_dict(patch: "Patch") -> dict[str, Any]:
    plan = patch.plan
    return {
        "added": [export.to_dict() for export in plan.added],
        "corrected": [export.to_dict() for export in plan.corrected],
        "left_out": [left.to_dict() for left in plan.left_out],
    }


def _tell(patch: "Patch", rows: str, checked: str) -> None:
    """Say on standard error what is in the patch and what is not: standard output is the patch itself."""
    plan = patch.plan
    if patch.after == patch.before:
        typer.echo("Nothing to add: the file has every entry that can be exported.", err=True)
    else:
        counted = f"Entries added: {len(plan.added)}, corrected: {len(plan.corrected)}"
        typer.echo(f"{counted}, architectures: {len(plan.names)}. Read back, {checked}.", err=True)
    reasons: dict[str, set[str]] = {}
    for left in plan.left_out:
        reasons.setdefault(left.reason, set()).add(left.name)
    for reason, names in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0])):
        typer.echo(f"Left out: {_some(sorted(names))}: {reason}.", err=True)
    if rows:
        typer.echo(f"\nRows for PEFT's support matrix:\n\n{rows}", err=True, nl=False)


def _some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


if TYPE_CHECKING:
    from ..registry import ExportPlan, Patch

MODULE = "loradar.adapters.peft_bridge.trial"
SECONDS = 120
"""What an architecture may take, for all its tables; the imports come on top once."""

Refused = dict[tuple[str, str], str]


def without_refused(patch: "Patch", path: str) -> "Patch":
    """Return a patch without the new entries that the installed PEFT refuses, which stand under what was left out.

    Raises:
        MissingExtra: If peft, or what builds models, is not installed.
        WorkerFailed: If the process that tries them fails.
    """
    from ..registry import LeftOut, apply_plan

    require("scan", "torch", "transformers")
    require("peft", "peft")
    plan = patch.plan
    refused = _try(plan)
    if not refused:
        return patch
    kept = tuple(one for one in plan.added if (one.name, one.mapping.peft_type) not in refused)
    reasons = {(one.table, one.name): refused[one.name, one.mapping.peft_type] for one in plan.added if one not in kept}
    left = tuple(LeftOut(*key, reason) for key, reason in reasons.items())
    return apply_plan(patch.before, replace(plan, added=kept, left_out=plan.left_out + left), path)


def _try(plan: "ExportPlan") -> Refused:
    """Return why entries are no use to PEFT, by name and method."""
    import subprocess

    trials = _trials(plan)
    # -P: what lies in the folder one stands in is no package.
    command = [sys.executable, "-P", "-m", MODULE]
    seconds = SECONDS * (1 + len(plan.names))
    try:
        done = subprocess.run(  # noqa: S603 - ours
            command, input=json.dumps(trials), capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        message = f"Trying {len(trials)} entries on peft took more than {seconds} s. Try fewer with --name or --limit."
        raise WorkerFailed(message, seconds=seconds) from None
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    if done.returncode or len(results) != len(trials):
        cause = (done.stderr.strip().splitlines() or ["no output"])[-1]
        message = f"Trying the entries on peft failed after {len(results)} of {len(trials)}: {cause}."
        raise WorkerFailed(message, cause=cause)
    return {(found["name"], found["peft_type"]): found["reason"] for found in results if found["reason"]}


def _trials(plan: "ExportPlan") -> list[dict[str, Any]]:
    """Return a trial per architecture and method, with the entries of every table it needs."""
    tables: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    matched: dict[tuple[str, str], int | None] = {}
    for export in plan.added:
        key = (export.name, export.mapping.peft_type)
        tables[key][export.table] = export.targets
        matched[key] = export.mapping.matched
    return [
        {"name": key[0], "peft_type": key[1], "tables": tables[key], "matched": matched[key]} for key in sorted(tables)
    ]
