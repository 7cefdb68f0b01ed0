"""``loradar drift``: after a library's upgrade, submit what would put right what no longer does what it says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.schema import to_json
from ...errors import Conflict, TooManyRequests
from ..audit import select
from ..options import AsJson
from ..output import show
from .backend import LocalDesk
from .checks import Checks

if TYPE_CHECKING:
    from ...domain.submissions import Submission
    from ...registry import Drift, Outcome, Registry


@dataclass(frozen=True, slots=True)
class Step:
    """What was done about one architecture.

    Attributes:
        drift: What is wrong with it.
        submission: What was opened, if anything was.
        reason: Why nothing was.
    """

    drift: "Drift"
    submission: "Submission | None" = None
    reason: str | None = None


def drift(
    *,
    library: Annotated[str, typer.Option(help="Whose architectures.")] = "transformers",
    name: Annotated[list[str] | None, typer.Option(help="Only this architecture; may be given again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Audit, but submit nothing.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that scan; one per core if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Submit the scanner's proven answer where one on record is dead or partial with the installed library."""
    from ...discovery import quiet_libraries
    from ...registry import Registry

    quiet_libraries()
    with Registry.open() as registry:
        audited, drifts = _find(registry, library, name or (), workers)
        steps = [Step(one, reason="dry run") for one in drifts] if dry_run else [*_submit(registry, drifts)]
        if any(step.submission for step in steps):
            steps = _check(registry, steps)
    about = {"library": library, "library_version": metadata.version(library), "audited": len(audited)}
    if as_json:
        drifted = [
            {
                **step.drift.to_dict(),
                "submission": to_json(step.submission) if step.submission else None,
                "reason": step.reason,
            }
            for step in steps
        ]
        show.print_json({**about, "drifted": drifted})
    else:
        _print(about, steps)


def _find(
    registry: "Registry", library: str, names: Sequence[str], workers: int | None
) -> "tuple[Sequence[Outcome], Sequence[Drift]]":
    """Audit what is on record, scanning what was not checked at this version, and return what drifted."""
    from ...discovery import Bounds, How, list_architectures, scan_each
    from ...registry import Proposals, find_drifts, names_to_scan

    known = frozenset(list_architectures(library))
    mappings = select(registry, library, None, names, None)
    bounds = Bounds() if workers is None else Bounds(workers)
    due = names_to_scan(mappings, known)
    scans = scan_each(library, due, how=How(proved=True), bounds=bounds) if due else ()
    proposals = Proposals(mappings)
    outcomes = registry.audit(mappings, proposals.watch(scans), known)
    return outcomes, find_drifts(outcomes, proposals)


def _submit(registry: "Registry", drifts: "Sequence[Drift]") -> Iterator[Step]:
    from ...registry import DRIFT, find_earlier

    for one in drifts:
        earlier = find_earlier(registry.submissions, one.statement)
        if earlier:
            yield Step(one, reason=f"submission {earlier.id} is there ({earlier.status})")
            continue
        try:
            yield Step(one, registry.submissions.add(one.statement, DRIFT, origin="drift"))
        except (Conflict, TooManyRequests) as error:  # another run was faster, or too many wait for a review
            yield Step(one, reason=error.message)


def _check(registry: "Registry", steps: list[Step]) -> list[Step]:
    with Checks(LocalDesk(registry, None), lambda line: typer.echo(line, err=True)) as checks:
        return [replace(step, submission=step.submission and checks.wait(step.submission.id)) for step in steps]


def _print(about: dict[str, Any], steps: Sequence[Step]) -> None:
    for step in steps:
        said, first = step.drift.statement, step.drift.wrong[0]
        typer.echo(f"{said.reference} · {said.peft_type} · {said.preset}")
        wrong = f"{first.mapping.source.kind} {first.mapping.source.version} is {first.verdict}"
        others = len(step.drift.wrong) - 1
        done = f"submission {step.submission.id}, {step.submission.status}" if step.submission else step.reason or ""
        rows = [("wrong", f"{wrong}: {finding}") for finding in first.findings] or [("wrong", wrong)]
        rows += [("wrong", f"and {others} more of its entries")] if others else []
        rows += [("instead", f"{field}: {value}") for field, value in show.describe_spec(said.spec)]
        show.print_rows([*rows, ("done", done)])
    opened = sum(step.submission is not None for step in steps)
    told = f"{_count(len(steps), 'architecture')} drifted, {_count(opened, 'submission')} opened"
    typer.echo(f"{about['library']} {about['library_version']}: {about['audited']:,} mappings audited, {told}.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
