"""``loradar audit``, ``drift`` and ``check``: check stored mappings, submit corrections; check configurations."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..domain.architectures import split_make_up
from ..domain.vocabulary import count_of, list_some
from ..errors import Conflict, InvalidRequest, LoradarError, TooManyRequests, quoted
from ..schema import to_json
from .backend import Checks
from .options import AsJson
from .output import describe_spec, describe_understood, print_json, print_rows, print_table, write_file

if TYPE_CHECKING:
    from ..domain.mappings import Mapping
    from ..domain.scans import Scan
    from ..domain.submissions import Submission
    from ..domain.targets import TargetSpec
    from ..registry import Drift, Outcome, Registry, Renewal, Verdict
    from ..training_configs.config_checks import ConfigCheck, ConfigFinding
    from .output import Row

SOURCES = ("community", "peft", "scanner")

ORDER: "tuple[Verdict, ...]" = ("dead", "partial", "unproven", "live", "unscanned", "unknown")


def audit(
    *,
    source: Annotated[str | None, typer.Option(help="Only mappings from peft, community or scanner.")] = None,
    library: Annotated[str, typer.Option(help="The library of the architectures.")] = "transformers",
    name: Annotated[list[str] | None, typer.Option(help="Only this architecture; may be repeated.")] = None,
    peft_type: Annotated[str | None, typer.Option(help="Only this PEFT method.")] = None,
    rescan: Annotated[bool, typer.Option("--rescan", help="Also scan what was verified at this version.")] = False,
    workers: Annotated[int | None, typer.Option(help="Number of scan processes; by default one per core.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report on PEFT's entries to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify stored mappings against the installed library, and store the results."""
    from ..discovery import list_architectures, quiet_libraries
    from ..registry import Registry, peft_report

    if source not in (None, *SOURCES):
        message = f"Unknown source {source!r}. Sources: {quoted(SOURCES)}."
        raise InvalidRequest(message, source=source)
    if markdown and source != "peft":
        message = "--markdown reports on PEFT's entries. Run: loradar audit --source peft --markdown FILE"
        raise InvalidRequest(message, source=source)
    quiet_libraries()
    names = list_architectures(library)
    with Registry.open() as registry:
        mappings = _select(registry, library, source, name or (), peft_type)
        known = _add_make_ups(names, mappings)
        due = sorted({m.name for m in mappings if (rescan or m.verification is None) and m.name in known})
        with _scanning(library, due, workers) as scans:
            outcomes = registry.audit(mappings, scans, known)
    version = metadata.version(library)
    if markdown:
        write_file(markdown, peft_report(outcomes, library, version))
    about = {"library": library, "library_version": version, "source": source}
    if as_json:
        totals = dict(sorted(Counter(outcome.verdict for outcome in outcomes).items()))
        details = {"totals": totals, "outcomes": [outcome.to_dict() for outcome in outcomes]}
        print_json({**about, "scanned": due, **details})
    else:
        print_audit(about, due, outcomes)


def _add_make_ups(names: "Iterable[str]", mappings: "Iterable[Mapping]") -> frozenset[str]:
    """Return the names a library knows, with the make-ups of its composite types that have mappings."""
    known = frozenset(names)
    return known | {mapping.name for mapping in mappings if split_make_up(mapping.name)[0] in known}


def _select(
    registry: "Registry", library: str, source: Any, names: Collection[str], peft_type: str | None
) -> "tuple[Mapping, ...]":
    """Return the mappings to audit.

    Raises:
        InvalidRequest: If one of the names has no such mapping.
    """
    mappings = registry.list_mappings(library, source, metadata.version(library), names)
    selected = [m for m in mappings if peft_type in (None, m.peft_type)]
    missing = sorted(set(names) - {mapping.name for mapping in selected})
    if missing:
        message = f"No such mapping is registered for: {quoted(missing)}. Scan one with: loradar scan NAME --store"
        raise InvalidRequest(message, names=missing)
    return tuple(selected)


@contextmanager
def _scanning(library: str, names: Sequence[str], workers: int | None) -> "Iterator[Iterable[tuple[str, Scan | str]]]":
    """Give a ``with`` block the proved scans of architectures, made in worker processes as they are taken."""
    from ..discovery import How, scan_each
    from ..sandbox import Bounds, Sandbox

    with Sandbox(Bounds() if workers is None else Bounds(workers), nice=0) as sandbox:
        yield scan_each(library, names, sandbox.run_each, how=How(proved=True)) if names else ()


