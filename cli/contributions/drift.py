"""``loradar drift``: re-check stored mappings after a library upgrade, and submit corrections."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import Conflict, TooManyRequests
from ...schema import to_json
from ..audit import select
from ..options import AsJson
from ..output import show
from .checks import Checks

if TYPE_CHECKING:
    from ...domain.submissions import Submission
    from ...registry import Drift, Outcome, Registry


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
    """Submit the scanner's proved proposal where a stored mapping is dead or partial with the installed library."""
    from ...discovery import quiet_libraries
    from ...registry import Registry

    quiet_libraries()
    with Registry.open() as registry:
        audited, drifts = _find(registry, library, name or (), workers)
        steps = [Step(drifted, reason="dry run") for drifted in drifts] if dry_run else [*_submit(registry, drifts)]
        if any(step.submission for step in steps):
            with Checks(registry.backend()) as checks:
                steps = [replace(s, submission=s.submission and checks.wait(s.submission.id)) for s in steps]
    about = {"library": library, "library_version": metadata.version(library), "audited": len(audited)}
    if as_json:
        listed = [
            {
                **step.drift.to_dict(),
                "submission": to_json(step.submission) if step.submission else None,
                "reason": step.reason,
            }
            for step in steps
        ]
        show.print_json({**about, "drifted": listed})
    else:
        _print(about, steps)


def _find(
    registry: "Registry", library: str, names: Sequence[str], workers: int | None
) -> "tuple[Sequence[Outcome], Sequence[Drift]]":
    """Audit the stored mappings, scanning those not verified at this version, and return the drifted ones."""
    from ...discovery import How, list_architectures, scan_each
    from ...registry import Proposals, find_drifts, names_to_scan
    from ...sandbox import Bounds, Sandbox

    known = frozenset(list_architectures(library))
    mappings = select(registry, library, None, names, None)
    bounds = Bounds() if workers is None else Bounds(workers)
    due = names_to_scan(mappings, known)
    proposals = Proposals(mappings)
    with Sandbox(bounds, nice=0) as sandbox:
        scans = scan_each(library, due, sandbox.run_each, how=How(proved=True)) if due else ()
        outcomes = registry.audit(mappings, proposals.watch(scans), known)
    return outcomes, find_drifts(outcomes, proposals)


def _submit(registry: "Registry", drifts: "Sequence[Drift]") -> Iterator[Step]:
    from ...registry import DRIFT, find_earlier

    for drifted in drifts:
        earlier = find_earlier(registry.submissions, drifted.statement)
        if earlier:
            yield Step(drifted, reason=f"submission {earlier.id} exists ({earlier.status})")
            continue
        try:
            yield Step(drifted, registry.submissions.add(drifted.statement, DRIFT, origin="drift"))
        except (Conflict, TooManyRequests) as error:  # another run was faster, or too many submissions are open
            yield Step(drifted, reason=error.message)


def _print(about: dict[str, Any], steps: Sequence[Step]) -> None:
    for step in steps:
        statement, first = step.drift.statement, step.drift.wrong[0]
        typer.echo(f"{statement.reference} · {statement.peft_type} · {statement.preset}")
        wrong = f"{first.mapping.source.kind} {first.mapping.source.version} is {first.verdict}"
        others = len(step.drift.wrong) - 1
        done = f"submission {step.submission.id}, {step.submission.status}" if step.submission else step.reason or ""
        rows = [("wrong", f"{wrong}: {finding}") for finding in first.findings] or [("wrong", wrong)]
        rows += [("wrong", f"and {others} more of its entries")] if others else []
        rows += [("instead", f"{field}: {value}") for field, value in show.describe_spec(statement.spec)]
        show.print_rows([*rows, ("done", done)])
    opened = sum(step.submission is not None for step in steps)
    drifted = f"{_count(len(steps), 'architecture')} drifted, {_count(opened, 'submission')} opened"
    typer.echo(f"{about['library']} {about['library_version']}: {about['audited']:,} mappings audited, {drifted}.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
