"""Write an export plan into a ``constants.py``, and verify by reading it back that nothing else has changed."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

from ...domain.mappings import Mapping
from ...errors import ConstantsUnreadable
from ...extras import require
from .export import ExportOptions, ExportPlan, LeftOut, plan_export, to_plain
from .reading import PeftConstants, parse_constants, peft_type_of

Tables = dict[str, dict[str, Any]]

PEFT_PATH = "src/peft/utils/constants.py"
"""Path of the file in PEFT's repository."""

INHERITED = "dead, but not corrected: its table is a copy, whose original has it for other methods"
"""Why a correction was left out that no statement of the file could take."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A ``constants.py`` before and after a plan was written into it.

    Attributes:
        before: The file as it was.
        after: The file with the plan in it; the same bytes if there was nothing to write.
        plan: What was written, and what was left out.
    """

    before: bytes
    after: bytes
    plan: ExportPlan

    def diff(self, path: str = PEFT_PATH) -> bytes:
        """Return the unified diff that ``git apply`` takes; empty if nothing changed."""
        old, new = (BytesIO(source).readlines() for source in (self.before, self.after))  # git splits at \n alone
        ends = (b"a/" + path.encode(), b"b/" + path.encode())
        changes = difflib.diff_bytes(difflib.unified_diff, old, new, *ends, lineterm=b"\n")
        return b"".join(
            line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in changes
        )

    def differing(self, before: Tables, after: Tables) -> tuple[str, ...]:
        """Return the deviations from the plan in the imported tables of both files; empty if there are none.

        Args:
            before: Tables of the file as it was (``import_tables``).
            after: Tables of the file with the plan in it.
        """
        return tuple(_deviations(before, after, self.plan))


def export_constants(
    source: bytes, mappings: Iterable[Mapping], options: ExportOptions | None = None, path: str = PEFT_PATH
) -> Patch:
    """Add the entries that the tables of a ``constants.py`` lack, and read the result back.

    Args:
        source: The file.
        mappings: The registry's mappings for transformers (``Registry.list_mappings``).
        options: Which mappings to export; all that are proved if ``None``.
        path: Name of the file in messages.

    Raises:
        ConstantsUnreadable: If the file cannot be read, has no table, or does not read back as planned.
        MissingExtra: If libcst is not installed.
    """
    require("peft", "libcst")
    from .source_edits import list_own_tables  # noqa: PLC0415 - libcst takes 0.1 s to import, and is optional

    file = parse_constants(source, "", path)
    if not any(map(peft_type_of, file.tables)):
        message = f"{path!r} has no table of target modules. Give PEFT's constants.py; before 0.6 it was other.py."
        raise ConstantsUnreadable(message, path=path)
    return apply_plan(source, plan_export(mappings, file, list_own_tables(source, path), options), path)


def apply_plan(source: bytes, plan: ExportPlan, path: str) -> Patch:
    """Write a plan into a ``constants.py`` and read it back.

    Args:
        source: The file.
        plan: A plan made for this file.
        path: Name of the file in messages.

    Raises:
        ConstantsUnreadable: If the file cannot be read, or does not read back as planned.
    """
    after = _write_plan(source, plan, path)
    before, current = (parse_constants(version, "", path) for version in (source, after))
    old, new = ({table: _entries(file, table) for table in file.tables} for file in (before, current))
    inherited = [e for e in plan.corrected if new.get(e.table, {}).get(e.name) != to_plain(e.targets)]
    left_out = (*plan.left_out, *(LeftOut(export.table, export.name, INHERITED) for export in inherited))
    plan = replace(plan, corrected=tuple(e for e in plan.corrected if e not in inherited), left_out=left_out)
    deviation = next(_deviations(old, new, plan), None)
    if deviation or before.values != current.values:
        reason = deviation or "another constant has changed"
        message = f"The patch of {path!r} does not read back as planned: {reason}. Nothing was written."
        raise ConstantsUnreadable(message, path=path)
    return Patch(source, after, plan)


def _write_plan(source: bytes, plan: ExportPlan, path: str) -> bytes:
    """Return the file with every entry of a plan that it lacks; a copy of a table gets entries from its original."""
    from .source_edits import add_entries, correct_entries  # noqa: PLC0415 - libcst is optional

    current = parse_constants(source, "", path)
    for corrected, write in ((True, correct_entries), (False, add_entries)):
        for table, entries in plan.entries(corrected=corrected).items():
            present = _entries(current, table)
            due = {name: targets for name, targets in entries.items() if present.get(name) != to_plain(targets)}
            if due:
                source = write(source, table, due, path)
                current = parse_constants(source, "", path)
    return source


def _entries(file: PeftConstants, table: str) -> dict[str, Any]:
    return {name: value for name, value, _ in file.entries(table)}


def _deviations(before: Tables, after: Tables, plan: ExportPlan) -> Iterator[str]:
    """Yield each deviation from the plan: a planned entry that is missing, and an unplanned change."""
    if before.keys() != after.keys():
        yield f"the tables are {sorted(after)}"
        return
    for export in (*plan.added, *plan.corrected):
        if export.table in after and after[export.table].get(export.name) != to_plain(export.targets):
            yield f"{export.table}[{export.name!r}] is not {to_plain(export.targets)!r}"
    for table, old in before.items():
        for name in _changed_names(old, after[table]):
            planned = plan.corrected if name in old else plan.added
            if not any(e.name == name and to_plain(e.targets) == after[table].get(name) for e in planned):
                yield f"{table}[{name!r}] has changed"


def _changed_names(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    common = {name for name in old.keys() & new.keys() if old[name] == new[name]}
    return [name for name in old.keys() | new.keys() if name not in common]