def print_audit(about: dict[str, Any], scanned: Sequence[str], outcomes: "Sequence[Outcome]") -> None:
    """Print a table of the outcomes that have findings, grouped by verdict, and the totals.

    Methods with the same targets and findings share a row.
    """
    from rich.table import Table

    methods: dict[tuple[Verdict, str, str, str], list[str]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.findings:
            targets = "; ".join(value for _, value in describe_spec(outcome.mapping.spec))
            key = (outcome.verdict, outcome.mapping.name, targets, "\n".join(outcome.findings))
            methods[key].append(outcome.mapping.peft_type)
    table = Table(title=f"{about['library']} {about['library_version']}", title_justify="left")
    for column in ("verdict", "architecture", "methods", "targets"):
        table.add_column(column, overflow="fold")
    table.add_column("findings", overflow="fold", ratio=1)
    for key in sorted(methods, key=lambda key: (ORDER.index(key[0]), key)):
        table.add_row(*key[:2], list_some(dict.fromkeys(methods[key])), *key[2:])
    if table.row_count:
        print_table(table)
    totals = Counter(outcome.verdict for outcome in outcomes)
    counted = ", ".join(f"{totals[verdict]:,} {verdict}" for verdict in ORDER if totals[verdict])
    typer.echo(f"{len(outcomes):,} mappings: {counted or 'none'}")
    typer.echo(f"{len(scanned)} architectures scanned now; the other verdicts were on record for this version.")


@dataclass(frozen=True, slots=True)
class Step:
    """The action taken for one drifted architecture.

    Attributes:
        drift: The mappings that no longer hold, and the correction.
        submission: The submission opened, if any.
        reason: Why none was opened.
    """

    drift: "Drift"
    submission: "Submission | None" = None
    reason: str | None = None


def drift(
    *,
    library: Annotated[str, typer.Option(help="Library whose architectures are audited.")] = "transformers",
    name: Annotated[list[str] | None, typer.Option(help="Only this architecture; may be given again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Audit, but submit nothing.")] = False,
    workers: Annotated[int | None, typer.Option(help="Worker processes; one per core if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Correct mappings that are dead or partial with the installed library.

    Of PEFT's and the community's, the scanner's proved proposal is submitted; of the scanner's, a new scan is stored.
    """
    from ..discovery import list_architectures, quiet_libraries
    from ..registry import Proposals, Registry, find_drifts, find_renewals, names_to_scan

    quiet_libraries()
    names = list_architectures(library)
    with Registry.open() as registry:
        mappings = _select(registry, library, None, name or (), None)
        known = _add_make_ups(names, mappings)
        proposals = Proposals(mappings)
        with _scanning(library, names_to_scan(mappings, known), workers) as scans:
            audited = registry.audit(mappings, proposals.watch(scans), known)
        drifts, renewals = find_drifts(audited, proposals), find_renewals(audited, proposals)
        steps = [Step(drifted, reason="dry run") for drifted in drifts]
        if not dry_run:
            for renewal in renewals:
                registry.add_scan(renewal.scan)
            steps = _submit_checked(registry, drifts)
    about = {"library": library, "library_version": metadata.version(library), "audited": len(audited)}
    if as_json:
        drifted = [
            {**s.drift.to_dict(), "submission": s.submission and to_json(s.submission), "reason": s.reason}
            for s in steps
        ]
        print_json({**about, "drifted": drifted, "rescanned": [renewal.to_dict() for renewal in renewals]})
    else:
        print_renewals(renewals, done="dry run" if dry_run else "this scan is stored")
        print_drift(about, steps)


def print_renewals(renewals: "Sequence[Renewal]", done: str) -> None:
    """Print each architecture of which the scanner's own mappings are wrong, with the outcome of its new scan."""
    for renewal in renewals:
        first = renewal.wrong[0]
        typer.echo(f"{renewal.scan.architecture.reference} · {first.mapping.peft_type} · {first.mapping.preset}")
        found = (p for p in renewal.scan.proposals if p.peft_type == first.mapping.peft_type)
        own = next((p for p in found if p.preset == first.mapping.preset), None)
        _print_wrong(renewal.wrong, "proposals", own.spec if own else None, done)


def _submit_checked(registry: "Registry", drifts: "Sequence[Drift]") -> list[Step]:
    """Submit corrections, and wait until each is checked."""
    from ..registry import DRIFT, find_earlier

    steps: list[Step] = []
    for drifted in drifts:
        earlier = find_earlier(registry.submissions, drifted.statement)
        if earlier:
            steps.append(Step(drifted, reason=f"submission {earlier.id} exists ({earlier.status})"))
            continue
        try:
            steps.append(Step(drifted, registry.submissions.add(drifted.statement, DRIFT, origin="drift")))
        except (Conflict, TooManyRequests) as error:  # another run was faster, or too many submissions are open
            steps.append(Step(drifted, reason=error.message))
    if any(step.submission for step in steps):
        with Checks(registry.backend()) as checks:
            steps = [replace(s, submission=s.submission and checks.wait(s.submission.id)) for s in steps]
    return steps


def print_drift(about: dict[str, Any], steps: Sequence[Step]) -> None:
    """Print each drifted architecture with its correction, and the totals."""
    for step in steps:
        statement = step.drift.statement
        typer.echo(f"{statement.reference} · {statement.peft_type} · {statement.preset}")
        done = f"submission {step.submission.id}, {step.submission.status}" if step.submission else step.reason or ""
        _print_wrong(step.drift.wrong, "entries", statement.spec, done)
    opened = sum(step.submission is not None for step in steps)
    drifted = f"{count_of(len(steps), 'architecture')} drifted, {count_of(opened, 'submission')} opened"
    typer.echo(f"{about['library']} {about['library_version']}: {about['audited']:,} mappings audited, {drifted}.")


def _print_wrong(wrong: "Sequence[Outcome]", noun: str, instead: "TargetSpec | None", done: str) -> None:
    """Print the findings on the first of some wrong mappings, the number of others, the correction and its state."""
    first = wrong[0]
    stated = f"{first.mapping.source.kind} {first.mapping.source.version} is {first.verdict}"
    rows = [("wrong", f"{stated}: {finding}") for finding in first.findings] or [("wrong", stated)]
    if len(wrong) > 1:
        rows.append(("wrong", f"and {len(wrong) - 1} more of its {noun}"))
    rows += [("instead", f"{field}: {value}") for field, value in (describe_spec(instead) if instead else ())]
    print_rows([*rows, ("done", done)])


def check(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="YAML, JSON, shell or Python of a training, or a LoraConfig in JSON."),
    ],
    *,
    model: Annotated[str | None, typer.Option(help="Its model, in any spelling; by default the one it names.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the LoRA part of training configurations: do the targets match what is meant? Exit code 1 if not."""
    checked = [_try_check(file, model) for file in files]
    failed = next((one for one in checked if isinstance(one, LoradarError)), None)
    if failed and not files[1:]:
        raise failed
    if as_json:
        print_json({"checks": [*map(_to_json, checked)]})
    else:
        for one in checked:
            print_check(one)
    if failed:
        raise typer.Exit(failed.exit_code)
    if any(not one.is_sound for one in checked if not isinstance(one, LoradarError)):
        raise typer.Exit(1)


def _try_check(file: Path, model: str | None) -> "ConfigCheck | LoradarError":
    from ..registry import check as check_file

    try:
        return check_file(file, model)
    except LoradarError as error:
        return error


def _to_json(checked: "ConfigCheck | LoradarError") -> "dict[str, Any]":
    if isinstance(checked, LoradarError):
        return checked.to_dict()
    return {**to_json(checked), "is_sound": checked.is_sound}


def print_check(checked: "ConfigCheck | LoradarError") -> None:
    """Print each LoRA part of a configuration with its findings and the targets as they would be right."""
    if isinstance(checked, LoradarError):
        typer.echo(f"Error: {checked.message}", err=True)
        return
    for part in checked.parts:
        reference = f"{part.reference} {part.library_version}" if part.reference else "no model"
        typer.echo(f"{checked.file}:{part.line} · {part.project} · {reference}")
        understood = describe_understood(part.understood)
        towers = ", ".join(f"{count} {tower}" for tower, count in part.towers.items())
        matched = f"{count_of(part.matched, 'layer')}: {towers}".removesuffix(": ")
        plain = {"model": f"{part.base}: {understood}" if understood else "", "matched": matched, "note": part.note}
        rows = [(name, text) for name, text in plain.items() if text]
        rows += chain.from_iterable(map(_describe_finding, part.findings))
        rows += [] if part.findings or part.note else [("sound", "nothing was found")]
        print_rows([*rows, *(("instead", line) for line in (part.snippet or "").splitlines())])


def _describe_finding(finding: "ConfigFinding") -> "tuple[Row, Row]":
    return (finding.level, f"line {finding.line}: {finding.message}"), ("", f"-> {finding.way_out}")
