"""``loradar constants export --try``: what PEFT itself does not take is left out of a patch."""

import json
import sys
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import WorkerFailed
from ..extras import require

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
