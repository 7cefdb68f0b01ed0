"""A plan written into a ``constants.py`` and read back: what was there still is, and what was planned, no more."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...domain.mappings import Mapping
from ...domain.targets import Targets
from ...errors import ConstantsUnreadable
from ...extras import require
from .export import ExportPlan, LeftOut, Wish, plan_export
from .reading import PeftConstants, parse_constants, peft_type_of

Tables = dict[str, dict[str, Any]]

PEFT_PATH = "src/peft/utils/constants.py"
"""Where PEFT's repository has the file."""

INHERITED = "dead, but not corrected: its table is a copy, whose original holds it for other methods"


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
        old, new = (_lines(source) for source in (self.before, self.after))
        ends = (b"a/" + path.encode(), b"b/" + path.encode())
        lines = difflib.diff_bytes(difflib.unified_diff, old, new, *ends, lineterm=b"\n")
        return b"".join(line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in lines)

    def differing(self, before: Tables, after: Tables) -> tuple[str, ...]:
        """Return what is not as planned in the tables of both files, imported; empty if all is.

        Args:
            before: Tables of the file as it was (``import_tables``).
            after: Tables of the file with the plan in it.
        """
        return tuple(_differences(before, after, self.plan))


def export_constants(
    source: bytes, mappings: Iterable[Mapping], wish: Wish | None = None, path: str = PEFT_PATH
) -> Patch:
    """Write what the tables of a ``constants.py`` lack into it, and read it back.

    Args:
        source: The file.
        mappings: What the registry holds for transformers (``Registry.list_mappings``).
        wish: What to export; all that is proved if ``None``.
        path: What messages call the file.

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
    return apply_plan(source, plan_export(mappings, file, list_own_tables(source, path), wish), path)


def apply_plan(source: bytes, plan: ExportPlan, path: str) -> Patch:
    """Write a plan into a ``constants.py`` and read it back.

    A table that is a copy of one written before has its entries then; nothing is written twice.

    Args:
        source: The file.
        plan: What to write, made for this very file.
        path: What messages call it.

    Raises:
        ConstantsUnreadable: If the file cannot be read, or does not read back as planned.
    """
    from .source_edits import add_entries, correct_entries  # noqa: PLC0415 - libcst is optional

    before = current = parse_constants(source, "", path)
    after = source
    for corrected, write in ((True, correct_entries), (False, add_entries)):
        for table, entries in plan.entries(corrected=corrected).items():
            due = {name: targets for name, targets in entries.items() if not _holds(current, table, name, targets)}
            if due:
                after = write(after, table, due, path)
                current = parse_constants(after, "", path)
    plan = _without_inherited(plan, current)
    _check(before, current, plan, path)
    return Patch(source, after, plan)


def _holds(file: PeftConstants, table: str, name: str, targets: Targets) -> bool:
    return bool(_entries(file, table).get(name) == _plain(targets))


def _entries(file: PeftConstants, table: str) -> dict[str, Any]:
    return {name: value for name, value, _ in file.entries(table)}


def _without_inherited(plan: ExportPlan, file: PeftConstants) -> ExportPlan:
    """Move corrections that no statement of the file could take to what is left out."""
    stuck = [export for export in plan.corrected if not _holds(file, export.table, export.name, export.targets)]
    reasons = tuple(LeftOut(export.table, export.name, INHERITED) for export in stuck)
    kept = tuple(export for export in plan.corrected if export not in stuck)
    return replace(plan, corrected=kept, left_out=plan.left_out + reasons)


def _check(before: PeftConstants, after: PeftConstants, plan: ExportPlan, path: str) -> None:
    """Compare every table before and after.

    Raises:
        ConstantsUnreadable: Naming the first entry that is not as it should be.
    """
    old, new = ({table: _entries(file, table) for table in file.tables} for file in (before, after))
    found = next(_differences(old, new, plan), None)
    if found or before.values != after.values:
        what = found or "another constant has changed"
        message = f"The patch of {path!r} does not read back as planned: {what}. Nothing was written."
        raise ConstantsUnreadable(message, path=path)


def _differences(before: Tables, after: Tables, plan: ExportPlan) -> Iterator[str]:
    """Yield what is not as planned: an entry changed, gone or added, a planned one that is not there."""
    if before.keys() != after.keys():
        yield f"the tables are {sorted(after)}"
        return
    for export in (*plan.added, *plan.corrected):
        if export.table in after and after[export.table].get(export.name) != _plain(export.targets):
            yield f"{export.table}[{export.name!r}] is not {_plain(export.targets)!r}"
    for table, old in before.items():
        for name in _differing(old, after[table]):
            meant = plan.corrected if name in old else plan.added
            if not any(e.name == name and _plain(e.targets) == after[table].get(name) for e in meant):
                yield f"{table}[{name!r}] has changed"


def _differing(old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    return (name for name in old.keys() | new.keys() if name not in old or name not in new or old[name] != new[name])


def _plain(targets: Targets) -> Any:
    return list(targets) if isinstance(targets, tuple) else targets


def _lines(source: bytes) -> list[bytes]:
    """Return the lines with their ends, as git counts them: only a line feed ends one."""
    return [line + b"\n" for line in source.split(b"\n")[:-1]] + [line for line in source.split(b"\n")[-1:] if line]
